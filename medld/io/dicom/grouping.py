"""Grouping: the objects of one DICOM series -> volumes, or the reason why they make none.

    parts       echoes, magnitude and phase: each a volume of its own
    stacks      of a part: one size and orientation

An object that cannot be used and might be a slice of its series refuses the whole series: a
volume without it would look complete. Localisers and mosaics stand apart and do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydicom import Dataset

from medld.geometry import Grid
from medld.io.checks import MIN_SLICES
from medld.io.dicom.choice import rank_of
from medld.io.dicom.frames import Kind, blank_frame
from medld.io.dicom.geometry import arrange
from medld.io.dicom.series import Frame, Refusal, Source
from medld.io.dicom.values import value_of, whole_of

__all__ = ["Draft", "Object", "split_series"]

ORIENTATION_TOLERANCE = 1e-3  # of a direction cosine: frames within it belong to one stack
SPACING_TOLERANCE = 1e-3  # relative, of the pixel spacing


@dataclass(eq=False)
class Object:
    """A file with a header: its frames, or why it has none."""

    source: Source
    head: Dataset
    frames: list[tuple[Frame, Kind]] = field(default_factory=list)
    refusal: Refusal | None = None

    @property
    def any_frame(self) -> Frame:
        """A frame to list it by."""
        return self.frames[0][0] if self.frames else blank_frame(self.source, self.head)


@dataclass(frozen=True, eq=False)
class Draft:
    """A volume or refusal before it has its number."""

    frames: tuple[Frame, ...]
    grid: Grid | None
    refusal: Refusal | None
    kind: Kind | None = None
    warnings: tuple[str, ...] = ()


def split_series(objects: list[Object], max_voxels: int) -> tuple[list[Draft], int]:
    """The volumes and refusals of one series, and how many files were there twice."""
    refusal = _refuse_strangers(objects)
    if refusal is not None:
        return [_refused(objects, refusal)], 0
    apart = [found for found in objects if found.refusal is not None and found.refusal.code in ("E_MIXED", "E_4D")]
    bad = [found for found in objects if found.refusal is not None and found not in apart]
    bad, copies = _without_cut_copies(bad, objects)
    if bad:
        worst = min((found.refusal for found in bad if found.refusal), key=rank_of)
        count = f" ({len(bad)} of {len(objects)} files of the series)" if len(objects) > 1 else ""
        return [_refused(objects, Refusal(worst.code, worst.reason + count))], 0
    slices, dropped, refusal = _without_repeats([found for found in objects if found.refusal is None])
    if refusal is not None:
        return [_refused(objects, refusal)], 0
    drafts = _parts(slices, max_voxels) if slices else []
    for code in sorted({found.refusal.code for found in apart if found.refusal}):
        group = [found for found in apart if found.refusal and found.refusal.code == code]
        assert group[0].refusal is not None
        drafts.append(_refused(group, group[0].refusal))
    return drafts, dropped + copies


def _without_cut_copies(bad: Sequence[Object], objects: Sequence[Object]) -> tuple[list[Object], int]:
    """The bad objects without those that are cut and there whole as well, and how many these were."""
    whole = {str(value_of(found.head, "SOPInstanceUID")) for found in objects if found.refusal is None}
    kept = [
        found
        for found in bad
        if not (
            found.refusal and found.refusal.code == "E_TRUNC" and str(value_of(found.head, "SOPInstanceUID")) in whole
        )
    ]
    return kept, len(bad) - len(kept)


def _refused(objects: Iterable[Object], refusal: Refusal) -> Draft:
    """A draft for objects that make no volume."""
    return Draft(tuple(found.any_frame for found in objects), None, refusal)


def _refuse_strangers(objects: Sequence[Object]) -> Refusal | None:
    """Refuse a series of several patients or studies.

    Frame of Reference UID is no sign: public collections carry another one in every image of a
    sound series (LIDC-IDRI), and many series carry none.
    """
    for keywords, what in (
        (("PatientID", "PatientName", "PatientBirthDate"), "patients"),
        (("StudyInstanceUID",), "studies"),
    ):
        known = {tuple(str(value_of(found.head, keyword, "")) for keyword in keywords) for found in objects}
        if len(known) > 1:
            return Refusal("E_MIXED", f"images of {len(known)} {what} under one series UID; separate them first")
    return None


def _without_repeats(objects: Sequence[Object]) -> tuple[list[Object], int, Refusal | None]:
    """Each SOP instance once, the first found; refused where one UID names different images."""
    first: dict[str, Object] = {}
    for found in objects:
        known = first.setdefault(str(value_of(found.head, "SOPInstanceUID")), found)
        if known is not found and _place_of(known) != _place_of(found):
            return [], 0, Refusal("E_BAD_ID", "different images carry the same SOPInstanceUID; send the series again")
    return list(first.values()), len(objects) - len(first), None


def _place_of(found: Object) -> tuple[object, ...]:
    """What must be equal in two copies of one image."""
    frame, kind = found.frames[0]
    size = (found.head.Rows, found.head.Columns, len(found.frames))
    return (
        *size,
        tuple(frame.position),
        tuple(frame.orientation),
        kind,
        str(value_of(found.head, "AcquisitionNumber")),
    )


def _parts(objects: Sequence[Object], max_voxels: int) -> list[Draft]:
    """The volumes of one series, by kind and then by size and orientation, in the order of their first image."""
    kinds: dict[Kind, list[Frame]] = {}
    for found in objects:
        for frame, kind in found.frames:
            kinds.setdefault(kind, []).append(frame)
    echoes = list(dict.fromkeys(kind.echo_time for kind in kinds))
    in_order = sorted(kinds, key=lambda kind: echoes.index(kind.echo_time))  # stable: then by first image
    alike = len(_stacks(frame for frames in kinds.values() for frame in frames)) == 1
    few = sum(len(frames) for frames in kinds.values() if len(frames) < MIN_SLICES)
    left_out = f"W_INCOMPLETE: {few} image(s) of the series are of another echo or type and were left out"
    drafts: list[Draft] = []
    for kind in in_order:
        frames = kinds[kind]
        stacks = _stacks(frames)
        mixed = _refuse_mixture(stacks)
        if mixed is None and not alike and len(frames) < MIN_SLICES:
            mixed = Refusal("E_MIXED", "single images beside others of another size or orientation in one series")
        if mixed is not None:
            drafts.append(Draft(tuple(frames), None, mixed, kind))
        else:
            drafts += [_volume(stack, kind, max_voxels) for stack in stacks]
    return [replace(draft, warnings=(left_out,)) if few else draft for draft in drafts]


def _stacks(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Frames of one size, pixel spacing and orientation each; compared with tolerance, since headers are rounded."""
    stacks: list[list[Frame]] = []
    for frame in frames:
        home = next((stack for stack in stacks if _is_alike(stack[0], frame)), None)
        if home is None:
            stacks.append([frame])
        else:
            home.append(frame)
    return stacks


