"""What every network is told about a scan, as numbers.

a      slice spacing / in-plane spacing (geometric mean of the two)
r      target ratio n / k
tau    slice thickness / slice spacing
sigma  the scan's noise as `intensity.estimate_noise` returns it, in training as in use
soft   share of the in-plane axes that are blurred by about a voxel, as in the passes of an
       isotropic restoration
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

CONTRASTS = ("unknown", "T1w", "T2w", "FLAIR", "ce-T1w")
HARMONICS = 8
GEOMETRY_FEATURES = 4 * HARMONICS
SCAN_FEATURES = GEOMETRY_FEATURES + 4 + len(CONTRASTS)
TIME_FEATURES = 2 * HARMONICS

TIME_STEP = 1.4
"""Radians per harmonic at t = 1: less than half a turn, so that the first one alone tells t."""

THICKNESS_TOLD = (0.6, 2.0)
"""Networks saw slices of these thicknesses (in spacings) in training; others are told clamped."""


@dataclass(frozen=True)
class Conditions:
    """One value per batch item, each of shape (B,); `contrast` indexes `CONTRASTS`."""

    spacing_ratio: Tensor
    ratio: Tensor
    thickness: Tensor
    noise: Tensor
    soft: Tensor
    contrast: Tensor

    def first(self, count: int) -> Conditions:
        """Those of the first `count` items."""
        return Conditions(*(getattr(self, field.name)[:count] for field in fields(self)))

    def geometry(self) -> Tensor:
        """Features of a and r alone, (B, 32): what the autoencoder is told."""
        steps = 0.7 * torch.arange(1, HARMONICS + 1, device=self.ratio.device)
        angles = [torch.log2(value)[:, None] * steps for value in (self.spacing_ratio, self.ratio)]
        return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)

    def features(self) -> Tensor:
        """All features, (B, SCAN_FEATURES)."""
        thickness = torch.log2(self.thickness.clamp(*THICKNESS_TOLD))
        scalars = [thickness, (50 * self.noise).clamp(max=3), (self.noise > 0).to(thickness), self.soft]
        contrast = functional.one_hot(self.contrast, len(CONTRASTS)).to(thickness)
        return torch.cat([self.geometry(), torch.stack(scalars, dim=1), contrast], dim=1)


def time_features(t: Tensor) -> Tensor:
    """Features of the diffusion time t in [0, 1], (B,) to (B, 16)."""
    angles = t[:, None] * TIME_STEP * torch.arange(1, HARMONICS + 1, device=t.device)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


def time_of(features: Tensor) -> Tensor:
    """The inverse of `time_features`, which are the last of `features` (B, F): t, (B,)."""
    sine, cosine = features[:, -TIME_FEATURES], features[:, -HARMONICS]
    return torch.atan2(sine, cosine) / TIME_STEP
