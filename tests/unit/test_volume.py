"""A volume's voxels stay where they are in the world."""

from __future__ import annotations

import numpy as np
import pytest

from medld.errors import GridError
from medld.geometry import Grid
from medld.volume import Volume


def world_of(volume: Volume, value: float) -> np.ndarray:
    """World position (mm) of the one voxel that holds `value`."""
    index = np.argwhere(volume.array == value)[0]
    return volume.grid.affine[:3, :3] @ index + volume.grid.affine[:3, 3]


@pytest.fixture
def numbered(oblique: Grid) -> Volume:
    """Every voxel holds its own number."""
    return Volume(np.arange(np.prod(oblique.shape)).reshape(oblique.shape), oblique, "mr", "T1w", {"file": "a"})


@pytest.mark.parametrize("axes", [(1, 2, 0), (2, 1, 0), (0, 1, 2)])
def test_permuting_moves_no_voxel(numbered: Volume, axes: tuple[int, int, int]) -> None:
    permuted = numbered.permuted(axes)
    assert np.allclose(world_of(permuted, 57), world_of(numbered, 57), atol=1e-12)
    assert np.shares_memory(permuted.array, numbered.array)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipping_moves_no_voxel(numbered: Volume, axis: int) -> None:
    assert np.allclose(world_of(numbered.flipped(axis), 57), world_of(numbered, 57), atol=1e-12)


def test_cropping_moves_no_voxel(numbered: Volume) -> None:
    part = numbered.cropped((2, 1, 3), (4, 5, 2))
    assert np.shares_memory(part.array, numbered.array)
    assert part.array.shape == (4, 5, 2)
    for value in (part.array[0, 0, 0], part.array[3, 4, 1]):
        assert np.allclose(world_of(part, value), world_of(numbered, value), atol=1e-12)


@pytest.mark.parametrize("most", [(1, 1, 1), (5, 4, 100), (100, 100, 3)])
def test_the_middle_has_as_much_on_either_side(numbered: Volume, most: tuple[int, int, int]) -> None:
    middle = numbered.middle(most)
    assert middle.grid.shape == tuple(np.minimum(numbered.grid.shape, most))
    ends = [middle.array[0, 0, 0], middle.array[-1, -1, -1]]
    before, last = (np.argwhere(numbered.array == value)[0] for value in ends)
    after = np.array(numbered.grid.shape) - 1 - last
    assert np.all((after - before == 0) | (after - before == 1))


def test_other_values_keep_everything_else(numbered: Volume) -> None:
    other = numbered.with_array(np.zeros(numbered.grid.shape))
    assert (other.grid, other.modality, other.contrast) == (numbered.grid, "mr", "T1w")
    assert other.provenance == {"file": "a"}


def test_an_array_of_another_shape_is_refused(numbered: Volume) -> None:
    with pytest.raises(GridError, match="shape"):
        numbered.with_array(np.zeros((2, 2, 2)))
