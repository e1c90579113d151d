"""From configs to objects: the one place where a name becomes a class.

MONAI takes seconds to import, so only a model that asks for it loads it.
"""

from __future__ import annotations

from torch import nn

from medld.config import AutoencoderConfig, ModelConfig, NetworkConfig
from medld.diffusion.denoise import Denoiser
from medld.diffusion.noise import Flow
from medld.nn.autoencoder import SAMPLES, Autoencoder, LatentSpace, RatioTable
from medld.nn.blocks import IMAGE_SCALE
from medld.nn.conditions import SCAN_FEATURES, TIME_FEATURES
from medld.nn.networks import Networks
from medld.nn.unet import UNet, receptive_radius
from medld.patches import ALIGN


def build_networks(config: ModelConfig) -> Networks:
    """The networks of a model, freshly initialised, in float32 on the CPU."""
    autoencoder = None if config.autoencoder is None else _autoencoder(config.autoencoder)
    denoiser = None
    if config.denoiser is not None and autoencoder is not None:
        channels = autoencoder.latent_channels
        denoiser = Denoiser(_backbone(config.denoiser, channels), Flow(config.kappa), RatioTable(channels))
    return Networks(
        one_step=None if config.one_step is None else _unet(config.one_step, 1, SAMPLES, SCAN_FEATURES, IMAGE_SCALE),
        autoencoder=autoencoder,
        denoiser=denoiser,
        profile_map=config.profile_map,
        fidelity=config.fidelity,
        start=config.start,
        halo=max((_halo(receptive_radius(n.blocks)[0]) for n in (config.one_step, config.denoiser) if n), default=0),
        autoencoder_halo=_halo(_autoencoder_radius(config.autoencoder)),
        modalities=config.modalities,
        presets={"fidelity": (0.0, 1), "balanced": config.balanced, "detail": config.detail},
    )


def _backbone(config: NetworkConfig, channels: int) -> nn.Module:
    """A network from noisy latent, the scan's latent and the scan to a latent."""
    inputs = 2 * channels + 1
    if config.kind == "monai-unet":
        from medld.nn.monai import MonaiUNet

        return MonaiUNet(inputs, channels, config.channels, config.blocks)
    return _unet(config, inputs, channels, SCAN_FEATURES + TIME_FEATURES)


def _unet(config: NetworkConfig, inputs: int, outputs: int, features: int, scale: float = 1.0) -> UNet:
    return UNet(inputs, outputs, features, config.channels, config.blocks, config.embedding, scale)


def _autoencoder(config: AutoencoderConfig) -> LatentSpace:
    if config.kind == "monai-kl":
        from medld.nn.monai import MonaiAutoencoder

        return MonaiAutoencoder(config.latent_channels, config.width, config.decoder_blocks)
    return Autoencoder(
        config.latent_channels, config.width, config.encoder_blocks, config.decoder_blocks, config.embedding
    )


def _autoencoder_radius(config: AutoencoderConfig | None) -> int:
    """Two convolutions a block, one before and one after."""
    return 0 if config is None else 2 + 2 * max(config.encoder_blocks, config.decoder_blocks)


def _halo(radius: int) -> int:
    return -(-radius // ALIGN) * ALIGN
