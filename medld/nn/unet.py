"""A three-level U-Net on the acquired grid: in-plane detail is kept at full resolution on the first level."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medld.nn.attention import AttentionBlock
from medld.nn.blocks import Blocks, Conv, Embedding, Up, spent

STRIDES = ((2, 2, 1), (2, 2, 2))
MULTIPLES = (4, 4, 2)
WINDOW = (16, 16, 8)
"""Tokens of an attention window, on the lowest level: a training crop is one window."""

WINDOW_EDGE = WINDOW[0] * MULTIPLES[0]
"""In-plane voxels of such a window; tiles that start at multiples of it see whole windows."""


def receptive_radius(blocks: tuple[int, int, int], *, attention: bool = False) -> tuple[int, int, int]:
    """How far, in voxels of each axis, an input voxel can reach; halos of tiles must cover it.

    A block is two convolutions; those of the outer levels stand on the way down and up. Whatever the place of the
    voxel within a stride, the last term allows for it. Attention carries from one end of a window to the other.
    """
    radius = []
    for axis in range(3):
        middle, deep = STRIDES[0][axis], STRIDES[0][axis] * STRIDES[1][axis]
        across = (WINDOW[axis] - 1) * deep if attention else 0
        radius.append(2 + 4 * blocks[0] + 4 * blocks[1] * middle + 2 * blocks[2] * deep + deep - 1 + across)
    return radius[0], radius[1], radius[2]


class UNet(nn.Module):
    """Blocks down and up with skips added; the output starts at zero, so an untrained net changes nothing.

    `output_scale` is about the size of the wanted output, see `blocks.IMAGE_SCALE`; `attention` lets the lowest level
    look around in windows; `dropout` and `normalised` are the blocks'.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        features: int,
        channels: tuple[int, int, int] = (64, 96, 144),
        blocks: tuple[int, int, int] = (2, 2, 3),
        embedding: int = 128,
        output_scale: float = 1.0,
        dropout: float = 0.0,
        *,
        attention: bool = False,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.output_scale = output_scale

        def made(width: int, count: int) -> Blocks:
            return Blocks(width, count, embedding, dropout, normalised=normalised)

        self.embed = Embedding(features, embedding)
        self.stem = Conv(inputs, channels[0])
        self.head = Conv(channels[0], outputs, zero=True)
        self.down = nn.ModuleList(made(c, n) for c, n in zip(channels, blocks, strict=True))
        self.up = nn.ModuleList(made(c, n) for c, n in zip(channels[:2], blocks[:2], strict=True))
        self.shrink = nn.ModuleList(
            Conv(channels[i], channels[i + 1], stride, stride=stride) for i, stride in enumerate(STRIDES)
        )
        self.grow = nn.ModuleList(Up(channels[i + 1], channels[i], stride) for i, stride in enumerate(STRIDES))
        self.attention = AttentionBlock(channels[2], WINDOW) if attention else None

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """(B, inputs, I, J, K) and (B, features) to (B, outputs, I, J, K), in the precision of `x`."""
        shape = x.shape[-3:]
        embedding = self.embed(features.to(x.dtype))
        x = self.stem(pad_to_multiples(x, MULTIPLES)).contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for level in range(3):
            if level:
                skips.append(x)
                x = self.shrink[level - 1](x)
            x = self.down[level](x, embedding)
        if self.attention is not None:
            x = self.attention(x)
        for level in (1, 0):
            x = self.grow[level](x)
            x = self.up[level](torch.add(skips.pop(), x, out=spent(x)), embedding)
        return self.output_scale * self.head(x)[..., : shape[0], : shape[1], : shape[2]]  # type: ignore[no-any-return]


def pad_to_multiples(x: Tensor, multiples: tuple[int, int, int]) -> Tensor:
    """`x` grown at its far ends by replication until every size divides, and a last axis that is halved holds two.

    Where one slice is left of a strided convolution in bfloat16, oneDNN's kernels for AMX put what lay in memory into
    it (seen with torch 2.13 on a Xeon; in float32, and without AMX, it is right).
    """
    last = x.shape[-1] + (-x.shape[-1] % multiples[2])
    sizes = [size + (-size % multiple) for size, multiple in zip(x.shape[-3:-1], multiples[:2], strict=True)]
    sizes.append(max(last, 2 * multiples[2]) if multiples[2] > 1 else last)
    missing = [size - own for size, own in zip(sizes, x.shape[-3:], strict=True)]
    if not any(missing):
        return x
    return functional.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")
