"""Volume: a 3D array on a `Grid`, with what is known about how it was made.

The array's axes are the grid's axes (I, J, K); values are in the scanner's own units
(HU for CT). A volume is a value: methods return new ones and share the array where they can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from medld.errors import GridError
from medld.geometry import Grid

__all__ = ["Contrast", "Modality", "Volume"]

Modality = Literal["mr", "ct", "unknown"]
Contrast = Literal["T1w", "T2w", "FLAIR", "ce-T1w", "unknown"]


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D array on a grid.

    Args:
        array: (I, J, K), any real dtype.
        grid: Where the voxels lie.
        modality: "mr", "ct" or "unknown".
        contrast: MR contrast, as the BIDS suffix names it.
        provenance: Where the volume comes from, as plain values; copied on every change.

    Raises:
        GridError: If the array's shape is not the grid's.
    """

    array: np.ndarray
    grid: Grid
    modality: Modality = "unknown"
    contrast: Contrast = "unknown"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise GridError(f"expected an array of the grid's shape {self.grid.shape}, got {self.array.shape}")

    def with_array(self, array: np.ndarray) -> Volume:
        """The same volume with other values, (I, J, K)."""
        return replace(self, array=array)

    def cropped(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Volume:
        """`shape` voxels from `start` on; a view, nothing moves in the world."""
        i, j, k = (slice(first, first + count) for first, count in zip(start, shape, strict=True))
        return replace(self, array=self.array[i, j, k], grid=self.grid.cropped(start, shape))

    def middle(self, most: tuple[int, int, int]) -> Volume:
        """The middle, at most so many voxels along each axis; a view."""
        i, j, k = (min(pair) for pair in zip(self.grid.shape, most, strict=True))
        a, b, c = ((size - kept) // 2 for size, kept in zip(self.grid.shape, (i, j, k), strict=True))
        return self.cropped((a, b, c), (i, j, k))

    def permuted(self, axes: tuple[int, int, int]) -> Volume:
        """The same voxels with the array's axes in the order `axes`; a view, nothing moves in the world."""
        return replace(self, array=self.array.transpose(axes), grid=self.grid.permuted(axes))

    def flipped(self, axis: int) -> Volume:
        """The same voxels with one array axis reversed; a view, nothing moves in the world."""
        return replace(self, array=np.flip(self.array, axis), grid=self.grid.flipped(axis))
