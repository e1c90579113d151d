"""Networks made ready for use."""

from __future__ import annotations

import torch

from medld.build import build_networks
from medld.config import AutoencoderConfig, ModelConfig, NetworkConfig

TINY = NetworkConfig(channels=(4, 4, 4), blocks=(1, 1, 1), embedding=8)


def test_copies_are_made_for_use_and_the_originals_are_left_alone() -> None:
    networks = build_networks(ModelConfig(one_step=TINY, autoencoder=AutoencoderConfig(width=4), denoiser=TINY))
    ready = networks.to(torch.device("cpu"), torch.bfloat16)
    for name in ("one_step", "autoencoder", "denoiser"):
        before, after = getattr(networks, name), getattr(ready, name)
        assert {p.dtype for p in after.parameters()} == {torch.bfloat16}
        assert not any(p.requires_grad for p in after.parameters())
        assert not after.training
        assert {p.dtype for p in before.parameters()} == {torch.float32}
        assert all(p.requires_grad for p in before.parameters())
        for new, old in zip(after.parameters(), before.parameters(), strict=True):
            assert torch.equal(new, old.bfloat16())


def test_tables_keep_their_precision() -> None:
    networks = build_networks(ModelConfig(one_step=None, autoencoder=AutoencoderConfig(width=4), denoiser=TINY))
    ready = networks.to(torch.device("cpu"), torch.bfloat16)
    assert ready.one_step is None
    assert ready.autoencoder is not None
    assert ready.denoiser is not None
    assert ready.autoencoder.latent_std.dtype == ready.denoiser.spread.values.dtype == torch.float32


def test_a_denoiser_sees_both_latents_and_the_scan() -> None:
    networks = build_networks(
        ModelConfig(one_step=TINY, autoencoder=AutoencoderConfig(latent_channels=3, width=4), denoiser=TINY)
    )
    assert networks.denoiser is not None
    assert networks.denoiser.backbone.stem.in_channels == 7
    assert networks.denoiser.backbone.head.out_channels == 3
    assert networks.one_step is not None
    assert networks.one_step.stem.in_channels == 1
    assert networks.one_step.head.out_channels == 8
