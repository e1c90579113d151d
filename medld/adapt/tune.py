"""The steps of an adaptation, and the networks between its start and its end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medld.adapt.lessons import Lessons
from medld.adapt.settings import AdaptConfig
from medld.config import TrainConfig
from medld.nn.networks import Networks
from medld.training.apply import Applier
from medld.training.distributed import ALONE
from medld.training.feeder import Feeder
from medld.training.learner import Learner
from medld.training.memory import explained
from medld.training.portion import Planner, split
from medld.training.stages import OneStep


def tune(
    networks: Networks,
    lessons: Lessons,
    config: AdaptConfig,
    device: torch.device,
    precision: str,
    progress: Callable[[float], None],
) -> nn.Module:
    """The one-step network after all steps, averaged over the last tenth of them; the given one is not touched.

    Raises:
        MedldError: E_NUMERIC, the loss or the gradient stopped being finite.
        ResourceError: The device's memory ran out.
    """
    module: Any = copy.deepcopy(networks.one_step)
    module.requires_grad_(True).to(device, memory_format=torch.channels_last_3d)
    own = replace(networks, one_step=module)
    training = _training(config, precision)
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with explained(device), flags:
        stage = OneStep(own, training)
        learner = Learner(stage, training, device, ALONE)
        applier = Applier(lessons.volumes, device, networks.profile_map, latents=False)
        planner = Planner(lessons, lessons.in_plane, config.seed, config.steps, split(config.batch, 1))
        with closing(Feeder(planner, applier, 0, config.steps, device)) as feeder:
            samples = iter(feeder)
            for step in range(config.steps):
                learner.learn(samples, step)
                progress((step + 1) / config.steps)
        learner.check_finite(config.steps)
    average: Any = learner.average.model.module
    tuned: nn.Module = average["one_step"]
    return tuned.cpu().eval().requires_grad_(False)


def _training(config: AdaptConfig, precision: str) -> TrainConfig:
    """The settings of the steps. Nothing is written, and the networks are those at hand, whatever `model` says."""
    return TrainConfig(
        stage="one-step",
        run_dir=Path(),
        steps=max(1, config.steps),
        batch=config.batch,
        learning_rate=config.learning_rate,
        warm_up=max(1, config.steps // 10),
        weight_decay=0.0,
        ema=1 - 1 / max(2, config.steps / 10),
        relative_loss=True,
        precision=precision,  # one of the two that SuperResolver knows
        seed=config.seed,
    )


def blended(start: Networks, tuned: nn.Module, blend: float) -> Networks:
    """Networks whose one-step weights are start + blend (tuned - start)."""
    assert start.one_step is not None, "only networks with a one-step form are tuned"
    module, ends = copy.deepcopy(start.one_step), dict(tuned.named_parameters())
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.lerp_(ends[name].to(parameter), blend)
    return replace(start, one_step=module)
