"""A scan cut in two: what teaches never judges."""

from __future__ import annotations

import numpy as np
import pytest

from medld.adapt.parts import SMALLEST_SIDE, Cut, cut
from medld.geometry import Grid
from medld.volume import Volume


def found(scan: Volume, axis: int) -> Cut:
    """Where it is cut."""
    place = cut(scan, axis)
    assert isinstance(place, Cut)
    return place


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_both_parts_make_up_the_scan_with_all_of_its_slices(scan: Volume, axis: int) -> None:
    turned = scan.permuted({0: (2, 0, 1), 1: (0, 2, 1), 2: (0, 1, 2)}[axis])  # type: ignore[arg-type]
    place = found(turned, axis)
    parts = [place.teaching(turned), place.judging(turned)]
    assert place.along != axis
    assert all(part.grid.shape[axis] == turned.grid.shape[axis] for part in parts)
    assert all(part.grid.shape[place.along] >= SMALLEST_SIDE for part in parts)
    np.testing.assert_array_equal(np.concatenate([part.array for part in parts], axis=place.along), turned.array)


def test_the_larger_part_of_the_tissue_teaches(rng: np.random.Generator) -> None:
    array = np.zeros((300, 60, 14), np.float32)
    array[60:240] = 1 + rng.random((180, 60, 14))
    place = found(Volume(array, Grid(array.shape, np.eye(4)), "mr"), 2)
    assert place.place == pytest.approx(60 + 120, abs=2)


@pytest.mark.parametrize("shape", [(100, 60, 11), (95, 60, 20), (100, 40, 20)])
def test_a_small_scan_is_not_cut_and_the_reason_told(shape: tuple[int, int, int]) -> None:
    reason = cut(Volume(np.ones(shape, np.float32), Grid(shape, np.eye(4)), "mr"), 2)
    assert isinstance(reason, str)
    assert reason.startswith("expected at least")
