from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibration_heads import Head, make_head
from numpy.typing import NDArray

from medld.acquisition import Acquisition, AxisAcquisition
from medld.calibration import Evidence
from medld.errors import InputError

FEATURES = ("texture", "bend", "spread")


def flat(value: float = 5.0, axes: int = 1) -> Evidence:
    """A scan where nothing varies."""
    sizes = [(24, 6 if index >= 3 - axes else 24) for index in range(3)]
    i, j, k = (AxisAcquisition(fine, coarse) if fine > coarse else None for fine, coarse in sizes)
    scan = np.full([coarse for _, coarse in sizes], value)
    return Evidence(scan, np.full((24, 24, 24), value), Acquisition((i, j, k)), unit=1.0)


def test_phase_is_zero_at_the_middle_of_a_slice_and_largest_between_two() -> None:
    line = make_head(0, slices=8).evidence.phase[0, 0]  # four voxels a slice: two on either side of its centre
    assert np.allclose(line.reshape(8, 4), [0.75, 0.25, 0.25, 0.75])
    odd = replace(flat(), acquisition=Acquisition((None, None, AxisAcquisition(24, 8))), scan=np.ones((24, 24, 8)))
    assert np.allclose(odd.phase[0, 0].reshape(8, 3), [2 / 3, 0, 2 / 3], atol=1e-6)


@pytest.mark.parametrize("axes", [1, 3])
def test_where_nothing_varies_nothing_is_expected(axes: int) -> None:
    evidence = replace(flat(axes=axes), spread=np.zeros((24, 24, 24)))
    for name in FEATURES:
        assert np.abs(evidence.feature(name)).max() < 1e-5
    assert evidence.ratio == pytest.approx(4)
    assert evidence.log_ratio == pytest.approx(0)


def test_features_grow_with_the_gain_of_the_scanner(head: Head) -> None:
    evidence = replace(head.evidence, spread=np.abs(head.truth - head.evidence.output))
    louder = Evidence(
        7 * evidence.scan, 7 * evidence.output, evidence.acquisition, 7 * evidence.unit, spread=7 * evidence.spread
    )
    for name in FEATURES:
        feature = evidence.feature(name)
        assert feature.dtype == np.float32
        assert feature.min() >= 0
        assert np.allclose(louder.feature(name), 7 * feature, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_slice_axis_may_be_any(axis: int) -> None:
    def along_last(evidence: Evidence, name: str) -> NDArray[np.float32]:
        return np.moveaxis(evidence.feature(name), evidence.coarse_axes[0], -1)

    usual, turned = make_head(0).evidence, make_head(0, axis=axis).evidence
    for name in ("texture", "bend"):
        assert np.allclose(along_last(usual, name), along_last(turned, name), rtol=1e-4, atol=1e-3)
    assert np.array_equal(usual.phase, np.moveaxis(turned.phase, axis, -1))


def test_texture_sees_noise_in_the_slices_and_bend_does_not(head: Head, rng: np.random.Generator) -> None:
    noise = 50 * rng.standard_normal(head.evidence.scan.shape)
    noisy = replace(head.evidence, scan=head.evidence.scan + noise)
    inside = head.foreground
    assert noisy.feature("texture")[inside].mean() > 1.4 * head.evidence.feature("texture")[inside].mean()
    assert np.array_equal(noisy.feature("bend"), head.evidence.feature("bend"))


def test_of_pure_noise_the_texture_is_its_deviation(rng: np.random.Generator) -> None:
    scan = 3.0 * rng.standard_normal((64, 64, 12))
    acquisition = Acquisition((None, None, AxisAcquisition(48, 12)))
    texture = Evidence(scan, np.zeros((64, 64, 48)), acquisition, unit=1.0).feature("texture")
    assert np.sqrt(np.mean(texture**2)) == pytest.approx(3.0, rel=0.05)


def test_the_baseline_imaged_again_is_the_scan(head: Head) -> None:
    evidence = head.evidence
    axis = evidence.acquisition.axes[2]
    assert axis is not None
    padded = evidence.acquisition.baseline(evidence.scan)
    assert np.allclose(padded[..., axis.margin : -axis.margin], evidence.baseline, atol=1e-3)
    assert np.allclose(evidence.acquisition.apply(padded), evidence.scan, atol=0.05)


def test_noise_damps_the_baseline_but_a_scan_without_is_kept(head: Head) -> None:
    damped = replace(head.evidence, noise=0.05 * head.evidence.unit).baseline
    assert np.abs(damped - head.evidence.baseline).max() > 1


@pytest.mark.parametrize("what", ["scan", "output", "spread", "acquisition", "nan", "unit"])
def test_what_does_not_belong_together_is_refused(what: str, head: Head) -> None:
    evidence = head.evidence
    broken = {
        "scan": {"scan": evidence.scan[..., 1:]},
        "output": {"output": evidence.output[1:]},
        "spread": {"spread": evidence.output[1:]},
        "acquisition": {"acquisition": Acquisition((None, None, None)), "output": evidence.scan},
        "nan": {"output": np.full_like(evidence.output, np.nan)},
        "unit": {"unit": 0.0},
    }
    with pytest.raises(InputError, match="Expected"):
        replace(evidence, **broken[what])


def test_a_spread_that_was_not_drawn_is_asked_for(head: Head) -> None:
    with pytest.raises(InputError, match="--samples"):
        head.evidence.feature("spread")
