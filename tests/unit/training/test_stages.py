"""What each stage trains, and that it can learn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from medld.build import build_networks
from medld.config import DataConfig, TrainConfig
from medld.dataset import Fine
from medld.training.apply import Applier, Sample
from medld.training.draw import Drawer
from medld.training.plan import make_plan
from medld.training.stages import STAGES, Stage

Config = Callable[..., TrainConfig]
STAGE_NAMES = list(STAGES)
CPU = torch.device("cpu")


@pytest.fixture
def applier(volumes: list[Fine]) -> Applier:
    """With samples for latents."""
    return Applier(volumes, CPU, "inverse", latents=True)


@pytest.fixture
def sample(volumes: list[Fine], data_config: Callable[..., DataConfig], applier: Applier) -> Sample:
    """Two crops at ratio 4, without noise."""
    config = data_config(noise_share=0.0, degrade="gaussian")
    return applier.apply(make_plan(Drawer(volumes, config, 2).draw(0, 0, 1.0, ratio=4.0), config.in_plane))


def stage_of(config: TrainConfig) -> Stage:
    """The stage on fresh networks."""
    torch.manual_seed(0)
    return STAGES[config.stage](build_networks(config.model), config)


def loss_of(stage: Stage, sample: Sample, seed: int = 0) -> torch.Tensor:
    """The loss with the noise of a seed."""
    return stage.loss(sample, torch.Generator().manual_seed(seed), figures=False)[0]


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_two_crops_can_be_overfitted(name: str, train_config: Config, sample: Sample) -> None:
    stage = stage_of(train_config(name))
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
    with torch.no_grad():
        for parameter in stage.modules.parameters():  # or zero heads hide the noise
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(loss_of(stage, sample), loss_of(stage, sample))
    depends_on_noise = name != "one-step"
    assert torch.equal(loss_of(stage, sample, 1), loss_of(stage, sample, 2)) != depends_on_noise


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_every_trained_weight_gets_a_gradient_once_heads_are_awake(
    name: str, train_config: Config, sample: Sample
) -> None:
    stage = stage_of(train_config(name))
    with torch.no_grad():
        for parameter in stage.modules.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
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
    if name == "joint":
        assert float(figures["latent_error_share"]) == pytest.approx(1, rel=1e-4)  # z^ = z_lr so far


def test_the_image_loss_may_be_asked_for_at_the_end_alone(train_config: Config, sample: Sample) -> None:
    everywhere, at_one = (stage_of(train_config("joint", image_loss_at=where)) for where in ("all", "one"))
    assert loss_of(at_one, sample) < loss_of(everywhere, sample)


def test_the_table_makes_latents_standard(
    train_config: Config, volumes: list[Fine], data_config: Callable[..., DataConfig], applier: Applier
) -> None:
    stage = stage_of(train_config("autoencoder"))
    drawer = Drawer(volumes, data_config(), 2)
    autoencoder = stage.modules["autoencoder"]
    with torch.no_grad():
        autoencoder.encoder.head.bias.add_(3.0)
    stage.finish(drawer, applier)
    assert autoencoder.latent_mean.shape == (8, 2)
    assert autoencoder.latent_std.min() > 0
    for ratio in (2.0, 4.0, 8.0):
        latents = []
        for step in range(12):  # other draws than those of the table
            other = applier.apply(make_plan(drawer.draw(1, step, 1.0, ratio=ratio), 16))
            with torch.no_grad():
                raw = autoencoder.encode(other.true_samples, other.conditions.geometry()).mean
            latents.append(autoencoder.standardise(raw, other.conditions.ratio).transpose(0, 1).flatten(1))
        values = torch.cat(latents, 1)
        scatter = 0.5  # two dozen crops of other contrast each
        assert values.mean(1).abs().max() < scatter
        assert (values.std(1) - 1).abs().max() < scatter
