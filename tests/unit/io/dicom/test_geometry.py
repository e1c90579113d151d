"""Slices become a grid exactly, or the reason says what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from medld.geometry import Grid
from medld.io.dicom.geometry import arrange
from medld.io.dicom.series import Frame, Refusal, Source

ROWS, COLUMNS, STEP = 20, 24, 4.0
SPACING = (0.9, 0.8)  # between rows, between columns


def turned(x: float, y: float, z: float) -> np.ndarray:
    """(6,) direction cosines of row and column after turns around the axes (radians)."""
    cos, sin = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, cos[0], -sin[0]], [0, sin[0], cos[0]]])
    about_y = np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]])
    about_z = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    return np.asarray((about_z @ about_y @ about_x)[:, :2].T.ravel())


OBLIQUE = turned(0.3, -0.2, 0.5)


def frames_at(positions: np.ndarray, cosines: np.ndarray = OBLIQUE) -> list[Frame]:
    """Frames at (n, 3) positions, mm, LPS."""
    head = Dataset()
    head.Rows, head.Columns = ROWS, COLUMNS
    return [
        Frame(Source(Path("x"), None, 1), head, number, np.array(position), np.array(cosines), SPACING)
        for number, position in enumerate(positions)
    ]


def stack(heights: np.ndarray | list[float], cosines: np.ndarray = OBLIQUE, lean: float = 0.0) -> list[Frame]:
    """Frames at heights (mm) along the normal, leaning over by an angle (degrees) down the columns."""
    normal = np.cross(cosines[:3], cosines[3:])
    across = np.tan(np.deg2rad(lean)) * cosines[3:]
    return frames_at(np.array([-31.0, 12.5, 87.0]) + np.outer(heights, normal + across), cosines)


def code_of(frames: list[Frame]) -> str | None:
    """The code of the refusal, None for a volume."""
    found = arrange(frames)[1]
    return found.code if isinstance(found, Refusal) else None


def reason_of(frames: list[Frame]) -> str:
    """The sentence of a refusal."""
    found = arrange(frames)[1]
    assert isinstance(found, Refusal)
    return found.reason


def place_of(frame: Frame, row: int, column: int) -> np.ndarray:
    """(3,) mm, RAS: where a pixel's centre lies by the equation of PS3.3 C.7.6.2.1.1."""
    across = frame.orientation[:3] * frame.pixel_spacing[1] * column
    down = frame.orientation[3:] * frame.pixel_spacing[0] * row
    return np.asarray((frame.position + across + down) * (-1, -1, 1))


angles = st.floats(-3.1, 3.1)


@settings(deadline=None, max_examples=60)
@given(x=angles, y=angles, z=angles, n=st.integers(3, 40), step=st.floats(0.3, 12), seed=st.integers(0, 99))
def test_every_pixel_lies_where_its_own_header_says(
    x: float, y: float, z: float, n: int, step: float, seed: int
) -> None:
    shuffled = np.random.default_rng(seed).permutation(np.arange(n) * step)
    frames, grid = arrange(stack(shuffled, turned(x, y, z)))
    assert isinstance(grid, Grid)
    assert grid.shape == (COLUMNS, ROWS, n)
    for k, frame in enumerate(frames):
        for row, column in ((0, 0), (ROWS - 1, 2), (3, COLUMNS - 1)):
            world = grid.affine @ (column, row, k, 1)
            np.testing.assert_allclose(world[:3], place_of(frame, row, column), atol=1e-9)


def test_slices_are_counted_along_row_times_column() -> None:
    frames, grid = arrange(stack(np.arange(5) * -STEP))
    assert isinstance(grid, Grid)
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    heights = [frame.position @ normal for frame in frames]
    assert heights == sorted(heights)
    # Both flips from LPS to RAS cancel: the grid is right-handed as row, column and normal are.
    assert not grid.is_left_handed


@pytest.mark.parametrize("angle", [18.5, -16.5, 2.5, 0.5, 0.3])
def test_a_tilt_is_never_straightened(angle: float) -> None:
    frames = stack(np.arange(12) * STEP, lean=angle)
    assert code_of(frames) == "E_TILT"
    assert f"{abs(angle):.2f} degrees" in reason_of(frames)


def test_a_tilt_with_uneven_steps_is_a_tilt() -> None:
    assert code_of(stack([0, 1.08, 8, 12, 19, 22], lean=18.5)) == "E_TILT"


def test_a_lean_of_rounding_is_kept_in_the_affine() -> None:
    frames, grid = arrange(stack(np.arange(100) * 2.0, lean=0.05))
    assert isinstance(grid, Grid)
    np.testing.assert_allclose(grid.affine @ (0, 0, 99, 1), (*place_of(frames[-1], 0, 0), 1), atol=1e-9)


def test_coordinates_of_two_decimals_pass_even_in_a_short_stack() -> None:
    frames = frames_at(np.array([[0, 0, 0], [0.01, 0, 1], [0.01, 0, 2]]), np.array([1.0, 0, 0, 0, 1, 0]))
    assert code_of(frames) is None


