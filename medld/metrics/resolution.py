"""Resolution: down to which size output and truth still agree, along each axis and on the whole; and their shift.

With F and G the Fourier transforms of truth and output, a shell all frequencies at one distance from zero and a
plane all those with one component along an axis:

    FSC(shell) = sum over it Re(conj(F) G) / sqrt(sum |F|^2 sum |G|^2)          Fourier shell correlation
    FPC(plane) = the same over a plane                                          Fourier plane correlation

1: equal; 0: unrelated. A shift turns the phase and so lowers both. Shells are 1 / (longest side in mm) wide.
The effective resolution in mm is 1 / f, f the frequency at which the correlation, followed from zero and
joined by straight lines, first falls below 1/7. Where it never does, the grid's own limit 2 * spacing stands.
Shells mix all directions; planes tell through-plane resolution apart, for a slice profile acts on one component
of the frequency alone. By Parseval's theorem planes need transforms along their axis only.

Before, the mean is taken off and the volume fades to zero over the outer eighth of each transformed axis: an
object cut by the box would correlate with itself through its edges. 1/7 is the usual threshold for two noisy
halves of a measurement, which here are truth and output; see `threshold` for another (1/2 asks for more). A
blur alone scales G and leaves both correlations as they are: sharpness and HFEN see it, the resolution does not.

    shift      d, such that output(x) = truth(x - d): the slope of the phase of sum conj(F) G over the planes,
               fitted from the third to 1/4 cycles a voxel with weights |sum conj(F) G|, the volume faded by a
               Hann window; known to some percent as long as it is below 2 voxels

Source: Harauz & van Heel, Optik 73 (1986) 146 (FSC); Rosenthal & Henderson, JMB 333 (2003) 721 (0.143);
Nieuwenhuizen et al., Nature Methods 10 (2013) 557 (planes and lines).
"""

from __future__ import annotations

import numpy as np
from scipy.fft import fftfreq, rfft, rfftfreq, rfftn

from medld.metrics.checks import Array, slabs

THRESHOLD = 1 / 7
FADE = 1 / 8
"""Of an axis, at either end."""
SHIFT_FADE = 1 / 2
SHIFT_FROM = 3
"""The planes before hold the window, which does not move with the tissue."""
SHIFT_BELOW = 1 / 4
"""Cycles a voxel: a shift of two voxels turns the phase there by half a turn."""


def shell_correlation(truth: Array, output: Array, spacing: tuple[float, float, float]) -> tuple[Array, Array]:
    """FSC of each shell and its frequency.

    Args:
        truth: Three axes, any real dtype.
        output: Shape of `truth`.
        spacing: mm between voxels, per axis.

    Returns:
        Frequencies in cycles per mm from 0 to the finest axis' Nyquist frequency, and FSC, both shape (shells,).
    """
    width = 1 / max(n * h for n, h in zip(truth.shape, spacing, strict=True))
    shells = int(0.5 / min(spacing) / width + 1e-9) + 1
    f, g = _transform(truth), _transform(output)
    components = [fftfreq(n, h) for n, h in zip(truth.shape[:2], spacing[:2], strict=True)]
    last = rfftfreq(truth.shape[2], spacing[2])
    twice = np.full(len(last), 2.0)  # rfft leaves out the negative frequencies of the last axis
    twice[0] = 1
    if truth.shape[2] % 2 == 0:
        twice[-1] = 1
    sums = np.zeros((3, shells + 1))
    for rows, _, _ in slabs(f.shape):
        x, y = f[rows], g[rows]
        distance = components[0][rows, None, None] ** 2 + components[1][:, None] ** 2 + last**2
        shell = np.minimum(np.rint(np.sqrt(distance) / width), shells).astype(np.int32).ravel()
        for total, part in zip(sums, (_real_product(x, y), _real_product(x, x), _real_product(y, y)), strict=True):
            part *= twice
            total += np.bincount(shell, part.ravel(), minlength=shells + 1)
    return np.arange(shells) * width, _correlation(*sums[:, :shells])


def plane_correlation(truth: Array, output: Array, spacing: float, axis: int) -> tuple[Array, Array]:
    """FPC of each plane across `axis` and its frequency.

    Args:
        truth: Three axes, any real dtype.
        output: Shape of `truth`.
        spacing: mm between voxels along `axis`.
        axis: The axis that the planes lie across.

    Returns:
        Frequencies in cycles per mm, 0 to Nyquist, and FPC, both shape (n // 2 + 1,).
    """
    cross, of_truth, of_output = plane_sums(truth, output, axis)
    return rfftfreq(truth.shape[axis], spacing), _correlation(cross.real, of_truth, of_output)


