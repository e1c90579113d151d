"""Spectrum: power along one axis, in bands, above a frequency, and at the slices' own frequency.

The power of bin f (cycles a voxel) along an axis of n voxels, summed over all lines along it:

    P(f) = sum over lines |sum_t w_t x_t exp(-2 pi i f t)|^2 / n        bins f and -f together

with w = 1, so that the sum over f is the sum of squares (Parseval), or a Hann window for `stripes`. Lines
outside a mask count as zero.

    share    power above 1 / (2 r), the scan's own Nyquist frequency, over the truth's. 1: as much detail
    stripes  mean over m = 1, 2, ... of (P(m / r) + .1 E_truth) / (E(m / r) + .1 E_truth), m / r at most 1/2

for stripes of means over blocks of 8 x 8 voxels across the axis. E is what the neighbourhood lets expect: the
power law (a straight line in log P over log f) through the bins 2 to max(3, k / 4) away on either side of m / r,
k = n / r slices; E_truth is the truth's. A restoration that treats the middle of a slice unlike its edges leaves
a pattern that repeats with the slices, so power at exactly these bins. 1: none; the truth itself has about 1.
E_truth keeps an interpolation, which has next to nothing above 1 / (2 r), from being judged by its rounding.

Source: reference design, section 6 (share); stripes is our own definition.
"""

from __future__ import annotations

import numpy as np

from medld.errors import InputError
from medld.metrics.checks import Array, slabs

FREQUENCY_ROUNDING = 1e-9
"""Cycles a voxel. With an even number of slices a bin lies on their Nyquist frequency, the scan's own."""

ROUNDING = 1e-28
"""Of the power: less in a bin is what float64 leaves where there is nothing."""

BLOCK = 8
"""Voxels: as wide as tissue that a stripe crosses unchanged; texture is averaged out."""

FLOOR = 0.1
"""Of the truth's power: stripes of that power beside none of the output's own double the number."""

FEWEST_SLICES = 8
"""With fewer, the neighbours of one multiple of the slice frequency reach into the next."""


