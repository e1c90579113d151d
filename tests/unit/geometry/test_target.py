"""Which grid a scan is brought to: every rule of the default and of the wishes."""

from __future__ import annotations

import numpy as np
import pytest

from medld.errors import ConfigError, InputError
from medld.geometry import Grid, Target, choose_target, coarsest_first, is_isotropic


def grid_of(*spacing: float, shape: tuple[int, int, int] = (20, 24, 12)) -> Grid:
    """A straight grid with this spacing (mm)."""
    return Grid(shape, np.diag([*spacing, 1.0]))


def refuse(grid: Grid, **wish: object) -> str:
    """The message with which a wish is refused; checks the code."""
    with pytest.raises(InputError) as caught:
        choose_target(grid, **wish)  # type: ignore[arg-type]
    assert caught.value.code == "E_NOTHING_TO_DO"
    return str(caught.value)


def test_the_slice_axis_gets_the_finest_in_plane_spacing() -> None:
    target = choose_target(grid_of(0.9, 0.8, 4.0))
    assert target.axes == (2,)
    assert target.grid.shape == (20, 24, 60)
    assert target.ratios == (1.0, 1.0, 5.0)
    assert not target.isotropic
    assert target.notes == ()


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_the_rule_does_not_depend_on_how_the_axes_are_stored(axes: tuple[int, int, int]) -> None:
    grid = grid_of(1.0, 0.8, 4.0)
    assert choose_target(grid.permuted(axes)).grid.is_close(choose_target(grid).grid.permuted(axes))


def test_the_outer_faces_stay(oblique: Grid) -> None:
    target = choose_target(oblique)
    assert np.abs(target.grid.corners() - oblique.corners()).max() < 1e-11


def test_at_most_eight_times_finer_and_says_so() -> None:
    target = choose_target(grid_of(0.45, 0.45, 5.0))
    assert target.ratios[2] == 8.0
    assert "8 times" in target.notes[0]


def test_the_ratio_itself_never_passes_the_limit() -> None:
    target = choose_target(grid_of(1.0, 1.0, 8.0, shape=(20, 24, 900)), spacing=(0.99995,))
    assert target.ratios[2] == 8.0


def test_a_second_coarse_axis_is_left_and_named() -> None:
    target = choose_target(grid_of(1.0, 3.0, 4.0))
    assert target.axes == (2,)
    assert "axis 1 stays at 3 mm" in target.notes[0]


def test_an_adjusted_spacing_is_reported() -> None:
    target = choose_target(grid_of(0.72, 0.72, 3.0, shape=(20, 24, 7)))
    assert target.grid.shape[2] == 29
    assert "instead of 0.72 mm" in target.notes[0]


def test_a_coarse_isotropic_scan_goes_to_1_mm_on_all_axes() -> None:
    target = choose_target(grid_of(2.0, 2.0, 2.2))
    assert target.isotropic
    assert target.axes == (2, 1, 0)
    assert np.allclose(target.grid.spacing, 1.0, rtol=0.02)


def test_a_very_coarse_isotropic_scan_becomes_four_times_finer_and_says_so() -> None:
    target = choose_target(grid_of(6.0, 6.0, 6.0))
    assert target.ratios == (4.0, 4.0, 4.0)
    assert "4 times" in target.notes[0]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (0.87, 0.87, 1.0), (1.0, 1.0, 1.19)])
def test_a_scan_that_is_fine_already_is_refused_with_a_hint(spacing: tuple[float, float, float]) -> None:
    assert "--spacing" in refuse(grid_of(*spacing))


def test_anisotropic_from_1_2_on_in_spite_of_float32_headers() -> None:
    assert not is_isotropic(grid_of(1.0, 1.0, 1.2))
    assert not is_isotropic(grid_of(1.0, 1.0, float(np.float32(1.2)) - 1e-7))
    assert choose_target(grid_of(1.0, 1.0, 1.2, shape=(9, 9, 10))).grid.shape[2] == 12


