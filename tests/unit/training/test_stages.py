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
from medld.errors import ConfigError
from medld.nn.conditions import Conditions
from medld.training.apply import Applier, Sample
from medld.training.draw import Drawer
from medld.training.objective import completed, dissimilarity, ease, image_loss
from medld.training.plan import make_plan
from medld.training.stages import STAGES, Stage

Config = Callable[..., TrainConfig]
STAGE_NAMES = list(STAGES)
FROZEN = {"train_decoder": False, "image_loss_at": "one", "latent_weight": 0.5}
JUDGED = {"adversarial_weight": 0.1, "adversarial_from": 0.0}
LOOKS = {**JUDGED, "ssim_weight": 0.5}
NETWORK: dict[str, Any] = {"channels": [8, 8, 8], "blocks": [1, 1, 1], "embedding": 8}
SMALL: dict[str, Any] = {"width": 8, "encoder_blocks": 1, "decoder_blocks": 1, "embedding": 8}
LOOKING = {**NETWORK, "attention": True}
DIT = {"kind": "dit", "embedding": 8, "transformer": {"width": 16, "depth": 2, "window": [2, 2, 4]}}
"""Of the two tokens of a crop along the slices, windows of 4 keep both together when they are shifted: a bias that one
token alone is given changes nothing, and its gradient is zero or what rounding makes of it."""
JOINT: dict[str, Any] = {"one_step": None, "autoencoder": SMALL}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("joint", FROZEN),
    ("joint", {"model": {**JOINT, "denoiser": NETWORK, "start": "noise", "kappa": 1.0}}),
    ("joint", {"model": {**JOINT, "denoiser": DIT}}),
    ("one-step", {"model": {"one_step": LOOKING}}),
    ("one-step", {"model": {"one_step": DIT}}),
    ("one-step", {"model": {"one_step": {**NETWORK, "norm": "none"}}}),
    ("joint", {"train_decoder": False, "image_loss_at": "none", "latent_weight": 1.0}),
    ("autoencoder", {"latent_noise": 0.1}),
]
"""Of the method: each a stage and what its config says."""
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


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in STAGE_NAMES), *OPTIONS])
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


@pytest.mark.parametrize(
    ("name", "settings"), [*((name, {}) for name in STAGE_NAMES), *OPTIONS, ("autoencoder", LOOKS)]
)
def test_every_trained_weight_gets_a_gradient_once_heads_are_awake(
    name: str, settings: dict[str, Any], train_config: Config, sample: Sample
) -> None:
    stage = stage_of(train_config(name, **settings))
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


def test_only_parts_of_a_model_are_parts(train_config: Config) -> None:
    assert stage_of(train_config("one-step")).parts == ("one_step",)
    assert set(stage_of(train_config("joint")).parts) == {"denoiser", "autoencoder"}
    judged = stage_of(train_config("autoencoder", **JUDGED))
    assert judged.parts == ("autoencoder",)
    assert set(judged.modules) == {"autoencoder", "discriminator"}
    assert set(stage_of(train_config("autoencoder")).modules) == {"autoencoder"}


def gradients(stage: Stage, loss: torch.Tensor, name: str) -> torch.Tensor:
    """The gradient of a loss to all trained weights of a module, one after the other; zero where there is none."""
    weights = [p for p in stage.modules[name].parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(w).flatten() if g is None else g.flatten() for g, w in zip(found, weights, strict=True)]
    )


def test_one_sum_trains_both_sides_of_the_game(train_config: Config, sample: Sample) -> None:
    """The decoder is to fool the judge as it is, the judge is to tell images as they are; neither is to help."""
    judged, plain = (stage_of(train_config("autoencoder", **settings)) for settings in (JUDGED, {}))
    for stage in (judged, plain):
        wake(stage.modules["autoencoder"])
    autoencoder, judge = judged.modules["autoencoder"], judged.modules["discriminator"]
    geometry, generator = sample.conditions.geometry(), torch.Generator().manual_seed(0)
    posterior = autoencoder.encode(sample.true_samples, geometry)
    latent = posterior.sample(torch.randn(posterior.mean.shape, generator=generator))
    image = completed(sample, autoencoder.decode(latent, sample.low_res, geometry))
    weight = judged.config.adversarial_weight
    loss = loss_of(judged, sample)
    expected = loss_of(plain, sample) + weight * (judge.fooled(image) + judge.mistaken(image, sample.high_res))
    assert torch.allclose(loss, expected, rtol=1e-5)
    theirs = gradients(judged, loss, "autoencoder")
    wanted = gradients(plain, loss_of(plain, sample), "autoencoder")
    assert not torch.allclose(theirs, wanted, atol=0.01 * float(wanted.abs().max()), rtol=0)
    wanted = wanted + weight * gradients(judged, judge.fooled(image), "autoencoder")
    assert torch.allclose(theirs, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)
    ours, alone = (
        gradients(judged, value, "discriminator") for value in (loss, judge.mistaken(image.detach(), sample.high_res))
    )
    assert torch.allclose(ours, weight * alone, atol=1e-5 * float(ours.abs().max()), rtol=0)


