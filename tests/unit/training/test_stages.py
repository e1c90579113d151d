"""What each stage trains, and that it can learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from medld.build import build_networks
from medld.config import DataConfig, TrainConfig
from medld.dataset import Fine
from medld.nn.conditions import Conditions
from medld.training.apply import Applier, Sample
from medld.training.draw import Drawer
from medld.training.objective import ease, image_loss
from medld.training.plan import make_plan
from medld.training.stages import STAGES, Stage

Config = Callable[..., TrainConfig]
STAGE_NAMES = list(STAGES)
FROZEN = {"train_decoder": False, "image_loss_at": "one", "latent_weight": 0.5}
CPU = torch.device("cpu")


@pytest.fixture
def applier(volumes: list[Fine]) -> Applier:
    """With samples for latents."""
    return Applier(volumes, CPU, "inverse", latents=True)


@pytest.fixture
def drawer(volumes: list[Fine], data_config: Callable[..., DataConfig]) -> Drawer:
    """Two crops a batch, as degraded as they come."""
    return Drawer(volumes, data_config(), 2)


@pytest.fixture
def sample(volumes: list[Fine], data_config: Callable[..., DataConfig], applier: Applier) -> Sample:
    """Two crops at ratio 4, without noise."""
    config = data_config(noise_share=0.0, degrade="gaussian")
    return applier.apply(make_plan(Drawer(volumes, config, 2).draw(0, 0, 1.0, ratio=4.0), config.in_plane))


def stage_of(config: TrainConfig) -> Stage:
    """The stage on fresh networks."""
    torch.manual_seed(0)
    return STAGES[config.stage](build_networks(config.model), config)


def others_at(ratio: float, drawer: Drawer, applier: Applier) -> list[Sample]:
    """A dozen batches at a ratio, other draws than those of any table."""
    return [applier.apply(make_plan(drawer.draw(1, step, 1.0, ratio=ratio), 16)) for step in range(12)]


def loss_of(stage: Stage, sample: Sample, seed: int = 0) -> torch.Tensor:
    """The loss with the noise of a seed."""
    return stage.loss(sample, torch.Generator().manual_seed(seed), figures=False)[0]


def wake(module: nn.Module) -> None:
    """Noise on every weight: zero heads hide what comes before them."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in STAGE_NAMES), ("joint", FROZEN)])
def test_two_crops_can_be_overfitted(
    name: str, settings: dict[str, Any], train_config: Config, sample: Sample, drawer: Drawer, applier: Applier
) -> None:
    stage = stage_of(train_config(name, **settings))
    stage.prepare(drawer, applier)
    trained = [p for p in stage.modules.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, 4e-3)
    first = float(loss_of(stage, sample).detach())
    for step in range(60):
        optimiser.zero_grad()
        loss_of(stage, sample, seed=step).backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.3)
        optimiser.step()
    assert float(loss_of(stage, sample).detach()) < 0.8 * first


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_a_loss_is_that_of_its_seed(name: str, train_config: Config, sample: Sample) -> None:
    stage = stage_of(train_config(name))
    wake(stage.modules)
    assert torch.equal(loss_of(stage, sample), loss_of(stage, sample))
    depends_on_noise = name != "one-step"
    assert torch.equal(loss_of(stage, sample, 1), loss_of(stage, sample, 2)) != depends_on_noise


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_every_trained_weight_gets_a_gradient_once_heads_are_awake(
    name: str, train_config: Config, sample: Sample
) -> None:
    stage = stage_of(train_config(name))
    wake(stage.modules)
    loss_of(stage, sample).backward()
    for key, parameter in stage.modules.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.abs().max() > 0, key


def test_the_joint_stage_leaves_the_encoder_alone(train_config: Config, sample: Sample) -> None:
    stage = stage_of(train_config("joint"))
    trained = {name for name, p in stage.modules.named_parameters() if p.requires_grad}
    assert not any(".encoder." in name for name in trained)
    assert any(".decoder." in name for name in trained)
    assert any(name.startswith("denoiser.") for name in trained)
    loss_of(stage, sample).backward()
    assert all(p.grad is None for n, p in stage.modules.named_parameters() if ".encoder." in n)


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_figures_are_made_only_where_wanted(name: str, train_config: Config, sample: Sample) -> None:
    stage = stage_of(train_config(name))
    loss, figures = stage.loss(sample, torch.Generator().manual_seed(0), figures=True)
    again, none = stage.loss(sample, torch.Generator().manual_seed(0), figures=False)
    assert torch.equal(loss, again)
    assert none == {}
    untrained = 1e-3  # dB
    assert abs(float(figures["gain"])) < untrained


def test_the_image_loss_may_be_asked_for_at_the_end_alone(train_config: Config, sample: Sample) -> None:
    everywhere, at_one = (stage_of(train_config("joint", image_loss_at=where)) for where in ("all", "one"))
    assert loss_of(at_one, sample) < loss_of(everywhere, sample)
    everywhere, at_one = (
        stage_of(train_config("joint", image_loss_at=where, end_share=1.0)) for where in ("all", "one")
    )
    assert torch.equal(loss_of(at_one, sample), loss_of(everywhere, sample))


