"""Checks: what every metric asks of its arrays, and pieces of a volume small enough to hold several of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medld.errors import InputError

Array = NDArray[Any]

SLAB_VOXELS = 4_000_000
"""A filter holds about ten float64 arrays of one slab (320 MB), however large the volume."""


def check_output(truth: Array, output: Array, name: str = "output") -> None:
    """Refuse an output that a number would hide: another shape, or a voxel that is not finite.

    Raises:
        InputError: With the reason (E_PIXELS).
    """
    if output.shape != truth.shape:
        raise InputError(
            f"Expected the {name} on the truth's {truth.shape} voxels, got {output.shape}. "
            "Enhance with the truth's spacing as the target.",
            "E_PIXELS",
        )
    check_finite(output, name)


def check_finite(array: Array, name: str = "output") -> None:
    """Refuse NaN and Inf.

    Raises:
        InputError: If a voxel is not finite (E_PIXELS).
    """
    if not np.isfinite(array).all():
        raise InputError(f"Expected finite values in the {name}, got NaN or Inf. Enhance again.", "E_PIXELS")


def check_mask(mask: Array, like: Array, name: str = "mask") -> None:
    """Refuse a mask that chooses no voxel, or those of another array.

    Raises:
        InputError: With the reason (E_PIXELS).
    """
    if mask.shape != like.shape:
        raise InputError(f"Expected a {name} of shape {like.shape}, got {mask.shape}. Put it on that grid.", "E_PIXELS")
    if not mask.any():
        raise InputError(f"Expected a {name} with at least one voxel, got an empty one. Check it.", "E_PIXELS")


def slabs(shape: tuple[int, ...], reach: int = 0, axis: int = 0) -> Iterator[tuple[slice, slice, slice]]:
    """Pieces of an array along `axis`, each as (rows, window, inner).

    A filter that looks `reach` voxels far, run on array[window], is right on [inner], which is array[rows]:
    where the window ends at the array's own end its border counts, elsewhere `reach` voxels are spare.
    """
    length = shape[axis]
    size = max(1, SLAB_VOXELS * length // max(1, int(np.prod(shape))))
    for start in range(0, length, size):
        stop = min(start + size, length)
        first = max(start - reach, 0)
        yield slice(start, stop), slice(first, min(stop + reach, length)), slice(start - first, stop - first)
