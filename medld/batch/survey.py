"""Survey: what there is at a path and what of it can be restored, from headers alone.

    Entry    one volume of a DICOM series, or one image file
    Survey   all of them, and the files that are neither, counted

A header is not proof: voxels that are cut, or all the same, are found when they are read.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medld.batch.inputs import name_series, series_number
from medld.batch.names import image_suffix
from medld.batch.search import holds_dicom, is_archive, is_dicom, read_catalogue, walk
from medld.errors import InputError, MedldError
from medld.geometry import Grid
from medld.io import read_header, read_sidecar, sidecar_path

if TYPE_CHECKING:
    from medld.io.dicom import Series

__all__ = ["Entry", "Survey", "survey"]

DESCRIPTION_LENGTH = 40
OWN = "an output of medld; enhance the original"


@dataclass(frozen=True)
class Entry:
    """One volume, or what looks like one.

    Args:
        name: Of the outputs of a DICOM volume; path of an image file below what was looked at.
        format: "dicom", "nifti1", "nifti2", "nrrd" or "metaimage"; "unknown" for what cannot be read.
        number: By which `--series` takes it, None for what it does not.
        series_number: SeriesNumber (0020,0011).
        description: Series Description (0008,103E), made safe to print.
        note: What tells this volume from others of its series.
        modality: "mr", "ct" or "unknown", by the header or sidecar.
        contrast: MR contrast, by the header.
        frames: Slices.
        grid: Where the voxels lie, None if that cannot be said.
        slice_thickness: mm, None if it is not stated.
        code: Why it cannot be restored, a reason code; empty if it can.
        reason: One sentence; empty if it can.
        warnings: Sentences that begin with their code.
    """

    name: str
    format: str
    number: int | None = None
    series_number: int | None = None
    description: str = ""
    note: str = ""
    modality: str = "unknown"
    contrast: str = "unknown"
    frames: int | None = None
    grid: Grid | None = None
    slice_thickness: float | None = None
    code: str = ""
    reason: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What there is at a path.

    Args:
        entries: DICOM first, usable before unusable, then image files by name.
        skipped: How many files are neither, by reason code.
    """

    entries: tuple[Entry, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def usable(self) -> tuple[Entry, ...]:
        """What can be restored, as far as headers tell."""
        return tuple(entry for entry in self.entries if not entry.code)


def survey(path: Path) -> Survey:
    """List what there is at a path; no pixels are read.

    Args:
        path: A DICOM file, a .zip archive, an image file, or a folder that holds any of these.

    Raises:
        InputError: If there is nothing of that name, or it cannot be listed.
    """
    if not path.exists():
        raise InputError("expected a file or folder, there is none of that name; check the path", "E_NOT_IMAGE")
    if not path.is_dir():
        if is_archive(path) or is_dicom(path):
            return _survey_dicom(path, [])
        return Survey((_look_at_image(path, path.parent),))
    files = list(walk(path))
    images = [file for file in files if image_suffix(file)]
    if holds_dicom(files):
        return _survey_dicom(path, images)
    return Survey(tuple(_look_at_image(image, path) for image in images))


def _survey_dicom(path: Path, images: Sequence[Path]) -> Survey:
    """All DICOM at a path, and the image files among it."""
    catalogue = read_catalogue(path)
    taken = {source.path for series in catalogue.series for source in series.sources}
    images = [image for image in images if image not in taken]
    handled = {file for image in images for file in (image, sidecar_path(image))}
    entries = [_look_at_series(series) for series in catalogue.series]
    entries += [_look_at_image(image, path) for image in images]
    counts = Counter(refusal.code for source, refusal in catalogue.skipped.items() if source.path not in handled)
    return Survey(tuple(entries), dict(sorted(counts.items())))


def _look_at_series(series: Series) -> Entry:
    """A volume of a DICOM series."""
    from medld.io.dicom.privacy import quiet
    from medld.io.dicom.values import value_of

    with quiet():
        name, number = name_series(series), series_number(series)
        description = clean_text(str(value_of(series.head, "SeriesDescription", "")))
    code, reason = (series.refusal.code, series.refusal.reason) if series.refusal else ("", "")
    if series.second_pass and not code:
        code, reason = "E_SECOND_PASS", OWN
    return Entry(
        name=name,
        format="dicom",
        number=series.number,
        series_number=number,
        description=description,
        note=series.note,
        modality=series.modality,
        contrast=series.contrast,
        frames=len(series.frames),
        grid=series.grid,
        slice_thickness=series.slice_thickness,
        code=code,
        reason=reason,
        warnings=series.warnings,
    )


def _look_at_image(path: Path, below: Path) -> Entry:
    """An image file, by its header."""
    name = clean_text(str(path.relative_to(below)), length=None)
    try:
        header = read_header(path)
    except MedldError as error:
        return Entry(name, "unknown", code=error.code, reason=str(error))
    code, reason = "", ""
    if header.second_pass:
        code, reason = "E_SECOND_PASS", OWN
    elif header.named_label:
        code, reason = "E_NOT_IMAGE", "a label map by its name or header; --force takes it for a scan"
    sidecar = read_sidecar(path)
    stated, thickness = str(sidecar.get("Modality", "")).lower(), sidecar.get("SliceThickness")
    return Entry(
        name=name,
        format=header.format,
        modality=stated if stated in ("mr", "ct") else "unknown",
        grid=header.grid,
        slice_thickness=float(thickness) if isinstance(thickness, int | float) and thickness > 0 else None,
        code=code,
        reason=reason,
        warnings=header.warnings,
    )


def clean_text(text: str, length: int | None = DESCRIPTION_LENGTH) -> str:
    """A header's text as one line that cannot steer a terminal, cut to a length.

    >>> clean_text("T2 ax\\x1b[2Jspin\\n<b>")
    'T2 ax [2Jspin <b>'
    """
    # Cc: controls, Cf: what turns the direction of writing, Cs: halves of characters, Z: other blanks.
    kept = (" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    line = " ".join("".join(kept).split())
    return line if length is None or len(line) <= length else line[: length - 3] + "..."
