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
from medld.nn.transformer import Transformer
from medld.nn.unet import WINDOW_EDGE, UNet, receptive_radius
from medld.patches import ALIGN


def build_networks(config: ModelConfig) -> Networks:
    """The networks of a model, freshly initialised, in float32 on the CPU; a stage that trains one says so to it."""
    autoencoder = None if config.autoencoder is None else _autoencoder(config.autoencoder)
    denoiser = None
    if config.denoiser is not None and autoencoder is not None:
        channels = autoencoder.latent_channels
        flow = Flow(config.kappa, drift=config.start != "noise")
        denoiser = Denoiser(_backbone(config.denoiser, channels), flow, RatioTable(channels))
    given = [network for network in (config.one_step, config.denoiser) if network is not None]
    align = WINDOW_EDGE if any(network.attention for network in given) else ALIGN
    one_step = None
    if config.one_step is not None:
        one_step = _network(config.one_step, 1, SAMPLES, SCAN_FEATURES, IMAGE_SCALE)
    for module in (one_step, autoencoder, denoiser):
        if module is not None:
            module.eval()
    return Networks(
        one_step=one_step,
        autoencoder=autoencoder,
        denoiser=denoiser,
        profile_map=config.profile_map,
        fidelity=config.fidelity,
        start=config.start,
        sampler=config.sampler,
        eta=config.eta,
        align=align,
        halo=max((_rounded(_reach(network), align) for network in given), default=0),
        autoencoder_halo=_rounded(_autoencoder_radius(config.autoencoder), ALIGN),
        modalities=config.modalities,
        presets={"fidelity": (0.0, 1), "balanced": config.balanced, "detail": config.detail},
    )


def _backbone(config: NetworkConfig, channels: int) -> nn.Module:
    """A network from noisy latent, the scan's latent and the scan to a latent."""
    inputs = 2 * channels + 1
    if config.kind == "monai-unet":
        from medld.nn.monai import MonaiUNet

        return MonaiUNet(inputs, channels, config.channels, config.blocks)
    return _network(config, inputs, channels, SCAN_FEATURES + TIME_FEATURES)


def _network(config: NetworkConfig, inputs: int, outputs: int, features: int, scale: float = 1.0) -> nn.Module:
    """A U-Net or a transformer, both told all of the features."""
    if config.kind == "dit":
        chosen = config.transformer
        sizes = (chosen.width, chosen.depth, chosen.patch, chosen.window)
        return Transformer(inputs, outputs, features, *sizes, config.embedding, scale, config.dropout)
    return UNet(
        inputs,
        outputs,
        features,
        config.channels,
        config.blocks,
        config.embedding,
        scale,
        config.dropout,
        attention=config.attention,
        normalised=config.norm == "voxel",
    )


def _autoencoder(config: AutoencoderConfig) -> LatentSpace:
    if config.kind == "monai-kl":
        from medld.nn.monai import MonaiAutoencoder

        return MonaiAutoencoder(config.latent_channels, config.width, config.decoder_blocks)
    blocks = (config.encoder_blocks, config.decoder_blocks)
    return Autoencoder(config.latent_channels, config.width, *blocks, config.embedding, config.dropout)


def _autoencoder_radius(config: AutoencoderConfig | None) -> int:
    """Two convolutions a block, one before and one after."""
    return 0 if config is None else 2 + 2 * max(config.encoder_blocks, config.decoder_blocks)


def _reach(config: NetworkConfig) -> int:
    """How far a U-Net looks in-plane; what is no U-Net of ours is never tiled."""
    return receptive_radius(config.blocks, attention=config.attention)[0]


def _rounded(radius: int, align: int) -> int:
    return -(-radius // align) * align
