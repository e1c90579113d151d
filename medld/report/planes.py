"""Plane: an axial, coronal or sagittal cut through the middle of a volume, as it is looked at.

    rows      run down from the head, or from the front in the axial plane
    columns   run from the patient's right, or from the front in the sagittal plane (radiological)

Array axes go to the nearest world axes: an oblique volume is cut along its own slices, nothing is resampled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medld.geometry import Grid
from medld.volume import Volume

__all__ = ["PLANES", "Plane", "Planes", "cut_planes", "find_window", "nearest"]

WINDOW_PERCENTILES = (0.5, 99.5)
"""Of the scan: one bright vessel must not darken the picture."""
PLANES = (("axial", 2, "R"), ("coronal", 1, "R"), ("sagittal", 0, "A"))
"""Name, world axis across the plane, letter of its left edge (radiological: the patient's right is left)."""


@dataclass(frozen=True, eq=False)
class Plane:
    """One cut.

    Args:
        name: "axial", "coronal" or "sagittal".
        values: (rows, columns), in the volume's units.
        spacing: mm between rows, mm between columns.
        left: What lies at the left edge: R, the patient's right, or A, the front.
    """

    name: str
    values: NDArray[np.float32]
    spacing: tuple[float, float]
    left: str

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width, mm."""
        rows, columns = self.values.shape
        return rows * self.spacing[0], columns * self.spacing[1]

    def square(self) -> Plane:
        """The same picture on square pixels as small as the finest spacing: voxels are repeated, not mixed."""
        pixel = min(self.spacing)
        counts = [max(1, round(extent / pixel)) for extent in self.extent]
        rows, columns = (nearest(n, count) for n, count in zip(self.values.shape, counts, strict=True))
        spacing = self.extent[0] / counts[0], self.extent[1] / counts[1]
        return replace(self, values=self.values[np.ix_(rows, columns)], spacing=spacing)

    def with_values(self, values: NDArray[np.float32]) -> Plane:
        """The same place with other values of the same shape."""
        return replace(self, values=values)


Planes = tuple[Plane, Plane, Plane]
"""Axial, coronal, sagittal."""


def cut_planes(volume: Volume, like: Grid | None = None) -> Planes:
    """The three planes through the middle of a volume's box, copied, float32.

    Args:
        volume: Any orientation.
        like: Finer grid of the same box, on the same array axes: its middle voxels say where to cut, so that planes
            of both volumes show the same place. None takes the volume's own.
    """
    fine = _shape_in_world(volume.grid if like is None else like)
    volume = _to_ras(volume)
    axial, coronal, sagittal = (_cut(volume, plane, fine) for plane in range(len(PLANES)))
    return axial, coronal, sagittal


def _cut(volume: Volume, plane: int, fine: tuple[int, int, int]) -> Plane:
    """One plane of a volume in world order; `fine` is the shape of the grid that says where."""
    name, across, left = PLANES[plane]
    i, j = (axis for axis in range(3) if axis != across)
    # The middle voxel of the fine grid, and the voxel of this volume that holds its centre.
    middle = (fine[across] // 2 + 0.5) / fine[across]
    values = np.take(volume.array, int(middle * volume.grid.shape[across]), axis=across)
    pixels = np.ascontiguousarray(values.T[::-1, ::-1], dtype=np.float32)
    return Plane(name, pixels, (volume.grid.spacing[j], volume.grid.spacing[i]), left)


def find_window(array: NDArray[Any]) -> tuple[float, float]:
    """The values that are drawn black and white, by the percentiles of a volume."""
    low, high = (float(v) for v in np.percentile(array, WINDOW_PERCENTILES))
    return low, high


def nearest(voxels: int, pixels: int) -> NDArray[np.intp]:
    """Index of the voxel under the centre of each pixel, both covering the same length."""
    return ((np.arange(pixels) + 0.5) / pixels * voxels).astype(np.intp)


def _to_ras(volume: Volume) -> Volume:
    """The same voxels with array axes that grow to the right, the front and the head, nearest directions."""
    world = volume.grid.world_axes
    volume = volume.permuted((world.index(0), world.index(1), world.index(2)))
    for axis in range(3):
        if volume.grid.direction[axis, axis] < 0:
            volume = volume.flipped(axis)
    return volume


def _shape_in_world(grid: Grid) -> tuple[int, int, int]:
    """Voxels to the right, the front and the head."""
    world = grid.world_axes
    return grid.shape[world.index(0)], grid.shape[world.index(1)], grid.shape[world.index(2)]
