"""Edges: what a blur takes from them.

HFEN, the high-frequency error norm, with LoG the Laplacian of a Gaussian:

    HFEN = ||LoG(output - truth)|| / ||LoG(truth)||              0: perfect, 1: as if nothing were there
    LoG kernel = k - mean(k),  k = g (d^2 - 3 s^2) / s^4,  g = exp(-d^2 / (2 s^2)) / sum

over 15 x 15 x 15 voxels, s = 1.5 voxels, d the distance from the centre in voxels; mirrored at the borders. It
is the paper's kernel (MATLAB's fspecial 'log', 15, 1.5) with a third dimension (fspecial3). The paper gives the
norm itself; over the truth's it can be compared between scans, as is usual since.

Sharpness, after Tenengrad: gradient energy over a mask, over the truth's, with 3D Sobel filters S_a:

    sharpness = sum_a E_a(output) / h_a^2  over the same of the truth,   E_a(x) = sum over the mask (S_a x)^2

and E_a alone for one axis a, h_a its spacing. 1: as sharp as the truth; noise and ringing count as sharpness.

Source: Ravishankar & Bresler, IEEE TMI 30 (2011) 1028; Krotkov, IJCV 1 (1987) 223 (Tenengrad).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import correlate1d, uniform_filter1d

from medld.metrics.checks import Array, slabs

SIGMA = 1.5
RADIUS = 7
"""Of the paper's kernel of 15 voxels."""


def log_energy(array: Array, mask: Array, minus: Array | None = None) -> tuple[float, float]:
    """Sum of LoG(array - minus)^2 over the mask and over the whole volume.

    Args:
        array: Three axes, any real dtype.
        mask: Shape of `array`.
        minus: What is taken off before the filter, shape of `array`.
    """
    masked = whole = 0.0
    for rows, window, inner in slabs(array.shape, RADIUS):
        piece = array[window].astype(np.float64)
        if minus is not None:
            piece -= minus[window]
        squares = _laplacian_of_gaussian(piece)[inner] ** 2
        masked += float(squares[mask[rows]].sum())
        whole += float(squares.sum())
    return masked, whole


def sobel_energy(array: Array, mask: Array) -> Array:
    """E_a of the three axes, shape (3,), in units squared per voxel squared.

    A Sobel filter here is (-1, 0, 1) / 2 along its axis and (1, 2, 1) / 4 along the others, so that a ramp of one
    a voxel gives one; mirrored at the borders.

    Args:
        array: Three axes, any real dtype.
        mask: Where energies are summed, shape of `array`.
    """
    energy = np.zeros(3)
    for rows, window, inner in slabs(array.shape, 1):
        piece = array[window].astype(np.float64)
        inside = mask[rows]
        for axis in range(3):
            gradient = piece
            for other in range(3):
                taps = (-0.5, 0.0, 0.5) if other == axis else (0.25, 0.5, 0.25)
                gradient = correlate1d(gradient, taps, axis=other, mode="reflect")
            energy[axis] += float((gradient[inner][inside] ** 2).sum())
    return energy


@lru_cache(maxsize=1)
def _taps() -> tuple[Array, Array, float]:
    """g and k of one dimension, so that k of three is k(i) g(j) g(k) + g k g + g g k; and the sum of that k."""
    offsets = np.arange(-RADIUS, RADIUS + 1)
    gaussian = np.exp(-(offsets**2) / (2 * SIGMA**2))
    gaussian /= gaussian.sum()
    curvature = gaussian * (offsets**2 - SIGMA**2) / SIGMA**4
    return gaussian, curvature, 3 * float(curvature.sum())


def _laplacian_of_gaussian(array: Array) -> Array:
    """The kernel above as separate passes; a mean over its box takes its own mean off."""
    gaussian, curvature, total = _taps()

    def along(taps: Array, piece: Array, axis: int) -> Array:
        return np.asarray(correlate1d(piece, taps, axis=axis, mode="reflect"))

    smooth, curved = along(gaussian, array, 2), along(curvature, array, 2)
    curved = along(gaussian, curved, 1) + along(curvature, smooth, 1)
    smooth = along(gaussian, smooth, 1)
    result = along(gaussian, curved, 0) + along(curvature, smooth, 0)
    mean = array
    for axis in range(3):
        mean = uniform_filter1d(mean, 2 * RADIUS + 1, axis=axis, mode="reflect")
    result -= total * mean
    return result
