"""The preconditioned denoiser: from a noisy latent to the mean of the clean ones.

    z^(z_t, t) = c + skip w + out backbone(into w, z_lr, y; t, conditions)      w = z_t - c

with c the flow's centre, z_lr or zero. The backbone starts at zero, so an untrained denoiser is the best linear one:
its samples have the right spread from the first step on, and training gives them their shape. Without `skip` it would
first have to learn to let z_t pass, and until it has, samples blur. Trained on |z^ - z|^2 at every t it is the
posterior mean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medld.diffusion.noise import Flow, Scales


class Denoiser(nn.Module):
    """A backbone and the flow it is trained for.

    Args:
        backbone: (B, 2C + 1, I, J, K) and features (B, F), those of t included, to (B, C, I, J, K).
        flow: The forward process.
        spread: Ratio (B,) to the deviation of z from the flow's centre, (B, C, 1, 1, 1).
    """

    def __init__(self, backbone: nn.Module, flow: Flow, spread: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.flow = flow
        self.spread = spread

    def forward(
        self,
        z_t: Tensor,
        low_res_latent: Tensor,
        scan: Tensor,
        features: Tensor,
        *,
        t: Tensor,
        ratio: Tensor,
        run: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """z^ in float32 (B, C, I, J, K).

        `scan` sets the backbone's precision, never that of the sums: rounding of z_t would pass for detail.
        `run` calls the backbone, in tiles for instance.
        """
        centre = self.flow.centre(low_res_latent)
        away = z_t - centre
        scales = self.scales(t, ratio)
        seen = torch.cat([(scales.into * away).to(scan.dtype), low_res_latent.to(scan.dtype), scan], dim=1)
        answer = (run or self.backbone)(seen, features)
        return centre + scales.skip * away + scales.out * answer.float()

    def scales(self, t: Tensor, ratio: Tensor) -> Scales:
        """The factors at times t (B,) and ratios (B,)."""
        return self.flow.scales(self.spread(ratio), t)


def latent_loss(estimate: Tensor, latent: Tensor, scales: Scales | None = None) -> Tensor:
    """Mean squared error per batch item, (B,); with `scales` in units of the backbone's answer, alike at all t."""
    error = estimate - latent
    return (error if scales is None else error / scales.out).square().flatten(1).mean(1)
