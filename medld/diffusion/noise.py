"""The forward process: a straight path from the wanted latent to the scan's own latent plus noise.

    z_t = (1 - t) z + t (z_lr + kappa eps)      t = 0 clean, t = 1 what the scan gives

Without the drift t z_lr this is a Gaussian diffusion w_t = alpha_t z + sigma_t eps with
alpha_t = 1 - t and sigma_t = kappa t, so every sampler for those serves here. Latents are standardised.

Source: reference design, section 2; flow matching from a degraded start as in Ohayon et al.,
"Posterior-Mean Rectified Flow" (2410.00418).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Scales:
    """Factors (B, C, 1, 1, 1) of a preconditioned denoiser: of its input, of what passes by it and through it."""

    into: Tensor
    skip: Tensor
    out: Tensor


@dataclass(frozen=True)
class Flow:
    """The process and its one constant: `kappa`, the noise at t = 1 in standardised latents."""

    kappa: float = 0.5

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the clean latent."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """Deviation of the noise."""
        return self.kappa * t

    def diffuse(self, latent: Tensor, low_res_latent: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t of latents (B, C, I, J, K) at times t (B,)."""
        t = t[:, None, None, None, None]
        return self.alpha(t) * latent + t * low_res_latent + self.sigma(t) * noise

    def scales(self, spread: Tensor, t: Tensor) -> Scales:
        """What keeps input and output of a network at unit variance where z - z_lr has deviation `spread`.

        With `spread` (B, C, 1, 1, 1), `skip` alone is the best linear estimate of z - z_lr from z_t - z_lr.
        Source: Karras et al., "Elucidating the Design Space" (2206.00364), table 1, for alpha_t unlike 1.
        """
        t = t[:, None, None, None, None]
        signal, noise = self.alpha(t) * spread, self.sigma(t)
        total = (signal.square() + noise.square()).sqrt()
        return Scales(into=1 / total, skip=signal * spread / total.square(), out=spread * noise / total)

    def start(self, low_res_latent: Tensor, noise: Tensor) -> Tensor:
        """z_1, where sampling begins."""
        return low_res_latent + self.kappa * noise
