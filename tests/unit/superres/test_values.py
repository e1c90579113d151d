"""What a request says about a scan."""

from __future__ import annotations

import numpy as np
import pytest

from medld.errors import AcquisitionError
from medld.geometry import Grid, choose_target
from medld.superres import Request

GRID = Grid((20, 22, 9), np.diag([1.0, 1.0, 4.0, 1.0]))


def test_only_axes_that_change_are_acquired() -> None:
    request = Request(choose_target(GRID))
    assert request.acquisition_of(GRID, 0) is None
    assert request.acquisition_of(GRID, 1) is None
    axis = request.acquisition_of(GRID, 2)
    assert axis is not None
    assert (axis.fine, axis.slices, axis.thickness, axis.profile) == (36, 9, 1.0, "gaussian")


@pytest.mark.parametrize(("thickness", "spacings"), [(4.0, 1.0), (3.0, 0.75), (6.0, 1.5)])
def test_thickness_is_told_in_mm_and_used_in_spacings(thickness: float, spacings: float) -> None:
    axis = Request(choose_target(GRID), thickness=(None, None, thickness), profile="box").acquisition_of(GRID, 2)
    assert axis is not None
    assert axis.thickness == pytest.approx(spacings)
    assert axis.profile == "box"


def test_an_impossible_thickness_is_refused() -> None:
    with pytest.raises(AcquisitionError, match="--slice-thickness"):
        Request(choose_target(GRID), thickness=(None, None, -1.0)).acquisition_of(GRID, 2)