def power_along(array: Array, axis: int = -1, mask: Array | None = None, window: Array | None = None) -> Array:
    """P of each bin of `np.fft.rfftfreq(n)`, shape (n // 2 + 1,), float64.

    Args:
        array: Any shape and real dtype.
        axis: The axis along which frequencies are counted.
        mask: Voxels outside count as zero; shape of `array`.
        window: w, one weight per voxel along the axis.
    """
    axis %= array.ndim
    length = array.shape[axis]
    across = 0 if axis else array.ndim - 1
    weights = np.ones(length) if window is None else np.asarray(window, dtype=np.float64)
    weights = weights.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    power = np.zeros(length // 2 + 1)
    for rows, _, _ in slabs(array.shape, axis=across):
        at = (slice(None),) * across + (rows,)
        lines = array[at] * weights
        if mask is not None:
            lines *= mask[at]
        spectrum = np.moveaxis(np.fft.rfft(lines, axis=axis), axis, 0).reshape(len(power), -1)
        power += np.einsum("ft,ft->f", spectrum.real, spectrum.real)
        power += np.einsum("ft,ft->f", spectrum.imag, spectrum.imag)
    power /= length
    power[1 : (length + 1) // 2] *= 2  # a real signal's negative frequencies, which rfft leaves out
    return power


def power_above(array: Array, frequency: float, axis: int = -1, mask: Array | None = None) -> float:
    """Summed power of `array` above `frequency` (cycles a voxel, at most .5) along `axis`.

    sum over all voxels of array^2 = power_above(array, -1)
    """
    above = np.fft.rfftfreq(array.shape[axis]) > frequency + FREQUENCY_ROUNDING
    return float(power_along(array, axis, mask)[above].sum())


def detail_closed(share: float, share_of_fidelity: float) -> float:
    """How much of the detail that `fidelity` lacks an output brings back: 0 none, 1 all, above 1 too much."""
    return (share - share_of_fidelity) / (1 - share_of_fidelity)


def power_in_bands(
    array: Array, spacing: float, axis: int = -1, bands: int = 16, mask: Array | None = None
) -> tuple[Array, Array]:
    """Mean power per bin in equal bands of frequency along `axis`, for plots.

    Args:
        array: Any shape and real dtype.
        spacing: mm between voxels along the axis.
        axis: Usually the one across the slices.
        bands: How many, from 0 to the grid's Nyquist frequency 1 / (2 spacing). The mean value (f = 0) is in none.
        mask: Voxels outside count as zero.

    Returns:
        Edges in cycles per mm, shape (bands + 1,), and mean power per bin, shape (bands,), where a bin is f and -f.

    Raises:
        InputError: If the axis has fewer bins than there are bands (E_TOO_FEW).
    """
    power = power_along(array, axis, mask)[1:]
    if not 1 <= bands <= len(power):
        raise InputError(
            f"Expected between 1 and {len(power)} bands for {array.shape[axis]} voxels, got {bands}.", "E_TOO_FEW"
        )
    frequency = np.fft.rfftfreq(array.shape[axis])[1:]
    band = np.minimum((frequency * 2 * bands - FREQUENCY_ROUNDING).astype(int), bands - 1)
    weights = np.where(frequency < 0.5 - FREQUENCY_ROUNDING, 1.0, 0.5)  # a bin at 1 / 2 has no negative frequency
    mean = np.bincount(band, power, minlength=bands) / np.bincount(band, weights, minlength=bands)
    return np.linspace(0, 0.5 / spacing, bands + 1), mean


def can_show_stripes(length: int, ratio: float) -> bool:
    """Whether slices of `ratio` voxels are wide and many enough along an axis of `length` voxels for `stripes`."""
    return ratio >= 2 and length / ratio >= FEWEST_SLICES - FREQUENCY_ROUNDING


def stripes(output: Array, ratio: float, axis: int = -1, truth: Array | None = None) -> float:
    """Power at the slice frequency and its multiples over its neighbourhood; 1 is none.

    Args:
        output: Restored volume, three axes, any real dtype.
        ratio: r, slice spacing in voxels of `output`, at least 2.
        axis: Array axis across the slices.
        truth: Gives E_truth; without it that is 0, and an output without detail has no neighbourhood to speak of.

    Raises:
        InputError: If the ratio is below 2, for then a slice is less than two voxels and nothing can repeat with
            it, or if the axis holds fewer than 8 slices (E_TOO_FEW); if nothing varies along it (E_PIXELS).
    """
    length = output.shape[axis]
    if not can_show_stripes(length, ratio):
        raise InputError(
            f"Expected at least {FEWEST_SLICES} slices of at least 2 voxels each, got {length / ratio:.1f} slices of "
            f"{ratio:g} voxels. Stripes cannot be told from tissue here.",
            "E_TOO_FEW",
        )
    reach = int(max(3, length / ratio / 4))
    peaks = [round(m * length / ratio) for m in range(1, int(ratio / 2 + FREQUENCY_ROUNDING) + 1)]
    power = _block_power(output, axis)
    floor = _block_power(truth, axis) if truth is not None else None
    values = []
    for peak in peaks:
        natural = 0.0 if floor is None else FLOOR * _expected(floor, peak, reach)
        values.append((power[peak] + natural) / (_expected(power, peak, reach) + natural))
    return float(np.mean(values))


def _block_power(array: Array, axis: int) -> Array:
    """P under a Hann window of the means over blocks across the axis."""
    lines = np.moveaxis(array, axis, -1)
    sides = [min(BLOCK, n) for n in lines.shape[:2]]
    lines = lines[: lines.shape[0] // sides[0] * sides[0], : lines.shape[1] // sides[1] * sides[1]]
    blocks = lines.reshape(lines.shape[0] // sides[0], sides[0], -1, sides[1], lines.shape[2])
    length = lines.shape[2]
    # The window keeps the steep start of the spectrum from leaking to where the slices are.
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 0.5) / length)
    power = power_along(blocks.mean((1, 3), dtype=np.float64), window=hann)
    if length % 2 == 0:
        power[-1] *= 2  # alone at the Nyquist frequency, where other bins are two
    if not power[2:].min() > ROUNDING * power.sum():
        raise InputError("Expected a volume that varies along the slices, got one that does not.", "E_PIXELS")
    return power


def _expected(power: Array, peak: int, reach: int) -> float:
    """What a power law through the bins 2 to `reach` away says of bin `peak`."""
    bins = np.arange(max(peak - reach, 1), min(peak + reach, len(power) - 1) + 1)
    bins = bins[np.abs(bins - peak) >= 2]  # the window spreads a line over its two neighbours
    _, level = np.polyfit(np.log(bins / peak), np.log(power[bins]), 1)
    return float(np.exp(level))