@pytest.mark.parametrize("gone", [1, 5, 10])
def test_a_missing_slice_is_named(gone: int) -> None:
    cosines = np.array([1.0, 0, 0, 0, 1, 0])
    frames = stack(np.delete(np.arange(12) * STEP, gone), cosines)
    assert code_of(frames) == "E_GAP"
    assert f"slice {gone + 1} of 12 is missing at z = {87 + gone * STEP:.1f}" in reason_of(frames)


def test_several_missing_slices_are_counted() -> None:
    frames = stack([0, 4, 12, 16, 28, 32])
    assert code_of(frames) == "E_GAP"
    assert "3 slices of 9 are missing, the first, slice 3," in reason_of(frames)


def test_every_other_slice_missing_in_a_half_is_a_gap() -> None:
    assert code_of(stack([0, 8, 16, 24, 32, 36, 40, 44])) == "E_GAP"


def test_a_missing_slice_among_jitter_is_still_a_gap(rng: np.random.Generator) -> None:
    heights = np.delete(np.arange(30) * STEP, 17) + rng.uniform(-0.02, 0.02, 29)
    assert code_of(stack(heights)) == "E_GAP"


def test_uneven_steps_are_refused(rng: np.random.Generator) -> None:
    assert code_of(stack(np.cumsum(rng.uniform(1, 7, 12)))) == "E_SPACING"


def test_errors_that_add_up_are_refused() -> None:
    drift = np.cumsum([0, *[1.015] * 50, *[0.985] * 49])
    assert code_of(stack(drift)) == "E_SPACING"
    assert "0.74" in reason_of(stack(drift))


def test_one_slice_out_of_line_is_no_tilt() -> None:
    frames = stack(np.arange(12) * STEP)
    positions = np.array([frame.position for frame in frames])
    positions[6] += 3 * OBLIQUE[:3]
    assert code_of(frames_at(positions)) == "E_SPACING"
    positions[11] += 3 * OBLIQUE[:3]
    assert code_of(frames_at(positions)) == "E_SPACING"


@pytest.mark.parametrize("amount", [0.001, 0.02])
def test_jitter_of_positions_is_accepted_and_stays_within_it(amount: float, rng: np.random.Generator) -> None:
    frames = stack(np.arange(12) * STEP)
    jittered = np.array([frame.position for frame in frames]) + rng.uniform(-amount, amount, (12, 3)) / np.sqrt(3)
    ordered, grid = arrange(frames_at(jittered))
    assert isinstance(grid, Grid)
    worst = max(
        float(np.linalg.norm((grid.affine @ (0, 0, k, 1))[:3] - place_of(frame, 0, 0)))
        for k, frame in enumerate(ordered)
    )
    assert worst <= 2 * amount


def test_millimetres_decide_and_not_the_share_of_a_thin_step(rng: np.random.Generator) -> None:
    heights = np.arange(40) * 0.5
    assert code_of(stack(heights + rng.uniform(-0.015, 0.015, 40))) is None
    assert code_of(stack(heights + 0.2 * (heights > 10))) == "E_SPACING"


@pytest.mark.parametrize("distance", [0.0, 0.005])
def test_a_slice_twice_is_no_spacing(distance: float) -> None:
    assert code_of(stack([0, 5, 10, 15, 15 + distance, 20, 25])) == "E_DUP"
    assert "slice 4 of 7" in reason_of(stack([0, 5, 10, 15, 15 + distance, 20, 25]))


@pytest.mark.parametrize("times", [2, 10])
def test_every_position_several_times_is_a_series_of_volumes(times: int) -> None:
    frames = stack(np.tile(np.arange(6) * STEP, times))
    assert code_of(frames) == "E_4D"
    assert f"{times} volumes of 6 slices" in reason_of(frames)


def test_a_time_series_that_was_broken_off_is_one_still() -> None:
    assert code_of(stack(np.tile(np.arange(6) * STEP, 5)[:-2])) == "E_4D"


def test_stacks_side_by_side_are_mixed() -> None:
    frames = stack(np.arange(6) * STEP)
    beside = np.array([frame.position for frame in frames]) + 60 * OBLIQUE[:3]
    assert code_of(frames_at(np.concatenate([[frame.position for frame in frames], beside]))) == "E_MIXED"


@pytest.mark.parametrize("heights", [[0], [0, 4], [0, 0, 0, 0], [0, 0, 4, 4]])
def test_one_or_two_positions_are_too_few(heights: list[float]) -> None:
    assert code_of(stack(heights)) == "E_TOO_FEW"


def test_a_slice_turned_so_that_its_edge_moves_is_mixed() -> None:
    frames = stack(np.arange(12) * STEP, np.array([1.0, 0, 0, 0, 1, 0]))
    angle = 0.01
    frames[5].orientation[:] = [np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0]
    assert code_of(frames) == "E_MIXED"
    frames[5].orientation[:] = [1, 1e-5, 0, -1e-5, 1, 0]
    assert code_of(frames) is None


def test_refused_frames_stay_as_they_came() -> None:
    frames = stack([8, 0, 21])
    assert list(arrange(frames)[0]) == frames
