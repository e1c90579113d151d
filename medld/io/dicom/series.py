"""Frame, Series, Catalogue: what a DICOM folder holds, known from its headers alone.

    Source      a file on disk, or a member of a zip archive
    Frame       one slice: where it lies, how its stored numbers become scanner units
    Series      frames that belong together, in slice order, and the grid they make or the
                reason why they make none; one DICOM series may hold several (echoes, magnitude
                and phase)
    Catalogue   all series of a folder, and the files that are no images

Headers hold patient data: a `Dataset` is never logged or quoted in a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medld.geometry import Grid
from medld.volume import Contrast, Modality

if TYPE_CHECKING:  # slow to import, and a look for files needs only the names here
    from pydicom import Dataset

__all__ = ["Catalogue", "Frame", "Refusal", "Series", "Source"]


@dataclass(frozen=True)
class Source:
    """Where the bytes of one DICOM object are.

    Args:
        path: A file on disk: the object itself, or the zip archive that holds it.
        member: Name inside the archive, or None.
        size: Bytes (of a member, uncompressed).
    """

    path: Path
    member: str | None
    size: int


@dataclass(frozen=True)
class Refusal:
    """Why something is not a volume: a code of `medld.errors.CODES`, and a sentence free of patient data."""

    code: str
    reason: str


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice.

    Args:
        source: The object that holds it.
        head: That object's header, without pixels; shared by its frames. Holds patient data.
        index: Which frame of the object, 0-based.
        position: (3,) mm, LPS: centre of the first pixel, Image Position (Patient), PS3.3 C.7.6.2.1.1.
        orientation: (6,) direction cosines of a row and of a column, LPS, unrounded.
        pixel_spacing: mm between rows, mm between columns.
        slope: Scanner units = slope * stored + inter, of this very frame.
        inter: See `slope`.
    """

    source: Source
    head: Dataset = field(repr=False)
    index: int
    position: np.ndarray
    orientation: np.ndarray
    pixel_spacing: tuple[float, float]
    slope: float = 1.0
    inter: float = 0.0


@dataclass(frozen=True, eq=False)
class Series:
    """Frames that belong together, and the volume they make or the reason why they make none.

    Array axes of the volume: i along a row (column index), j along a column (row index), k from
    slice to slice in the direction of row x column; nothing is flipped, so k is always last.

    Args:
        frames: In the order of k if there is a grid, else as found; never empty.
        number: 1-based number among the usable volumes of the catalogue, None if refused.
        uid: Series Instance UID. Never logged: see `hash_uid`.
        grid: Where the voxels lie (RAS+), None if refused.
        refusal: Why it cannot be used, None if it can.
        warnings: Sentences for the report, each beginning with its code ("W_DUP: ...").
        modality: By Modality (0008,0060).
        contrast: By the tags of the acquisition, "unknown" where they do not say.
        slice_thickness: Slice Thickness (0018,0050), mm; None if absent or not positive.
        note: What tells this volume from others of its series ("echo 2.46 ms, phase"), free of patient data.
        second_pass: Whether it is an output of ours.
    """

    frames: tuple[Frame, ...] = field(repr=False)
    number: int | None
    uid: str = field(repr=False)
    grid: Grid | None
    refusal: Refusal | None
    warnings: tuple[str, ...] = ()
    modality: Modality = "unknown"
    contrast: Contrast = "unknown"
    slice_thickness: float | None = None
    note: str = ""
    second_pass: bool = False

    @property
    def head(self) -> Dataset:
        """Header of the first frame's object. Holds patient data."""
        return self.frames[0].head

    @property
    def sources(self) -> tuple[Source, ...]:
        """The objects that hold the frames, each once, in the order of the frames."""
        return tuple(dict.fromkeys(frame.source for frame in self.frames))


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What a folder, archive or file holds.

    Args:
        path: What was looked at.
        series: Everything that holds images: usable ones first, by number, then refused ones.
        skipped: Files that are no images, or not of a patient's scan, and why.
    """

    path: Path
    series: tuple[Series, ...]
    skipped: Mapping[Source, Refusal] = field(default_factory=dict)

    @property
    def usable(self) -> tuple[Series, ...]:
        """The volumes, in the order of their numbers."""
        return tuple(series for series in self.series if series.refusal is None)
