"""Survey: what is in a folder of scans, files and DICOM series, and what would keep a model from learning from it.

Problems have the reason codes of `medld.errors`: what cannot be read at all has the code with which every command
refuses it; thick slices and copies, which can be read but teach nothing or flatter a validation, are E_COHORT.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medld.dataset.scanfile import ScanFile, subject_of
from medld.dataset.studies import Entry, holds_dicom, list_studies
from medld.dataset.volumes import Fine, content_of, read_scan, to_bytes
from medld.errors import CardError, GridError, InputError
from medld.io import SUFFIXES, read_header, split_suffix
from medld.volume import Volume

THICK = 1.8
"""An axis this much coarser than the finest is one of slices; training takes it for one too."""

NOISE_SLICES = 32
"""Slices that the noise is estimated from, evenly over the scan."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a scan: reason code and sentence."""

    code: str
    text: str


@dataclass(frozen=True)
class Scan:
    """One file or DICOM series. What is not known of one that cannot be read is None.

    `name` is its path below the folder, of DICOM its number and a hash; `subject` of DICOM is a hash too. `spacing` in
    mm, `bytes` those of its files, `noise` a standard deviation: a fraction of the scan's 99.9th percentile, for CT in
    HU; 0 where none stands out from texture.
    """

    name: str
    subject: str
    bytes: int
    modality: str | None = None
    contrast: str | None = None
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    noise: float | None = None
    problems: tuple[Problem, ...] = ()


def survey(folder: Path) -> Iterator[Scan]:
    """Every scan below a folder: files in the order of paths, then DICOM; one in memory at a time. Hidden folders are
    left out.

    Raises:
        CardError: There is no such folder, or no scan in it.
        InputError: E_TOO_BIG, too many DICOM files.
    """
    files = folder.rglob("*") if folder.is_dir() else ()
    names = {path.relative_to(folder): path for path in files if split_suffix(path)[1] and path.is_file()}
    visible = sorted(name for name in names if not any(part.startswith(".") for part in name.parts))
    studies = list_studies(folder) if folder.is_dir() and holds_dicom(folder) else []
    if not visible and not studies:
        raise CardError(f"Expected scans ({', '.join(SUFFIXES)}, DICOM) below {folder}, found none. Check the path.")
    seen: dict[str, str] = {}
    for name in visible:
        scan = ScanFile(names[name], name.as_posix(), subject_of(names[name]), "unknown")
        yield _look(scan, names[name].stat().st_size, None, seen)
    for entry in studies:
        yield _look(entry.scan, entry.size, entry, seen)


def _look(scan: ScanFile, size: int, entry: Entry | None, seen: dict[str, str]) -> Scan:
    """A scan's facts; `seen` maps hashes of contents to the names that had them first."""
    if entry is not None and not entry.usable:
        return _refused(scan, size, entry, Problem(entry.code, entry.reason))
    try:
        volume = read_scan(scan)
    except (InputError, GridError) as error:
        reason = str(error).removeprefix(f"{scan.label}: ")
        return _refused(scan, size, entry, Problem(error.code, reason))
    thickness = entry.slice_thickness if entry else None
    return Scan(
        scan.name,
        scan.subject,
        size,
        volume.modality,
        volume.contrast,
        volume.grid.shape,
        volume.grid.spacing,
        estimate_scan_noise(volume),
        (*_thick(volume.grid.spacing, thickness), *_copy(volume, scan.name, seen)),
    )


def _refused(scan: ScanFile, size: int, entry: Entry | None, problem: Problem) -> Scan:
    """What is known of a scan that cannot be read: by its header, where that can be."""
    try:
        grid = entry.grid if entry else read_header(scan.path).grid
    except (InputError, GridError):
        grid = None
    shape, spacing = (grid.shape, grid.spacing) if grid else (None, None)
    return Scan(scan.name, scan.subject, size, shape=shape, spacing=spacing, problems=(problem,))


def find_thick(spacing: Sequence[float], thickness: float | None = None) -> tuple[int, ...]:
    """The array axes along which a scan is too coarse to be a truth.

    Args:
        spacing: mm, per axis.
        thickness: Of the slices, mm, which lie along the last axis; slices that overlap hold no finer detail. None if
            it is not known.
    """
    detail = (*spacing[:2], max(spacing[2], thickness or 0.0))
    return tuple(axis for axis in range(3) if detail[axis] >= THICK * min(detail))


def _thick(spacing: tuple[float, float, float], thickness: float | None) -> Iterator[Problem]:
    thick = find_thick(spacing, thickness)
    if thick:
        fine = ", ".join(str(axis) for axis in range(3) if axis not in thick)
        coarse = max(*spacing, thickness or 0.0) if 2 in thick else max(spacing)
        yield Problem(
            "E_COHORT",
            f"thick slices: {coarse:.4g} mm beside {min(spacing):.4g} mm; no truth along them, "
            f"use axes [{fine}] alone or leave it out",
        )


def _copy(volume: Volume, name: str, seen: dict[str, str]) -> Iterator[Problem]:
    modality = "ct" if volume.modality == "ct" else "mr"
    fine = Fine(name, to_bytes(volume.array, modality), volume.grid.spacing)
    first = seen.setdefault(content_of(fine), name)
    if first != name:
        yield Problem("E_COHORT", f"the same voxels as {first}; keep one of them")


def estimate_scan_noise(volume: Volume) -> float:
    """Noise of a scan: a fraction of its 99.9th percentile; for CT in HU. Slices lie along its coarsest axis."""
    import torch

    from medld.intensity import CT_RANGE, estimate_noise, intensity_map

    axis = 2 - int(np.argmax(volume.grid.spacing[::-1]))
    array = np.moveaxis(volume.array, axis, 2)
    chosen = np.unique(np.linspace(0, array.shape[2] - 1, NOISE_SLICES).round().astype(int))
    units = intensity_map(volume.array, volume.modality).forward(array[..., chosen])
    noise = estimate_noise(torch.from_numpy(np.ascontiguousarray(units, dtype=np.float32))[None, None])
    return float(noise) * (CT_RANGE if volume.modality == "ct" else 1.0)
