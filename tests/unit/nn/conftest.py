"""Tiny networks whose parts all act."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from medld.nn.conditions import Conditions


@pytest.fixture
def wake() -> Callable[[nn.Module], nn.Module]:
    """Adds noise to every weight: layers that start at zero begin to act."""

    def wake(module: nn.Module, scale: float = 0.2) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
        return module.eval().requires_grad_(False)

    return wake


@pytest.fixture
def conditions() -> Conditions:
    """Three unlike scans."""
    return Conditions(
        spacing_ratio=torch.tensor([4.0, 1.0, 6.5]),
        ratio=torch.tensor([4.0, 2.0, 7.9]),
        thickness=torch.tensor([1.0, 0.8, 1.7]),
        noise=torch.tensor([0.0, 0.01, 0.2]),
        soft=torch.tensor([0.0, 0.5, 1.0]),
        contrast=torch.tensor([0, 1, 4]),
    )
