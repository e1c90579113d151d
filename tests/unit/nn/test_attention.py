"""Windows are whole, anchored, blind to each other, and know distances alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from medld.nn.attention import AttentionBlock, WindowAttention, heads_of, regions

SINGLE = 1e-5
WINDOW = (4, 4, 2)
SHIFT = (2, 2, 1)
SHAPES = [(4, 4, 2), (8, 8, 4), (9, 7, 5), (3, 2, 1), (1, 1, 1), (5, 12, 3)]
Wake = Callable[[nn.Module], nn.Module]


def random(*shape: int) -> torch.Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def attention(shift: tuple[int, int, int] = (0, 0, 0), *, zero: bool = False) -> WindowAttention:
    """Two heads of four channels."""
    torch.manual_seed(0)
    return WindowAttention(8, 2, WINDOW, shift=shift, zero=zero)


def window_of(place: int, window: int, shift: int) -> int:
    """Which window of its axis a token is in."""
    return (place + window - shift) // window if shift else place // window


def windows_of(shape: tuple[int, ...], shift: tuple[int, int, int]) -> torch.Tensor:
    """The window of each token as one number, (I, J, K)."""
    axes = [torch.tensor([window_of(p, w, s) for p in range(n)]) for n, w, s in zip(shape, WINDOW, shift, strict=True)]
    i, j, k = torch.meshgrid(*axes, indexing="ij")
    return (i * 100 + j) * 100 + k


@pytest.mark.parametrize("shift", [(0, 0, 0), SHIFT])
@pytest.mark.parametrize("shape", SHAPES)
def test_regions_hold_every_token_once_in_whole_windows(
    shape: tuple[int, int, int], shift: tuple[int, int, int]
) -> None:
    counts = torch.zeros(1, *shape)
    for region, size in regions(torch.Size(shape), WINDOW, shift):
        counts[region] += 1
        held = windows_of(shape, shift)[region[1:]]
        assert all(n % s == 0 for n, s in zip(held.shape, size, strict=True))
        assert len(held.unique()) == held.numel() // (size[0] * size[1] * size[2])
    assert (counts == 1).all()


@pytest.mark.parametrize("shift", [(0, 0, 0), SHIFT])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_token_is_heard_in_its_window_and_nowhere_else(
    shape: tuple[int, int, int], shift: tuple[int, int, int]
) -> None:
    layer, tokens, windows = attention(shift), random(1, *shape, 8), windows_of(shape, shift)
    place = tuple(size // 2 for size in shape)
    touched = tokens.clone()
    touched[(0, *place)] += 10
    changed = (layer(touched) - layer(tokens)).abs().amax(-1)[0] > SINGLE
    assert torch.equal(changed, windows == windows[place])


def test_it_is_attention(wake: Wake) -> None:
    """Against the formula, in one window, written out token by token."""
    layer, shape = wake(attention()), (3, 4, 2)
    tokens = random(1, *shape, 8)
    flat = tokens.reshape(24, 8)
    places = torch.cartesian_prod(*(torch.arange(n) for n in shape))
    apart = places[:, None] - places[None] + torch.tensor(WINDOW) - 1
    query, key, value = layer.inner(flat).chunk(3, dim=1)
    answers = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = query[:, part] @ key[:, part].T / 4**0.5
        scores = scores + sum(table[head][apart[..., axis]] for axis, table in enumerate(layer.bias))
        answers.append(scores.softmax(1) @ value[:, part])
    expected = layer.outer(torch.cat(answers, 1)).reshape(1, *shape, 8)
    assert torch.allclose(layer(tokens), expected, atol=SINGLE * float(expected.abs().max()))


def test_what_is_alike_around_is_answered_alike(wake: Wake) -> None:
    """No position is known but relative ones: windows with equal content give equal answers."""
    layer, window = wake(attention()), random(1, *WINDOW, 8)
    answers = layer(window.repeat(1, 2, 3, 1, 1))
    assert torch.allclose(answers[:, 4:, 8:], answers[:, :4, :4], atol=SINGLE * float(answers.abs().max()))
    assert not torch.allclose(answers[:, 0], answers[:, 1], atol=0.01)


def test_distances_matter(wake: Wake) -> None:
    layer, tokens = wake(attention()), random(1, *WINDOW, 8)
    told = layer(tokens)
    swapped = layer(tokens.flip(1)).flip(1)
    assert not torch.allclose(told, swapped, atol=0.01)
    for table in layer.bias:
        table.zero_()
    assert torch.allclose(layer(tokens), layer(tokens.flip(1)).flip(1), atol=SINGLE * float(told.abs().max()))


def test_it_may_begin_silent() -> None:
    tokens = random(2, 5, 4, 3, 8)
    assert not attention(zero=True)(tokens).any()
    assert attention(zero=False)(tokens).any()


def test_a_block_begins_as_the_identity_and_looks_around_when_awake(wake: Wake) -> None:
    x = random(2, 8, 6, 5, 3)
    block = AttentionBlock(8, WINDOW)
    assert torch.equal(block(x), x)
    wake(block)
    touched = x.clone()
    touched[:, 0, 0, 0, 0] += 10  # of one channel: what all share is normalised away
    assert (block(touched) - block(x))[:, :, 3, 3, 1].abs().max() > 1e-4


@pytest.mark.parametrize("channels", [4, 8, 64, 96, 144, 160, 256])
def test_heads_share_the_channels_in_sizes_for_the_kernels(channels: int) -> None:
    heads = heads_of(channels)
    assert channels % heads == 0
    assert heads == 1 or (channels // heads >= 32 and channels // heads % 8 == 0)
    assert heads > 1 or channels < 64


def test_bfloat16_keeps_its_precision(wake: Wake) -> None:
    layer, tokens = wake(attention(SHIFT)), random(1, 5, 6, 3, 8)
    exact, rough = layer(tokens), layer(tokens.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert 0 < float((rough.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt()) < 0.03
