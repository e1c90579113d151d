"""Fingerprint: what kind of image a scan is, in a few numbers that any person can check.

Values are in network units (`medld.intensity`): tissue lies between 0 and 1, air near 0. Tissue is what exceeds 5 %.
Nothing here depends on the order in which the array's axes are stored.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medld.geometry import coarsest_first
from medld.intensity import TISSUE, estimate_noise, intensity_map
from medld.volume import Volume

__all__ = ["MEANINGS", "take_fingerprint"]

MEANINGS: dict[str, str] = {
    "pixel_mm": "pixel spacing (mm)",
    "slice_mm": "slice spacing (mm)",
    "spacing_ratio": "slice spacing over pixel spacing",
    "tissue_mm": "size of what is seen (mm)",
    "tissue_litres": "volume of what is seen (litres)",
    "tissue_q10": "10th percentile of the tissue's brightness",
    "tissue_q50": "median of the tissue's brightness",
    "tissue_q90": "90th percentile of the tissue's brightness",
    "corner": "brightness at the corners of the field of view",
    "noise": "noise, in parts of the brightest tissue",
    "pixel_step": "change from pixel to pixel, over that across three pixels",
    "detail": "change across three pixels, in parts of the tissue's spread",
    "slice_step": "change from slice to slice, over that across as many mm in the slices",
    "symmetry": "likeness of left and right",
}
"""What each number is, as a warning calls it."""

COARSE_MM = 4.0
MOST_VOXELS = 2_000_000
"""Of a larger scan every other slice, or row of pixels, is left out where its neighbours are not compared."""


def take_fingerprint(volume: Volume, device: str = "cpu") -> dict[str, float]:
    """The numbers of `MEANINGS`, of a scan in scanner units; a second at most for a head, computed on `device`.

    A number that a scan is too small to give is left out.
    """
    axis = coarsest_first(volume.grid)[0]
    units = intensity_map(volume.array, volume.modality)
    scan = torch.from_numpy(np.array(volume.array, dtype=np.float32)).to(device)
    array = units.forward(scan.movedim(axis, 2)).contiguous()
    rows, columns = (s for i, s in enumerate(volume.grid.spacing) if i != axis)
    spacing = (rows, columns, volume.grid.spacing[axis])
    pixel = (rows * columns) ** 0.5
    tissue = array > TISSUE
    seen = array[tissue]
    if seen.numel() < 1000:
        return {"pixel_mm": pixel, "slice_mm": spacing[2], "spacing_ratio": spacing[2] / pixel}
    quantiles = np.percentile(seen.cpu().numpy(), (10, 50, 90))
    numbers = {
        "pixel_mm": pixel,
        "slice_mm": spacing[2],
        "spacing_ratio": spacing[2] / pixel,
        "tissue_mm": _size(tissue, spacing),
        "tissue_litres": float(seen.numel() * np.prod(spacing) / 1e6),
        **{f"tissue_q{q}": float(v) for q, v in zip((10, 50, 90), quantiles, strict=True)},
        "corner": float(np.mean([float(array[_corner(array, *end)].mean()) for end in np.ndindex(2, 2, 2)])),
        "noise": float(estimate_noise(array[None, None])[0]),
        **_steps(array, tissue, spacing, float(seen.std(correction=0))),
        "symmetry": _symmetry(array, spacing),
    }
    return {name: value for name, value in numbers.items() if np.isfinite(value)}


def _size(tissue: Tensor, spacing: tuple[float, float, float]) -> float:
    """Largest extent (mm) of the middle 96 % of the tissue along an array axis."""
    extents = []
    for axis in range(3):
        share = np.cumsum(tissue.sum([a for a in range(3) if a != axis]).cpu().numpy())
        low, high = np.searchsorted(share, (0.02 * share[-1], 0.98 * share[-1]))
        extents.append((high - low + 1) * spacing[axis])
    return float(max(extents))


def _corner(array: Tensor, *end: int) -> tuple[slice, ...]:
    """A tenth of the field of view along each axis, at one of its corners."""
    widths = [max(1, size // 10) for size in array.shape]
    return tuple(slice(-width, None) if e else slice(0, width) for e, width in zip(end, widths, strict=True))


def _steps(array: Tensor, tissue: Tensor, spacing: tuple[float, float, float], spread: float) -> dict[str, float]:
    """How much the tissue changes over small distances: root mean squares of differences."""
    stride = 2 if array.numel() > MOST_VOXELS else 1
    one, three = (
        np.mean([_difference(array, tissue, axis, lag, 2 if axis < 2 else 0, stride) for axis in (0, 1)])
        for lag in (1, 3)
    )
    lags = [max(1, round(spacing[2] / s)) for s in spacing[:2]]
    in_plane = np.mean([_difference(array, tissue, axis, lags[axis], 2, stride) for axis in (0, 1)])
    across = _difference(array, tissue, 2, 1, 0, stride)
    return {
        "pixel_step": float(one / three) if three > 0 else float("nan"),
        "detail": float(three / spread) if spread > 0 else float("nan"),
        "slice_step": float(across / in_plane) if in_plane > 0 else float("nan"),
    }


def _difference(array: Tensor, tissue: Tensor, axis: int, lag: int, thin: int, stride: int) -> float:
    """Root mean square of x(i + lag) - x(i) along `axis`, both in tissue; every `stride`-th index along `thin`."""
    size = array.shape[axis] - lag
    if size <= 0:
        return float("nan")
    thinned = tuple(slice(None, None, stride) if a == thin else slice(None) for a in range(3))
    x, inside = array[thinned], tissue[thinned]
    both = inside.narrow(axis, 0, size) & inside.narrow(axis, lag, size)
    squares = (x.narrow(axis, lag, size) - x.narrow(axis, 0, size)).square() * both
    count = int(both.count_nonzero())
    return (float(squares.sum()) / count) ** 0.5 if count else float("nan")


def _symmetry(array: Tensor, spacing: tuple[float, float, float]) -> float:
    """Largest correlation of the scan, coarsened to about 4 mm, with its mirror image along an array axis.

    The mirror's place is that of the tissue's centre, the best of a few around it.
    """
    steps = tuple(min(max(1, round(COARSE_MM / s)), n) for s, n in zip(spacing, array.shape, strict=True))
    coarse = functional.avg_pool3d(array[None], steps)[0].cpu().numpy()
    best = -1.0
    for axis in range(3):
        lines = np.moveaxis(coarse, axis, 0)
        mass = np.clip(lines, 0, None).sum((1, 2))
        centre = 2 * float((mass * np.arange(len(mass))).sum() / max(mass.sum(), 1e-9))
        for fold in range(round(centre) - 3, round(centre) + 4):
            best = max(best, _likeness(lines, fold))
    return best


def _likeness(lines: NDArray[np.float32], fold: int) -> float:
    """Correlation of lines[i] with lines[fold - i], over at least half of them."""
    index = np.arange(len(lines))
    index = index[(fold - index >= 0) & (fold - index < len(lines))]
    if len(index) < len(lines) / 2 or len(index) < 6:
        return -1.0
    a, b = lines[index].ravel(), lines[fold - index].ravel()
    both = (a > TISSUE) | (b > TISSUE)
    if both.sum() < 100 or a[both].std() == 0 or b[both].std() == 0:
        return -1.0
    return float(np.corrcoef(a[both], b[both])[0, 1])
