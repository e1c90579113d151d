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
    """In-plane cores of at most `size` x `size` voxels (rounded down to the alignment) that cover the plane once."""
    step = max(ALIGN, size // ALIGN * ALIGN)
    for i in range(0, rows, step):
        for j in range(0, columns, step):
            yield slice(i, min(i + step, rows)), slice(j, min(j + step, columns))


def apply_tiled(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    size: int,
    halo: int,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """`function` of `x` (B, C, I, J, K), tile by tile; it must keep the voxel axes and see at most `halo` voxels far.

    The result is float32 (B, C', I, J, K).
    """
    rows, columns = x.shape[2], x.shape[3]
    if max(rows, columns) <= size:
        return function(x).float()
    halo = -(-halo // ALIGN) * ALIGN
    result: Tensor | None = None
    cores = list(tiles(rows, columns, size))
    for done, (i, j) in enumerate(cores):
        top, left = max(i.start - halo, 0), max(j.start - halo, 0)
        part = function(x[:, :, top : i.stop + halo, left : j.stop + halo])
        if result is None:
            result = torch.empty((*part.shape[:2], *x.shape[2:]), device=x.device)
        inner = part[:, :, i.start - top : i.stop - top, j.start - left : j.stop - left]
        result[:, :, i, j] = inner.float()
        if progress:
            progress((done + 1) / len(cores))
    assert result is not None, "a plane has at least one tile"
    return result
