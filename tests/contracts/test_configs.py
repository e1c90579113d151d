"""Every config that ships loads, builds, and keeps to its budget of parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from medld.build import build_networks
from medld.checkpoint import PARTS
from medld.config import TrainConfig, read_config

ROOT = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(ROOT.rglob("*.yaml"))
MOST_OF_A_UNET = 7.5e6
MOST_OF_AN_AUTOENCODER = 1e6
"""Budgets of the design: together they keep every weight file under 15 MiB in 16 bits."""

STAGE_PARTS = {"one-step": ("one_step",), "autoencoder": ("autoencoder",), "joint": ("autoencoder", "denoiser")}


def parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(parameter.numel() for parameter in module.parameters())


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 3
    assert {read_config(path, TrainConfig).stage for path in CONFIGS} == set(STAGE_PARTS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_config_builds_within_its_budget(path: Path) -> None:
    config = read_config(path, TrainConfig)
    with torch.device("meta"):  # sizes alone, nothing is allocated
        networks = build_networks(config.model)
    assert all(getattr(networks, part) is not None for part in STAGE_PARTS[config.stage])
    for unet in (networks.one_step, networks.denoiser):
        assert unet is None or 1e6 < parameters(unet) <= MOST_OF_A_UNET
    if networks.autoencoder is not None:
        assert 1e5 < parameters(networks.autoencoder) <= MOST_OF_AN_AUTOENCODER


def test_run_folders_are_distinct() -> None:
    folders = [read_config(path, TrainConfig).run_dir for path in CONFIGS]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_warm_start_comes_from_a_config_with_the_same_network(path: Path) -> None:
    config = read_config(path, TrainConfig)
    others = {other.run_dir / "model": other for other in (read_config(p, TrainConfig) for p in CONFIGS)}
    for folder in config.warm_start:
        model = others[folder].model
        both = [(getattr(model, part), getattr(config.model, part)) for part in PARTS]
        shared = [(theirs, ours) for theirs, ours in both if theirs is not None and ours is not None]
        assert shared
        assert all(theirs == ours for theirs, ours in shared)
