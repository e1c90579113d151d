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
    inner = _convolved(_noted(rows, skip), block.conv_a, partial(block.before, steering))
    return _added(skip, _convolved(inner, block.conv_b, partial(block.between, steering)))


def _convolved(rows: Rows, conv: Conv, prepare: Callable[..., Tensor] | None = None) -> Rows:
    """A 3x3x3 convolution of the rows, or of what `prepare` makes of them: a row needs its neighbours, and zeros stand
    beyond both ends.

    `prepare(rows, out=...)` writes voxel by voxel, straight to where the convolution reads: the copy took a tenth.
    """
    run: Callable[[Tensor], Tensor] = partial(conv, padding=(0, 1, 1))
    known: Tensor | None = None
    for part in rows:
        before = 1 if known is None else 2
        seen = [_room_for(part, before)]
        seen[0][:, :, :before] = 0 if known is None else known
        new = seen[0][:, :, before:]
        prepare(part, out=new) if prepare else new.copy_(part)
        last = seen[0][:, :, -2:]
        known = last.clone() if known is None else known.copy_(last)
        del part, new, last
        if seen[0].shape[2] > 2:
            yield run(seen.pop())
    assert known is not None, "a volume has rows"
    yield run(functional.pad(known, (0, 0, 0, 0, 0, 1)))


def _room_for(part: Tensor, before: int) -> Tensor:
    """Uninitialised rows as those of `part`, and `before` more."""
    shape = list(part.shape)
    shape[2] += before
    return torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last_3d)


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
    """The rows that were noted plus `rows`, which come later, in other portions, and are spent."""
    for part in rows:
        done, terms = 0, [part]
        del part
        while done < terms[0].shape[2]:
            known = skip.popleft()
            count = min(known.shape[2], terms[0].shape[2] - done)
            terms[0][:, :, done : done + count].add_(known[:, :, :count])
            if count < known.shape[2]:
                skip.appendleft(known[:, :, count:].clone())
            done += count
            del known
        yield terms.pop()


def _cut(rows: Rows, shape: torch.Size) -> Rows:
    """The rows, columns and slices of `shape` (I, J, K), without what was padded."""
    left = shape[0]
    for part in rows:
        kept = part[:, :, :left, : shape[1], : shape[2]]
        if kept.shape[2]:
            yield kept
        left -= kept.shape[2]
