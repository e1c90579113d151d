"""Projection in place: it is what the acquisition says of the whole, whatever the strips."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medld.acquisition import Acquisition, AxisAcquisition
from medld.superres import projection
from medld.superres.projection import Strength, baseline_core, complete, padded_strips, subtract_baseline

SINGLE = 1e-5
"""Float32, summed in another order."""

LAST = Acquisition((None, None, AxisAcquisition(21, 6)))
JOINT = Acquisition((AxisAcquisition(20, 10, 1.3), AxisAcquisition(22, 11), AxisAcquisition(24, 12)), slice_axis=1)
TWO = Acquisition((None, AxisAcquisition(22, 11), AxisAcquisition(24, 12)), slice_axis=1)
ACQUISITIONS = pytest.mark.parametrize("acquisition", [LAST, JOINT, TWO], ids=["last", "joint", "two"])


def random(shape: list[int], seed: int) -> Tensor:
    """Seeded numbers (1, 1, ...)."""
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


def scan_and_correction(acquisition: Acquisition) -> tuple[Tensor, Tensor]:
    """A scan and a correction of its baseline; 18 voxels where an axis is fine already."""
    fine = [18 if axis is None else axis.fine for axis in acquisition.axes]
    coarse = [18 if axis is None else axis.slices for axis in acquisition.axes]
    return random(coarse, 1), random(fine, 2)


def strength(noise: float = 0.1, *, project: bool = True) -> Strength:
    """A gate that closes in part."""
    return Strength(torch.tensor(noise), torch.tensor(1e-3), project)


def expected(acquisition: Acquisition, scan: Tensor, correction: Tensor, how: Strength) -> Tensor:
    """By the acquisition's own words, on the whole."""
    padded = acquisition.baseline(scan, how.damping) + acquisition.pad(correction)
    if how.project:
        padded = acquisition.project(padded, scan, how.noise, how.damping)
    return acquisition.crop(padded)  # type: ignore[no-any-return]


def completed(acquisition: Acquisition, scan: Tensor, correction: Tensor, how: Strength) -> Tensor:
    """In place, of a copy."""
    fine = correction.clone()
    complete(acquisition, fine, scan, how, baseline_core(acquisition, scan, how.damping))
    return fine


@ACQUISITIONS
@pytest.mark.parametrize("how", [strength(), strength(0.0), strength(project=False)], ids=["gated", "exact", "off"])
def test_one_strip_is_the_whole_to_the_bit(acquisition: Acquisition, how: Strength) -> None:
    scan, correction = scan_and_correction(acquisition)
    assert torch.equal(completed(acquisition, scan, correction, how), expected(acquisition, scan, correction, how))


@ACQUISITIONS
@pytest.mark.parametrize("voxels", [1, 3000])
def test_strips_equal_the_whole(acquisition: Acquisition, voxels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, correction = scan_and_correction(acquisition)
    whole = expected(acquisition, scan, correction, strength())
    monkeypatch.setattr(projection, "STRIP_VOXELS", voxels)
    assert len(padded_strips(acquisition, correction.shape[2:])) > 2
    assert torch.allclose(completed(acquisition, scan, correction, strength()), whole, atol=SINGLE, rtol=0)


@ACQUISITIONS
def test_strips_cover_the_padded_rows_once(acquisition: Acquisition, monkeypatch: pytest.MonkeyPatch) -> None:
    _, correction = scan_and_correction(acquisition)
    rows = acquisition.pad(correction).shape[2]
    monkeypatch.setattr(projection, "STRIP_VOXELS", 1500)
    covered = [row for strip in padded_strips(acquisition, correction.shape[2:]) for row in range(rows)[strip]]
    assert covered == list(range(rows))


@ACQUISITIONS
def test_a_baseline_taken_off_and_completed_is_projected(acquisition: Acquisition) -> None:
    scan, fine = scan_and_correction(acquisition)
    how, answer = strength(0.0), fine.clone()
    core = baseline_core(acquisition, scan, how.damping)
    subtract_baseline(acquisition, answer, scan, core)
    assert torch.allclose(answer, fine - acquisition.crop(acquisition.baseline(scan, how.damping)), atol=SINGLE, rtol=0)
    complete(acquisition, answer, scan, how, core)
    alone = fine.clone()
    subtract_baseline(acquisition, alone, scan, core)
    assert torch.equal(answer, expected(acquisition, scan, alone, how))


def test_a_view_is_completed_where_it_lies() -> None:
    scan, correction = scan_and_correction(JOINT)
    moved = correction.movedim(2, -1).contiguous().movedim(-1, 2)
    assert not moved.is_contiguous()
    complete(JOINT, moved, scan, strength(), baseline_core(JOINT, scan, strength().damping))
    assert torch.allclose(moved, expected(JOINT, scan, correction, strength()), atol=SINGLE, rtol=0)


def test_without_a_baseline_it_starts_at_the_spline() -> None:
    scan, _ = scan_and_correction(LAST)
    fine = torch.zeros(1, 1, 18, 18, 21)
    complete(LAST, fine, scan, strength(), None)
    whole = LAST.crop(LAST.project(LAST.spline(scan), scan, strength().noise, strength().damping))
    assert torch.equal(fine, whole)
