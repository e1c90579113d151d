"""Tiles: a network applied in-plane piece by piece, with the result that the whole would give.

Networks here look only `halo` voxels far and normalise within a voxel, so a tile with a halo computes
the same numbers as the whole volume; nothing is blended. Tiles start at multiples of the networks'
own stride, all slices stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

ALIGN = 4
"""Tiles start where the networks' strided convolutions start on the whole volume."""


def tiles(rows: int, columns: int, size: int) -> Iterator[tuple[slice, slice]]:
    """In-plane cores of at most `size` x `size` voxels, a multiple of the alignment, that cover the plane once."""
    assert size >= ALIGN
    assert size % ALIGN == 0 or size >= max(rows, columns), "tiles must start on the networks' stride"
    for i in range(0, rows, size):
        for j in range(0, columns, size):
            yield slice(i, min(i + size, rows)), slice(j, min(j + size, columns))


def apply_tiled(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    size: int,
    halo: int,
    progress: Callable[[float], None] = lambda _: None,
) -> Tensor:
    """`function` of `x` (B, C, I, J, K), tile by tile, as float32 (B, C', I, J, K').

    It must keep the plane and see at most `halo` voxels far in it, a multiple of the alignment; `progress` gets
    the share that each tile adds.
    """
    result: Tensor | None = None
    for i, j, part in iterate_tiled(function, x, size=size, halo=halo):
        progress(part.shape[2] * part.shape[3] / (x.shape[2] * x.shape[3]))
        if part.shape[2:4] == x.shape[2:4]:
            return part
        if result is None:
            result = torch.empty((*part.shape[:2], *x.shape[2:4], part.shape[4]), device=x.device)
        result[:, :, i, j] = part
    assert result is not None, "a plane has at least one tile"
    return result


def iterate_tiled(
    function: Callable[[Tensor], Tensor], x: Tensor, *, size: int, halo: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """As `apply_tiled`: rows, columns and what stands there, float32 (B, C', i, j, K'), one tile after the other."""
    assert halo % ALIGN == 0, "tiles must start on the networks' stride"
    for i, j in tiles(x.shape[2], x.shape[3], size):
        top, left = max(i.start - halo, 0), max(j.start - halo, 0)
        part = function(x[:, :, top : i.stop + halo, left : j.stop + halo])
        yield i, j, part[:, :, i.start - top : i.stop - top, j.start - left : j.stop - left].float()
