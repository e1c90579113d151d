"""A textured head, its thick slices and what is made of them, small enough for every test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medld.acquisition import Acquisition, AxisAcquisition
from medld.calibration import Evidence, ScaleConfig
from medld.metrics import find_foreground

Array = NDArray[Any]

SCALE = ScaleConfig(features=("texture", "bend"), exponents=((0.4, -0.1),), level=(0.0, 1.0, 0.0), phase=(0.5, -0.3))


@dataclass(frozen=True, eq=False)
class Head:
    """A truth of 40 x 36 x 32 voxels and its restoration from slices."""

    truth: Array
    evidence: Evidence

    @property
    def foreground(self) -> Array:
        """Of the truth."""
        return find_foreground(self.truth)


def make_head(seed: int, slices: int = 8, axis: int = 2) -> Head:
    """A ball with a shell and fine texture; the output is B with a little of what is missing."""
    rng = np.random.default_rng(seed)
    i, j, k = np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in (40, 36, 32)), indexing="ij")
    radius = np.sqrt(i**2 + j**2 + k**2)
    texture = gaussian_filter(rng.standard_normal(radius.shape), 0.7) * (1 + (i > 0))
    truth = np.where(radius < 1, 400 + 300 * (radius < 0.6) + 90 * texture, 0).clip(0).astype(np.float32)
    truth = np.moveaxis(truth, 2, axis)
    axes: list[AxisAcquisition | None] = [None, None, None]
    axes[axis] = AxisAcquisition(32, slices)
    acquisition = Acquisition((axes[0], axes[1], axes[2]), slice_axis=axis)
    widths = [(a.margin, a.margin) if a else (0, 0) for a in axes]
    scan = acquisition.apply(np.pad(truth, widths, mode="edge"))
    baseline = acquisition.crop(acquisition.baseline(scan))
    output = baseline + np.float32(0.3) * (truth - baseline)
    return Head(truth, Evidence(scan, output, acquisition, unit=float(np.percentile(scan[scan > 0], 99.9))))
