"""Cases: the best, the median and the worst scan of a method, as pictures in three planes.

    truth    counted from    method    error of each    uncertainty, where there is one

Errors are output less truth, one colour scale for both, so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medld.report.colours import Pixels, diverging, grey, sequential
from medld.report.planes import Plane, Planes
from medld.report.results import Record, against, choose_cases, file_name, rows_of
from medld.report.sketch import Sketch
from medld.report.sketch_store import SketchStore
from medld.report.tables import number

__all__ = ["ERROR_WORDS", "SIDES", "Case", "Column", "Picture", "draw", "find_cases", "largest"]

ERROR_WORDS = (
    "Error: output less truth, blue too dark, red too bright; one scale for all errors of a case, which ends at "
    "their 99th percentile. Truth and outputs share one window."
)
SIDES = "Pictures are radiological: R at the left edge is the patient's right, A the front."
ERROR_PERCENTILE = 99.0
"""Of the errors in the three planes: a single edge must not whiten the rest."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A plane as pixels.

    Args:
        name: "axial", "coronal" or "sagittal".
        left: Letter of its left edge.
        pixels: Grey or colours, square.
        extent: Height and width, mm.
    """

    name: str
    left: str
    pixels: Pixels
    extent: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Column:
    """Three planes of one kind below one another, and what they are."""

    title: str
    pictures: tuple[Picture, Picture, Picture]


@dataclass(frozen=True, eq=False)
class Case:
    """A scan that is shown.

    Args:
        protocol: By which it was imaged.
        method: Whose case it is.
        what: "best", "median", "worst".
        row: Its line of subjects.csv.
        words: Its figures.
        columns: Its pictures.
    """

    protocol: str
    method: str
    what: str
    row: Mapping[str, Any]
    words: str
    columns: tuple[Column, ...]

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.protocol}, {self.method}, {self.what}: {file_name(self.row['file'])}"


def find_cases(record: Record, leading: Sequence[str], sketches: SketchStore) -> Iterator[Case]:
    """The cases of every protocol and method; one without a sketch is left out."""
    base = against(record)
    for protocol in (protocol["name"] for protocol in record["protocols"]):
        for method in leading:
            key = "psnr" if method == base else "gain"
            for what, row in choose_cases(rows_of(record, protocol, method), key):
                sketch = sketches.find(protocol, row["file"])
                if sketch is not None and method in sketch.outputs:
                    yield Case(protocol, method, what, row, _words(row, base), _columns(sketch, base, method))


def _words(row: Mapping[str, Any], base: str) -> str:
    how = f", {row['how']}" if row["how"] else ""
    words = f"{row['group']}{how}: PSNR {number(row['psnr'], '.2f').shown} dB, SSIM {number(row['ssim'], '.4f').shown}"
    if row["method"] == base:
        return words
    gain, ssim_gain = number(row["gain"], "+.2f").shown, number(row["ssim_gain"], "+.4f").shown
    return f"{words}; over {base}: {gain} dB, SSIM {ssim_gain}"


def _columns(sketch: Sketch, base: str, method: str) -> tuple[Column, ...]:
    """All that a sketch holds of a method beside the truth and the method that is counted against."""
    shown = [name for name in dict.fromkeys((base, method)) if name in sketch.outputs]
    columns = [draw("truth", sketch.truth, lambda values: grey(values, sketch.window))]
    columns += [draw(name, sketch.outputs[name], lambda values: grey(values, sketch.window)) for name in shown]
    errors = {name: _subtract(sketch.outputs[name], sketch.truth) for name in shown}
    limit = largest(list(errors.values()))
    for name, planes in errors.items():
        title = f"error of {name}, ±{100 * limit:.2g} % of the range"
        columns.append(draw(title, planes, lambda values: diverging(values, limit)))
    if method in sketch.spreads:
        spread = sketch.spreads[method]
        most = largest([spread])
        title = f"uncertainty of {method}, 0 to {100 * most:.2g} % of the range"
        columns.append(draw(title, spread, lambda values: sequential(values, most)))
    return tuple(columns)


def draw(title: str, planes: Planes, paint: Callable[[NDArray[np.float32]], Pixels]) -> Column:
    """Planes as a column of pictures; `paint` makes pixels of values."""

    def one(plane: Plane) -> Picture:
        return Picture(plane.name, plane.left, paint(plane.square().values), plane.extent)

    axial, coronal, sagittal = planes
    return Column(title, (one(axial), one(coronal), one(sagittal)))


def _subtract(planes: Planes, other: Planes) -> Planes:
    axial, coronal, sagittal = (
        one.with_values(one.values - two.values) for one, two in zip(planes, other, strict=True)
    )
    return axial, coronal, sagittal


def largest(several: Sequence[Planes]) -> float:
    """The end of a colour scale for these planes: nearly their largest magnitude, whatever its sign."""
    return max(
        (float(np.percentile(np.concatenate([np.abs(plane.values).ravel() for plane in planes]), ERROR_PERCENTILE)))
        for planes in several
    )