def plane_sums(truth: Array, output: Array, axis: int, fade_over: float = FADE) -> tuple[Array, Array, Array]:
    """Sums over each plane: conj(F) G (complex), |F|^2 and |G|^2, up to a common factor.

    Args:
        truth: Three axes, any real dtype.
        output: Shape of `truth`.
        axis: The axis that the planes lie across.
        fade_over: The part of it, at either end, over which the volumes fade.
    """
    means = [float(np.mean(array, dtype=np.float64)) for array in (truth, output)]
    fade = _fade(truth.shape[axis], fade_over).reshape([-1 if a == axis else 1 for a in range(3)])
    across = 0 if axis else 2
    bins = truth.shape[axis] // 2 + 1
    cross, of_truth, of_output = np.zeros(bins, dtype=np.complex128), np.zeros(bins), np.zeros(bins)
    for rows, _, _ in slabs(truth.shape, axis=across):
        at = (slice(None),) * across + (rows,)
        f, g = (
            np.moveaxis(rfft((array[at] - mean) * fade, axis=axis), axis, 0).reshape(bins, -1)
            for array, mean in zip((truth, output), means, strict=True)
        )
        cross += np.einsum("kt,kt->k", f.conj(), g)
        of_truth += np.einsum("kt,kt->k", f.conj(), f).real
        of_output += np.einsum("kt,kt->k", g.conj(), g).real
    return cross, of_truth, of_output


def resolution_at(frequency: Array, correlation: Array, threshold: float = THRESHOLD) -> float:
    """1 / frequency (mm) where the correlation first falls below `threshold`; 1 / the last one if never.

    `correlation` follows `frequency`, which starts at 0; the value there is not looked at.
    """
    below = np.flatnonzero(correlation[1:] < threshold) + 1
    if len(below) == 0:
        return float(1 / frequency[-1])
    after = int(below[0])
    if after == 1:
        return float(1 / frequency[1])
    before = after - 1
    part = (correlation[before] - threshold) / (correlation[before] - correlation[after])
    return float(1 / (frequency[before] + part * (frequency[after] - frequency[before])))


def resolution_of_planes(truth: Array, output: Array, spacing: float, axis: int) -> float:
    """Effective resolution in mm along one axis, by its planes; see `plane_correlation`."""
    return resolution_at(*plane_correlation(truth, output, spacing, axis))


def shift_along(truth: Array, output: Array, axis: int) -> float:
    """d in voxels along `axis`; 0 if nothing can be told.

    Args:
        truth: Three axes, any real dtype.
        output: Shape of `truth`.
        axis: The axis along which `output` may be displaced.
    """
    length = truth.shape[axis]
    cross, _, _ = plane_sums(truth, output, axis, SHIFT_FADE)
    values = cross[SHIFT_FROM : max(int(length * SHIFT_BELOW), SHIFT_FROM) + 1]
    turn = 2 * np.pi * np.arange(SHIFT_FROM, SHIFT_FROM + len(values)) / length
    weights = np.abs(values)
    if not weights.sum() > 0:
        return 0.0
    return float(-np.sum(weights * turn * np.angle(values)) / np.sum(weights * turn**2)) + 0.0


def _transform(array: Array) -> Array:
    """Half the Fourier transform of the faded volume without its mean."""
    faded = np.subtract(array, np.mean(array, dtype=np.float64), dtype=np.float64)
    for axis, n in enumerate(array.shape):
        faded *= _fade(n).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.asarray(rfftn(faded, overwrite_x=True))


def _fade(length: int, over: float = FADE) -> Array:
    """A raised cosine over the outer part at either end, one between."""
    position = (np.arange(length) + 0.5) / length
    edge = np.clip(np.minimum(position, 1 - position) / over, 0, 1)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * edge))


def _real_product(x: Array, y: Array) -> Array:
    """Re(conj(x) y)."""
    product = x.real * y.real
    product += x.imag * y.imag
    return np.asarray(product)


def _correlation(cross: Array, of_truth: Array, of_output: Array) -> Array:
    """The quotient; 1 where neither holds anything, 0 where one of them does not."""
    norm = np.sqrt(of_truth * of_output)
    empty = np.where((of_truth == 0) & (of_output == 0), 1.0, 0.0)
    return np.where(norm > 0, cross / np.where(norm > 0, norm, 1.0), empty)
