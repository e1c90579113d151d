"""The schedule, and what weight decay pulls at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from medld.config import TrainConfig
from medld.training.optimise import make_optimiser, schedule

Config = Callable[..., TrainConfig]
CPU = torch.device("cpu")


def test_the_schedule_rises_straight_and_falls_along_a_cosine(train_config: Config) -> None:
    config = train_config("one-step", steps=1000, warm_up=100, final_share=0.02)
    shares = np.array([schedule(step, config) for step in range(1001)])
    assert shares[:100] == pytest.approx(np.arange(1, 101) / 100)
    assert shares.max() == shares[100] == 1
    assert (np.diff(shares[100:]) < 0).all()
    assert shares[550] == pytest.approx((1 + 0.02) / 2)
    assert shares[-1] == pytest.approx(0.02)


def test_a_schedule_may_do_without_warm_up(train_config: Config) -> None:
    config = train_config("one-step", steps=10, warm_up=0)
    assert schedule(0, config) == 1


def test_weight_decay_shrinks_kernels_and_leaves_biases(train_config: Config) -> None:
    config = train_config("one-step", weight_decay=0.5, learning_rate=0.1)
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    before = {name: value.clone() for name, value in net.named_parameters()}
    optimiser = make_optimiser(net, config, CPU)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)  # so that decay alone moves anything
    optimiser.step()
    for name, value in net.named_parameters():
        shrinks = name in ("0.weight", "1.weight")
        assert torch.allclose(value, before[name] * (1 - 0.1 * 0.5 if shrinks else 1), rtol=1e-6), name
