"""Blocks are normalised within a voxel, begin as the identity and follow their input's precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from medld.nn.blocks import EPSILON, Block, Conv, Linear, Up, normalise

SINGLE = 1e-5


def random(*shape: int) -> torch.Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_every_voxel_has_mean_zero_and_deviation_one() -> None:
    y = normalise(3 + 5 * random(2, 16, 4, 5, 6))
    assert torch.allclose(y.mean(1), torch.zeros(2, 4, 5, 6), atol=SINGLE)
    assert torch.allclose(y.std(1, correction=0), torch.ones(2, 4, 5, 6), atol=10 * EPSILON)


def test_a_voxel_is_normalised_by_itself_alone() -> None:
    x = random(2, 8, 4, 5, 6)
    whole = normalise(x)
    assert torch.allclose(normalise(x[:1, :, 1:3, 2:, 4:]), whole[:1, :, 1:3, 2:, 4:], atol=SINGLE)
    x[:, :, 0] *= 1e4
    assert torch.equal(normalise(x)[:, :, 1:], whole[:, :, 1:])


def test_quiet_background_is_not_scaled_up_to_tissue() -> None:
    quiet = 1e-4 * random(1, 16, 3, 3, 3)
    assert normalise(quiet).abs().max() < 0.1
    assert normalise(torch.zeros(1, 8, 2, 2, 2)).abs().max() == 0


def test_a_block_begins_as_the_identity() -> None:
    x = random(2, 8, 5, 4, 3)
    assert torch.equal(Block(8, 6)(x, random(2, 6)), x)


def test_the_embedding_steers_a_block(wake: Callable[[nn.Module], nn.Module]) -> None:
    block, x = wake(Block(8, 6)), random(2, 8, 5, 4, 3)
    assert not torch.allclose(block(x, random(2, 6)), block(x, -random(2, 6)), atol=0.01)


@pytest.mark.parametrize("stride", [(2, 2, 1), (2, 2, 2)])
def test_up_undoes_a_convolution_whose_kernel_is_its_stride(stride: tuple[int, int, int]) -> None:
    cells = stride[0] * stride[1] * stride[2]
    down, up = Conv(1, cells, stride, stride=stride), Up(cells, 1, stride)
    with torch.no_grad():
        down.weight.copy_(torch.eye(cells).reshape(cells, 1, *stride))  # each channel takes one voxel of the cell
        up.conv.weight.copy_(torch.eye(cells).reshape(cells, cells, 1, 1, 1))
    x = random(2, 1, 8, 4, 6)
    assert torch.equal(up(down(x)), x)


def test_weights_follow_the_precision_of_the_input() -> None:
    assert Conv(2, 3)(random(1, 2, 4, 4, 4).bfloat16()).dtype == torch.bfloat16
    assert Linear(2, 3)(random(1, 2).bfloat16()).dtype == torch.bfloat16
    assert Conv(2, 3)(random(1, 2, 4, 4, 4)).dtype == torch.float32