def test_the_judge_comes_in_late(train_config: Config, sample: Sample) -> None:
    plain = stage_of(train_config("autoencoder"))
    judged = stage_of(train_config("autoencoder", adversarial_weight=0.1, adversarial_from=0.6))
    judged.modules["autoencoder"].load_state_dict(plain.modules["autoencoder"].state_dict())
    losses = []
    for judged.progress in (0.0, 0.59, 0.6, 0.9):
        losses.append(loss_of(judged, sample))
    assert torch.equal(losses[0], loss_of(plain, sample))
    assert torch.equal(losses[1], losses[0])
    assert losses[2] > losses[0]
    assert torch.equal(losses[3], losses[2])
    _, figures = judged.loss(sample, torch.Generator().manual_seed(0), figures=True)
    assert {"gain", "fooled", "mistaken"} <= figures.keys()


def test_the_game_teaches_both_sides(train_config: Config, sample: Sample) -> None:
    """A judge that learns is mistaken less about images that stay; a decoder that learns fools one that stays."""
    stage = stage_of(train_config("autoencoder", **{**JUDGED, "adversarial_weight": 1.0}))
    wake(stage.modules["autoencoder"])
    for learns, figure in (("discriminator", "mistaken"), ("autoencoder", "fooled")):
        optimiser = torch.optim.AdamW(stage.modules[learns].parameters(), 1e-2)
        told = []
        for _ in range(25):
            loss, figures = stage.loss(sample, torch.Generator().manual_seed(0), figures=True)
            told.append(float(figures[figure]))
            stage.modules.zero_grad()
            loss.backward()
            optimiser.step()
        assert told[-1] < 0.9 * told[0]


def test_structure_counts_after_the_projection(train_config: Config, sample: Sample) -> None:
    plain, with_structure = (stage_of(train_config("autoencoder", ssim_weight=weight)) for weight in (0.0, 0.5))
    missing = dissimilarity(sample.known, sample.high_res).mean()  # of an untrained decoder, which says nothing
    assert missing > 0.01
    assert torch.allclose(loss_of(with_structure, sample), loss_of(plain, sample) + 0.5 * missing, rtol=1e-5)
    _, figures = with_structure.loss(sample, torch.Generator().manual_seed(0), figures=True)
    assert torch.allclose(figures["dissimilarity"], missing, rtol=1e-5)


