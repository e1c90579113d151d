"""Members: the scans of a cohort, read and looked at one by one; what cannot teach is refused or left out by name.

An image file that cannot be read ends it. Of DICOM, where a study always holds more than what is looked for, series
that cannot be read are left out with their code, and so are thick or small ones beside a fine one of the same person.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medld.dataset import (
    LEFT_OUT,
    Fine,
    ScanFile,
    content_of,
    find_scans,
    find_thick,
    hash_scan,
    holds_dicom,
    list_studies,
    read_scan,
    recognise,
    subject_of,
    to_bytes,
)
from medld.errors import CohortError, GridError, InputError, LabelMapError
from medld.io import split_suffix

LEAST_VOXELS = 32
"""Along every axis; a training crop has at least so many."""

_SCAN_WORDS = re.compile(
    r"([_-](ses[_-]?\w+|ce[_-]?gad|t1(w|c|ce|gd|n)?|t2(w|f)?|flair|pdw?|ct|mri?))+$", re.IGNORECASE
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Member:
    """One scan of a cohort and its subject.

    `sha256` is the file's, of DICOM that of all its files; `content` is that of the voxels, however they are turned.
    """

    subject: str
    sha256: str
    content: str
    modality: str
    fine: Fine

    @property
    def name(self) -> str:
        """Path below the cohort's folder; of DICOM a number and a hash."""
        return self.fine.name


def read_members(root: Path, report: Report) -> list[Member]:
    """All fine scans below a folder: image files in the order of paths, then DICOM series.

    Args:
        root: The folder.
        report: Gets a line for each label map, output of ours and DICOM series that is left out.

    Raises:
        InputError, GridError: An image file that cannot be read, with its own code; the message names it.
        CohortError: E_COHORT. Thick slices, or a volume too small to crop.
    """
    members = list(_read_files(root, report))
    if holds_dicom(root, LEFT_OUT):
        members += _read_studies(root, report)
    return members


def _read_files(root: Path, report: Report) -> Iterator[Member]:
    for scan in _find_files(root):
        try:
            member = _read(scan)
        except LabelMapError:
            report(f"{scan.name}: left out, a label map")
        except (InputError, GridError) as error:
            if error.code == "E_SECOND_PASS":
                report(f"{scan.name}: left out, an output of medld")
                continue
            raise type(error)(f"{scan.name}: {_reason(error, scan)}", error.code) from error
        else:
            if unfit := _why_unfit(member.fine.array.shape, member.fine.spacing, None):
                raise CohortError(f"{scan.name}: {unfit}. Take it out of the cohort.")
            yield member


def _find_files(root: Path) -> list[ScanFile]:
    """Image files, named by their path; subject and contrast are those of a public set, if it is one."""
    files = sorted(p for p in root.rglob("*") if split_suffix(p)[1] and p.is_file())
    layout = recognise(root) if files else None
    known = {scan.path: scan for scan in find_scans(root, layout)} if layout else {}
    scans = []
    for path in files:
        below = path.relative_to(root)
        if set(below.parts[:-1]) & set(LEFT_OUT):
            continue
        told = known.get(path)
        subject, contrast = (told.subject, told.contrast) if told else (_subject(path, root), "unknown")
        scans.append(ScanFile(path, below.as_posix(), subject, contrast))
    return scans


def _subject(path: Path, root: Path) -> str:
    """Whose scan it is: by BIDS, else the folder it lies in below `root`, else its name without contrast and session.

    Taking two people for one costs a little; taking one for two would let a model be judged on what it learned.
    """
    name = subject_of(path)
    folders = path.relative_to(root).parts[:-1]
    return name if name.startswith("sub-") else folders[0] if folders else _SCAN_WORDS.sub("", name)


def _read_studies(root: Path, report: Report) -> list[Member]:
    """The members among DICOM series."""
    members: list[Member] = []
    unfit: dict[str, list[tuple[str, str]]] = {}
    for entry in list_studies(root, LEFT_OUT):
        scan, grid = entry.scan, entry.grid
        if not entry.usable or grid is None:
            report(entry.describe())
            continue
        if reason := _why_unfit(grid.shape, grid.spacing, entry.slice_thickness):
            unfit.setdefault(scan.subject, []).append((scan.name, reason))
            continue
        for warning in entry.warnings:
            report(f"{scan.name}: {warning}")
        try:
            members.append(_read(scan))
        except (InputError, GridError) as error:
            report(f"{scan.name}: left out, {error.code}: {_reason(error, scan)}")
    have = {member.subject for member in members}
    for subject, reasons in unfit.items():
        if subject not in have:
            name, reason = reasons[0]
            raise CohortError(f"{name}: {reason}, and {subject} has no other. Take it out of the cohort.")
        for name, reason in reasons:
            report(f"{name}: left out, {CohortError.code}: {reason}")
    return members


def _reason(error: Exception, scan: ScanFile) -> str:
    """What an error says, without the scan's name."""
    return str(error).removeprefix(f"{scan.label}: ")


def _why_unfit(shape: Sequence[int], spacing: Sequence[float], thickness: float | None) -> str | None:
    """Why a scan cannot teach, or None; `thickness` of slices along the last axis, mm, where it is known."""
    if find_thick(spacing, thickness):
        thick = f", slices {thickness:.3g} mm thick" if thickness and thickness > spacing[2] else ""
        return (
            f"expected a fine scan, got spacings of {' x '.join(f'{s:.3g}' for s in spacing)} mm{thick}: thick slices "
            "hold no truth to learn from"
        )
    if min(shape) < LEAST_VOXELS:
        return f"expected at least {LEAST_VOXELS} voxels along every axis, got {' x '.join(map(str, shape))}"
    return None


def _read(scan: ScanFile) -> Member:
    volume = read_scan(scan)
    modality = "ct" if volume.modality == "ct" else "mr"
    array = to_bytes(volume.array, modality)
    fine = Fine(scan.name, array, volume.grid.spacing, volume.contrast, modality=modality)
    return Member(scan.subject, hash_scan(scan), content_of(fine), modality, fine)
