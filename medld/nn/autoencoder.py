"""The autoencoder of what a scan did not measure: latents on the acquired grid, the scan beside them.

A fine volume, resampled to eight samples a slice and folded into channels, becomes `latent_channels`
numbers per acquired voxel. The decoder also sees the scan, so the latents need not carry it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn

from medld.nn.blocks import IMAGE_SCALE, Blocks, Conv, Embedding
from medld.nn.conditions import GEOMETRY_FEATURES

SAMPLES = 8
LOG_VARIANCE = (-14.0, 2.0)
RATIO_KNOTS = 8
LARGEST_RATIO = 8.0
SMALLEST_SHARE = 0.05


@dataclass(frozen=True)
class Posterior:
    """Gaussian of a latent: `mean` and `log_variance`, each (B, C, I, J, K)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + deviation * noise."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self) -> Tensor:
        """Half the mean of mu^2 + var - 1 - log var: distance to a standard normal, per number."""
        return 0.5 * (self.mean**2 + self.log_variance.exp() - 1 - self.log_variance).mean()


class Stack(nn.Module):
    """Convolution, blocks, convolution, steered by the geometry of the scan; `zero` starts it at zero."""

    def __init__(
        self, inputs: int, outputs: int, width: int, blocks: int, embedding: int, dropout: float = 0.0, *, zero: bool
    ) -> None:
        super().__init__()
        self.output_scale = IMAGE_SCALE if zero else 1.0
        self.embed = Embedding(GEOMETRY_FEATURES, embedding)
        self.stem = Conv(inputs, width)
        self.blocks = Blocks(width, blocks, embedding, dropout)
        self.head = Conv(width, outputs, zero=zero)

    def forward(self, x: Tensor, geometry: Tensor) -> Tensor:
        """(B, inputs, I, J, K) and (B, 32) to (B, outputs, I, J, K), in the precision of `x`."""
        embedding = self.embed(geometry.to(x.dtype))
        x = self.stem(x).contiguous(memory_format=torch.channels_last_3d)
        return self.output_scale * self.head(self.blocks(x, embedding))  # type: ignore[no-any-return]


class LatentSpace(nn.Module):
    """Encoder, decoder and the table that standardises latents at every ratio; abstract.

    Args:
        latent_channels: C, numbers per acquired voxel.
        encoder: Folded samples (B, 8, I, J, K) and geometry (B, 32) to mean and log variance (B, 2C, I, J, K).
        decoder: Latent and scan (B, C + 1, I, J, K) and geometry to folded samples.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, latent_channels: int, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.encoder = encoder
        self.decoder = decoder
        self.register_buffer("latent_mean", torch.zeros(RATIO_KNOTS, latent_channels))
        self.register_buffer("latent_std", torch.ones(RATIO_KNOTS, latent_channels))

    def encode(self, samples: Tensor, geometry: Tensor) -> Posterior:
        """Folded samples (B, 8, I, J, K) to the posterior of the latent."""
        mean, log_variance = self.encoder(samples, geometry).float().chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(*LOG_VARIANCE))

    def decode(self, latent: Tensor, scan: Tensor, geometry: Tensor) -> Tensor:
        """Latent (B, C, I, J, K) and scan (B, 1, I, J, K) to folded samples (B, 8, I, J, K)."""
        return self.decoder(torch.cat([latent.to(scan.dtype), scan], dim=1), geometry)  # type: ignore[no-any-return]

    def standardise(self, latent: Tensor, ratio: Tensor) -> Tensor:
        """Raw latent to mean zero, deviation one at its ratio (B,)."""
        mean, std = self._table(ratio)
        return (latent - mean) / std

    def unstandardise(self, latent: Tensor, ratio: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        mean, std = self._table(ratio)
        return latent * std + mean

    def _table(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        weights = knot_weights(ratio)
        mean, std = (weights @ table.float() for table in (self.latent_mean, self.latent_std))
        # A channel that hardly varies would otherwise have its rounding blown up to unit variance.
        std = torch.maximum(std, SMALLEST_SHARE * std.amax(1, keepdim=True))
        return mean[:, :, None, None, None], std[:, :, None, None, None]


class Autoencoder(LatentSpace):
    """The autoencoder of the acquired grid: normalised per voxel, told the geometry, its decoder beside the scan."""

    def __init__(
        self,
        latent_channels: int = 2,
        width: int = 48,
        encoder_blocks: int = 2,
        decoder_blocks: int = 3,
        embedding: int = 128,
        dropout: float = 0.0,
    ) -> None:
        encoder = Stack(SAMPLES, 2 * latent_channels, width, encoder_blocks, embedding, dropout, zero=False)
        decoder = Stack(latent_channels + 1, SAMPLES, width, decoder_blocks, embedding, dropout, zero=True)
        super().__init__(latent_channels, encoder, decoder)


class RatioTable(nn.Module):
    """One positive number per channel at every ratio: a table over the knots, interpolated; ones until it is filled."""

    values: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.ones(RATIO_KNOTS, channels))

    def forward(self, ratio: Tensor) -> Tensor:
        """(B,) to (B, C, 1, 1, 1)."""
        return (knot_weights(ratio) @ self.values.float())[:, :, None, None, None]


def knot_weights(ratio: Tensor) -> Tensor:
    """Linear interpolation weights of log r between `RATIO_KNOTS` knots from 1 to 8, (B,) to (B, knots)."""
    position = torch.log(ratio.float()) * ((RATIO_KNOTS - 1) / log(LARGEST_RATIO))
    knots = torch.arange(RATIO_KNOTS, device=ratio.device)
    return (1 - (position.clamp(0, RATIO_KNOTS - 1)[:, None] - knots).abs()).clamp(min=0)


def fold(samples: Tensor) -> Tensor:
    """Profile grid (B, 1, I, J, 8K) to the acquired grid (B, 8, I, J, K)."""
    batch, _, rows, columns, length = samples.shape
    return samples.reshape(batch, rows, columns, length // SAMPLES, SAMPLES).permute(0, 4, 1, 2, 3)


def unfold(folded: Tensor) -> Tensor:
    """The inverse of `fold`."""
    batch, _, rows, columns, slices = folded.shape
    return folded.permute(0, 2, 3, 4, 1).reshape(batch, 1, rows, columns, slices * SAMPLES)
