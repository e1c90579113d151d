"""Studies: the series of DICOM folders as scans, and why others are none.

Nothing here names a patient: a person is a hash of the Patient ID, a series its number and a hash, and paths, which
in exports often hold names, are never part of a message (`medld.io.dicom.naming`).

Series are listed anew where a scan is read, for headers take more memory than a long list of scans should; those of
the folder that was looked at last are kept.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medld.dataset.scanfile import ScanFile
from medld.errors import InputError
from medld.geometry import Grid
from medld.io import digest_of, file_sha256, split_suffix
from medld.volume import Volume

if TYPE_CHECKING:
    from medld.io.dicom import Catalogue, Series

NOBODY = "patient-unknown"
"""The subject of series without Patient ID and folder: taken for one person, so that none is on both sides."""

ARCHIVE = ".zip"
"""Ending of what is not looked into: unpack it."""

SECOND_PASS = "an output of medld; take the original"


@dataclass(frozen=True)
class Entry:
    """One volume of a series, or what looks like one.

    Args:
        scan: As a scan.
        size: Bytes of its files.
        grid: Where its voxels lie; None if that cannot be said.
        slice_thickness: mm, None if it is not stated.
        code: Why it cannot be used, a reason code; "" if it can.
        reason: One sentence; "" if it can.
        warnings: Sentences that begin with their code.
    """

    scan: ScanFile
    size: int
    grid: Grid | None
    slice_thickness: float | None
    code: str = ""
    reason: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether it can be used, as far as headers tell."""
        return not self.code

    def describe(self) -> str:
        """Why it is left out, in a line."""
        return f"{self.scan.name}: left out, {self.code}: {self.reason}"


def holds_dicom(folder: Path, without: Collection[str] = ()) -> bool:
    """Whether a file below a folder begins as DICOM does; hidden folders and those named in `without` are left out."""
    from medld.io.dicom import looks_like_dicom

    return any(looks_like_dicom(path) for path in _iterate_files(folder, without))


def _iterate_files(folder: Path, without: Collection[str]) -> Iterator[Path]:
    """Files below a folder that might be DICOM, in the order of their names."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in without)
        for name in sorted(names):
            if not (name.startswith(".") or split_suffix(name)[1] or name.lower().endswith(ARCHIVE)):
                yield Path(parent, name)


def list_studies(folder: Path, without: Collection[str] = ()) -> list[Entry]:
    """Every series below a folder, usable or not; no pixels are read.

    Args:
        folder: DICOM objects in any order of folders.
        without: Names of folders whose series are left out.

    Raises:
        InputError: E_TOO_BIG for too many files.
    """
    catalogue = _look_at(folder, anew=True)
    return [_entry(folder, series) for series in catalogue.series if not _lies_in(series, folder, without)]


def find_series(scan: ScanFile) -> Series:
    """The series of a scan.

    Raises:
        InputError: It is not there any more.
    """
    from medld.io.dicom.naming import name_series

    for anew in (False, True):
        for series in _look_at(scan.path, anew=anew).usable:
            if name_series(series) == scan.series:
                return series
    raise InputError("the series is not there any more, or has changed")


def read_study(scan: ScanFile) -> Volume:
    """The volume of a scan.

    Raises:
        InputError: As `read_series`.
    """
    from medld.io.dicom import read_series

    return read_series(find_series(scan))[0]


def hash_study(scan: ScanFile) -> str:
    """SHA-256 over the sorted SHA-256 of a scan's files: their names and folders do not matter."""
    return digest_of(file_sha256(source.path) for source in find_series(scan).sources)


def _entry(folder: Path, series: Series) -> Entry:
    """What a series is, without its headers."""
    from medld.io.dicom.naming import name_patient, name_series, name_study

    name = name_series(series)
    scan = ScanFile(
        folder,
        name,
        name_patient(series) or _name_folder(series, folder),
        "CT" if series.modality == "ct" else series.contrast,
        None if series.modality == "unknown" else series.modality,
        session=name_study(series),
        series=name,
    )
    size = sum(source.size for source in series.sources)
    code, reason = (series.refusal.code, series.refusal.reason) if series.refusal else ("", "")
    if series.second_pass and not code:
        code, reason = "E_SECOND_PASS", SECOND_PASS
    return Entry(scan, size, series.grid, series.slice_thickness, code, reason, series.warnings)


def _name_folder(series: Series, folder: Path) -> str:
    """A person by the first folder below `folder`, where no Patient ID tells them apart; it may hold a name."""
    from medld.io.dicom import hash_uid

    parts = series.sources[0].path.relative_to(folder).parts
    return f"patient-{hash_uid(f'folder {parts[0]}')[:12]}" if len(parts) > 1 else NOBODY


def _lies_in(series: Series, folder: Path, names: Collection[str]) -> bool:
    """Whether a file of a series lies in a folder of one of these names."""
    return any(set(source.path.relative_to(folder).parts[:-1]) & set(names) for source in series.sources)


_last: tuple[Path, Catalogue] | None = None
_lock = threading.Lock()


def _look_at(folder: Path, *, anew: bool = False) -> Catalogue:
    """The catalogue of a folder; that of the last one is kept."""
    from medld.io.dicom import list_series

    global _last
    with _lock:
        if not anew and _last is not None and _last[0] == folder:
            return _last[1]
    catalogue = list_series(folder)
    with _lock:
        _last = (folder, catalogue)
    return catalogue
