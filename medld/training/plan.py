"""A draw worked out in numbers: which window of each volume to take and the matrices that resample it.

Plans are numpy alone, so that worker processes can make them beside the training loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.special import ive

from medld.training.draw import Draw, Item

LOBES = 3
"""Half-width of the windowed sinc, in samples of the coarser grid."""

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
NARROWEST = 1.4
"""A Gaussian this wide (source voxels) may sample the source directly; narrower ones follow a sinc."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A draw and its geometry.

    `starts` (C, 3) is the first source voxel of each of the C `crops` along its own axes, `matrices` hold for each crop
    axis (C, crop voxels, source voxels), zero where a crop needs fewer than the longest.
    """

    draw: Draw
    starts: NDArray[np.int64]
    matrices: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]

    @property
    def crops(self) -> list[Item]:
        """The items, then what is laid over some of them."""
        return crops_of(self.draw)


def crops_of(draw: Draw) -> list[Item]:
    """The items of a draw, then the others of those that have one."""
    return [*draw.items, *(item.other for item in draw.items if item.other is not None)]


def make_plan(draw: Draw, in_plane: int) -> Plan:
    """The plan of a draw whose crops are `in_plane` voxels wide, the slices' reach beyond the crop included."""
    sizes = (in_plane, in_plane, draw.acquisition.fine + 2 * draw.acquisition.margin)
    parts = [[_axis_plan(item, axis, sizes[axis]) for axis in range(3)] for item in crops_of(draw)]
    lengths = [max(part[axis][1].shape[1] for part in parts) for axis in range(3)]
    first, second, third = (np.zeros((len(parts), sizes[axis], lengths[axis]), np.float32) for axis in range(3))
    for b, part in enumerate(parts):
        for matrix, (_, rows) in zip((first, second, third), part, strict=True):
            matrix[b, :, : rows.shape[1]] = rows
    starts = np.array([[start for start, _ in part] for part in parts], dtype=np.int64)
    return Plan(draw, starts, (first, second, third))


def _axis_plan(item: Item, axis: int, size: int) -> tuple[int, NDArray[np.float64]]:
    """First source voxel and the matrix (size, source voxels) that resamples one axis of a crop."""
    zoom = item.zoom[axis]
    positions = item.centre[axis] + (np.arange(size) - (size - 1) / 2) * zoom
    blur = item.blur[axis] if axis < 2 else 0.0
    if blur * zoom >= NARROWEST:
        start, matrix = _gaussian(positions, blur * zoom)
    elif blur > 0:
        reach = 2
        wide = item.centre[axis] + (np.arange(size + 2 * reach) - (size + 2 * reach - 1) / 2) * zoom
        start, sharp = _windowed_sinc(wide, zoom)
        offsets = np.arange(size + 2 * reach) - reach - np.arange(size)[:, None]
        # The discrete Gaussian has the variance that was asked for at any width; a sampled one vanishes below a voxel.
        weights = ive(np.abs(offsets), (blur / FWHM_PER_SIGMA) ** 2)
        matrix = (weights / weights.sum(1, keepdims=True)) @ sharp
    else:
        start, matrix = _windowed_sinc(positions, zoom)
    if axis < 2 and item.kept[axis] < 1:
        matrix = truncation(size, item.kept[axis]) @ matrix
    return start, matrix[::-1] if item.flips[axis] else matrix


def truncation(size: int, kept: float) -> NDArray[np.float64]:
    """The matrix (size, size) that drops the upper spatial frequencies, keeping the share `kept`: a projection.

    In the cosine basis, whose mirrored ends do not ring as the wrapped ones of a crop's Fourier basis would.
    """
    basis = dct(np.eye(size), axis=0, norm="ortho")[: max(1, round(kept * size))]
    return np.asarray(basis.T @ basis)


def _windowed_sinc(positions: NDArray[Any], zoom: float) -> tuple[int, NDArray[np.float64]]:
    """Lanczos interpolation, low-pass where it zooms out."""
    scale = max(zoom, 1.0)
    start, offsets = _offsets(positions, LOBES * scale)
    d = offsets / scale
    weights = np.where(np.abs(d) < LOBES, np.sinc(d) * np.sinc(d / LOBES), 0.0)
    return start, weights / weights.sum(1, keepdims=True)


def _gaussian(positions: NDArray[Any], fwhm: float) -> tuple[int, NDArray[np.float64]]:
    start, offsets = _offsets(positions, 1.5 * fwhm)
    weights = np.exp(-0.5 * (offsets * FWHM_PER_SIGMA / fwhm) ** 2)
    return start, weights / weights.sum(1, keepdims=True)


def _offsets(positions: NDArray[Any], reach: float) -> tuple[int, NDArray[np.float64]]:
    start, stop = int(np.floor(positions[0] - reach)), int(np.ceil(positions[-1] + reach)) + 1
    return start, np.arange(start, stop) - positions[:, None]
