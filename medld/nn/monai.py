"""MONAI's networks behind the interfaces of ours: the plain latent diffusion that tables compare with, and a judge.

Plain means as it is usually built: the autoencoder knows neither the scan nor its geometry, the U-Net is told
the time and nothing else. Both work on the acquired grid. Group norm takes its statistics over the volume and
the middle of the U-Net attends to all of it, so a tile would not compute what the whole does: they take
scans in one piece. The discriminator exists in training only.

Source: Pinaya et al. 2022, arXiv:2209.07162, as implemented by MONAI's AutoencoderKL and DiffusionModelUNet.
"""

from __future__ import annotations

from math import gcd

import torch
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.networks.nets.autoencoderkl import AutoencoderKL
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn
from torch.func import functional_call

from medld.nn.autoencoder import SAMPLES, LatentSpace
from medld.nn.blocks import IMAGE_SCALE
from medld.nn.conditions import time_of
from medld.nn.unet import pad_to_multiples

NORM_GROUPS = 32
"""MONAI's own number; widths that it does not divide get fewer."""

TIME_SCALE = 1000.0
"""MONAI's embedding of the time resolves steps of about one."""

MULTIPLES = (4, 4, 4)
"""Two levels down, by two along every axis: MONAI's strides are the same for all three."""


class MonaiAutoencoder(LatentSpace):
    """`AutoencoderKL` of the folded samples, one level without attention, so that latents stay on the acquired grid.

    What it decodes is a correction to the baseline, and starts at zero and scaled as ours does.
    """

    tileable = False

    def __init__(self, latent_channels: int, width: int, blocks: int) -> None:
        network = AutoencoderKL(
            spatial_dims=3,
            in_channels=SAMPLES,
            out_channels=SAMPLES,
            num_res_blocks=(blocks,),
            channels=(width,),
            attention_levels=(False,),
            latent_channels=latent_channels,
            norm_num_groups=_groups(width),
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        for parameter in list(network.decoder.parameters())[-2:]:  # its last convolution
            nn.init.zeros_(parameter)
        super().__init__(latent_channels, _Encoder(network), _Decoder(network))


class _Encoder(nn.Module):
    def __init__(self, network: AutoencoderKL) -> None:
        super().__init__()
        self.body = network.encoder
        self.mean = network.quant_conv_mu
        self.log_variance = network.quant_conv_log_sigma

    def forward(self, samples: Tensor, geometry: Tensor) -> Tensor:
        """(B, 8, I, J, K) to (B, 2C, I, J, K); the geometry is not used."""
        with _mixed(samples, self):
            hidden = self.body(samples)
            moments = torch.cat([self.mean(hidden), self.log_variance(hidden)], dim=1)
        return moments.to(samples.dtype)


class _Decoder(nn.Module):
    def __init__(self, network: AutoencoderKL) -> None:
        super().__init__()
        self.first = network.post_quant_conv
        self.body = network.decoder

    def forward(self, latent_and_scan: Tensor, geometry: Tensor) -> Tensor:
        """(B, C + 1, I, J, K) to (B, 8, I, J, K); neither scan nor geometry is used."""
        with _mixed(latent_and_scan, self):
            output = self.body(self.first(latent_and_scan[:, :-1]))
        return IMAGE_SCALE * output.to(latent_and_scan.dtype)  # type: ignore[no-any-return]


class MonaiUNet(nn.Module):
    """`DiffusionModelUNet` as a denoiser's backbone; of the features it reads the time."""

    tileable = False

    def __init__(self, inputs: int, outputs: int, channels: tuple[int, int, int], blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.network = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=inputs,
            out_channels=outputs,
            num_res_blocks=blocks,
            channels=channels,
            attention_levels=(False, False, False),
            norm_num_groups=_groups(*channels),
            # The middle attends whatever the levels do, and divides by this: one head of the full width.
            num_head_channels=channels,
            # Written out, the weights between all its tokens would be gigabytes for a head. No dropout goes with
            # it: MONAI's flash attention drops in evaluation too.
            use_flash_attention=True,
            dropout_cattn=0.0,
        )

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """(B, inputs, I, J, K) and (B, features) to (B, outputs, I, J, K), in the precision of `x`."""
        rows, columns, slices = x.shape[-3:]
        with _mixed(x, self):
            output = self.network(pad_to_multiples(x, MULTIPLES), TIME_SCALE * time_of(features))
        return output[..., :rows, :columns, :slices].to(x.dtype)  # type: ignore[no-any-return]


class Discriminator(nn.Module):
    """`PatchDiscriminator` in 3D: tells patches of restored volumes from those of true ones.

    Both sides of the game are one sum for one optimiser. What the discriminator says to the other side leaves its own
    weights alone, and what it learns from leaves the other side's alone. Instance norm keeps no statistics, so nothing
    but weights is saved; kernels of three leave something of any crop.
    Source: Isola et al., 1611.07004; least squares as in Mao et al., 1611.04076.
    """

    def __init__(self, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.network = PatchDiscriminator(
            spatial_dims=3, channels=width, in_channels=1, num_layers_d=layers, kernel_size=3, norm="INSTANCE"
        )
        self.loss = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def fooled(self, restored: Tensor) -> Tensor:
        """How little `restored` (B, 1, I, J, n) passes for true: what the decoder is to lessen."""
        frozen = {name: weight.detach() for name, weight in self.network.named_parameters()}
        with _mixed(restored, self):
            verdict = functional_call(self.network, frozen, (restored,))[-1]
        return self.loss(verdict.float(), target_is_real=True, for_discriminator=False)  # type: ignore[no-any-return]

    def mistaken(self, restored: Tensor, true: Tensor) -> Tensor:
        """How badly it tells the two apart, (B, 1, I, J, n) each: what it is to lessen itself."""
        losses = []
        for images, is_true in ((restored.detach(), False), (true, True)):
            with _mixed(images, self):
                verdict = self.network(images)[-1]
            losses.append(self.loss(verdict.float(), target_is_real=is_true, for_discriminator=True))
        return torch.stack(losses).mean()


def _groups(*channels: int) -> int:
    """Groups that divide all widths, two channels each at least: a group of one would norm the told time away."""
    possible = range(1, 1 + min(NORM_GROUPS, min(channels) // 2))
    return max((n for n in possible if gcd(*channels) % n == 0), default=1)


def _mixed(x: Tensor, module: nn.Module) -> torch.autocast:
    """Float32 weights serve bfloat16 activations; weights that were cast when the model was loaded just run."""
    weight = next(module.parameters())
    enabled = x.dtype == torch.bfloat16 and weight.dtype == torch.float32
    return torch.autocast(x.device.type, torch.bfloat16, enabled=enabled)
