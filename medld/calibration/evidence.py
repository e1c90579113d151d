"""Evidence: what is known of one restoration without its truth, and what in it tells where the errors are large.

    texture   in-plane fourth difference of the scan, RMS over its neighbourhood, read between its slices
    bend      second difference of the output along the coarse axis, RMS over its neighbourhood
    spread    deviation over the model's samples, RMS over its neighbourhood; only where there are samples
    phase     0 at the centre of a slice, 1 half-way between two

Texture is what the scan holds at its finest, noise included: as much of that goes missing between slices as is seen
in them. Bend is how sharply the output turns there. All three have the unit of the scan and grow with it, so what is
made of them does not depend on a scanner's gain. Neighbourhoods are Gaussian, in voxels of their own grid.

Source: our own, chosen among twenty such features by forward selection on held-out scans; |output - B|, gradients
along and across the slices and the steps between neighbouring slices added nothing to these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter1d

from medld.acquisition import Acquisition, along, damping_for, linear_matrix
from medld.errors import InputError
from medld.intensity import HIGH_PASS, intensity_map
from medld.volume import Volume

Array = NDArray[Any]

TEXTURE_REACH = (2.0, 0.7)
"""Standard deviation of the neighbourhood in-plane and across slices, voxels of the scan."""
BEND_REACH = 1.0
"""Voxels of the output."""
BEND = (1.0, -2.0, 1.0)
MIDDLE_RATIO = 4.0
"""Where log ratio is zero."""
MOST_NOISE = 3.0
"""Percent of the unit; more counts as that much."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """A scan, what was made of it and how the scan was acquired.

    Raises:
        InputError: If shapes do not fit the acquisition, nothing was restored, or a value is not finite (E_PIXELS).
    """

    scan: Array
    """(I, J, K) as acquired, scanner units."""
    output: Array
    """On the target grid, the same units: what intervals are laid around."""
    acquisition: Acquisition
    """From the target grid to the scan's."""
    unit: float
    """What counts as bright: `IntensityMap.scale` of the scan."""
    noise: float = 0.0
    """Standard deviation of the scan's noise, scanner units, 0 where none stands out."""
    spread: Array | None = None
    """Standard deviation over samples, shape of `output`."""

    def __post_init__(self) -> None:
        fine, coarse = list(self.scan.shape), list(self.scan.shape)
        for index, axis in enumerate(self.acquisition.axes):
            if axis is not None:
                fine[index], coarse[index] = axis.fine, axis.slices
        if self.scan.shape != tuple(coarse) or self.output.shape != tuple(fine) or not self.coarse_axes:
            raise InputError(
                f"Expected a scan and an output of {tuple(coarse)} and {tuple(fine)} voxels, got {self.scan.shape} and "
                f"{self.output.shape}. Give the acquisition that the output was made with.",
                "E_PIXELS",
            )
        if self.spread is not None and self.spread.shape != self.output.shape:
            raise InputError(
                f"Expected a spread of shape {self.output.shape}, got {self.spread.shape}. Draw samples on that grid.",
                "E_PIXELS",
            )
        arrays = [array for array in (self.scan, self.output, self.spread) if array is not None]
        if not all(np.isfinite(array).all() for array in arrays) or not 0 < self.unit < np.inf:
            raise InputError("Expected finite values and a unit above 0, got others. Enhance again.", "E_PIXELS")

    @classmethod
    def of(
        cls, scan: Volume, output: Array, acquisition: Acquisition, noise: float = 0.0, spread: Array | None = None
    ) -> Evidence:
        """Of a scan as a volume, with the unit that restorations have too.

        Raises:
            InputError: As above.
        """
        unit = intensity_map(scan.array, scan.modality).scale
        return cls(scan.array, output, acquisition, unit, noise, spread)

    @property
    def noise_percent(self) -> float:
        """Noise in percent of the unit, `MOST_NOISE` at most."""
        return min(100 * self.noise / self.unit, MOST_NOISE)

    @property
    def coarse_axes(self) -> tuple[int, ...]:
        """Array axes along which the scan was coarser than the output."""
        return tuple(index for index, axis in enumerate(self.acquisition.axes) if axis is not None)

    @property
    def ratio(self) -> float:
        """Geometric mean over the coarse axes."""
        return float(np.exp(np.mean([np.log(axis.ratio) for axis in self.acquisition.axes if axis is not None])))

    @property
    def log_ratio(self) -> float:
        """log2(ratio / 4)."""
        return log2(self.ratio / MIDDLE_RATIO)

    @cached_property
    def baseline(self) -> Array:
        """B, what the scan alone says, on the target grid, float32."""
        damping = float(damping_for(np.float64(self.noise / self.unit)))
        padded = self.acquisition.baseline(self.scan.astype(np.float32), damping)
        return np.asarray(self.acquisition.crop(padded))

    @cached_property
    def phase(self) -> Array:
        """Phase of every voxel, broadcast to the shape of `output`; of several coarse axes the mean."""
        total: Any = 0.0
        for index in self.coarse_axes:
            axis = self.acquisition.axes[index]
            assert axis is not None, "coarse axes have an acquisition"
            place = (np.arange(axis.fine) + 0.5) / axis.ratio
            line = 2 * np.abs(place % 1 - 0.5).astype(np.float32)
            total = total + line.reshape([-1 if a == index else 1 for a in range(3)]) / len(self.coarse_axes)
        return np.asarray(np.broadcast_to(total, self.output.shape))

    def feature(self, name: str) -> Array:
        """One of `FEATURES` on the target grid, float32, in the unit of the scan, not negative.

        Raises:
            InputError: If it is the spread and no samples were drawn (E_PIXELS).
        """
        return FEATURES[name](self)


def _texture(evidence: Evidence) -> Array:
    scan = evidence.scan.astype(np.float32)
    slice_axis = evidence.acquisition.slice_axis
    in_plane = [axis for axis in range(3) if axis != slice_axis]
    power = sum(np.square(correlate1d(scan, HIGH_PASS, axis=axis, mode="nearest")) for axis in in_plane) / 2
    for axis in range(3):
        power = gaussian_filter1d(power, TEXTURE_REACH[axis == slice_axis], axis=axis, mode="nearest")
    texture = np.sqrt(power)
    for index in evidence.coarse_axes:
        fine, slices = evidence.output.shape[index], evidence.scan.shape[index]
        texture = along(linear_matrix(fine, slices), texture, index - 3)
    return np.asarray(texture)


def _bend(evidence: Evidence) -> Array:
    output = evidence.output.astype(np.float32, copy=False)
    power = sum(np.square(correlate1d(output, BEND, axis=axis, mode="nearest")) for axis in evidence.coarse_axes)
    return _root_mean(np.asarray(power) / len(evidence.coarse_axes))


def _spread(evidence: Evidence) -> Array:
    if evidence.spread is None:
        raise InputError(
            "Expected the deviation over samples, which the calibration of this mode rests on, got none. Draw samples "
            "(--samples).",
            "E_PIXELS",
        )
    return _root_mean(np.square(evidence.spread.astype(np.float32)))


FEATURES: Mapping[str, Callable[[Evidence], Array]] = {"texture": _texture, "bend": _bend, "spread": _spread}


def _root_mean(power: Array) -> Array:
    """Root of the mean over the neighbourhood of a voxel of the output."""
    for axis in range(3):
        power = gaussian_filter1d(power, BEND_REACH, axis=axis, mode="nearest")
    return np.asarray(np.sqrt(power))
