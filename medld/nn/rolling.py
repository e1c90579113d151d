"""Rolling: a U-Net that takes its input a few rows at a time and answers as it would the whole.

Rows are planes across the first voxel axis. Every layer passes rows on as soon as it can and holds no others: a
convolution the last two, a skip those that are on their way through the levels below it. So feature maps of some tens
of rows are held however many there are, and nothing is computed twice, as the halo of a tile is.

A stream of rows is an iterator of tensors (B, C, i, J, K), one or more rows each, in order. A generator that waits
keeps its variables alive, so those below let go of their rows before they yield.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medld.nn.blocks import Block, Blocks, Conv
from medld.nn.unet import MULTIPLES, UNet, pad_to_multiples

Rows = Iterator[Tensor]


def can_roll(network: nn.Module) -> TypeGuard[UNet]:
    """Whether `roll` can run a network: a U-Net of convolutions; attention looks beyond the rows at hand."""
    return isinstance(network, UNet) and network.attention is None


def roll(unet: UNet, x: Tensor, features: Tensor, voxels: int) -> Rows:
    """`unet(x, features)` of x (B, inputs, I, J, K), about `voxels` of it at a time: rows (B, outputs, i, J, K).

    The same numbers as the whole, but for the order in which a convolution of another size may sum.
    """
    assert can_roll(unet), "attention looks beyond the rows at hand"
    wanted, embedding = x.shape[2:], unet.embed(features.to(x.dtype))
    padded = pad_to_multiples(x, MULTIPLES)
    step = max(voxels // (padded.shape[3] * padded.shape[4]) // MULTIPLES[0], 1) * MULTIPLES[0]
    rows: Rows = _convolved(iter(padded.split(step, dim=2)), unet.stem)
    rows = _level(unet, 0, rows, embedding)
    return _cut((unet.output_scale * part for part in _convolved(rows, unet.head)), wanted)


def _level(unet: UNet, level: int, rows: Rows, embedding: Tensor) -> Rows:
    """One level of the U-Net with all below it."""
    for block in cast(Blocks, unet.down[level]):
        rows = _through_block(cast(Block, block), rows, embedding)
    if level == len(unet.down) - 1:
        return rows
    skip: deque[Tensor] = deque()
    rows = _noted(rows, skip)
    below = _level(unet, level + 1, _shrunk(rows, cast(Conv, unet.shrink[level])), embedding)
    rows = _added(skip, map(unet.grow[level], below))
    for block in cast(Blocks, unet.up[level]):
        rows = _through_block(cast(Block, block), rows, embedding)
    return rows


def _through_block(block: Block, rows: Rows, embedding: Tensor) -> Rows:
    steering = block.steering(embedding)
    skip: deque[Tensor] = deque()
    inner = _convolved(map(partial(block.before, steering), _noted(rows, skip)), block.conv_a)
    return _added(skip, _convolved(map(partial(block.between, steering), inner), block.conv_b))


def _convolved(rows: Rows, conv: Conv) -> Rows:
    """A 3x3x3 convolution: a row needs its neighbours, and zeros stand beyond both ends."""
    run: Callable[[Tensor], Tensor] = partial(conv, padding=(0, 1, 1))
    known: Tensor | None = None
    for part in rows:
        seen = [functional.pad(part, (0, 0, 0, 0, 1, 0)) if known is None else torch.cat([known, part], dim=2)]
        last = seen[0][:, :, -2:]
        known = last.clone() if known is None else known.copy_(last)
        del part, last
        if seen[0].shape[2] > 2:
            yield run(seen.pop())
    assert known is not None, "a volume has rows"
    yield run(functional.pad(known, (0, 0, 0, 0, 0, 1)))


def _shrunk(rows: Rows, conv: Conv) -> Rows:
    """A convolution whose kernel is its stride, of as many rows as make whole strides."""
    stride, left = conv.stride[0], None
    for part in rows:
        seen = [part if left is None else torch.cat([left, part], dim=2)]
        del part
        whole = seen[0].shape[2] // stride * stride
        left = seen[0][:, :, whole:].clone() if whole < seen[0].shape[2] else None
        if whole:
            yield conv(seen.pop()[:, :, :whole])
    assert left is None, "rows were padded to whole strides"


def _noted(rows: Rows, skip: deque[Tensor]) -> Rows:
    """The same rows, each noted in `skip` for whoever needs them later."""
    for part in rows:
        skip.append(part)
        del part
        yield skip[-1]


def _added(skip: deque[Tensor], rows: Rows) -> Rows:
    """The rows that were noted plus `rows`, which come later and in other portions."""
    for part in rows:
        terms, missing = [part], part.shape[2]
        del part
        known = []
        while missing > 0:
            known.append(skip.popleft())
            missing -= known[-1].shape[2]
        if missing < 0:
            known[-1], left = known[-1].tensor_split([missing], dim=2)
            skip.appendleft(left.clone())
            del left
        terms.append(torch.cat(known, dim=2))
        known.clear()
        yield terms.pop() + terms.pop()


def _cut(rows: Rows, shape: torch.Size) -> Rows:
    """The rows, columns and slices of `shape` (I, J, K), without what was padded."""
    left = shape[0]
    for part in rows:
        kept = part[:, :, :left, : shape[1], : shape[2]]
        if kept.shape[2]:
            yield kept
        left -= kept.shape[2]
