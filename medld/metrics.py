"""Image-quality numbers on two arrays of one shape: a truth and an output that should equal it.

The same definitions hold for every table of the project, so that its figures can be compared:

    foreground = truth > 5 % of the truth's 99.5th percentile
    range      = max(truth) - min(truth);  an output is clipped to [min, max] of the truth
    PSNR       = 10 log10(range^2 / mean over the foreground of (output - truth)^2)            [dB]
    SSIM       = mean over the foreground of the SSIM map: Gaussian window of sigma 1.5 cut at 3.5 sigma,
                 population covariance, C1 = (.01 range)^2, C2 = (.03 range)^2
    share      = power of (output * foreground) along the slice axis above the scan's own Nyquist
                 frequency 1 / (2 r), over the truth's: 1 means as much detail as the truth has

The SSIM is scikit-image's (gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True),
computed only where the foreground is: a head fills a third of its box.

Source: reference design, section 6; Wang et al., IEEE TIP 13 (2004) 600, equation 13.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from medld.errors import InputError

Array = NDArray[Any]

FOREGROUND_PERCENTILE = 99.5
FOREGROUND_FRACTION = 0.05

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5
"""int(3.5 * SSIM_SIGMA + .5): where scikit-image cuts its Gaussian window."""
SSIM_K1, SSIM_K2 = 0.01, 0.03

FREQUENCY_ROUNDING = 1e-9
"""Cycles a voxel. With an even number of slices a bin lies on their Nyquist frequency, the scan's own."""


def find_foreground(truth: Array) -> NDArray[np.bool_]:
    """Voxels above 5 % of the truth's 99.5th percentile, shape as `truth`.

    Raises:
        InputError: If that percentile is not positive (E_PIXELS): then nothing tells tissue from air.
    """
    bright = float(np.percentile(truth, FOREGROUND_PERCENTILE))
    if not bright > 0:
        raise InputError(
            f"Expected a truth whose {FOREGROUND_PERCENTILE}th percentile is above 0, got {bright:g}. "
            "Choose a volume that shows more tissue than air.",
            "E_PIXELS",
        )
    return np.asarray(truth > FOREGROUND_FRACTION * bright)


def psnr(truth: Array, output: Array) -> float:
    """Peak signal-to-noise ratio over the foreground, in dB (infinite where nothing differs)."""
    return Reference(truth).psnr(output)


def ssim(truth: Array, output: Array) -> float:
    """Structural similarity averaged over the foreground, at most 1."""
    return Reference(truth).ssim(output)


