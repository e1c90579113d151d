"""The three things that are trained: the one-step form, the autoencoder, and denoiser with decoder.

A stage owns its modules and says what one batch costs; the loop knows nothing else of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from medld.acquisition import along
from medld.config import TrainConfig
from medld.diffusion.denoise import latent_loss
from medld.nn.autoencoder import LARGEST_RATIO, RATIO_KNOTS, LatentSpace, fold
from medld.nn.conditions import time_features
from medld.nn.networks import Networks
from medld.training.apply import Applier, Sample
from medld.training.draw import Drawer
from medld.training.objective import add_profile, charbonnier, completed, dissimilarity, ease, gain, image_loss
from medld.training.plan import make_plan

RECONSTRUCTION = 2.0
JUDGE = "discriminator"
STATISTICS_BATCHES = 6
STATISTICS_SEED = 10**6
EARLIEST = 0.02
"""There z_t is the latent itself; up to 50 steps no sampler asks for the mean at a time below."""


class Stage(ABC):
    """What is trained (`modules`, a name to a module) and its loss.

    Of the modules, `parts` belong to the model; the others serve training alone. Those that learn are in training mode,
    whatever is frozen is not: there, nothing drops out. `progress` is the share of the run's steps that are done; who
    runs the stage keeps it up to date.
    """

    modules: nn.ModuleDict
    latents = True
    progress = 0.0

    def __init__(self, networks: Networks, config: TrainConfig) -> None:
        self.networks, self.config = networks, config
        self.dtype = getattr(torch, config.precision)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the modules that a model folder holds."""
        return tuple(name for name in self.modules if name != JUDGE)

    def _image_loss(self, sample: Sample, profile: Tensor) -> Tensor:
        """Of each item, (B,), as a share of B's error where the config says so."""
        width = self.config.loss_width
        costs = image_loss(sample, profile, width)
        return costs * ease(sample, width) if self.config.relative_loss else costs

    @abstractmethod
    def loss(self, sample: Sample, generator: torch.Generator, *, figures: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of a batch, and `figures` for the log where they are wanted."""

    def prepare(self, drawer: Drawer, applier: Applier) -> None:
        """What is to be measured before the first step."""
        return None

    def finish(self, drawer: Drawer, applier: Applier) -> None:
        """What is left to do with the averaged weights after the last step."""
        return None


class OneStep(Stage):
    """profile = net(y; conditions)."""

    latents = False

    def __init__(self, networks: Networks, config: TrainConfig) -> None:
        super().__init__(networks, config)
        assert networks.one_step is not None, "the config of this stage has a one-step network"
        self.modules = nn.ModuleDict({"one_step": networks.one_step.train()})

    def loss(self, sample: Sample, generator: torch.Generator, *, figures: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Image loss of the posterior mean."""
        profile = self.profile(sample)
        loss = self._image_loss(sample, profile).mean()
        return loss, {"gain": gain(sample, profile.detach())} if figures else {}

    def profile(self, sample: Sample) -> Tensor:
        """The network's answer (B, 8, I, J, k)."""
        answer: Tensor = self.modules["one_step"](sample.low_res.to(self.dtype), sample.conditions.features())
        return answer


class AutoencoderStage(Stage):
    """2 c(u + S D(z) - x) + kl_weight KL, z sampled from the encoder's posterior.

    With a frozen encoder only the decoder learns, from the means that a denoiser learned; what it learned stays valid.
    Options: structure and a judge of the projected image, and noise on the latents (a denoising autoencoder: Vincent
    et al. 2008), so that the decoder is used to what a denoiser leaves.
    """

    def __init__(self, networks: Networks, config: TrainConfig) -> None:
        super().__init__(networks, config)
        assert networks.autoencoder is not None, "the config of this stage has an autoencoder"
        self.modules = nn.ModuleDict({"autoencoder": networks.autoencoder.train()})
        networks.autoencoder.encoder.requires_grad_(config.train_encoder).train(config.train_encoder)
        if config.adversarial_weight > 0:
            from medld.nn.monai import Discriminator  # takes seconds to import

            self.modules[JUDGE] = Discriminator()

    def loss(self, sample: Sample, generator: torch.Generator, *, figures: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction and divergence, and what the options add."""
        autoencoder = _autoencoder(self.modules)
        geometry = sample.conditions.geometry()
        posterior = autoencoder.encode(_present(sample.true_samples).to(self.dtype), geometry)
        latent = posterior.mean
        if self.config.train_encoder:
            latent = posterior.sample(_noise(sample, latent, generator))
        if self.config.latent_noise > 0:
            latent = self._noisy(latent, sample, generator)
        profile = autoencoder.decode(latent, sample.low_res.to(self.dtype), geometry)
        loss = reconstruction(sample, profile).mean() + self.config.kl_weight * posterior.divergence()
        looks = self._looks(sample, profile)
        for weight, cost in looks.values():
            loss = loss + weight * cost
        if not figures:
            return loss, {}
        shown = {name: cost.detach() for name, (_, cost) in looks.items()}
        return loss, {"gain": gain(sample, profile.detach()), **shown}

    def _noisy(self, latent: Tensor, sample: Sample, generator: torch.Generator) -> Tensor:
        """Latents (B, C, I, J, K) with noise of `latent_noise` of their deviations.

        A frozen encoder has a table of them. Of one that learns they are each item's own, and it may not see them as
        given: it would escape from the noise by making its latents larger and larger.
        """
        noise = self.config.latent_noise * _noise(sample, latent, generator)
        autoencoder, ratio = _autoencoder(self.modules), sample.conditions.ratio
        if self.config.train_encoder:
            return latent + latent.std(dim=(2, 3, 4), keepdim=True) * noise
        return autoencoder.unstandardise(autoencoder.standardise(latent, ratio) + noise, ratio)

    def _looks(self, sample: Sample, profile: Tensor) -> dict[str, tuple[float, Tensor]]:
        """What the look of the projected image costs: name to weight and loss.

        The discriminator's own loss has the same weight: to AdamW it makes no difference, to the clipping it does.
        """
        config, costs = self.config, {}
        judged = config.adversarial_weight > 0 and self.progress >= config.adversarial_from
        if not (judged or config.ssim_weight > 0):
            return {}
        image, truth = completed(sample, profile), sample.high_res
        if config.ssim_weight > 0:
            costs["dissimilarity"] = (config.ssim_weight, dissimilarity(image, truth).mean())
        if judged:
            judge: Any = self.modules[JUDGE]
            costs["fooled"] = (config.adversarial_weight, judge.fooled(image.to(self.dtype)))
            costs["mistaken"] = (config.adversarial_weight, judge.mistaken(image.to(self.dtype), truth.to(self.dtype)))
        return costs

    @torch.no_grad()
    def finish(self, drawer: Drawer, applier: Applier) -> None:
        """Tabulate mean and deviation of the latents at every knot of the ratio, where they changed."""
        if not self.config.train_encoder:
            return
        autoencoder = _autoencoder(self.modules)
        for knot, samples in _at_knots(drawer, applier, self.config.data.in_plane):
            values = torch.cat(
                [self._mean(autoencoder, sample).transpose(0, 1).flatten(1) for sample in samples], dim=1
            )
            autoencoder.latent_mean[knot], autoencoder.latent_std[knot] = values.mean(1), values.std(1)

    def _mean(self, autoencoder: LatentSpace, sample: Sample) -> Tensor:
        return autoencoder.encode(_present(sample.true_samples).to(self.dtype), sample.conditions.geometry()).mean


class Joint(Stage):
    """The denoiser, and the decoder with it if the config says so; encoder and one-step network are frozen."""

    def __init__(self, networks: Networks, config: TrainConfig) -> None:
        super().__init__(networks, config)
        assert networks.autoencoder is not None, "the config of this stage has an autoencoder"
        assert networks.denoiser is not None, "the config of this stage has a denoiser"
        self.autoencoder = networks.autoencoder
        self.modules = nn.ModuleDict({"denoiser": networks.denoiser.train()})
        self.autoencoder.requires_grad_(False).eval()
        if config.train_decoder:
            self.autoencoder.decoder.requires_grad_(True).train()
            self.modules["autoencoder"] = self.autoencoder

    @torch.no_grad()
    def prepare(self, drawer: Drawer, applier: Applier) -> None:
        """Tabulate how far the latent lies from the flow's centre, at every knot of the ratio."""
        denoiser = self.networks.denoiser
        assert denoiser is not None, "the config of this stage has a denoiser"
        table = denoiser.spread.values
        for knot, samples in _at_knots(drawer, applier, self.config.data.in_plane):
            pairs = [self._latents(sample) for sample in samples]
            distances = [(latent - denoiser.flow.centre(start)).transpose(0, 1).flatten(1) for latent, start in pairs]
            table[knot] = torch.cat(distances, dim=1).square().mean(1).sqrt()  # type: ignore[operator]

    @torch.no_grad()
    def _latents(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """The truth's latent and what is known of it beforehand, both standardised."""
        both = (_present(sample.true_samples), self._start(sample))
        geometry, ratio = sample.conditions.geometry(), sample.conditions.ratio
        latent, start = (self.autoencoder.encode(x.to(self.dtype), geometry).mean for x in both)
        return self.autoencoder.standardise(latent, ratio), self.autoencoder.standardise(start, ratio)

    def _start(self, sample: Sample) -> Tensor:
        """What is known beforehand, on the profile grid: the baseline, or the frozen one-step network's answer."""
        if self.networks.start != "mean" or self.networks.one_step is None:
            return _present(sample.known_samples)
        profile = self.networks.one_step(sample.low_res.to(self.dtype), sample.conditions.features())
        fine = completed(sample, profile)
        return fold(along(sample.acquisition.like("to_profile", fine), fine, -1))

    def loss(self, sample: Sample, generator: torch.Generator, *, figures: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Error of the latent, image loss of the decoded estimate, and the decoder's own loss so that it stays one."""
        denoiser, config = self.modules["denoiser"], self.config
        latent, start = self._latents(sample)
        ratio, scan = sample.conditions.ratio, sample.low_res.to(self.dtype)
        t, noise, at_end = _times(sample, start, config.end_share, generator)
        z_t = denoiser.flow.diffuse(latent, start, noise, t)  # type: ignore[operator,union-attr]
        features = torch.cat([sample.conditions.features(), time_features(t)], dim=1)
        estimate = denoiser(z_t, start, scan, features, t=t, ratio=ratio)
        latent_error = latent_loss(estimate, latent, denoiser.scales(t, ratio))  # type: ignore[operator]
        seen = sample.first({"all": len(ratio), "one": at_end, "none": 0}[config.image_loss_at])
        loss = config.latent_weight * latent_error.mean()
        if len(seen.low_res):  # a portion of the batch may have no item at t = 1
            profile = self._decoded(seen, estimate)
            loss = loss + self._image_loss(seen, profile).sum() / len(ratio)
        if config.train_decoder:
            loss = loss + reconstruction(sample, self._decoded(sample, latent)).mean()
        if not figures:
            return loss, {}
        shown = {"latent_error": latent_error.mean().detach()}
        if len(seen.low_res):
            shown["gain"] = gain(seen, profile.detach())
            shown["gain_true_latent"] = gain(seen, self._decoded(seen, latent).detach())
        return loss, shown

    def _decoded(self, sample: Sample, latent: Tensor) -> Tensor:
        """The profile of the latents of a batch that starts with those of `sample`."""
        conditions = sample.conditions
        raw = self.autoencoder.unstandardise(latent[: len(conditions.ratio)], conditions.ratio)
        return self.autoencoder.decode(raw, sample.low_res.to(self.dtype), conditions.geometry())


STAGES: dict[str, type[Stage]] = {"one-step": OneStep, "autoencoder": AutoencoderStage, "joint": Joint}


def reconstruction(sample: Sample, profile: Tensor) -> Tensor:
    """2 c(u + S D(z) - x), before any projection, (B,)."""
    fine = sample.operator.crop(add_profile(sample, profile))
    return RECONSTRUCTION * charbonnier(fine - sample.high_res)


def _at_knots(drawer: Drawer, applier: Applier, in_plane: int) -> Iterator[tuple[int, list[Sample]]]:
    """Batches at each knot of the ratio, for tables over it; always the same."""
    for knot in range(RATIO_KNOTS):
        ratio = max(LARGEST_RATIO ** (knot / (RATIO_KNOTS - 1)), 1.1)
        draws = (drawer.draw(STATISTICS_SEED, step, 1.0, ratio=ratio) for step in range(STATISTICS_BATCHES))
        yield knot, [applier.apply(make_plan(draw, in_plane)) for draw in draws]


def _times(sample: Sample, like: Tensor, end_share: float, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    """Times (B,), noise, and how many items, the first ones, lie at t = 1 where the mean is asked for.

    Half of those are without noise. Both are counted over the whole batch, of which these items may be a portion.
    """
    portion = sample.portion
    t = EARLIEST + (1 - EARLIEST) * portion.uniform(generator)
    noise = _noise(sample, like, generator)
    whole = max(1, round(portion.whole * end_share))
    at_end = portion.count_of_first(whole)
    t[:at_end] = 1.0
    noise[: portion.count_of_first(max(1, whole // 2))] = 0.0
    return t, noise, at_end


def _noise(sample: Sample, like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers in the shape of `like` (B, ...), the same for an item in whatever portion it is."""
    return sample.portion.normal(tuple(like.shape[1:]), generator)


def _present(samples: Tensor | None) -> Tensor:
    assert samples is not None, "samples for this stage are made with latents=True"
    return samples


def _autoencoder(modules: nn.ModuleDict) -> LatentSpace:
    module = modules["autoencoder"]
    assert isinstance(module, LatentSpace)
    return module
