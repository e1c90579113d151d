"""Options of the method through a whole run: resumed exactly, and with nothing in the model that serves training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from medld.checkpoint import load_model
from medld.config import TrainConfig
from medld.training.loop import Run
from medld.training.state import STATE

Config = Callable[..., TrainConfig]
LOOKS = {"adversarial_weight": 0.1, "adversarial_from": 0.5, "ssim_weight": 0.1, "latent_noise": 0.1}


def run(config: TrainConfig, *, resume: bool = False, until: int | None = None) -> Path:
    """Run in this process; the run's folder."""
    config.run_dir.mkdir(exist_ok=True)
    Run(config, lambda _: None).go(resume=resume, until=until)
    return config.run_dir


def test_a_judged_run_resumes_exactly_and_leaves_the_judge_behind(train_config: Config) -> None:
    settings: dict[str, Any] = {**LOOKS, "ema": 0.5}
    whole = run(train_config("autoencoder", "whole", **settings))
    cut = run(train_config("autoencoder", "cut", **settings), until=3)  # the judge has taken one step of two
    run(train_config("autoencoder", "cut", **settings), resume=True)
    assert (whole / STATE).read_bytes() == (cut / STATE).read_bytes()
    assert any("discriminator" in name for name in load_file(whole / STATE))
    assert {path.name for path in (whole / "model").iterdir()} == {"autoencoder.safetensors", "model.json"}
    assert load_model(whole / "model").networks.autoencoder is not None


@pytest.mark.parametrize("sampler", ["ddpm", "predictor-corrector"])
def test_a_trained_model_remembers_its_sampler(sampler: str, train_config: Config) -> None:
    config = train_config("joint")
    model = {**config.model.model_dump(), "sampler": sampler, "start": "noise", "kappa": 1.0}
    folder = run(train_config("joint", model=model, steps=1))
    networks = load_model(folder / "model").networks
    assert networks.denoiser is not None
    assert (networks.sampler, networks.start, networks.denoiser.flow.drift) == (sampler, "noise", False)
