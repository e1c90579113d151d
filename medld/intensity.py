"""Scanner units to network units and back, and the noise of a scan.

Networks see a scan divided by the 99.9th percentile of its non-zero voxels, so that tissue lies in
about [0, 1] whatever the scanner's gain. Nothing is clipped and the map is affine, so it is undone
exactly. CT keeps its zero elsewhere: Hounsfield units are shifted so that air is near 0.

The noise estimate rests on flat tissue: high-pass filtered windows inside the head, and among them
the quietest tenth. Edges everywhere, or air that was set to zero, would otherwise pass for noise
or hide it. Source: reference design, section 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

CT_AIR = -1024.0
CT_RANGE = 2048.0

TISSUE = 0.05
"""Share of the 99.9th percentile above which a voxel counts as tissue."""

HIGH_PASS = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / np.sqrt(70.0)
"""Fourth difference of unit norm: white noise passes with its deviation unchanged, parabolas do not."""

WINDOW = 9
SUPPORT = WINDOW + len(HIGH_PASS) - 1
STRIP_VOXELS = 8_000_000
"""Filtered at a time: the windows of a strip know nothing of the others."""

QUIETEST = 0.10
MAD_TO_DEVIATION = 1.4826
QUIETEST_OF_WHITE_NOISE = 0.736
"""The tenth percentile of such windows' deviations on white noise of deviation one."""

TEXTURE = 0.006
"""What noise-free anatomy leaves in the quietest windows; subtracted in quadrature."""


@dataclass(frozen=True)
class IntensityMap:
    """network = (scanner - offset) / scale."""

    scale: float
    offset: float = 0.0

    def forward(self, array: Any) -> Any:
        """Scanner units to network units."""
        return (array - self.offset) / self.scale

    def inverse(self, array: Any) -> Any:
        """Network units to scanner units."""
        return array * self.scale + self.offset

    def invert_(self, tensor: Tensor) -> Tensor:
        """As `inverse`, in the tensor's own place."""
        return tensor.mul_(self.scale).add_(self.offset)


def intensity_map(array: NDArray[np.float32], modality: str) -> IntensityMap:
    """The map for a scan; MRI is scaled by the 99.9th percentile of the magnitude of its non-zero voxels."""
    if modality == "ct":
        return IntensityMap(CT_RANGE, CT_AIR)
    tissue = array[array != 0]
    np.abs(tissue, out=tissue)
    scale = float(np.percentile(tissue, 99.9, overwrite_input=True)) if tissue.size else 1.0
    return IntensityMap(scale if scale > 0 else 1.0)


def estimate_noise(scan: Tensor, texture: float = TEXTURE) -> Tensor:
    """Standard deviation of the noise, in network units, of scans (B, 1, I, J, K) with slices along K; shape (B,).

    Zero means that no noise stands out from texture. Windows never cross slices, so the slice profile
    does not matter. Scans too small or too dark for one window give zero.
    """
    batch, _, rows, columns, _ = scan.shape
    if min(rows, columns) < SUPPORT:
        return scan.new_zeros(batch)
    deviation = torch.cat([_deviations(part[:, 0]) for part in _whole_windows(scan)], dim=1).sort(1).values
    valid = deviation.isfinite().sum(1)
    index = (QUIETEST * (valid - 1).clamp(min=0)).long()
    quietest = deviation.gather(1, index[:, None])[:, 0]
    quietest = torch.where(valid > 0, quietest, torch.zeros_like(quietest))
    return ((quietest / QUIETEST_OF_WHITE_NOISE) ** 2 - texture**2).clamp(min=0).sqrt()


def _whole_windows(scan: Tensor) -> Iterator[Tensor]:
    """Strips of rows that hold whole windows with all that their filters see; a small scan is one strip."""
    down = (scan.shape[2] - SUPPORT) // WINDOW + 1
    step = max(1, STRIP_VOXELS // (WINDOW * scan.shape[3] * scan.shape[4]))
    for first in range(0, down, step):
        last = min(first + step, down) - 1
        yield scan[:, :, first * WINDOW : last * WINDOW + SUPPORT]


def _deviations(scan: Tensor) -> Tensor:
    """Robust deviation of each window of (B, I, J, K) after the filter, (B, windows); infinite outside tissue."""
    # A window counts when all that its filter sees is tissue.
    dark = (scan <= TISSUE).to(scan.dtype)
    dark = functional.max_pool3d(dark, (SUPPORT, SUPPORT, 1), stride=(WINDOW, WINDOW, 1))
    high = _fourth_difference(_fourth_difference(scan, 1), 2).abs()
    batch, down, across, count = dark.shape
    windows = high[:, : down * WINDOW, : across * WINDOW].reshape(batch, down, WINDOW, across, WINDOW, count)
    windows = windows.permute(0, 1, 3, 5, 2, 4).reshape(batch, -1, WINDOW * WINDOW)
    deviation = MAD_TO_DEVIATION * windows.median(2).values
    return deviation.masked_fill(dark.flatten(1) > 0, torch.inf)


def _fourth_difference(x: Tensor, axis: int) -> Tensor:
    """x convolved with [1, -4, 6, -4, 1] / sqrt(70) along `axis`, where the whole filter fits."""
    size = x.shape[axis] - len(HIGH_PASS) + 1
    parts = [float(tap) * x.narrow(axis, start, size) for start, tap in enumerate(HIGH_PASS)]
    return parts[0] + parts[1] + parts[2] + parts[3] + parts[4]
