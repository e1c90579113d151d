"""The three things that are trained: the one-step form, the autoencoder, and denoiser with decoder.

A stage owns its modules and says what one batch costs; the loop knows nothing else of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

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
from medld.training.objective import add_profile, charbonnier, completed, gain, image_loss
from medld.training.plan import make_plan

RECONSTRUCTION = 2.0
STATISTICS_BATCHES = 6
STATISTICS_SEED = 10**6


class Stage(ABC):
    """What is trained (`modules`, a part name to a module) and its loss."""

    modules: nn.ModuleDict
    latents = True

    def __init__(self, networks: Networks, config: TrainConfig) -> None:
        self.networks, self.config = networks, config
        self.dtype = getattr(torch, config.precision)

    @abstractmethod
    def loss(self, sample: Sample, generator: torch.Generator, *, figures: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of a batch, and `figures` for the log where they are wanted."""

    def finish(self, drawer: Drawer, applier: Applier) -> None:
        """What is left to do with the averaged weights after the last step."""
        return None


class OneStep(Stage):
    """profile = net(y; conditions)."""

    latents = False

    def __init__(self, networks: Networks, config: TrainConfig) -> None:
        super().__init__(networks, config)
        assert networks.one_step is not None, "the config of this stage has a one-step network"
        self.modules = nn.ModuleDict({"one_step": networks.one_step})

    def loss(self, sample: Sample, generator: torch.Generator, *, figures: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Image loss of the posterior mean."""
        profile = self.modules["one_step"](sample.low_res.to(self.dtype), sample.conditions.features())
        loss = image_loss(sample, profile).mean()
        return loss, {"gain": gain(sample, profile.detach())} if figures else {}


class AutoencoderStage(Stage):
    """2 c(u + S D(z) - x) + kl_weight KL, z sampled from the encoder's posterior."""

    def __init__(self, networks: Networks, config: TrainConfig) -> None:
        super().__init__(networks, config)
        assert networks.autoencoder is not None, "the config of this stage has an autoencoder"
        self.modules = nn.ModuleDict({"autoencoder": networks.autoencoder})

    def loss(self, sample: Sample, generator: torch.Generator, *, figures: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction and divergence."""
        autoencoder = _autoencoder(self.modules)
        geometry = sample.conditions.geometry()
        posterior = autoencoder.encode(_present(sample.true_samples).to(self.dtype), geometry)
        latent = posterior.sample(_randn(posterior.mean, generator))
        profile = autoencoder.decode(latent, sample.low_res.to(self.dtype), geometry)
        loss = reconstruction(sample, profile).mean() + self.config.kl_weight * posterior.divergence()
        return loss, {"gain": gain(sample, profile.detach())} if figures else {}

    @torch.no_grad()
    def finish(self, drawer: Drawer, applier: Applier) -> None:
        """Tabulate mean and deviation of the latents at every knot of the ratio."""
        autoencoder = _autoencoder(self.modules)
        for knot in range(RATIO_KNOTS):
            ratio = max(LARGEST_RATIO ** (knot / (RATIO_KNOTS - 1)), 1.1)
            latents = []
            for step in range(STATISTICS_BATCHES):
                sample = applier.apply(
                    make_plan(drawer.draw(STATISTICS_SEED, step, 1.0, ratio=ratio), self.config.data.in_plane)
                )
                posterior = autoencoder.encode(
                    _present(sample.true_samples).to(self.dtype), sample.conditions.geometry()
                )
                latents.append(posterior.mean.transpose(0, 1).flatten(1))
            values = torch.cat(latents, dim=1)
            autoencoder.latent_mean[knot], autoencoder.latent_std[knot] = values.mean(1), values.std(1)


class Joint(Stage):
    """The denoiser, and the decoder with it; the encoder is frozen, and so is a one-step network to start from."""

    def __init__(self, networks: Networks, config: TrainConfig) -> None:
        super().__init__(networks, config)
        assert networks.autoencoder is not None, "the config of this stage has an autoencoder"
        assert networks.denoiser is not None, "the config of this stage has a denoiser"
        networks.autoencoder.encoder.requires_grad_(False)
        self.modules = nn.ModuleDict({"denoiser": networks.denoiser, "autoencoder": networks.autoencoder})

    def _start(self, sample: Sample) -> Tensor:
        """What the flow starts from, on the profile grid: the baseline, or the frozen one-step network's answer."""
        if self.networks.start == "baseline" or self.networks.one_step is None:
            return _present(sample.known_samples)
        profile = self.networks.one_step(sample.low_res.to(self.dtype), sample.conditions.features())
        fine = completed(sample, profile)
        return fold(along(sample.acquisition.like("to_profile", fine), fine, -1))

    def loss(self, sample: Sample, generator: torch.Generator, *, figures: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Image loss of the decoded estimate, latent error, and the autoencoder's own loss so that it stays one."""
        autoencoder, denoiser = _autoencoder(self.modules), self.modules["denoiser"]
        ratio, geometry = sample.conditions.ratio, sample.conditions.geometry()
        scan = sample.low_res.to(self.dtype)
        with torch.no_grad():
            raw = autoencoder.encode(_present(sample.true_samples).to(self.dtype), geometry).mean
            latent = autoencoder.standardise(raw, ratio)
            known = autoencoder.encode(self._start(sample).to(self.dtype), geometry).mean
            low_res = autoencoder.standardise(known, ratio)
        t, noise = _times(len(ratio), low_res, self.config.end_share, generator)
        z_t = denoiser.flow.diffuse(latent, low_res, noise, t)  # type: ignore[operator,union-attr]
        features = torch.cat([sample.conditions.features(), time_features(t)], dim=1)
        estimate = denoiser(z_t, low_res, scan, features)
        profile = autoencoder.decode(autoencoder.unstandardise(estimate, ratio), scan, geometry)
        true_profile = autoencoder.decode(raw, scan, geometry)
        image = image_loss(sample, profile)
        if self.config.image_loss_at == "one":
            image = torch.where(t == 1, image, image.new_zeros(()))
        latent_error = latent_loss(estimate, latent)
        loss = (image + self.config.latent_weight * latent_error).mean() + reconstruction(sample, true_profile).mean()
        if not figures:
            return loss, {}
        shares = latent_error[t == 1].mean() / latent_loss(low_res, latent)[t == 1].mean()
        return loss, {
            "gain": gain(sample, profile.detach()),
            "gain_true_latent": gain(sample, true_profile.detach()),
            "latent_error_share": shares.detach(),
        }


STAGES: dict[str, type[Stage]] = {"one-step": OneStep, "autoencoder": AutoencoderStage, "joint": Joint}


def reconstruction(sample: Sample, profile: Tensor) -> Tensor:
    """2 c(u + S D(z) - x), before any projection, (B,)."""
    fine = sample.operator.crop(add_profile(sample, profile))
    return RECONSTRUCTION * charbonnier(fine - sample.high_res)


def _times(batch: int, like: Tensor, end_share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Times (B,) and noise: `end_share` of the batch at t = 1, where the mean is asked for, half without noise."""
    t = torch.rand(batch, generator=generator, device=like.device)
    noise = _randn(like, generator)
    at_end = max(1, round(batch * end_share))
    t[:at_end] = 1.0
    noise[: max(1, at_end // 2)] = 0.0
    return t, noise


def _randn(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device)


def _present(samples: Tensor | None) -> Tensor:
    assert samples is not None, "samples for this stage are made with latents=True"
    return samples


def _autoencoder(modules: nn.ModuleDict) -> LatentSpace:
    module = modules["autoencoder"]
    assert isinstance(module, LatentSpace)
    return module
