"""A model small enough for every test: its networks do something, if nothing sensible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from medld.build import build_networks
from medld.checkpoint import PARTS, save_model
from medld.config import AutoencoderConfig, ModelConfig, NetworkConfig

NETWORK = NetworkConfig(channels=(4, 4, 4), blocks=(1, 1, 1), embedding=8)
AUTOENCODER = AutoencoderConfig(width=4, encoder_blocks=1, decoder_blocks=1, embedding=8)
ONE_STEP = ModelConfig(one_step=NETWORK)
LATENT = ModelConfig(one_step=NETWORK, autoencoder=AUTOENCODER, denoiser=NETWORK)
"""With a part that draws samples."""


def save_tiny_model(folder: Path, config: ModelConfig = LATENT, shaken: float = 0.05, **card: Any) -> Path:
    """A model folder whose weights were shaken by normal noise of that deviation, always the same."""
    networks, generator, states = build_networks(config), torch.Generator().manual_seed(0), {}
    for part in PARTS:
        if (module := getattr(networks, part)) is not None:
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.add_(shaken * torch.randn(parameter.shape, generator=generator))
            states[part] = module.state_dict()
    save_model(folder, config, states, card)
    return folder
