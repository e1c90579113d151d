"""What a grid promises about positions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medld.errors import GridError
from medld.geometry import Grid

ROUNDING_MM = 1e-11  # float64 at 300 mm


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Oblique grids of either handedness."""
    shape = draw(st.tuples(*[st.integers(1, 40)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.2, 8)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.standard_normal((3, 3)))[0] * spacing
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return Grid(shape, affine)


@settings(max_examples=50, deadline=None)
@given(grids(), st.tuples(*[st.floats(0.2, 8)] * 3))
def test_resampled_keeps_the_outer_faces(grid: Grid, spacing: tuple[float, float, float]) -> None:
    target = grid.resampled(spacing)
    assert np.abs(target.corners() - grid.corners()).max() < ROUNDING_MM
    assert np.allclose(target.extent, grid.extent, rtol=1e-12)
    counts = np.maximum(np.round(np.array(grid.extent) / spacing), 1)
    assert target.shape == tuple(counts)


@settings(max_examples=50, deadline=None)
@given(grids(), st.permutations(range(3)), st.integers(0, 2))
def test_reordering_axes_keeps_the_box_and_can_be_undone(grid: Grid, axes: list[int], axis: int) -> None:
    back = [axes.index(a) for a in range(3)]
    for moved in (grid.permuted(axes), grid.flipped(axis)):
        assert sorted(map(tuple, moved.corners().round(6))) == sorted(map(tuple, grid.corners().round(6)))
    assert grid.permuted(axes).permuted(back).is_close(grid, ROUNDING_MM)
    assert grid.flipped(axis).flipped(axis).is_close(grid, ROUNDING_MM)
    assert grid.flipped(axis).is_left_handed != grid.is_left_handed


@settings(max_examples=50, deadline=None)
@given(grids())
def test_spacing_and_direction_make_the_affine(grid: Grid) -> None:
    assert np.allclose(grid.direction * grid.spacing, grid.affine[:3, :3], atol=1e-12)
    assert np.allclose(np.linalg.norm(grid.direction, axis=0), 1)


def test_cropped_starts_at_the_voxel_asked_for(oblique: Grid) -> None:
    part = oblique.cropped((2, 1, 3), (4, 5, 2))
    assert part.shape == (4, 5, 2)
    assert np.allclose(part.affine[:3, 3], (oblique.affine @ (2, 1, 3, 1))[:3])
    assert part.cropped((-2, -1, -3), oblique.shape).is_close(oblique, ROUNDING_MM)


def test_orientation_names_where_the_axes_point(left_handed: Grid) -> None:
    assert left_handed.orientation == "LAS"
    assert left_handed.is_left_handed
    assert left_handed.permuted((2, 0, 1)).orientation == "SLA"


def test_every_axis_gets_its_own_letter_at_45_degrees() -> None:
    c = np.sqrt(0.5)
    affine = np.eye(4)
    affine[:3, :3] = [[c, c, 0], [c, -c, 0], [0, 0, 1]]
    assert sorted(Grid((4, 4, 4), affine).world_axes) == [0, 1, 2]


def test_the_affine_is_a_copy_that_cannot_be_written(oblique: Grid) -> None:
    affine = np.eye(4)
    grid = Grid((3, 3, 3), affine)
    affine[0, 3] = 7
    assert grid.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 1


def test_is_close_looks_at_the_far_corner() -> None:
    grid = Grid((200, 200, 200), np.eye(4))
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(1e-4), -np.sin(1e-4)], [np.sin(1e-4), np.cos(1e-4)]]
    assert not grid.is_close(Grid(grid.shape, turned), 1e-2)
    assert grid.is_close(Grid(grid.shape, turned), 5e-2)
    assert not grid.is_close(Grid((200, 200, 199), np.eye(4)), 1e9)


def sheared(cosine: float) -> np.ndarray:
    """An affine whose first two axes have this cosine."""
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[0, 1] = cosine
    return affine


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 0.0, 1.0, 1.0]),
        np.zeros((4, 4)),
        np.full((4, 4), np.nan),
        np.diag([1.0, np.inf, 1.0, 1.0]),
        sheared(0.01),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.eye(3),
        np.diag([1.0, 1.0, 1.0, 2.0]),
    ],
    ids=["singular", "zero", "nan", "inf", "sheared", "parallel", "3x3", "last row"],
)
def test_an_affine_without_meaning_is_refused(affine: np.ndarray) -> None:
    with pytest.raises(GridError) as caught:
        Grid((4, 5, 6), affine)
    assert caught.value.code == "E_NO_GEOM"


def test_headers_rounded_to_four_digits_are_accepted(oblique: Grid) -> None:
    Grid(oblique.shape, oblique.affine.round(4))
    Grid((4, 5, 6), sheared(1e-3))


def test_an_empty_shape_is_refused() -> None:
    with pytest.raises(GridError, match="positive"):
        Grid((4, 0, 6), np.eye(4))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, np.nan, 1.0)])
def test_resampled_refuses_a_malformed_spacing(oblique: Grid, spacing: tuple[float, ...]) -> None:
    with pytest.raises(GridError, match="three positive"):
        oblique.resampled(spacing)