class Keeper(nn.Module):
    """A decoder that keeps the latents that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, latent_and_scan: torch.Tensor, geometry: torch.Tensor) -> torch.Tensor:
        """(B, C + 1, I, J, K) to zeros (B, 8, I, J, K)."""
        self.seen.append(latent_and_scan[:, :-1])
        return torch.zeros_like(latent_and_scan[:, :1]).expand(-1, 8, -1, -1, -1)


def shown_latents(stage: Stage, sample: Sample, *, larger: float | torch.Tensor = 1.0) -> torch.Tensor:
    """The latents (B, C, I, J, K) that the decoder is shown; `larger` scales what the encoder gives."""
    autoencoder = stage.modules["autoencoder"]
    encode = autoencoder.encoder

    class Scaled(nn.Module):
        def forward(self, samples: torch.Tensor, geometry: torch.Tensor) -> torch.Tensor:
            mean, _ = encode(samples, geometry).chunk(2, dim=1)
            return torch.cat([larger * mean, torch.full_like(mean, -100.0)], dim=1)  # a posterior without width

    autoencoder.encoder, autoencoder.decoder = Scaled(), Keeper()
    loss_of(stage, sample)
    autoencoder.encoder = encode
    return autoencoder.decoder.seen[-1]


def test_noise_on_latents_is_a_share_of_their_deviation_however_large_they_are(
    train_config: Config, sample: Sample
) -> None:
    plain, noisy = (stage_of(train_config("autoencoder", latent_noise=share)) for share in (0.0, 0.5))
    for larger in (1.0, 10.0):
        clean, shown = (shown_latents(stage, sample, larger=larger).detach() for stage in (plain, noisy))
        added = (shown - clean).transpose(0, 1).flatten(1).std(1)
        assert torch.allclose(added, 0.5 * clean.transpose(0, 1).flatten(1).std(1), rtol=0.1)


def test_no_encoder_learns_to_shout_the_noise_down(train_config: Config, sample: Sample) -> None:
    """What is shown scales as a whole, and its gradient knows (Euler's theorem on homogeneous functions)."""
    stage = stage_of(train_config("autoencoder", latent_noise=0.5))
    larger = torch.tensor(1000.0, requires_grad=True)  # beside it, the width of the posterior is nothing
    shown = shown_latents(stage, sample, larger=larger)
    probe = torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad((probe * shown).sum(), larger)
    assert float(1000 * slope) == pytest.approx(float((probe * shown).sum().detach()), rel=1e-3)


def test_noise_on_latents_of_a_frozen_encoder_is_in_units_of_its_table(train_config: Config, sample: Sample) -> None:
    latents = []
    for share in (0.0, 0.5):
        stage = stage_of(train_config("autoencoder", latent_noise=share, train_encoder=False))
        stage.modules["autoencoder"].latent_std.copy_(torch.tensor([2.0, 7.0]).expand(8, 2))
        stage.modules["autoencoder"].latent_mean.fill_(3.0)
        latents.append(shown_latents(stage, sample).detach())
    added = (latents[1] - latents[0]).transpose(0, 1).flatten(1)
    assert torch.allclose(added.std(1), 0.5 * torch.tensor([2.0, 7.0]), rtol=0.1)
    assert added.mean(1).abs().max() < 0.5


def test_from_pure_noise_the_spread_is_that_of_latents_themselves(
    train_config: Config, drawer: Drawer, applier: Applier
) -> None:
    """Standard latents have deviation one; nothing is taken off them."""
    model = {**JOINT, "denoiser": NETWORK, "start": "noise", "kappa": 1.0}
    stage = stage_of(train_config("joint", model=model))
    autoencoder, denoiser = stage.networks.autoencoder, stage.networks.denoiser
    assert autoencoder is not None
    assert denoiser is not None
    stage.prepare(drawer, applier)
    table = denoiser.spread.values.clone()
    with torch.no_grad():
        autoencoder.latent_mean.add_(5.0)
    stage.prepare(drawer, applier)
    assert (denoiser.spread.values - table).min() > 3  # a shift of all latents shows; it cancels where a path drifts


@pytest.mark.parametrize(("start", "kappa"), [("baseline", 0.5), ("noise", 1.0), ("mean", 0.5)])
def test_the_one_step_answer_matters_only_to_a_flow_that_starts_there(
    start: str, kappa: float, train_config: Config, sample: Sample
) -> None:
    model = {**JOINT, "one_step": NETWORK, "denoiser": NETWORK, "start": start, "kappa": kappa}
    stage = stage_of(train_config("joint", model=model))
    assert stage.networks.one_step is not None
    before = loss_of(stage, sample)
    wake(stage.networks.one_step)
    assert torch.equal(loss_of(stage, sample), before) == (start != "mean")


def test_a_relative_loss_weighs_every_crop_by_its_ease(train_config: Config, sample: Sample) -> None:
    plain, relative = (stage_of(train_config("one-step", relative_loss=on)) for on in (False, True))
    costs = image_loss(sample, torch.zeros(2, 8, *sample.low_res.shape[2:]))  # an untrained network says nothing
    assert torch.allclose(loss_of(plain, sample), costs.mean(), rtol=1e-5)
    assert torch.allclose(loss_of(relative, sample), (costs * ease(sample)).mean(), rtol=1e-5)


@pytest.mark.parametrize("relative", [False, True])
def test_the_width_of_the_loss_is_the_configs(relative: bool, train_config: Config, sample: Sample) -> None:
    stage = stage_of(train_config("one-step", relative_loss=relative, loss_width=0.3))
    costs = image_loss(sample, torch.zeros(2, 8, *sample.low_res.shape[2:]), 0.3)
    weights = ease(sample, 0.3) if relative else torch.ones(2)
    assert torch.allclose(loss_of(stage, sample), (costs * weights).mean(), rtol=1e-5)


def test_a_joint_stage_weighs_crops_so_too_but_not_what_keeps_the_decoder_one(
    train_config: Config, sample: Sample
) -> None:
    """An untrained decoder says nothing, so every image loss is B's."""
    known = image_loss(sample, torch.zeros(2, 8, *sample.low_res.shape[2:]))
    changes = (known * ease(sample)).mean() - known.mean()
    assert changes.abs() > 0.005
    for decoder in (False, True):
        plain, relative = (
            stage_of(train_config("joint", train_decoder=decoder, relative_loss=on)) for on in (False, True)
        )
        assert torch.allclose(loss_of(relative, sample) - loss_of(plain, sample), changes, rtol=1e-3)


def test_without_an_image_loss_the_denoiser_learns_from_latents_alone(train_config: Config, sample: Sample) -> None:
    stage = stage_of(train_config("joint", train_decoder=False, image_loss_at="none", latent_weight=2.0))
    wake(stage.modules)
    loss, figures = stage.loss(sample, torch.Generator().manual_seed(0), figures=True)
    assert torch.allclose(loss, 2 * figures["latent_error"])
    assert "gain" not in figures
    with pytest.raises(ConfigError, match="give one of them"):
        train_config("joint", image_loss_at="none", latent_weight=0.0)


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
