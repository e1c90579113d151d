"""Input: one scan to restore, an image file or a volume of a DICOM series.

    Head         what is known of it before its voxels are read
    ImageFile    NIfTI, NRRD, MetaImage; its sidecar tells the slice thickness
    DicomSeries  frames that make a volume; its header tells the slice thickness

Both answer the same questions, so that a run need not ask what it is restoring. What a
`DicomSeries` says of itself holds no patient data: its name is a number and a hash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medld.batch.names import name_folder, name_output
from medld.geometry import Grid
from medld.io import Storage, read_header, read_sidecar, read_volume, sidecar_path
from medld.report import describe_file
from medld.volume import Volume

if TYPE_CHECKING:
    from medld.io.dicom import Series

__all__ = ["DicomSeries", "Head", "ImageFile", "Input", "files_of", "name_series", "series_number"]

COARSEST = 0.99  # of the largest spacing: an axis that is as coarse as any


@dataclass(frozen=True)
class Head:
    """What is known of a scan before its voxels are read.

    Args:
        grid: Where they lie.
        read_bytes: Memory that reading them needs at its peak.
        second_pass: Whether it is an output of ours.
        slice_thickness: mm, None if it is not stated.
        stated_by: Who states it: "sidecar" or "header".
        warnings: Sentences for the report.
    """

    grid: Grid
    read_bytes: int
    second_pass: bool
    slice_thickness: float | None
    stated_by: str
    warnings: tuple[str, ...] = ()


class Input(Protocol):
    """One scan to restore."""

    @property
    def path(self) -> Path:
        """What the caller named, or a file met below it."""

    @property
    def explicit(self) -> bool:
        """Whether the caller named it, rather than a folder that holds it."""

    @property
    def part(self) -> str:
        """Which part of `path` it is, empty for all of it."""

    @property
    def series(self) -> Series | None:
        """The DICOM series, if it is one."""

    @property
    def home(self) -> Path:
        """Folder of the outputs, unless the caller names one."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that must stay as they are."""

    def name_output(self, mark: str, suffix: str | None) -> str:
        """Name of an output; a suffix of None is that of the scan's own format."""

    def examine(self) -> Head:
        """Look at the headers; raises what `read_header` raises."""

    def load(self, *, force: bool, allow_output: bool = False) -> tuple[Volume, Storage]:
        """Read the voxels, and how to write a result back; raises what `read_volume` raises."""

    def describe(self) -> dict[str, Any]:
        """What it is, by its content, for the record."""


@dataclass(frozen=True)
class ImageFile:
    """An image file, as an `Input`."""

    path: Path
    explicit: bool
    part: str = field(default="", init=False)
    series: None = field(default=None, init=False)

    @property
    def home(self) -> Path:
        """Beside it."""
        return self.path.parent

    @property
    def files(self) -> tuple[Path, ...]:
        """The scan and its sidecar, which is as much the caller's data."""
        return (*files_of(self.path), sidecar_path(self.path))

    def name_output(self, mark: str, suffix: str | None) -> str:
        """The scan's own name with a mark."""
        return name_output(self.path, mark, suffix)

    def examine(self) -> Head:
        """By the file's header and its sidecar."""
        header = read_header(self.path)
        thickness, warnings = _read_thickness(self.path)
        return Head(header.grid, header.read_bytes, header.second_pass, thickness, "sidecar", warnings)

    def load(self, *, force: bool, allow_output: bool = False) -> tuple[Volume, Storage]:
        """By `read_volume`."""
        return read_volume(self.path, force=force, allow_output=allow_output)

    def describe(self) -> dict[str, Any]:
        """Name and sha256."""
        return dict(describe_file(self.path))


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """A volume of a DICOM series, as an `Input`.

    Args:
        path: File, folder or archive in which it was found. May name a patient.
        explicit: Whether that is a file rather than a folder.
        series: The volume.
    """

    path: Path
    explicit: bool
    series: Series

    @property
    def part(self) -> str:
        """A name that is the same wherever the series lies, and another one for every volume."""
        return name_series(self.series)

    @property
    def home(self) -> Path:
        """A folder beside the one where it was found."""
        return name_folder(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """All objects of the series."""
        return tuple(dict.fromkeys(source.path for source in self.series.sources))

    def name_output(self, mark: str, suffix: str | None) -> str:
        """Number and hash; a series folder has no suffix."""
        return f"{self.part}_desc-{mark}{suffix or ''}"

    def examine(self) -> Head:
        """By what the catalogue knows already."""
        from medld.io.dicom.values import numbers_of

        series = self.series
        assert series.grid is not None, "only usable series become inputs"
        (bits,) = numbers_of(series.head, "BitsAllocated", 1) or (16.0,)
        read_bytes = prod(series.grid.shape) * (int(bits) // 8 + 4)
        thickness, warnings = series.slice_thickness, series.warnings
        if thickness is not None and series.grid.spacing[2] < COARSEST * max(series.grid.spacing):
            # Slices lie along the last axis, and it is another one that is coarse.
            thickness = None
            warnings += ("the header's SliceThickness is not used: the pixels are coarser than the slices",)
        return Head(series.grid, read_bytes, series.second_pass, thickness, "header", warnings)

    def load(self, *, force: bool, allow_output: bool = False) -> tuple[Volume, Storage]:
        """By `read_series`."""
        from medld.io.dicom import read_series

        return read_series(self.series, force=force, allow_output=allow_output)

    def describe(self) -> dict[str, Any]:
        """Hashed UIDs, counts, and a sha256 that does not depend on names or on an archive."""
        from medld.io.dicom import hash_sources, hash_uid
        from medld.io.dicom.values import value_of

        sources = self.series.sources
        return {
            "format": "dicom",
            "series": hash_uid(self.series.uid),
            "study": hash_uid(str(value_of(self.series.head, "StudyInstanceUID", ""))),
            "instances": len(sources),
            "frames": len(self.series.frames),
            "sha256": hash_sources(sources),
        }


def name_series(series: Series) -> str:
    """A name for one volume of a series: its SeriesNumber and a hash of what makes it this one."""
    from medld.io.dicom import naming

    return naming.name_series(series)


def series_number(series: Series) -> int | None:
    """SeriesNumber (0020,0011), None where it is none that fits a name."""
    from medld.io.dicom import naming

    return naming.series_number(series)


def files_of(image: Path) -> tuple[Path, ...]:
    """The files an image consists of: an .mhd header has its voxels beside it."""
    return (image, image.with_suffix(".raw")) if image.suffix.lower() == ".mhd" else (image,)


def _read_thickness(path: Path) -> tuple[float | None, tuple[str, ...]]:
    """`SliceThickness` (mm) of a scan's JSON sidecar, or None; and a warning if it is unusable."""
    value = read_sidecar(path).get("SliceThickness")
    if value is None:
        return None, ()
    if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value > 0):
        return None, ("the sidecar's SliceThickness is not used: expected a positive number of mm",)
    return float(value), ()
