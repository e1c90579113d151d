"""Sketch: what a report shows of one scan by one protocol, kept on disk until all scans are measured.

    spectrum    power along the slices in bands from 0 to the truth's Nyquist frequency, of the truth and each method
    planes      three cuts through the middle of the truth and of the methods that are pictured

An evaluation holds one volume at a time, and which scan is the median case is known at its end; so each scan leaves
its cuts, some hundred kilobytes, and none of its volumes. Values are kept as float16 in parts of the truth's range
(0: its smallest, 1: its largest value), which is fine enough for a picture of 256 greys.

A spectrum is one of lines that fade at both ends (Hann), as many of them as two million voxels hold: what differs
between the two faces of the box would else hide what differs between methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medld.metrics import power_in_bands
from medld.report.planes import Plane, Planes, cut_planes, find_window
from medld.volume import Volume

__all__ = ["Sketch", "Sketcher"]

Array = NDArray[Any]
Spectrum = NDArray[np.float64]

BANDS = 16
"""Of the spectrum; an axis of fewer than twice as many voxels has none."""
LINE_VOXELS = 2_000_000


@dataclass(frozen=True, eq=False)
class Sketch:
    """One scan by one protocol.

    Args:
        protocol: By which it was imaged.
        file: The scan's name.
        ratio: Slice spacing in voxels of the truth.
        window: Values that are drawn black and white, in parts of the truth's range, as all values are.
        truth: Its planes.
        truth_spectrum: Mean power in each band; None where the axis is too short.
        outputs: Planes by method.
        spreads: Planes of the standard deviation over samples, or of an interval's half-width, by method.
        spectra: Power by method.
    """

    protocol: str
    file: str
    ratio: float
    window: tuple[float, float]
    truth: Planes
    truth_spectrum: Spectrum | None = None
    outputs: Mapping[str, Planes] = field(default_factory=dict)
    spreads: Mapping[str, Planes] = field(default_factory=dict)
    spectra: Mapping[str, Spectrum] = field(default_factory=dict)


class Sketcher:
    """Makes the sketch of one scan while its outputs pass by; it keeps no volume.

    Args:
        truth: As compared, on the grid of the outputs.
        protocol: Name of the protocol.
        file: Name of the scan.
        axis: Array axis across the slices.
        ratio: Slice spacing in voxels along it.
    """

    def __init__(self, truth: Volume, protocol: str, file: str, axis: int, ratio: float) -> None:
        low, high = float(truth.array.min()), float(truth.array.max())
        self._grid, self._axis, self._low, self._range = truth.grid, axis, low, (high - low) or 1.0
        black, white = ((value - low) / self._range for value in find_window(truth.array))
        planes, spectrum = self._cut(truth.array, low), self._measure(truth.array)
        self._sketch = Sketch(protocol, file, ratio, (black, white), planes, spectrum)

    def add(
        self,
        method: str,
        output: Array,
        *,
        pictured: bool = True,
        spread: Array | None = None,
        samples: Sequence[Array] = (),
    ) -> None:
        """Look at a method's output.

        Args:
            method: Its name.
            output: Shape of the truth.
            pictured: Whether its planes are kept beside its spectrum.
            spread: Standard deviation over samples or half-width of an interval, in the truth's units.
            samples: Where there is no spread: it is their standard deviation, of fewer than two there is none.
        """
        sketch, spectrum = self._sketch, self._measure(output)
        if spectrum is not None:
            sketch = replace(sketch, spectra={**sketch.spectra, method: spectrum})
        if pictured:
            sketch = replace(sketch, outputs={**sketch.outputs, method: self._cut(output, self._low)})
        if pictured and spread is not None:
            sketch = replace(sketch, spreads={**sketch.spreads, method: self._cut(spread, 0.0)})
        elif pictured and len(samples) > 1:
            sketch = replace(sketch, spreads={**sketch.spreads, method: self._deviation(samples)})
        self._sketch = sketch

    def finish(self) -> Sketch:
        """The sketch of all that was added."""
        return self._sketch

    def _cut(self, array: Array, zero: float) -> Planes:
        """Planes in parts of the truth's range above `zero`, rounded as they are stored."""
        axial, coronal, sagittal = (
            self._rounded(plane, plane.values - zero) for plane in cut_planes(Volume(array, self._grid))
        )
        return axial, coronal, sagittal

    def _deviation(self, samples: Sequence[Array]) -> Planes:
        """Planes of the standard deviation over samples; of these no more than their planes is held."""
        cuts = zip(*(cut_planes(Volume(sample, self._grid)) for sample in samples), strict=True)
        axial, coronal, sagittal = (
            self._rounded(planes[0], np.std([plane.values for plane in planes], axis=0, ddof=1)) for planes in cuts
        )
        return axial, coronal, sagittal

    def _rounded(self, plane: Plane, values: Array) -> Plane:
        """A plane with these values in parts of the truth's range."""
        return plane.with_values((values / self._range).astype(np.float16).astype(np.float32))

    def _measure(self, array: Array) -> Spectrum | None:
        """Power in each band along the slices."""
        length = array.shape[self._axis]
        if length < 2 * BANDS:
            return None
        step = max(1, round((array.size / LINE_VOXELS) ** 0.5))
        lines = array[tuple(slice(None, None, 1 if axis == self._axis else step) for axis in range(3))]
        fade = np.hanning(length + 2)[1:-1].reshape([-1 if axis == self._axis else 1 for axis in range(3)])
        return power_in_bands(lines * fade, 1.0, self._axis, BANDS)[1]
