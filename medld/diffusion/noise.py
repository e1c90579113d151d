"""The forward process: a straight path from the wanted latent to the scan's own latent plus noise.

    z_t = (1 - t) z + t (c + kappa eps)             t = 0 clean, t = 1 what the scan gives

The centre c is z_lr, the scan's latent; without drift it is zero, and sampling begins at pure noise. Without t c this
is a Gaussian diffusion w_t = alpha_t z + sigma_t eps with alpha_t = 1 - t and sigma_t = kappa t, so every sampler for
those serves here. Latents are standardised.

Source: reference design, section 2; flow matching from a degraded start as in Ohayon et al.,
"Posterior-Mean Rectified Flow" (2410.00418).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Time = TypeVar("Time", float, Tensor)


@dataclass(frozen=True)
class Scales:
    """Factors (B, C, 1, 1, 1) of a preconditioned denoiser: of its input, of what passes by it and through it."""

    into: Tensor
    skip: Tensor
    out: Tensor


@dataclass(frozen=True)
class Flow:
    """The process: `kappa`, the noise at t = 1 in standardised latents, and whether it drifts to the scan's latent."""

    kappa: float = 0.5
    drift: bool = True

    def alpha(self, t: Time) -> Time:
        """Weight of the clean latent."""
        return 1 - t

    def sigma(self, t: Time) -> Time:
        """Deviation of the noise."""
        return self.kappa * t

    def centre(self, low_res_latent: Tensor) -> Tensor:
        """c, where the path ends but for its noise; shaped as `low_res_latent`."""
        return low_res_latent if self.drift else torch.zeros_like(low_res_latent)

    def diffuse(self, latent: Tensor, low_res_latent: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t of latents (B, C, I, J, K) at times t (B,)."""
        t = t[:, None, None, None, None]
        return self.alpha(t) * latent + t * self.centre(low_res_latent) + self.sigma(t) * noise

    def scales(self, spread: Tensor, t: Tensor) -> Scales:
        """What keeps input and output of a network at unit variance where z - c has deviation `spread`.

        With `spread` (B, C, 1, 1, 1), `skip` alone is the best linear estimate of z - c from z_t - c.
        Source: Karras et al., "Elucidating the Design Space" (2206.00364), table 1, for alpha_t unlike 1.
        """
        t = t[:, None, None, None, None]
        signal, noise = self.alpha(t) * spread, self.sigma(t)
        total = (signal.square() + noise.square()).sqrt()
        return Scales(into=1 / total, skip=signal * spread / total.square(), out=spread * noise / total)

    def start(self, low_res_latent: Tensor, noise: Tensor) -> Tensor:
        """z_1, where sampling begins."""
        return self.centre(low_res_latent) + self.kappa * noise
