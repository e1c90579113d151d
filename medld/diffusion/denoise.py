"""The preconditioned denoiser: from a noisy latent to the mean of the clean ones.

    z^(z_t, t) = z_lr + backbone(z_t, z_lr, y; t, conditions)

The backbone starts at zero, so an untrained denoiser answers with the scan's own latent, and what it
learns is only what the scan lacks. Trained on |z^ - z|^2 at every t it is the posterior mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medld.diffusion.noise import Flow


class Denoiser(nn.Module):
    """A backbone and the flow it is trained for.

    The backbone takes (B, 2C + 1, I, J, K) and features (B, F) and gives (B, C, I, J, K).
    """

    def __init__(self, backbone: nn.Module, flow: Flow) -> None:
        super().__init__()
        self.backbone = backbone
        self.flow = flow

    def forward(self, z_t: Tensor, low_res_latent: Tensor, scan: Tensor, features: Tensor) -> Tensor:
        """z^ in float32 (B, C, I, J, K); `features` include those of t, `scan` sets the backbone's precision."""
        return low_res_latent.float() + self.residual(z_t, low_res_latent, scan, features).float()

    def residual(self, z_t: Tensor, low_res_latent: Tensor, scan: Tensor, features: Tensor) -> Tensor:
        """z^ - z_lr, in the precision of `scan`."""
        cond = torch.cat([z_t.to(scan.dtype), low_res_latent.to(scan.dtype), scan], dim=1)
        return self.backbone(cond, features)  # type: ignore[no-any-return]


def latent_loss(estimate: Tensor, latent: Tensor) -> Tensor:
    """Mean squared error per batch item, (B,)."""
    return (estimate - latent).square().flatten(1).mean(1)
