"""The slice profile told from the voxels: laws of the estimate on fields that are alike along every axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medld.acquisition import AxisAcquisition, Profile
from medld.geometry import Grid
from medld.io import read_volume
from medld.superres.profile import (
    CANDIDATES,
    THICKNESSES,
    Heads,
    contrast_spectra,
    decide,
    estimate_profile,
    load_heads,
)
from medld.volume import Volume

RATIO = 4
BANDS = 10


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    """A rough field, as rough along one axis as along another, positive, 128 voxels each way."""
    white = np.random.default_rng(3).standard_normal((128, 128, 128))
    rough = sum(w * ndimage.gaussian_filter(white, s, mode="wrap") for s, w in ((0.8, 1.0), (2.0, 6.0), (5.0, 60.0)))
    return (rough - rough.min() + 1).astype(np.float32)


def thick(field: np.ndarray, profile: Profile, thickness: float, noise: float = 0.0) -> Volume:
    """The field as slices of 4 mm spacing along the last axis, 1 mm pixels."""
    axis = AxisAcquisition(field.shape[2], field.shape[2] // RATIO, thickness, profile)
    inside = axis.matrix[:, axis.margin : -axis.margin]
    array = field @ (inside / inside.sum(1, keepdims=True)).T
    array = array + noise * np.random.default_rng(5).standard_normal(array.shape)
    return Volume(array.astype(np.float32), Grid(array.shape, np.diag([1.0, 1.0, float(RATIO), 1.0])), "mr")


def fits(volume: Volume) -> np.ndarray:
    """Root mean square spectrum difference of every candidate."""
    return np.sqrt(np.mean(contrast_spectra(volume, 2) ** 2, axis=1))


def best_of(volume: Volume, profile: Profile) -> float:
    """The thickness that fits best among the candidates of a shape."""
    errors = {t: e for (s, t), e in zip(CANDIDATES, fits(volume), strict=True) if s == profile}
    return min(errors, key=errors.__getitem__)


@pytest.mark.parametrize("profile", ["gaussian", "box", "slr"])
@pytest.mark.parametrize("thickness", [0.6, 1.0, 2.0])
def test_the_true_thickness_makes_both_axes_alike(field: np.ndarray, profile: Profile, thickness: float) -> None:
    assert best_of(thick(field, profile, thickness), profile) == pytest.approx(thickness, rel=0.12)


def test_noise_does_not_pass_for_thin_slices(field: np.ndarray) -> None:
    noisy = thick(field, "gaussian", 1.6, noise=0.02 * float(field.max()))
    assert best_of(noisy, "gaussian") == pytest.approx(1.6, rel=0.12)


def test_the_estimate_knows_no_unit_and_no_order_of_storage(field: np.ndarray) -> None:
    scan = thick(field, "gaussian", 1.25)
    answer = estimate_profile(scan, 2)
    assert answer is not None
    stored = Volume(scan.array * np.float32(37.5), scan.grid, "mr").permuted((2, 0, 1)).flipped(1)
    again = estimate_profile(stored, 0)
    assert again is not None
    assert (again.profile, again.thickness, again.low, again.high) == (
        answer.profile,
        answer.thickness,
        answer.low,
        answer.high,
    )
    assert again.share == pytest.approx(answer.share, abs=1e-3)


def test_thicker_slices_are_never_told_thinner(field: np.ndarray) -> None:
    told = [estimate_profile(thick(field, "gaussian", t), 2) for t in (0.6, 1.0, 1.6)]
    thicknesses = [answer.thickness for answer in told if answer is not None]
    assert len(thicknesses) == 3
    assert thicknesses == sorted(thicknesses)
    assert thicknesses[2] > 1.3 * thicknesses[0]


def test_where_the_thickness_is_known_only_the_shape_is_looked_for(field: np.ndarray) -> None:
    answer = estimate_profile(thick(field, "gaussian", 1.0), 2, thickness=1.58)
    assert answer is not None
    nearest = min(THICKNESSES, key=lambda t: abs(np.log(t / 1.58)))
    assert (answer.thickness, answer.low, answer.high) == (nearest, nearest, nearest)


@pytest.mark.parametrize("reason", ["ct", "few slices", "fine slices", "empty"])
def test_nothing_is_told_where_nothing_can_be(field: np.ndarray, reason: str) -> None:
    scan = thick(field, "gaussian", 1.0)
    if reason == "ct":
        scan = Volume(scan.array, scan.grid, "ct")
    elif reason == "few slices":
        scan = Volume(scan.array[:, :, :8], scan.grid.with_shape((128, 128, 8)), "mr")
    elif reason == "fine slices":
        scan = Volume(scan.array, Grid(scan.array.shape, np.diag([1.0, 1.0, 1.3, 1.0])), "mr")
    else:
        scan = scan.with_array(np.zeros_like(scan.array))
    assert estimate_profile(scan, 2) is None


@pytest.mark.parametrize("chosen", [3, 20, 44])
def test_a_candidate_that_alone_looks_like_heads_is_the_answer(chosen: int) -> None:
    heads = Heads(4.0, np.full((3, BANDS), 0.2), 100.0 * np.eye(BANDS))
    difference = np.full((len(CANDIDATES), BANDS), 1.7)
    difference[chosen] = 0.2
    answer = decide(difference, 3.5, 2, (heads,))
    assert (answer.profile, answer.thickness) == CANDIDATES[chosen]
    assert answer.share == pytest.approx(1.0)
    assert answer.low == answer.high == answer.thickness


def test_an_answer_of_one_shape_still_weighs_the_others() -> None:
    heads = Heads(4.0, np.zeros((3, BANDS)), 100.0 * np.eye(BANDS))
    difference = np.full((len(CANDIDATES), BANDS), 1.7)
    box = next(i for i, (s, t) in enumerate(CANDIDATES) if s == "box" and t > 1.2)
    difference[box] = 0.0
    answer = decide(difference, 4, 0, (heads,), shapes=("gaussian",))
    assert answer.profile == "gaussian"
    assert answer.thickness < CANDIDATES[box][1], "a Gaussian as wide as a box is thinner by its FWHM"


def test_shipped_statistics_are_whole() -> None:
    for heads in load_heads():
        assert heads.mean.shape == (3, BANDS)
        assert np.linalg.eigvalsh(heads.precision).min() > 0


@pytest.mark.data
@pytest.mark.parametrize("thickness", [0.6, 1.25, 2.0])
def test_a_head_tells_the_width_of_its_slices_if_not_their_shape(data: Path, thickness: float) -> None:
    head, _ = read_volume(data / "val" / "sub-ds002748s13_T1w.nii.gz")
    shape = [size // RATIO * RATIO for size in head.grid.shape]
    scan = thick(head.array[:, :, : shape[2]].astype(np.float32), "gaussian", thickness)
    spacing = np.array(head.grid.spacing) * (1, 1, RATIO)
    answer = estimate_profile(Volume(scan.array, Grid(scan.array.shape, np.diag([*spacing, 1.0])), "mr"), 2)
    assert answer is not None
    deviation = {"gaussian": 0.425, "box": 0.289, "slr": 0.319}  # of a profile, in FWHM
    assert deviation[answer.profile] * answer.thickness == pytest.approx(0.425 * thickness, rel=0.3)
    assert answer.low <= answer.high
