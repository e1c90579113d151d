"""Slices held out of a scan: a fair test of whoever restores them."""

from __future__ import annotations

import numpy as np
import pytest

from medld.geometry import Grid
from medld.scope import HeldOut, halved, hold_out, judge_held_out
from medld.volume import Volume


@pytest.fixture(params=[0, 1, 2])
def scan(request: pytest.FixtureRequest, rng: np.random.Generator) -> tuple[Volume, int]:
    """A rough field with its slices along any axis, detail in one corner; and that axis."""
    axis = request.param
    shape, spacing = [90, 90, 90], [1.0, 1.0, 1.0]
    shape[axis], spacing[axis] = 25, 4.0
    array = 0.3 + 0.1 * rng.random(shape)
    corner = tuple(slice(None) if a == axis else slice(40, None) for a in range(3))
    array[corner] = rng.random(array[corner].shape)
    return Volume(array.astype(np.float32), Grid(tuple(shape), np.diag([*spacing, 1.0])), "mr"), axis


def held(scan: tuple[Volume, int]) -> HeldOut:
    """What is held out of it."""
    result = hold_out(*scan)
    assert result is not None
    return result


def test_the_crop_is_a_piece_of_the_scan_where_its_detail_is(scan: tuple[Volume, int]) -> None:
    volume, axis = scan
    truth = held(scan).truth
    assert truth.grid.shape[axis] == 24
    start = np.linalg.solve(volume.grid.affine, truth.grid.affine[:, 3])[:3].round().astype(int)
    window = tuple(slice(a, a + n) for a, n in zip(start, truth.grid.shape, strict=True))
    np.testing.assert_array_equal(truth.array, volume.array[window])
    assert all(start[a] >= 36 for a in range(3) if a != axis)


def test_the_coarse_scan_has_half_of_the_slices_in_the_same_box(scan: tuple[Volume, int]) -> None:
    volume, axis = scan
    case = held(scan)
    assert case.coarse.grid.shape[axis] == 12
    assert case.coarse.grid.extent == pytest.approx(case.truth.grid.extent)
    assert case.coarse.grid.spacing[axis] == pytest.approx(2 * volume.grid.spacing[axis])
    np.testing.assert_allclose(case.coarse.array.mean(), case.truth.array.mean(), rtol=0.02)


def test_of_an_odd_number_of_slices_the_last_is_left_out(scan: tuple[Volume, int]) -> None:
    volume, axis = scan
    case = halved(volume, axis)
    assert (case.truth.grid.shape[axis], case.coarse.grid.shape[axis]) == (24, 12)
    assert case.coarse.grid.extent == pytest.approx(case.truth.grid.extent)


def test_the_test_costs_a_small_part_of_the_restoration(rng: np.random.Generator) -> None:
    array = rng.random((200, 220, 30)).astype(np.float32)
    case = hold_out(Volume(array, Grid(array.shape, np.diag([1.0, 1.0, 4.0, 1.0])), "mr"), 2)
    assert case is not None
    assert case.coarse.array.size <= 0.05 * array.size


@pytest.mark.parametrize("shape", [(90, 90, 10), (40, 90, 30)])
def test_small_scans_are_not_tested(shape: tuple[int, int, int]) -> None:
    assert hold_out(Volume(np.ones(shape, np.float32), Grid(shape, np.eye(4)), "mr"), 2) is None


def answer(case: HeldOut, error: float) -> np.ndarray:
    """The truth with an error of that size."""
    noise = np.random.default_rng(1).standard_normal(case.truth.array.shape).astype(np.float32)
    return case.truth.array + np.float32(error) * noise


def test_the_gain_is_that_of_the_errors(scan: tuple[Volume, int]) -> None:
    case = held(scan)
    result = judge_held_out(case, lambda *_: answer(case, 0.01), lambda *_: answer(case, 0.02))
    assert result is not None
    assert result["gain_db"] == pytest.approx(20 * np.log10(2), abs=0.01)
    assert result["blocks_won"] == 1.0


def test_a_worse_model_loses_and_an_equal_one_does_not(scan: tuple[Volume, int]) -> None:
    case = held(scan)
    worse = judge_held_out(case, lambda *_: answer(case, 0.03), lambda *_: answer(case, 0.02))
    equal = judge_held_out(case, lambda *_: answer(case, 0.02), lambda *_: answer(case, 0.02))
    assert worse is not None
    assert equal is not None
    assert worse["gain_db"] < -3
    assert worse["blocks_won"] == 0.0
    assert equal["gain_db"] == 0.0


def test_whoever_restores_sees_the_coarse_scan_and_nothing_else(scan: tuple[Volume, int]) -> None:
    case = held(scan)
    seen = []

    def restore(coarse: Volume, grid: Grid) -> np.ndarray:
        seen.append((coarse, grid))
        return np.zeros(grid.shape, np.float32)

    judge_held_out(case, restore, restore)
    assert seen == [(case.coarse, case.truth.grid)] * 2


def test_air_tells_nothing(scan: tuple[Volume, int]) -> None:
    volume, axis = scan
    case = hold_out(volume.with_array(np.zeros_like(volume.array)), axis)
    assert case is not None
    assert judge_held_out(case, lambda *_: case.truth.array, lambda *_: case.truth.array) is None
