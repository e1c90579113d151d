"""Catalogue: what a folder, archive or file holds, from headers alone.

Objects are grouped by Series Instance UID, and each series is split into its volumes
(`medld.io.dicom.grouping`). What is no CT or MR image is skipped, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medld.errors import InputError
from medld.io.dicom.acquisition import (
    describe,
    guess_contrast,
    guess_modality,
    is_own_output,
    is_processed,
    is_reformat,
    slice_thickness,
)
from medld.io.dicom.files import find_sources
from medld.io.dicom.frames import Kind, frames_of
from medld.io.dicom.grouping import Draft, Object, split_series
from medld.io.dicom.headers import examine
from medld.io.dicom.privacy import quiet
from medld.io.dicom.series import Catalogue, Frame, Refusal, Series, Source
from medld.io.dicom.values import is_uid, numbers_of, value_of
from medld.io.files import MAX_VOXELS

__all__ = ["list_series"]

_NOT_A_SLICE = ("E_NOT_IMAGE",)  # pictures and reports in a series, which are no slices of it


@quiet()
def list_series(path: Path | str, *, max_voxels: int = MAX_VOXELS) -> Catalogue:
    """Find out what a folder, archive or file holds; no pixels are read.

    Args:
        path: A DICOM file, a folder or a .zip archive.
        max_voxels: Most voxels of one volume.

    Returns:
        Usable series first, numbered in a stable order: by study, series number, series UID, and
        within a series by the first image; then the refused ones.

    Raises:
        InputError: E_NOT_IMAGE, if there is nothing at that path; E_TOO_BIG for too many files.
    """
    path = Path(path)
    sources, skipped = find_sources(path)
    groups: dict[str, list[Object]] = {}
    lost = 0  # cut so early that the series is unknown
    for source in sources:
        found, refusal = _look(source, max_voxels)
        if found is None:
            assert refusal is not None
            skipped[source] = refusal
            lost += refusal.code == "E_TRUNC"
        else:
            groups.setdefault(str(value_of(found.head, "SeriesInstanceUID")), []).append(found)
    listed: list[Series] = []
    for uid in sorted(groups, key=lambda uid: _series_order(uid, groups[uid])):
        listed += _list_one(uid, groups[uid], max_voxels, lost)
    return Catalogue(path, _numbered(listed), skipped)


def _look(source: Source, max_voxels: int) -> tuple[Object | None, Refusal | None]:
    """An object with its frames or its refusal; None and the refusal if it belongs to no series."""
    head = examine(source, max_voxels=max_voxels)
    refusal = head.refusal
    if head.dataset is None or not is_uid(value_of(head.dataset, "SeriesInstanceUID", "")):
        return None, refusal
    if refusal is not None and refusal.code in _NOT_A_SLICE:
        return None, refusal
    found = Object(source, head.dataset, refusal=refusal)
    if refusal is None:
        try:
            found.frames = frames_of(source, head.dataset)
        except InputError as error:
            found.refusal = Refusal(error.code, str(error))
            if error.code in _NOT_A_SLICE:
                return None, found.refusal
    return found, None


def _series_order(uid: str, objects: Sequence[Object]) -> tuple[str, float, str]:
    """By study, series number and UID."""
    head = objects[0].head
    number = numbers_of(head, "SeriesNumber", 1)
    return str(value_of(head, "StudyInstanceUID", "")), number[0] if number else np.inf, uid


def _list_one(uid: str, objects: list[Object], max_voxels: int, lost: int) -> list[Series]:
    """What one DICOM series holds."""
    objects = sorted(objects, key=_instance_order)
    drafts, dropped = split_series(objects, max_voxels)
    warnings = []
    if dropped:
        warnings.append(f"W_DUP: {dropped} file(s) held an image that was there already; each was taken once")
    if lost:
        warnings.append(f"W_INCOMPLETE: {lost} file(s) beside it are cut so early that their series is unknown")
    missing = _missing_at_an_end(objects)
    if missing:
        warnings.append(f"W_INCOMPLETE: {missing}")
    kinds = [draft.kind for draft in drafts if draft.refusal is None and draft.kind is not None]
    return [_series(uid, draft, (*warnings, *draft.warnings), kinds) for draft in drafts]


def _instance_order(found: Object) -> tuple[float, str, str]:
    """By Instance Number, then by name, so that the order of volumes does not depend on file names alone."""
    number = numbers_of(found.head, "InstanceNumber", 1)
    return number[0] if number else np.inf, str(found.source.path), found.source.member or ""


def _missing_at_an_end(objects: Sequence[Object]) -> str | None:
    """What the numbers in the headers say about images that are not there, or None.

    Instance numbers count only if they are whole, different and not much larger than the number of
    images: some vendors number at random.
    """
    if any(len(found.frames) > 1 for found in objects):
        return None
    have = len({str(value_of(found.head, "SOPInstanceUID")) for found in objects})
    stated = [numbers_of(found.head, "InstanceNumber", 1) for found in objects]
    numbers = {int(number[0]) for number in stated if number is not None and number[0] >= 0}
    if len(numbers) == have and have > 1:
        expected = max(numbers) - min(min(numbers), 1) + 1
        if have < expected <= 10 * have:
            return f"the instance numbers reach to {max(numbers)}, {expected - have} of them are not there"
    acquisitions = Counter(str(value_of(found.head, "AcquisitionNumber")) for found in objects)
    for found in objects:
        claimed = numbers_of(found.head, "ImagesInAcquisition", 1)
        there = acquisitions[str(value_of(found.head, "AcquisitionNumber"))]
        if claimed is not None and claimed[0] > there:
            return f"the header says {claimed[0]:.0f} images, {there} are there"
    return None


def _series(uid: str, draft: Draft, warnings: tuple[str, ...], kinds: Sequence[Kind]) -> Series:
    """A draft as a listed series, not yet numbered."""
    head = draft.frames[0].head
    second_pass = is_own_output(head)
    if not second_pass and is_processed(head):
        warnings = (*warnings, "W_SECOND_PASS: the scanner or another program has already sharpened it by a network")
    if is_reformat(head):
        warnings = (*warnings, "W_REFORMAT: cut anew out of another series; restore that one if its slices are thinner")
    return Series(
        frames=draft.frames,
        number=None,
        uid=uid,
        grid=draft.grid,
        refusal=draft.refusal,
        warnings=warnings if draft.refusal is None else (),
        modality=guess_modality(head),
        contrast=guess_contrast(draft.frames[0]),
        slice_thickness=_thickness(draft.frames),
        note=describe(draft.kind, kinds) if draft.kind is not None else "",
        second_pass=second_pass,
    )


def _numbered(listed: Sequence[Series]) -> tuple[Series, ...]:
    """Usable series first, numbered from 1, then the refused ones."""
    usable = [series for series in listed if series.refusal is None]
    numbered = [replace(series, number=number) for number, series in enumerate(usable, start=1)]
    return (*numbered, *(series for series in listed if series.refusal is not None))


def _thickness(frames: Sequence[Frame]) -> float | None:
    """Slice Thickness (mm), None where it is absent, not positive or differs between the frames."""
    known = {slice_thickness(frame) for frame in (frames[0], frames[-1])}
    value = known.pop()
    return value if not known else None
