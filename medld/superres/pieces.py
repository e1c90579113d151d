"""Pieces: a network's answer on a whole scan, in as much memory as it may take.

    whole     up to `room` voxels; on a CPU, of what can be rolled, up to `WHOLE_VOXELS`
    rolled    a U-Net of convolutions: a few rows at a time, all columns or as many as fit; nothing is computed twice
    tiles     anything else that looks only a halo far

All give the same numbers, but for the order in which convolutions of other sizes sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor, nn

from medld.nn.networks import Networks
from medld.nn.rolling import can_roll, roll
from medld.patches import ALIGN, iterate_tiled, tiles

SMALLEST_TILE = 56
"""In-plane edge; below it nearly all that is computed is halo."""

WHOLE_VOXELS = 1_000_000
"""On a CPU, of a U-Net: feature maps of more are new memory for every layer, which takes longer to get than rolling."""

ROLLED_VOXELS = 100_000
"""Of the rows that a rolled network takes at a time; four rows at least."""

ROLLED_ROWS = 34
"""A rolled network holds as much as it would of so many rows in one piece; seen at 512 columns of 128 slices."""

ROLLED_PORTIONS = 4.0
"""And of so many times `ROLLED_VOXELS` besides; seen at 384 columns of 96 slices, of which four rows are more."""

Piece = tuple[slice, slice, Tensor]


@dataclass(frozen=True)
class Pieces:
    """How a model's networks are run: `room` is how many voxels they may take in one piece."""

    networks: Networks
    room: int
    dtype: torch.dtype

    def answer(self, network: nn.Module, x: Tensor, features: Tensor) -> Iterator[Piece]:
        """Rows, columns and what stands there of network(x, features), float32 (1, C, i, j, K), for x (1, B, I, J, K).

        Together they cover the plane once.
        """
        rows, columns, slices = x.shape[2:]
        whole = min(self.room, WHOLE_VOXELS) if x.device.type == "cpu" else self.room
        if rows * columns * slices <= whole or not can_roll(network):
            size = self.tile(x.shape, self.networks.halo)
            yield from iterate_tiled(
                lambda part: network(part.to(self.dtype), features), x, size=size, halo=self.networks.halo
            )
            return
        halo, width = self.networks.halo, rolled_width(self.room, columns, slices, self.networks)
        for _, j in tiles(1, columns, width):
            left, start = max(j.start - halo, 0), 0
            part = x[:, :, :, left : j.stop + halo].to(self.dtype)
            for answer in roll(network, part, features, ROLLED_VOXELS):
                i = slice(start, start + answer.shape[2])
                yield i, j, answer[:, :, :, j.start - left : j.stop - left].float()
                start = i.stop

    def tile(self, shape: torch.Size, halo: int) -> int:
        """In-plane edge of tiles of x (1, C, I, J, K) whose halo fits too."""
        if prod(shape[2:]) <= self.room:
            return max(shape[2:4])
        side = int((self.room / shape[4]) ** 0.5) - 2 * halo
        align = self.networks.align
        return max(-(-SMALLEST_TILE // align) * align, side // align * align)


def rolled_width(room: int, columns: int, slices: int, networks: Networks) -> int:
    """How many columns a rolled network takes at a time, halo left out."""
    fit = room // (ROLLED_ROWS * slices)
    if columns <= fit:
        return columns
    widest = max(SMALLEST_TILE, (fit - 2 * networks.halo) // ALIGN * ALIGN)
    alike = ceil(columns / ceil(columns / widest))
    return ceil(alike / ALIGN) * ALIGN


def held_voxels(room: int, shape: tuple[int, int, int], networks: Networks) -> int:
    """Voxels (I, J, K) that count for the memory of the U-Nets on a CPU: of one piece, or as much as they hold when
    rolled."""
    rows, columns, slices = shape
    parts = [part for part in (networks.one_step, networks.denoiser and networks.denoiser.backbone) if part is not None]
    if not all(can_roll(part) for part in parts):
        return min(room, rows * columns * slices)
    if rows * columns * slices <= min(room, WHOLE_VOXELS):
        return rows * columns * slices
    row = min(columns, rolled_width(room, columns, slices, networks) + 2 * networks.halo) * slices
    return min(rows * row, ROLLED_ROWS * row + int(ROLLED_PORTIONS * ROLLED_VOXELS))