def test_the_image_loss_at_the_end_is_that_of_the_items_there(train_config: Config, sample: Sample) -> None:
    """The first of two items: the other one's scan and truth may be anything."""
    stage = stage_of(train_config("joint", **{**FROZEN, "latent_weight": 0.0}))
    assert stage.networks.autoencoder is not None
    wake(stage.modules)
    wake(stage.networks.autoencoder)
    losses = []
    for factors in ((1.0, 1.0), (1.0, 0.5), (0.5, 1.0)):
        column = torch.tensor(factors)[:, None, None, None, None]
        names = ("low_res", "high_res", "true_samples", "known_samples")
        losses.append(loss_of(stage, replace(sample, **{name: column * getattr(sample, name) for name in names})))
    assert torch.allclose(losses[0], losses[1], rtol=1e-5)
    assert not torch.allclose(losses[0], losses[2], rtol=0.01)


def test_the_decoder_may_be_frozen(train_config: Config, sample: Sample) -> None:
    stage = stage_of(train_config("joint", **FROZEN))
    autoencoder = stage.networks.autoencoder
    assert autoencoder is not None
    assert list(stage.modules) == ["denoiser"]
    assert not any(p.requires_grad for p in autoencoder.parameters())
    parts = (autoencoder, stage.modules["denoiser"])
    before = [{name: value.clone() for name, value in part.state_dict().items()} for part in parts]
    loss_of(stage, sample).backward()
    torch.optim.SGD([p for p in stage.modules.parameters() if p.requires_grad], 1.0).step()
    after = [part.state_dict() for part in parts]
    same = [all(torch.equal(old[name], new[name]) for name in old) for old, new in zip(before, after, strict=True)]
    assert same == [True, False]


def test_a_relative_loss_weighs_every_crop_by_its_ease(train_config: Config, sample: Sample) -> None:
    plain, relative = (stage_of(train_config("one-step", relative_loss=on)) for on in (False, True))
    costs = image_loss(sample, torch.zeros(2, 8, *sample.low_res.shape[2:]))  # an untrained network says nothing
    assert torch.allclose(loss_of(plain, sample), costs.mean(), rtol=1e-5)
    assert torch.allclose(loss_of(relative, sample), (costs * ease(sample)).mean(), rtol=1e-5)


def test_the_joint_stage_measures_how_far_latents_lie_from_the_start(
    train_config: Config, drawer: Drawer, applier: Applier
) -> None:
    stage = stage_of(train_config("joint"))
    autoencoder, denoiser = stage.networks.autoencoder, stage.networks.denoiser
    assert autoencoder is not None
    assert denoiser is not None
    stage.prepare(drawer, applier)
    scatter = 0.5  # two dozen crops of other contrast each

    def encoded(samples: torch.Tensor | None, told: Conditions) -> torch.Tensor:
        assert samples is not None
        return autoencoder.standardise(autoencoder.encode(samples, told.geometry()).mean, told.ratio)

    for ratio in (2.0, 4.0, 8.0):
        away, errors = [], []
        for step, other in enumerate(others_at(ratio, drawer, applier)):
            told = other.conditions
            with torch.no_grad():
                distance = encoded(other.true_samples, told) - encoded(other.known_samples, told)
                away.append((distance / denoiser.spread(told.ratio)).transpose(0, 1).flatten(1))
                _, figures = stage.loss(other, torch.Generator().manual_seed(step), figures=True)
            errors.append(figures["latent_error"])
        assert (torch.cat(away, 1).square().mean(1).sqrt() - 1).abs().max() < scatter
        assert abs(float(torch.stack(errors).mean().sqrt()) - 1) < scatter  # best linear so far: one at all t


def test_the_table_makes_latents_standard(train_config: Config, drawer: Drawer, applier: Applier) -> None:
    stage = stage_of(train_config("autoencoder"))
    autoencoder = stage.modules["autoencoder"]
    with torch.no_grad():
        autoencoder.encoder.head.bias.add_(3.0)
    stage.finish(drawer, applier)
    assert autoencoder.latent_mean.shape == (8, 2)
    assert autoencoder.latent_std.min() > 0
    for ratio in (2.0, 4.0, 8.0):
        latents = []
        for other in others_at(ratio, drawer, applier):
            with torch.no_grad():
                raw = autoencoder.encode(other.true_samples, other.conditions.geometry()).mean
            latents.append(autoencoder.standardise(raw, other.conditions.ratio).transpose(0, 1).flatten(1))
        values = torch.cat(latents, 1)
        scatter = 0.5  # two dozen crops of other contrast each
        assert values.mean(1).abs().max() < scatter
        assert (values.std(1) - 1).abs().max() < scatter