@dataclass(frozen=True, eq=False)
class Reference:
    """A truth that several outputs are compared with: its foreground, range and moments are found once.

    Raises:
        InputError: If the truth is constant, not finite or has no foreground (E_PIXELS).
    """

    truth: Array

    def __post_init__(self) -> None:
        if not (np.isfinite(self.data_range) and self.data_range > 0):
            raise InputError(
                f"Expected a truth with finite values that differ, got a range of {self.data_range:g}. "
                "A constant or damaged volume cannot be compared with.",
                "E_PIXELS",
            )

    @cached_property
    def foreground(self) -> NDArray[np.bool_]:
        """Where the numbers are taken, shape as the truth."""
        return find_foreground(self.truth)

    @cached_property
    def data_range(self) -> float:
        """Largest minus smallest value of the truth."""
        return float(np.max(self.truth)) - float(np.min(self.truth))

    def psnr(self, output: Array) -> float:
        """Peak signal-to-noise ratio of `output` over the foreground, in dB."""
        error = self._clipped(output)[self.foreground].astype(np.float64) - self.truth[self.foreground]
        mean_square = float(np.mean(error**2))
        return float("inf") if mean_square == 0 else float(10 * np.log10(self.data_range**2 / mean_square))

    def ssim(self, output: Array) -> float:
        """Structural similarity of `output`, averaged over the foreground."""
        x, (mean_x, var_x) = self._moments
        y = self._clipped(output)[self._box].astype(np.float64)
        mean_y = _window(y)
        var_y = _window(y * y) - mean_y**2
        covariance = _window(x * y) - mean_x * mean_y
        c1, c2 = (SSIM_K1 * self.data_range) ** 2, (SSIM_K2 * self.data_range) ** 2
        likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        likeness /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
        return float(np.mean(likeness[self.foreground[self._box]]))

    def detail_share(self, output: Array, ratio: float, axis: int = -1) -> float:
        """Power of (output * foreground) above 1 / (2 ratio) cycles a voxel along `axis`, over the truth's.

        Args:
            output: Restored volume, shape as the truth; not clipped, for ringing is power too.
            ratio: Slice spacing in voxels of the truth.
            axis: Array axis across the slices.

        Raises:
            InputError: If the truth itself holds nothing above that frequency (E_PIXELS).
        """
        self._check(output)
        of_truth = power_above(self.truth * self.foreground, 1 / (2 * ratio), axis)
        if of_truth == 0:
            raise InputError(
                f"Expected a truth with detail above 1/{2 * ratio:g} cycles a voxel along axis {axis}, "
                "found none. It was interpolated along this axis, or the ratio is below 1.",
                "E_PIXELS",
            )
        return power_above(output * self.foreground, 1 / (2 * ratio), axis) / of_truth

    @cached_property
    def _box(self) -> tuple[slice, ...]:
        """The foreground's bounding box and the window's reach around it: all that enters the SSIM."""
        box = []
        for axis in range(self.truth.ndim):
            others = tuple(other for other in range(self.truth.ndim) if other != axis)
            hit = np.flatnonzero(self.foreground.any(axis=others))
            box.append(slice(max(int(hit[0]) - SSIM_RADIUS, 0), int(hit[-1]) + 1 + SSIM_RADIUS))
        return tuple(box)

    @cached_property
    def _moments(self) -> tuple[Array, tuple[Array, Array]]:
        """The truth inside the box, and its windowed mean and variance."""
        # float64: the variance is a difference of squares, which float32 loses at CT's offset of -1024.
        x = self.truth[self._box].astype(np.float64)
        mean = _window(x)
        return x, (mean, _window(x * x) - mean**2)

    def _clipped(self, output: Array) -> Array:
        """`output` with the values that the truth cannot have cut off."""
        self._check(output)
        return np.clip(output, np.min(self.truth), np.max(self.truth))

    def _check(self, output: Array) -> None:
        """Refuse an output that a number would hide: another shape, or a voxel that is not finite."""
        if output.shape != self.truth.shape:
            raise InputError(
                f"Expected an output of the truth's shape {self.truth.shape}, got {output.shape}. "
                "Enhance with the truth's spacing as the target.",
                "E_PIXELS",
            )
        if not np.isfinite(output).all():
            raise InputError("Expected an output with finite values, got NaN or Inf. Enhance again.", "E_PIXELS")


def power_above(array: Array, frequency: float, axis: int = -1) -> float:
    """Summed power of `array` above `frequency` (cycles a voxel, at most .5) along `axis`.

    sum over all voxels of array^2 = power_above(array, -1)
    """
    length = array.shape[axis]
    power = np.abs(np.fft.rfft(np.moveaxis(array, axis, -1).astype(np.float64))) ** 2
    spectrum = power.reshape(-1, power.shape[-1]).sum(0) / length
    spectrum[1 : (length + 1) // 2] *= 2  # a real signal's negative frequencies, which rfft leaves out
    above = np.fft.rfftfreq(length) > frequency + FREQUENCY_ROUNDING
    return float(spectrum[above].sum())


def detail_closed(share: float, share_of_fidelity: float) -> float:
    """How much of the detail that `fidelity` lacks an output brings back: 0 none, 1 all, above 1 too much."""
    return (share - share_of_fidelity) / (1 - share_of_fidelity)


def _window(array: Array) -> Array:
    """Gaussian-weighted local mean, sigma 1.5, mirrored at the borders."""
    offsets = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    weights /= weights.sum()
    for axis in range(array.ndim):
        array = correlate1d(array, weights, axis=axis, mode="reflect")
    return array
