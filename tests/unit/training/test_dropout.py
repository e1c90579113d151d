"""Dropout in a run: what learns drops, what is frozen, averaged or validated does not, and a resume is exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medld.build import build_networks
from medld.config import DataConfig, TrainConfig
from medld.dataset import Fine
from medld.nn.blocks import Block
from medld.training.apply import Applier, Sample
from medld.training.draw import Drawer
from medld.training.loop import Run
from medld.training.plan import make_plan
from medld.training.stages import STAGES, Stage
from medld.training.state import STATE

Config = Callable[..., TrainConfig]
NETWORK: dict[str, Any] = {"channels": [8, 8, 8], "blocks": [1, 1, 1], "embedding": 8, "dropout": 0.3}
SMALL: dict[str, Any] = {"width": 8, "encoder_blocks": 1, "decoder_blocks": 1, "embedding": 8, "dropout": 0.3}
MODELS: dict[str, dict[str, Any]] = {
    "one-step": {"one_step": NETWORK},
    "autoencoder": {"one_step": None, "autoencoder": SMALL},
    "joint": {"one_step": NETWORK, "autoencoder": SMALL, "denoiser": NETWORK, "start": "mean"},
}
PART = {"one-step": "one_step", "autoencoder": "autoencoder", "joint": "denoiser"}


@pytest.fixture
def sample(volumes: list[Fine], data_config: Callable[..., DataConfig]) -> Sample:
    """Two crops at ratio 4."""
    config = data_config()
    plan = make_plan(Drawer(volumes, config, 2).draw(0, 0, 1.0, ratio=4.0), config.in_plane)
    return Applier(volumes, torch.device("cpu"), "inverse", latents=True).apply(plan)


def awake(config: TrainConfig) -> Stage:
    """The stage on networks whose parts all act."""
    networks = build_networks(config.model)
    generator = torch.Generator().manual_seed(1)
    for part in (networks.one_step, networks.autoencoder, networks.denoiser):
        for parameter in part.parameters() if part is not None else ():
            parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return STAGES[config.stage](networks, config)


def dropping(module: nn.Module | None) -> set[bool]:
    """Whether the blocks of a module are in training mode."""
    assert module is not None
    return {block.training for block in module.modules() if isinstance(block, Block)}


def loss_of(stage: Stage, sample: Sample, mask: int) -> torch.Tensor:
    """The loss with the noise of a seed and the masks of another."""
    torch.manual_seed(mask)
    return stage.loss(sample, torch.Generator().manual_seed(0), figures=False)[0]


@pytest.mark.parametrize("name", list(STAGES))
def test_what_learns_drops(name: str, train_config: Config, sample: Sample) -> None:
    stage = awake(train_config(name, model=MODELS[name]))
    assert dropping(stage.modules[PART[name]]) == {True}
    assert torch.equal(loss_of(stage, sample, 1), loss_of(stage, sample, 1))
    assert not torch.equal(loss_of(stage, sample, 1), loss_of(stage, sample, 2))


def test_what_is_frozen_does_not(train_config: Config, sample: Sample) -> None:
    """Only the denoiser draws: with its dropout off, a loss through encoder, one-step network and decoder is fixed."""
    stage = awake(train_config("joint", model=MODELS["joint"], train_decoder=False))
    networks = stage.networks
    assert networks.autoencoder is not None
    assert dropping(networks.one_step) == dropping(networks.autoencoder) == {False}
    stage.modules["denoiser"].eval()
    assert torch.equal(loss_of(stage, sample, 1), loss_of(stage, sample, 2))


def test_a_decoder_that_learns_beside_a_frozen_encoder_drops_alone(train_config: Config) -> None:
    for name, settings in (("joint", {}), ("autoencoder", {"train_encoder": False})):
        autoencoder = awake(train_config(name, model=MODELS[name], **settings)).networks.autoencoder
        assert autoencoder is not None
        assert (dropping(autoencoder.encoder), dropping(autoencoder.decoder)) == ({False}, {True})


@pytest.mark.parametrize("name", list(STAGES))
def test_nothing_drops_out_of_the_average(name: str, train_config: Config) -> None:
    run = Run(train_config(name, model=MODELS[name]), lambda _: None)
    assert dropping(run.learner.average.model) == {False}
    assert dropping(getattr(run.learner.average.networks(run.config.model), PART[name])) == {False}
    assert True in dropping(run.stage.modules)


def trained(config: TrainConfig, *stops: int | None) -> Path:
    """A run cut after some steps; its folder."""
    config.run_dir.mkdir(exist_ok=True)
    for index, stop in enumerate(stops):
        torch.manual_seed(99 + index)  # another process has another history
        Run(config, lambda _: None).go(resume=index > 0, until=stop)
    return config.run_dir


@pytest.mark.parametrize("name", ["one-step", "joint"])
def test_a_resume_is_exact(name: str, train_config: Config) -> None:
    settings: dict[str, Any] = {"model": MODELS[name], "trackers": [], "accumulate": 2, "steps": 2}
    whole = trained(train_config(name, "whole", **settings), None)
    cut = trained(train_config(name, "cut", **settings), 1, None)
    assert (whole / STATE).read_bytes() == (cut / STATE).read_bytes()


def test_it_changes_what_is_learned(train_config: Config) -> None:
    states = []
    for share in (0.0, 0.3):
        model = {"one_step": {**NETWORK, "dropout": share}}
        config = train_config("one-step", f"run{share}", model=model, steps=2)
        states.append((trained(config, None) / STATE).read_bytes())
    assert states[0] != states[1]
