"""Baselines: what can be had without a network, each a matrix along every coarse axis.

    nearest         the slice that a voxel lies in
    linear          between slice centres, level beyond the first and the last
    cubic           B-spline through the slices, level at the outer faces
    lanczos         sinc(x) sinc(x / 3) within 3 slices, rows normalised, cut at the ends
    least-squares   x that minimises |y - A x|^2 + lambda |x'|^2, the slice profile A known

The interpolations take slices for samples; the least squares know that they are means, and are the strongest method
here whose every step is linear. x' is the slope in slice units, so that one lambda serves every ratio:

    x = (A^T A + lambda D^T D)^-1 A^T y,    D = r^1/2 (first difference over fine voxels)
    lambda = max(1e-4, 30 sigma^2),         sigma the scan's noise as `medld enhance` estimates it, 0 where none is

On five scans of medld-mri-train at 2x, 4x and 6x this lies -.01 to +.3 dB from B, and lambda could be a thousandth
or ten times as large. With 1, 2 and 3 % of noise on four of them, at 2x and 4x, 30 is within .25 dB of the best
factor out of 1, 3, 10, ... 300 for each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from medld.acquisition import Acquisition, AxisAcquisition, along, linear_matrix, spline_matrix
from medld.evaluation.protocol import ProtocolConfig
from medld.evaluation.simulate import sinc_matrix
from medld.intensity import estimate_noise, intensity_map
from medld.volume import Volume

Matrix = NDArray[np.float64]
Shape = tuple[int, int, int]

LANCZOS_LOBES = 3

SMALLEST_SMOOTHNESS = 1e-4
SMOOTHNESS_PER_NOISE = 30.0
"""lambda over the variance of the noise in network units: as if slopes of tissue were of the order of .2 a slice."""

TIE = 1e-9
"""Voxels whose centre lies on the face between two slices go to the upper one, whatever rounding says."""


def nearest_matrix(fine: int, slices: int) -> Matrix:
    """Of each fine voxel the slice that its centre lies in, shape (fine, slices)."""
    index = np.floor((np.arange(fine) + 0.5) * slices / fine + TIE).astype(int)
    return np.asarray(np.eye(slices)[np.minimum(index, slices - 1)])


def cubic_matrix(fine: int, slices: int) -> Matrix:
    """Cubic B-spline through the slices, shape (fine, slices)."""
    return spline_matrix(slices, slice_positions(fine, slices))


def lanczos_matrix(fine: int, slices: int) -> Matrix:
    """Lanczos of three lobes; what its window lacks at the ends is left out, rows sum to one: (fine, slices)."""
    distance = slice_positions(fine, slices)[:, None] - np.arange(slices)
    weights = np.where(np.abs(distance) < LANCZOS_LOBES, np.sinc(distance) * np.sinc(distance / LANCZOS_LOBES), 0.0)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def slice_positions(fine: int, slices: int) -> Matrix:
    """Centres of fine voxels in slice units; slice 0 is centred at 0, outer faces agree."""
    return np.asarray((np.arange(fine) + 0.5) * slices / fine - 0.5)


INTERPOLATIONS: dict[str, Callable[[int, int], Matrix]] = {
    "nearest": nearest_matrix,
    "linear": linear_matrix,
    "cubic": cubic_matrix,
    "lanczos": lanczos_matrix,
}


def interpolate(kind: str, scan: Volume, shape: Shape) -> np.ndarray:
    """The scan on `shape` voxels of the same box, float32, by one of `INTERPOLATIONS`."""
    if kind == "cubic":
        return upsample_cubic(scan, shape)
    array = scan.array
    for axis, (fine, slices) in enumerate(zip(shape, scan.grid.shape, strict=True)):
        if fine > slices:
            array = along(INTERPOLATIONS[kind](fine, slices), array, axis - 3)
    return array


def upsample_cubic(scan: Volume, shape: Shape) -> np.ndarray:
    """Cubic B-spline through the slices of `scan`, level at the outer faces, on `shape` voxels."""
    i, j, k = (AxisAcquisition(n, m) if n > m else None for n, m in zip(shape, scan.grid.shape, strict=True))
    acquisition = Acquisition((i, j, k))
    return np.asarray(acquisition.crop(acquisition.spline(scan.array)))


def least_squares(scan: Volume, shape: Shape, protocol: ProtocolConfig) -> np.ndarray:
    """The scan on `shape` voxels by regularised least squares that know the protocol's profile, float32.

    Axis by axis: for coarse voxels the penalty is the product of the axes', not their sum.
    """
    smoothness = smoothness_for(scan) if protocol.consistency == "auto" else SMALLEST_SMOOTHNESS
    array = scan.array
    for axis in protocol.coarse_axes:
        fine, slices = shape[axis], scan.grid.shape[axis]
        if protocol.profile == "sinc":
            matrix, margin = sinc_matrix(fine, slices), 0
        else:
            thickness = protocol.thickness_in(scan.grid.spacing[axis])
            acquisition = AxisAcquisition(fine, slices, thickness, protocol.profile)
            matrix, margin = acquisition.matrix, acquisition.margin
        inverse = smooth_inverse(matrix, fine / slices, smoothness)
        array = along(inverse[margin : margin + fine], array, axis - 3)
    return array


def smooth_inverse(matrix: Matrix, ratio: float, smoothness: float) -> Matrix:
    """(A^T A + lambda D^T D)^-1 A^T of a matrix A (slices, voxels) with `ratio` voxels a slice: (voxels, slices)."""
    difference = np.sqrt(ratio) * np.diff(np.eye(matrix.shape[1]), axis=0)
    normal = matrix.T @ matrix + smoothness * difference.T @ difference
    return np.asarray(np.linalg.solve(normal, matrix.T))


def smoothness_for(scan: Volume) -> float:
    """lambda for the noise that is found in a scan across its coarsest axis."""
    axis = max(range(3), key=lambda index: (scan.grid.spacing[index], index))
    units = intensity_map(scan.array, scan.modality).forward(np.moveaxis(scan.array, axis, 2))
    noise = float(estimate_noise(torch.from_numpy(np.ascontiguousarray(units, dtype=np.float32))[None, None]))
    return max(SMALLEST_SMOOTHNESS, SMOOTHNESS_PER_NOISE * noise**2)