def test_one_value_holds_for_every_axis_that_is_coarser() -> None:
    target = choose_target(grid_of(1.0, 3.0, 5.0), spacing=(1.0,))
    assert target.axes == (2, 1)
    assert target.grid.shape == (20, 72, 60)


def test_one_value_leaves_an_axis_that_is_hardly_coarser_and_says_so() -> None:
    target = choose_target(grid_of(1.0, 1.0, 4.0), spacing=(0.9,))
    assert target.axes == (2,)
    assert "axis 0 stays at 1 mm" in target.notes[0]


def test_three_values_follow_the_array_axes() -> None:
    target = choose_target(grid_of(1.0, 2.0, 4.0), spacing=(0.5, 2.0, 1.0))
    assert target.axes == (2, 0)
    assert target.ratios == (2.0, 1.0, 4.0)


def test_within_one_per_cent_an_axis_is_untouched() -> None:
    grid = grid_of(0.868056, 0.868056, 4.0)
    target = choose_target(grid, spacing=(0.87, 0.8604, 1.0))
    assert target.axes == (2,)
    assert target.grid.spacing[:2] == grid.spacing[:2]


def test_a_factor_is_for_the_slice_axis_and_for_all_axes_of_an_isotropic_scan() -> None:
    assert choose_target(grid_of(1.0, 1.0, 4.0), factor=2.5).ratios == (1.0, 1.0, 2.5)
    assert choose_target(grid_of(2.0, 2.0, 2.0), factor=2).ratios == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    "wish",
    [
        {"spacing": (4.0,)},
        {"spacing": (5.0,)},
        {"spacing": (3.5,)},
        {"spacing": (1.0, 1.0, 4.0)},
        {"spacing": (1.0, 1.0, 4.5)},
        {"spacing": (1.2, 1.0, 1.0)},
        {"spacing": (0.9, 1.0, 1.0)},
        {"factor": 1.1},
        {"factor": 0.5},
    ],
)
def test_coarser_or_hardly_finer_is_nothing_to_do(wish: dict[str, object]) -> None:
    refuse(grid_of(1.0, 1.0, 4.0), **wish)


@pytest.mark.parametrize("wish", [{"factor": 9}, {"spacing": (0.123,)}, {"spacing": (1.0004, 0.1, 0.1)}])
@pytest.mark.parametrize("spacing", [(1.0004, 1.0004, 1.0004), (1.0004, 0.9, 4.00037)])
def test_beyond_the_limit_the_finest_possible_is_named_and_accepted(
    wish: dict[str, object], spacing: tuple[float, float, float]
) -> None:
    grid = grid_of(*spacing)
    message = refuse(grid, **wish)
    named = tuple(float(word) for word in message.split("--spacing ")[1].split())
    target = choose_target(grid, spacing=named)
    assert max(target.ratios) == pytest.approx(4.0 if target.isotropic else 8.0, rel=0.01)


@pytest.mark.parametrize(
    "wish",
    [
        {"spacing": (1.0, 1.0)},
        {"spacing": (0.0,)},
        {"spacing": (1.0, float("nan"), 1.0)},
        {"factor": float("nan")},
        {"factor": 0.0},
        {"factor": 2.0, "spacing": (1.0,)},
    ],
)
def test_a_malformed_wish_is_a_mistake_of_the_caller(wish: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        choose_target(grid_of(1.0, 1.0, 4.0), **wish)  # type: ignore[arg-type]


def test_equal_spacings_go_by_the_world_and_not_by_storage() -> None:
    grid = grid_of(2.0, 2.0, 2.0)
    permuted = grid.permuted((2, 0, 1))
    assert [grid.world_axes[a] for a in coarsest_first(grid)] == [2, 1, 0]
    assert [permuted.world_axes[a] for a in coarsest_first(permuted)] == [2, 1, 0]


def test_a_target_says_what_is_restored() -> None:
    target = choose_target(grid_of(1.0, 1.0, 4.0))
    assert isinstance(target, Target)
    assert all(ratio > 1 for axis, ratio in enumerate(target.ratios) if axis in target.axes)
    assert all(ratio == 1 for axis, ratio in enumerate(target.ratios) if axis not in target.axes)
