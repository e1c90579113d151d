"""One process may restore first and train afterwards: what is kept between calls serves both."""

from __future__ import annotations

import torch

from medld.acquisition import Acquisition, AxisAcquisition

ROWS, COLUMNS = 37, 41
"""Sizes that no other test asks for, so that this one is the first to fill what is kept."""


def test_training_goes_back_through_a_gate_that_a_restoration_used_first() -> None:
    def project(fine: torch.Tensor) -> torch.Tensor:
        acquisition = Acquisition((None, None, AxisAcquisition(8, 4)))
        return acquisition.project(acquisition.pad(fine), torch.ones(1, 1, ROWS, COLUMNS, 4), noise=0.1)

    with torch.inference_mode():
        project(torch.rand(1, 1, ROWS, COLUMNS, 8))
    fine = torch.rand(1, 1, ROWS, COLUMNS, 8, requires_grad=True)
    project(fine).square().sum().backward()
    assert fine.grad is not None
