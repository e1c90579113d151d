"""What training minimises: distance to the truth before and after the projection onto the scan."""

from __future__ import annotations

import torch
from torch import Tensor

from medld.nn.autoencoder import unfold
from medld.training.apply import Sample

EPSILON = 0.03
"""Width of the Charbonnier distance unless said: by a width of .3, nearly all errors count by their squares."""

BEFORE, AFTER = 0.5, 1.0
"""A loss after the projection alone would leave free what the projection replaces, and it drifts."""

TYPICAL_ERROR = 0.02
LEAST_ERROR = 0.003
"""Charbonnier distances of B to the truth: the median at 4x, and one below which an easy crop weighs no more.

Measured at the usual width; at another one they are other shares of B's errors.
"""

SSIM_WINDOW = 7
"""Voxels; with a deviation of 1.5 of them it reaches two deviations far."""


def charbonnier(difference: Tensor, width: float = EPSILON) -> Tensor:
    """(sqrt(d^2 + width^2) - width) width / EPSILON, mean per batch item, (B,).

    About d^2 / (2 EPSILON) below the width, whatever that is, and straight beyond it.
    """
    return ((difference.square() + width**2).sqrt() - width).flatten(1).mean(1) * (width / EPSILON)


def add_profile(sample: Sample, profile: Tensor) -> Tensor:
    """Baseline plus the networks' answer `profile` (B, 8, I, J, k), on the padded target grid."""
    fine = unfold(profile.float()) @ sample.to_target.T
    return sample.baseline + sample.operator.pad(fine)  # type: ignore[no-any-return]


def completed(sample: Sample, profile: Tensor) -> Tensor:
    """Baseline plus profile, projected onto the scan as far as its noise allows: (B, 1, I, J, n)."""
    padded = add_profile(sample, profile)
    projected = sample.operator.project(padded, sample.low_res, sample.noise, sample.damping)
    return sample.operator.crop(projected)  # type: ignore[no-any-return]


def image_loss(sample: Sample, profile: Tensor, width: float = EPSILON) -> Tensor:
    """Weighted distance to the truth before and after the (gated) projection, (B,)."""
    operator = sample.operator
    padded = add_profile(sample, profile)
    projected = operator.project(padded, sample.low_res, sample.noise, sample.damping)
    before = charbonnier(operator.crop(padded) - sample.high_res, width)
    after = charbonnier(operator.crop(projected) - sample.high_res, width)
    return BEFORE * before + AFTER * after


def dissimilarity(image: Tensor, truth: Tensor) -> Tensor:
    """1 - SSIM of volumes (B, 1, I, J, n) in network units, where tissue lies in [0, 1]; (B,).

    Windows shrink to the volume where it is thinner than one. Source: Wang et al. 2004, as MONAI computes it.
    """
    from monai.losses.ssim_loss import SSIMLoss  # takes seconds to import, and most runs do without

    window = [min(SSIM_WINDOW, size - 1 + size % 2) for size in image.shape[2:]]
    loss = SSIMLoss(spatial_dims=3, data_range=1.0, win_size=window, kernel_sigma=1.5, reduction="none")
    return loss(image, truth).flatten()  # type: ignore[no-any-return]


@torch.no_grad()
def ease(sample: Sample, width: float = EPSILON) -> Tensor:
    """Weight per batch item, (B,), that makes a share of B's error count the same wherever it is won.

    B's error triples from 2x to 4x; unweighted, low ratios and smooth heads would hardly be learned.
    """
    return TYPICAL_ERROR / (LEAST_ERROR + charbonnier(sample.known - sample.high_res, width))


@torch.no_grad()
def gain(sample: Sample, profile: Tensor) -> Tensor:
    """PSNR of the projected answer over the projected baseline's, dB over the batch's tissue: a progress figure."""
    tissue = sample.high_res > 0.05
    candidates = (sample.known, completed(sample, profile))
    errors = [((x - sample.high_res).square() * tissue).sum() for x in candidates]
    return 10 * torch.log10(errors[0] / errors[1])
