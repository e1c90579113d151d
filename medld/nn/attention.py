"""Attention within windows: its cost grows with the volume as a convolution's does.

Windows are anchored at the volume's origin and cut off at its far ends, so nothing is padded and nothing masked, and a
tile that starts where a window does computes what the whole would. A shifted grid of windows begins with a cut one.

Source: Liu et al., "Swin Transformer" (2103.14030); the bias is a sum over the axes, so that a window of thousands of
tokens needs a table of dozens.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from medld.nn.blocks import EPSILON, Linear

Triple = tuple[int, int, int]

LEAST_OF_A_HEAD = 32
HEADS_MULTIPLE = 8
"""Fused kernels want heads of a multiple of so many channels."""


class WindowAttention(nn.Module):
    """Every token looks at those of its window, and is told how far away they are.

    Args:
        width: C, channels of a token.
        heads: A divisor of `width`.
        window: Tokens along each axis.
        shift: Tokens along each axis of the first, cut window; 0 for none.
        zero: Whether it begins by answering zero.
    """

    def __init__(self, width: int, heads: int, window: Triple, *, shift: Triple = (0, 0, 0), zero: bool) -> None:
        super().__init__()
        assert width % heads == 0, "heads share the channels"
        self.heads, self.window, self.shift = heads, window, shift
        self.inner = Linear(width, 3 * width)
        self.outer = Linear(width, width)
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(heads, 2 * size - 1)) for size in window)
        for layer in (self.inner, self.outer):
            nn.init.zeros_(layer.bias)
        if zero:
            nn.init.zeros_(self.outer.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, I, J, K, C) to the same."""
        questions = self.inner(tokens)
        answers = torch.empty_like(tokens)
        for region, size in regions(tokens.shape[1:4], self.window, self.shift):
            answers[region] = self._within(questions[region], size)
        return self.outer(answers)  # type: ignore[no-any-return]

    def _within(self, questions: Tensor, size: Triple) -> Tensor:
        """Attention in windows of one `size` that fill (B, I, J, K, 3 C); (B, I, J, K, C)."""
        batch, rows, columns, slices, width = questions.shape
        i, j, k = size
        grid = (batch, rows // i, i, columns // j, j, slices // k, k)
        parts = questions.reshape(*grid, 3, self.heads, width // 3 // self.heads)
        parts = parts.permute(7, 0, 1, 3, 5, 8, 2, 4, 6, 9).flatten(6, 8).flatten(1, 4)
        query, key, value = parts.unbind()
        bias = self._bias(size, questions.dtype)[None]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = mixed.reshape(batch, rows // i, columns // j, slices // k, self.heads, i, j, k, -1)
        return mixed.permute(0, 1, 5, 2, 6, 3, 7, 4, 8).reshape(batch, rows, columns, slices, -1)

    def _bias(self, size: Triple, dtype: torch.dtype) -> Tensor:
        """What a head adds to the likeness of two tokens, by their distance; (heads, i j k, i j k)."""
        total: Tensor | float = 0.0
        for axis, (length, table) in enumerate(zip(size, self.bias, strict=True)):
            place = torch.arange(length, device=table.device)
            apart = place[:, None] - place + table.shape[1] // 2
            shape = [self.heads] + [length if other == axis else 1 for other in (0, 1, 2)] * 2
            total = total + table.to(dtype)[:, apart].reshape(shape)
        assert isinstance(total, Tensor)
        return total.flatten(4, 6).flatten(1, 3)


class AttentionBlock(nn.Module):
    """x + attention(norm(x)) on a volume of features; starts as the identity."""

    def __init__(self, channels: int, window: Triple) -> None:
        super().__init__()
        self.attention = WindowAttention(channels, heads_of(channels), window, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, I, J, K) to the same."""
        tokens = x.permute(0, 2, 3, 4, 1)
        answers = self.attention(functional.layer_norm(tokens, tokens.shape[-1:], eps=EPSILON))
        return x + answers.permute(0, 4, 1, 2, 3)  # type: ignore[no-any-return]


def regions(shape: torch.Size, window: Triple, shift: Triple) -> Iterator[tuple[tuple[slice, ...], Triple]]:
    """Parts of a volume (I, J, K) that windows of one size fill: index into (B, I, J, K), size of the windows."""
    axes = [_stretches(*numbers) for numbers in zip(shape, window, shift, strict=True)]
    for (i, width_i), (j, width_j), (k, width_k) in product(*axes):
        yield (slice(None), i, j, k), (width_i, width_j, width_k)


def heads_of(channels: int) -> int:
    """As many heads as may be, each of a good size for the kernels; one for narrow networks."""
    possible = range(1, channels // LEAST_OF_A_HEAD + 1)
    return max((n for n in possible if channels % n == 0 and channels // n % HEADS_MULTIPLE == 0), default=1)


def _stretches(size: int, window: int, shift: int) -> list[tuple[slice, int]]:
    """Along one axis: the first cut window, the whole ones, the last cut one; those that are there, and their width."""
    first = min(shift, size)
    last = first + (size - first) // window * window
    ends = ((0, first, first), (first, last, window), (last, size, size - last))
    return [(slice(start, stop), width) for start, stop, width in ends if stop > start]
