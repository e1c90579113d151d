"""Which slice profile a scan is restored with: option, statement or estimate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medld.batch.profile import choose_profile
from medld.batch.thickness import Thickness
from medld.geometry import Grid
from medld.volume import Volume


@pytest.fixture(scope="module")
def scan() -> Volume:
    """Slices 3 mm apart of a field that is rough along every axis."""
    white = np.random.default_rng(3).standard_normal((64, 64, 96))
    fine = ndimage.gaussian_filter(white, 1.5)
    array = ndimage.gaussian_filter1d(fine, 1.3, axis=2)[:, :, 1::3]
    return Volume((array - array.min()).astype(np.float32), Grid(array.shape, np.diag([1.0, 1.0, 3.0, 1.0])), "mr")


def test_a_named_shape_is_taken_and_the_thickness_left_alone(scan: Volume) -> None:
    profile, thickness = choose_profile("box", Thickness(), scan)
    assert (profile.shape, profile.source, profile.estimate) == ("box", "option", None)
    assert thickness == Thickness()


def test_auto_tells_shape_and_thickness(scan: Volume) -> None:
    profile, thickness = choose_profile("auto", Thickness(), scan)
    assert profile.source == thickness.source == "estimated"
    assert profile.estimate is not None
    told = thickness.per_axis[2]
    assert told == pytest.approx(profile.estimate["thickness_mm"], abs=1e-3)
    assert thickness.per_axis[:2] == (None, None)
    low, high = profile.estimate["thickness_10_to_90_percent_mm"]
    assert 0.6 * 3 - 1e-3 <= low <= high <= 2 * 3 + 1e-3


def test_auto_leaves_a_stated_thickness_as_it_is(scan: Volume) -> None:
    stated = Thickness((None, None, 4.1), "sidecar")
    profile, thickness = choose_profile("auto", stated, scan)
    assert profile.source == "estimated"
    assert thickness == stated


def test_auto_says_when_it_cannot_tell(scan: Volume) -> None:
    few = Volume(scan.array[:, :, :6], scan.grid.with_shape((64, 64, 6)), "mr")
    profile, thickness = choose_profile("auto", Thickness(), few)
    assert (profile.shape, profile.source) == ("gaussian", "option")
    assert thickness.source == "spacing"
    assert any("cannot be told" in warning for warning in thickness.warnings)
