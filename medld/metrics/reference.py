"""Reference: a truth that outputs are compared with, and the numbers that need its foreground and range.

The same definitions hold for every table of the project, so that its figures can be compared:

    foreground = truth > 5 % of the truth's 99.5th percentile
    range      = max(truth) - min(truth);  for PSNR and SSIM an output is clipped to [min, max] of the truth
    PSNR       = 10 log10(range^2 / mean of (output - truth)^2), over the foreground or the whole volume  [dB]
    NRMSE      = RMS of (output - truth) over all voxels / N, not clipped, N as scikit-image normalises:
                 "euclidean" RMS of the truth, "min_max" its range, "mean" its mean

SSIM is in `structure`, the share of detail in `spectrum`, HFEN and sharpness in `edges`, tissue in `tissue`; here
they get what is found once per truth.

Source: reference design, section 6; Wang et al., IEEE TIP 13 (2004) 600, equation 13.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medld.errors import InputError
from medld.metrics.checks import Array, check_output, slabs
from medld.metrics.edges import log_energy, sobel_energy
from medld.metrics.spectrum import power_above
from medld.metrics.structure import RADIUS, Likeness, likeness, multiscale, scales_that_fit
from medld.metrics.tissue import class_shifts, class_thresholds

FOREGROUND_PERCENTILE = 99.5
FOREGROUND_FRACTION = 0.05


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
    """A truth that several outputs are compared with: its foreground, range and energies are found once.

    Every method raises InputError (E_PIXELS) for an output of another shape or with a voxel that is not finite.

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
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value of the truth."""
        return float(np.min(self.truth)), float(np.max(self.truth))

    @property
    def data_range(self) -> float:
        """Largest minus smallest value of the truth."""
        return self.bounds[1] - self.bounds[0]

    def psnr(self, output: Array) -> float:
        """Peak signal-to-noise ratio of `output` over the foreground, in dB."""
        return self.psnrs(output)["foreground"]

    def psnrs(self, output: Array) -> dict[str, float]:
        """PSNR over the "foreground" and over the "whole" volume, in dB."""
        check_output(self.truth, output)
        inside, everywhere = self._squared_errors(output, clip=True)
        return {
            "foreground": self._decibel(inside / np.count_nonzero(self.foreground)),
            "whole": self._decibel(everywhere / self.truth.size),
        }

    def ssim(self, output: Array) -> float:
        """Structural similarity of `output`, averaged over the foreground."""
        check_output(self.truth, output)
        return self._likeness(output, self._box).masked or 0.0

    def ssims(self, output: Array) -> dict[str, float]:
        """SSIM over the "foreground" and the "whole" volume, and MS-SSIM as "multiscale", in one pass.

        The last two are left out for a volume with a side below 11 voxels, for which they are not defined.
        """
        check_output(self.truth, output)
        means = self._likeness(output, (slice(None),) * self.truth.ndim)
        values = {"foreground": means.masked or 0.0}
        if means.inner is not None and scales_that_fit(self.truth.shape):
            values["whole"] = means.inner
            values["multiscale"] = multiscale(self.truth, self._clipped(output), self.data_range, means)
        return values

    def nrmse(self, output: Array, normalisation: Literal["euclidean", "min_max", "mean"] = "euclidean") -> float:
        """Root-mean-square error of all voxels over that of the truth, its range or its mean; 0 is perfect.

        Raises:
            InputError: If the mean is asked for and is 0 (E_PIXELS).
        """
        check_output(self.truth, output)
        error = np.sqrt(self._squared_errors(output, clip=False)[1] / self.truth.size)
        scale = self._scales[normalisation]
        if scale == 0:
            raise InputError("Expected a truth whose mean is not 0, got 0. Choose another normalisation.", "E_PIXELS")
        return float(error / scale)

    def hfen(self, output: Array) -> dict[str, float]:
        """High-frequency error norm over the "foreground" and the "whole" volume, over the truth's; 0 is perfect."""
        check_output(self.truth, output)
        error = log_energy(output, self.foreground, minus=self.truth)
        masked, whole = (float(np.sqrt(e / own)) for e, own in zip(error, self._log_energy, strict=True))
        return {"foreground": masked, "whole": whole}

    def sharpness(self, output: Array, spacing: tuple[float, float, float], axis: int | None = None) -> float:
        """Gradient energy of `output` over the foreground, over the truth's; 1 is as sharp as the truth.

        Args:
            output: Three axes, shape of the truth.
            spacing: mm between voxels, per axis.
            axis: Only the gradient along this one.
        """
        return self.sharpnesses(output, spacing, axis if axis is not None else 0)["all" if axis is None else "axis"]

    def sharpnesses(self, output: Array, spacing: tuple[float, float, float], axis: int) -> dict[str, float]:
        """Sharpness of "all" axes together and of one "axis"."""
        check_output(self.truth, output)
        energy, own = sobel_energy(output, self.foreground), self._sobel_energy
        if not own[axis] > 0:
            raise InputError(f"Expected a truth with edges along axis {axis}, found none.", "E_PIXELS")
        scale = np.asarray(spacing, dtype=np.float64) ** -2
        return {"all": float(energy @ scale / (own @ scale)), "axis": float(energy[axis] / own[axis])}

    def tissue_shift(self, output: Array) -> dict[str, float]:
        """Mean shift of "dark", "middle" and "bright" tissue in parts of the truth's range; 0 is none.

        Raises:
            InputError: If the truth's foreground has fewer than three levels (E_PIXELS).
        """
        check_output(self.truth, output)
        inside = self.foreground
        shifts = class_shifts(self.truth[inside], output[inside], self._thresholds)
        return {name: value / self.data_range for name, value in shifts.items()}

    def detail_share(self, output: Array, ratio: float, axis: int = -1) -> float:
        """Power of (output * foreground) above 1 / (2 ratio) cycles a voxel along `axis`, over the truth's.

        Args:
            output: Restored volume, shape as the truth; not clipped, for ringing is power too.
            ratio: Slice spacing in voxels of the truth.
            axis: Array axis across the slices.

        Raises:
            InputError: If the truth itself holds nothing above that frequency (E_PIXELS).
        """
        check_output(self.truth, output)
        of_truth = power_above(self.truth, 1 / (2 * ratio), axis, self.foreground)
        if of_truth == 0:
            raise InputError(
                f"Expected a truth with detail above 1/{2 * ratio:g} cycles a voxel along axis {axis}, "
                "found none. It was interpolated along this axis, or the ratio is below 1.",
                "E_PIXELS",
            )
        return power_above(output, 1 / (2 * ratio), axis, self.foreground) / of_truth

    @cached_property
    def _box(self) -> tuple[slice, ...]:
        """The foreground's bounding box and the window's reach around it: all that enters the SSIM there."""
        box = []
        for axis in range(self.truth.ndim):
            others = tuple(other for other in range(self.truth.ndim) if other != axis)
            hit = np.flatnonzero(self.foreground.any(axis=others))
            box.append(slice(max(int(hit[0]) - RADIUS, 0), int(hit[-1]) + 1 + RADIUS))
        return tuple(box)

    @cached_property
    def _scales(self) -> dict[str, float]:
        """What an RMS error is divided by."""
        square = sum(float(np.sum(np.square(self.truth[r], dtype=np.float64))) for r, _, _ in slabs(self.truth.shape))
        mean = float(np.mean(self.truth, dtype=np.float64))
        return {"euclidean": float(np.sqrt(square / self.truth.size)), "min_max": self.data_range, "mean": mean}

    @cached_property
    def _log_energy(self) -> tuple[float, float]:
        return log_energy(self.truth, self.foreground)

    @cached_property
    def _sobel_energy(self) -> Array:
        return sobel_energy(self.truth, self.foreground)

    @cached_property
    def _thresholds(self) -> tuple[float, float]:
        return class_thresholds(self.truth[self.foreground])

    def _likeness(self, output: Array, box: tuple[slice, ...]) -> Likeness:
        return likeness(self.truth[box], self._clipped(output[box]), self.data_range, self.foreground[box])

    def _squared_errors(self, output: Array, *, clip: bool) -> tuple[float, float]:
        """Sums of (output - truth)^2 over the foreground and over all voxels."""
        inside = everywhere = 0.0
        for rows, _, _ in slabs(self.truth.shape):
            values = self._clipped(output[rows]) if clip else output[rows]
            squares = np.square(np.subtract(values, self.truth[rows], dtype=np.float64))
            inside += float(squares[self.foreground[rows]].sum())
            everywhere += float(squares.sum())
        return inside, everywhere

    def _clipped(self, output: Array) -> Array:
        """`output` with the values that the truth cannot have cut off."""
        return np.clip(output, *self.bounds)

    def _decibel(self, mean_square: float) -> float:
        """PSNR of that error."""
        return float("inf") if mean_square == 0 else float(10 * np.log10(self.data_range**2 / mean_square))
