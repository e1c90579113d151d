"""The optimiser and its schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from medld.config import TrainConfig


def make_optimiser(modules: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over the weights that are trained, with decay on matrices and kernels alone.

    Biases are left alone: they carry offsets such as the level of an image, and pulling those to zero shifts what a
    network answers rather than smoothing it. Source: He et al., Bag of Tricks, CVPR 2019, section 3.1.
    """
    trained = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, config.learning_rate, config.betas, fused=device.type == "cuda")


def schedule(step: int, config: TrainConfig) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine down to `final_share`."""
    if step < config.warm_up:
        return (step + 1) / config.warm_up
    progress = (step - config.warm_up) / max(1, config.steps - config.warm_up)
    return config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * progress))
