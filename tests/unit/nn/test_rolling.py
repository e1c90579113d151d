"""Rolling: rows that come a few at a time give what the whole would, and few of them are held."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medld.nn.rolling import can_roll, roll
from medld.nn.unet import MULTIPLES, UNet

SINGLE = 1e-5
"""Convolutions of other sizes may sum in another order."""

FEATURES = 5
Wake = Callable[[nn.Module], nn.Module]


def net(channels: int = 8, *, attention: bool = False) -> UNet:
    """A U-Net of the released depth, from two channels to three."""
    torch.manual_seed(0)
    return UNet(2, 3, FEATURES, (channels, channels, channels), (2, 2, 3), 8, 0.5, attention=attention)


def random(*shape: int) -> Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(70, 9, 5), (64, 8, 4), (13, 6, 3), (5, 4, 2), (2, 3, 1), (1, 1, 1)])
@pytest.mark.parametrize("rows", [1, 12, 1000])
def test_rolled_rows_are_those_of_the_whole(wake: Wake, shape: tuple[int, int, int], rows: int) -> None:
    unet, x, features = wake(net()), random(1, 2, *shape), random(1, FEATURES)
    assert isinstance(unet, UNet)
    whole = unet(x, features)
    parts = list(roll(unet, x, features, rows * shape[1] * shape[2]))
    rolled = torch.cat(parts, dim=2)
    assert rolled.shape == whole.shape
    assert torch.allclose(rolled, whole, atol=SINGLE * float(whole.abs().max()), rtol=0)


def test_rows_come_before_the_last_ones_are_read(wake: Wake) -> None:
    unet, features = wake(net()), random(1, FEATURES)
    assert isinstance(unet, UNet)
    x = random(1, 2, 160, 4, 2)
    whole = unet(x, features)
    x[:, :, 80:] = torch.nan  # beyond the reach of the first rows
    first = next(roll(unet, x, features, MULTIPLES[0] * 8))
    assert torch.allclose(first, whole[:, :, : first.shape[2]], atol=SINGLE * float(whole.abs().max()), rtol=0)


@torch.no_grad()
def held(unet: UNet, rows: int) -> int:
    """Most bytes of feature maps that are alive whenever forty rows more have come."""
    x, features, most = random(1, 2, rows, 8, 4), random(1, FEATURES), 0
    before = {id(o) for o in gc.get_objects() if issubclass(type(o), Tensor)}
    for index, part in enumerate(roll(unet, x, features, MULTIPLES[0] * 32)):
        del part
        if index % 10 != 5:
            continue
        new = [o for o in gc.get_objects() if issubclass(type(o), Tensor) and id(o) not in before and o is not x]
        storages = {o.untyped_storage().data_ptr(): o.untyped_storage().nbytes() for o in new}
        del new
        storages.pop(x.untyped_storage().data_ptr(), None)
        most = max(most, sum(storages.values()))
    return most


@pytest.mark.filterwarnings("ignore")  # deprecated objects of torch complain when they are looked at
def test_what_is_held_does_not_grow_with_the_rows(wake: Wake) -> None:
    unet = wake(net())
    assert isinstance(unet, UNet)
    some, many = held(unet, 120), held(unet, 200)
    assert many == pytest.approx(some, rel=0.1)
    assert some < 120 * 32 * 8 * 4 * 2  # of the two maps that a U-Net holds at the very least


def test_attention_cannot_be_rolled() -> None:
    assert can_roll(net())
    assert not can_roll(net(attention=True))
    assert not can_roll(nn.Identity())
