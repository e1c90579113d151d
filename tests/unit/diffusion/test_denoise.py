"""The denoiser adds to the scan's own latent, in full precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medld.diffusion.denoise import Denoiser, latent_loss
from medld.diffusion.noise import Flow
from medld.nn.unet import UNet


@pytest.fixture
def inputs() -> tuple[torch.Tensor, ...]:
    """Noisy latent, the scan's own, scan and features; two items."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 2, 8, 8, 4), (2, 2, 8, 8, 4), (2, 1, 8, 8, 4), (2, 3))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


class Echo(nn.Module):
    """Answers with the first two of the channels that it is shown."""

    def forward(self, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(B, 5, I, J, K) to (B, 2, I, J, K)."""
        assert x.shape[1] == 5
        return x[:, :2]


def test_untrained_it_answers_with_the_scans_own_latent(inputs: tuple[torch.Tensor, ...]) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(UNet(5, 2, 3, (4, 4, 4), (1, 1, 1), 8), Flow())
    assert torch.equal(denoiser(*inputs), inputs[1])


def test_what_the_backbone_says_is_added(inputs: tuple[torch.Tensor, ...]) -> None:
    z_t, low_res, _, _ = inputs
    denoiser = Denoiser(Echo(), Flow())
    assert torch.equal(denoiser(*inputs), low_res + z_t)
    assert torch.equal(denoiser.residual(*inputs), z_t)


def test_the_scans_precision_is_the_backbones_but_never_the_sums(inputs: tuple[torch.Tensor, ...]) -> None:
    z_t, low_res, scan, features = inputs
    denoiser = Denoiser(Echo(), Flow())
    assert denoiser.residual(z_t, low_res, scan.bfloat16(), features).dtype == torch.bfloat16
    estimate = denoiser(z_t * 0, low_res, scan.bfloat16(), features)
    assert estimate.dtype == torch.float32
    assert torch.equal(estimate, low_res)


def test_the_loss_is_per_item_and_least_at_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 1, 4, 4, 4, generator=generator)
    assert torch.equal(latent_loss(latents, latents), torch.zeros(2))
    other = latents.clone()
    other[1] += 3
    assert latent_loss(other, latents).tolist() == pytest.approx([0, 9], rel=1e-5)
    mean = latents.mean().expand_as(latents)
    assert latent_loss(mean, latents).mean() < latent_loss(mean + 0.01, latents).mean()
