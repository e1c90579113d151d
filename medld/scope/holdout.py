"""Held out through-plane: a scan is imaged again at twice its slice spacing and restored to its own slices.

What was held out are real data across the slices, of this scan, at a place where the model has to prove itself; how
it does in-plane says little (there a network may gain while it loses across the slices). A crop is enough. The test
is one of ratio 2 at twice the spacing, so its gain in dB is not that of the restoration; its sign is what counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medld.acquisition import END_SLICES, AxisAcquisition, along
from medld.geometry import Grid
from medld.intensity import TISSUE, intensity_map
from medld.volume import Volume

__all__ = ["HeldOut", "Restore", "halved", "hold_out", "judge_held_out"]

Restore = Callable[[Volume, Grid], NDArray[np.float32]]
"""A scan and the grid wanted, to the array on it."""

SHARE = 0.05
"""Of the acquired voxels of the scan itself: what the test may cost."""

SMALLEST_SIDE, LARGEST_SIDE, ALIGN = 48, 96, 4
FEWEST_SLICES = 12
BLOCK = 12  # pixels


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A crop of a scan: `truth` its own slices, `coarse` the same imaged at twice their spacing along `axis`."""

    truth: Volume
    coarse: Volume
    axis: int


def hold_out(scan: Volume, axis: int) -> HeldOut | None:
    """The crop with the most detail; None if the scan has too few slices, or too little tissue, for the test."""
    slices = scan.grid.shape[axis] // 2 * 2
    sizes = [scan.grid.shape[a] for a in range(3) if a != axis]
    if slices < FEWEST_SLICES or min(sizes) < SMALLEST_SIDE:
        return None
    side = int((2 * SHARE * sizes[0] * sizes[1]) ** 0.5) // ALIGN * ALIGN
    side = min(max(side, SMALLEST_SIDE), LARGEST_SIDE, *sizes)
    start, shape = _place(scan, axis, side, slices)
    return halved(scan.cropped(start, shape), axis)


def halved(scan: Volume, axis: int) -> HeldOut:
    """A scan, or a crop of it, imaged at twice its slice spacing; of an odd number of slices the last is left out."""
    slices, shape = scan.grid.shape[axis] // 2 * 2, list(scan.grid.shape)
    shape[axis] = slices
    truth = scan.cropped((0, 0, 0), (shape[0], shape[1], shape[2]))
    truth = truth.with_array(np.asarray(truth.array, dtype=np.float32))
    coarse = along(AxisAcquisition(slices, slices // 2).inner_matrix, truth.array, axis - 3)
    return HeldOut(truth, replace(truth, array=coarse, grid=truth.grid.with_shape(coarse.shape)), axis)


def _place(scan: Volume, axis: int, side: int, slices: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Start and shape of the crop: the square with the largest sum of changes across the slices."""
    lines = np.moveaxis(np.asarray(scan.array, dtype=np.float32), axis, 0)
    change = np.abs(np.diff(lines, axis=0)).mean(0)
    total = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    first, second = np.unravel_index(int(np.argmax(sums)), sums.shape)
    start, shape = [int(first), int(second)], [side, side]
    start.insert(axis, (scan.grid.shape[axis] - slices) // 2)
    shape.insert(axis, slices)
    return (start[0], start[1], start[2]), (shape[0], shape[1], shape[2])


def judge_held_out(held: HeldOut, model: Restore, interpolation: Restore) -> dict[str, float] | None:
    """What `model` gains over `interpolation` on the slices held out.

    Returns:
        `gain_db`: over the tissue, two slices at each end left out; `blocks_won`: share of blocks of 12 x 12 pixels
        in which the model is nearer to the scan. None where the crop is all air.
    """
    truth = np.moveaxis(held.truth.array, held.axis, 2)
    inner = slice(END_SLICES, -END_SLICES)
    tissue = np.moveaxis(
        np.abs(intensity_map(held.truth.array, held.truth.modality).forward(held.truth.array)) > TISSUE, held.axis, 2
    )
    if not tissue[..., inner].any():
        return None
    errors = []
    for restore in (model, interpolation):
        answer = np.moveaxis(restore(held.coarse, held.truth.grid), held.axis, 2)
        errors.append((np.square(answer - truth) * tissue)[..., inner])
    with_model, without = (float(e.sum(dtype=np.float64)) for e in errors)
    blocks = [_blocks(e) for e in errors]
    counted = blocks[1] > 0
    won = float((blocks[0] < blocks[1])[counted].mean()) if counted.any() else 0.5
    tiny = 1e-12 * float(np.square(truth).sum(dtype=np.float64)) + 1e-30
    return {"gain_db": float(10 * np.log10((without + tiny) / (with_model + tiny))), "blocks_won": won}


def _blocks(error: NDArray[np.float32]) -> NDArray[np.float64]:
    rows, columns = (size // BLOCK * BLOCK for size in error.shape[:2])
    whole = error[:rows, :columns].astype(np.float64)
    return np.asarray(whole.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK, -1).sum((1, 3, 4)))
