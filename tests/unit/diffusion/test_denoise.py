"""The denoiser passes on what the best linear one would and adds to it, in full precision."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from medld.diffusion.denoise import Denoiser, latent_loss
from medld.diffusion.noise import Flow
from medld.diffusion.sample import euler
from medld.nn.autoencoder import RATIO_KNOTS, RatioTable
from medld.nn.unet import UNet

SINGLE = 1e-5
FLOW = Flow(0.7)
FROM_NOISE = Flow(1.0, drift=False)
Inputs = dict[str, Tensor]


class Echo(nn.Module):
    """Answers with the first two of the channels that it is shown."""

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """(B, 5, I, J, K) to (B, 2, I, J, K)."""
        assert x.shape[1] == 5
        return x[:, :2]


class Silence(nn.Module):
    """Answers with zeros."""

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """(B, 5, I, J, K) to (B, 2, I, J, K)."""
        return torch.zeros_like(x[:, :2])


def denoiser_of(backbone: nn.Module, flow: Flow = FLOW) -> Denoiser:
    """With a spread from .5 to 1.5, another for every channel and ratio."""
    denoiser = Denoiser(backbone, flow, RatioTable(2))
    values = 0.5 + torch.rand(RATIO_KNOTS, 2, generator=torch.Generator().manual_seed(2))
    denoiser.load_state_dict({"spread.values": values}, strict=False)
    return denoiser


def inputs_of(t: Tensor, voxels: tuple[int, int, int] = (8, 8, 4)) -> Inputs:
    """Random noisy latents at times t, the scan's own, scans and features."""
    generator, batch = torch.Generator().manual_seed(0), len(t)
    channels = {"z_t": 2, "low_res_latent": 2, "scan": 1}
    random = {name: torch.randn(batch, count, *voxels, generator=generator) for name, count in channels.items()}
    ratio = 1 + 7 * torch.rand(batch, generator=generator)
    return {**random, "features": torch.randn(batch, 3, generator=generator), "t": t, "ratio": ratio}


@pytest.fixture
def inputs() -> Inputs:
    """Two items, on their way."""
    return inputs_of(torch.tensor([0.3, 0.8]))


def test_untrained_it_is_the_best_linear_one(inputs: Inputs) -> None:
    torch.manual_seed(0)
    denoiser = denoiser_of(UNet(5, 2, 3, (4, 4, 4), (1, 1, 1), 8))
    skip = denoiser.flow.scales(denoiser.spread(inputs["ratio"]), inputs["t"]).skip
    low_res = inputs["low_res_latent"]
    assert torch.equal(denoiser(**inputs), low_res + skip * (inputs["z_t"] - low_res))


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_untrained_it_answers_with_the_start_where_sampling_begins(noise: float) -> None:
    inputs, denoiser = inputs_of(torch.ones(2)), denoiser_of(Silence())
    low_res = inputs["low_res_latent"]
    inputs["z_t"] = denoiser.flow.start(low_res, noise * inputs["z_t"])
    assert torch.equal(denoiser(**inputs), low_res)


def test_without_drift_it_is_the_best_linear_one_around_zero(inputs: Inputs) -> None:
    denoiser = denoiser_of(Silence(), FROM_NOISE)
    skip = denoiser.flow.scales(denoiser.spread(inputs["ratio"]), inputs["t"]).skip
    assert torch.equal(denoiser(**inputs), skip * inputs["z_t"])
    assert not denoiser(**{**inputs, "t": torch.ones(2)}).any()


def test_without_drift_the_backbone_still_sees_the_scans_latent(inputs: Inputs) -> None:
    seen: list[Tensor] = []

    def run(x: Tensor, features: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x[:, :2])

    denoiser = denoiser_of(Silence(), FROM_NOISE)
    denoiser(**inputs, run=run)
    scales = denoiser.scales(inputs["t"], inputs["ratio"])
    expected = torch.cat([scales.into * inputs["z_t"], inputs["low_res_latent"], inputs["scan"]], dim=1)
    assert torch.equal(seen[0], expected)


def test_what_the_backbone_says_is_scaled_and_added(inputs: Inputs) -> None:
    denoiser, silent = denoiser_of(Echo()), denoiser_of(Silence())
    scales = denoiser.scales(inputs["t"], inputs["ratio"])
    shown = scales.into * (inputs["z_t"] - inputs["low_res_latent"])
    assert torch.allclose(denoiser(**inputs), silent(**inputs) + scales.out * shown, atol=SINGLE)


def test_another_may_call_the_backbone(inputs: Inputs) -> None:
    assert torch.equal(denoiser_of(Silence())(**inputs, run=Echo()), denoiser_of(Echo())(**inputs))


def test_the_scans_precision_is_the_backbones_but_never_the_sums(inputs: Inputs) -> None:
    seen: list[torch.dtype] = []

    def run(x: Tensor, features: Tensor) -> Tensor:
        seen.append(x.dtype)
        return torch.zeros_like(x[:, :2])

    denoiser, rounded = denoiser_of(Echo()), {**inputs, "scan": inputs["scan"].bfloat16()}
    exact, estimate = denoiser(**inputs, run=run), denoiser(**rounded, run=run)
    assert seen == [torch.float32, torch.bfloat16]
    assert estimate.dtype == torch.float32
    assert torch.equal(estimate, exact)


@pytest.mark.parametrize("flow", [FLOW, FROM_NOISE])
def test_samples_of_an_untrained_one_spread_as_the_latents_do(flow: Flow) -> None:
    inputs, denoiser = inputs_of(torch.ones(2)), denoiser_of(Silence(), flow)
    noise, low_res = inputs.pop("z_t"), inputs["low_res_latent"]
    told = {name: value for name, value in inputs.items() if name != "t"}
    spread = denoiser.spread(inputs["ratio"])
    errors = []
    for steps in (4, 16, 64, 256):
        sample = euler(lambda z, t: denoiser(z, t=t, **told), denoiser.flow.start(low_res, noise), steps)
        errors.append(float((sample - flow.centre(low_res) - spread * noise).std()))
    assert all(after < before / 2 for before, after in pairwise(errors))
    assert errors[-1] < 0.01


def test_the_loss_is_per_item_and_least_at_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 1, 4, 4, 4, generator=generator)
    assert torch.equal(latent_loss(latents, latents), torch.zeros(2))
    other = latents.clone()
    other[1] += 3
    assert latent_loss(other, latents).tolist() == pytest.approx([0, 9], rel=1e-5)
    mean = latents.mean().expand_as(latents)
    assert latent_loss(mean, latents).mean() < latent_loss(mean + 0.01, latents).mean()


def test_before_training_the_scaled_loss_is_one_at_all_times() -> None:
    t, voxels = torch.tensor([0.02, 0.3, 0.6, 0.9, 1.0]), (40, 40, 5)
    denoiser, inputs = denoiser_of(Silence()), inputs_of(t, voxels)
    low_res, noise = inputs["low_res_latent"], inputs["z_t"]
    latent = low_res + denoiser.spread(inputs["ratio"]) * torch.randn(
        noise.shape, generator=torch.Generator().manual_seed(3)
    )
    estimate = denoiser(**{**inputs, "z_t": denoiser.flow.diffuse(latent, low_res, noise, t)})
    five_errors = 5 * (2 / 16_000) ** 0.5
    losses = latent_loss(estimate, latent, denoiser.scales(t, inputs["ratio"]))
    assert (losses - 1).abs().max() < five_errors
