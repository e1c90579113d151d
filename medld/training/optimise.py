"""The optimiser and its schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from medld.config import TrainConfig
from medld.training.muon import Muon, is_hidden_kernel


def make_optimiser(modules: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over the weights that are trained, with decay on matrices and kernels alone; Muon where the config has it.

    Every group carries the highest rate of its schedule as `initial_lr`.

    Biases are left alone: they carry offsets such as the level of an image, and pulling those to zero shifts what a
    network answers rather than smoothing it. Source: He et al., Bag of Tricks, CVPR 2019, section 3.1.
    """
    trained = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    kernels = [p for p in trained if is_hidden_kernel(p)] if config.muon_rate else []
    rest = [p for p in trained if not (config.muon_rate and is_hidden_kernel(p))]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if kernels:
        groups.append({"params": kernels, "weight_decay": config.weight_decay, "lr": config.muon_rate, "kernels": True})
    kind = Muon if kernels else torch.optim.AdamW
    optimiser = kind(groups, config.learning_rate, config.betas, fused=device.type == "cuda")
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return optimiser


def schedule(step: int, config: TrainConfig) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine down to `final_share`."""
    if step < config.warm_up:
        return (step + 1) / config.warm_up
    progress = (step - config.warm_up) / max(1, config.steps - config.warm_up)
    return config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * progress))