def _is_alike(one: Frame, other: Frame) -> bool:
    """Whether two frames can be slices of one stack."""
    if _size(one) != _size(other):
        return False
    if one.pixel_spacing == other.pixel_spacing and (one.orientation == other.orientation).all():
        return True
    turned = np.abs(one.orientation - other.orientation).max()
    scaled = np.abs(np.divide(one.pixel_spacing, other.pixel_spacing) - 1).max()
    return bool(turned <= ORIENTATION_TOLERANCE and scaled <= SPACING_TOLERANCE)


def _size(frame: Frame) -> tuple[int, int]:
    """Rows and columns."""
    return whole_of(frame.head, "Rows"), whole_of(frame.head, "Columns")


def _refuse_mixture(stacks: Sequence[Sequence[Frame]]) -> Refusal | None:
    """Refuse several stacks of one kind unless each is clearly a volume of its own."""
    if len(stacks) < 2:
        return None
    sizes = {_size(stack[0]) for stack in stacks}
    what = f"{len(stacks)} orientations" if len(sizes) == 1 else f"images of {len(sizes)} sizes"
    normals = [np.cross(stack[0].orientation[:3], stack[0].orientation[3:]) for stack in stacks]
    planes = {int(np.argmax(np.abs(normal))) for normal in normals}
    if min(map(len, stacks)) < MIN_SLICES or len(planes) == 3:
        return Refusal("E_MIXED", f"{what} in one series: a localiser, or a slice that does not belong to it")
    return None


def _volume(frames: list[Frame], kind: Kind, max_voxels: int) -> Draft:
    """One stack as a volume, or the reason why it is none."""
    head = frames[0].head
    if head.Rows * head.Columns * len(frames) > max_voxels:
        reason = f"expected at most {max_voxels:.3g} voxels, got {head.Columns} x {head.Rows} x {len(frames)}"
        return Draft(tuple(frames), None, Refusal("E_TOO_BIG", reason), kind)
    ordered, found = arrange(frames)
    if isinstance(found, Refusal):
        return Draft(ordered, None, found, kind)
    return Draft(ordered, found, None, kind)
