"""Facts: what a metric needs beside truth and output; and `Metric`: one of them under its name.

Metrics know neither volumes nor scanners. What hangs on those (the scan, the output imaged again as the scan
was, the labels of a segmentation) comes as plain arrays and numbers, gathered once per output by the caller:

    facts = Facts(spacing=(.9, .9, 1.), ratios=(1., 1., 4.), scan=scan, reimaged=reimage(output))
    for metric in METRICS.values():
        if metric.applies(facts):
            row |= metric.columns(reference, output, facts)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from medld.errors import InputError
from medld.metrics.checks import Array
from medld.metrics.reference import Reference

Better = Literal["higher", "lower", "one", "zero"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Facts:
    """What is known about one output beside its voxels. Everything but `spacing` may be left out.

    Raises:
        InputError: If a spacing is not positive or a ratio below one (E_SPACING).
    """

    spacing: tuple[float, float, float]
    """mm between voxel centres of truth and output, per array axis."""
    ratios: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Slice spacing in voxels of the truth, per array axis; 1 where the scan was as fine."""
    scan: Array | None = None
    """What the output was made from, on its own grid."""
    reimaged: Array | None = None
    """The output imaged again as the scan was: shape of `scan`."""
    noise: float | None = None
    """Standard deviation of the scan's noise, in its units; None or 0 where unknown or none."""
    samples: Sequence[Array] = ()
    """Several outputs that the model gives for this scan, shape of the truth."""
    reimaged_samples: Sequence[Array] = ()
    """Each of them imaged again, shape of `scan`."""
    unseen_samples: Sequence[Array] = ()
    """The part of each that leaves no trace in its image, shape of the truth."""
    lesions: Array | None = None
    """Which lesion a voxel of the truth belongs to: 0 none, else its number; see `lesion_map`."""
    diameters: Sequence[float] = ()
    """Of the lesions, mm, by number - 1."""
    controls: Array | None = None
    """The same as `lesions` for places that got none, each with the number of the lesion that it matches."""
    truth_labels: Array | None = None
    """Label map of the truth, 0 background."""
    output_labels: Array | None = None
    """Label map of the output by the same segmentation."""

    def __post_init__(self) -> None:
        if len(self.spacing) != 3 or not all(0 < mm < float("inf") for mm in self.spacing):
            raise InputError(f"Expected three spacings in mm above 0, got {self.spacing}.", "E_SPACING")
        if len(self.ratios) != 3 or not all(1 <= ratio < float("inf") for ratio in self.ratios):
            raise InputError(f"Expected three ratios of at least 1, got {self.ratios}.", "E_SPACING")

    @property
    def axes(self) -> tuple[int, ...]:
        """Array axes along which the scan was coarser than the truth."""
        return tuple(axis for axis, ratio in enumerate(self.ratios) if ratio > 1)

    @property
    def slice_axis(self) -> int:
        """The coarsest axis, of equals the last."""
        return max(range(3), key=lambda axis: (self.ratios[axis] * self.spacing[axis], axis))


@dataclass(frozen=True)
class Metric:
    """One number, or several under the keys of a dict, that tell how an output compares with its truth."""

    name: str
    unit: str
    """"" where it has none."""
    better: Better
    """What a perfect output has: as high as can be, as low as can be, one, or zero."""
    compute: Callable[[Reference, Array, Facts], float | dict[str, float]]
    meaning: str
    """One line for a table's legend."""
    needs: tuple[str, ...] = ()
    """Fields of `Facts` without which it cannot be computed."""

    def applies(self, facts: Facts) -> bool:
        """Whether `facts` hold all that this needs."""
        return all(_given(getattr(facts, field)) for field in self.needs)

    def columns(self, reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
        """Its numbers as columns of a table: `name`, or `name_key` for each key.

        Raises:
            InputError: If something it needs is missing, or an array cannot be used.
        """
        missing = [field for field in self.needs if not _given(getattr(facts, field))]
        if missing:
            raise InputError(f"Expected {' and '.join(missing)} for {self.name}, got none. Add it to the facts.")
        value = self.compute(reference, output, facts)
        if isinstance(value, dict):
            return {f"{self.name}_{key}": number for key, number in value.items()}
        return {self.name: value}


def _given(value: object) -> bool:
    """Not None and not an empty sequence: `axes` is one where the scan was fine along all."""
    return value is not None and not (isinstance(value, Sequence) and len(value) == 0)
