"""Frames: the slices that an object holds, each with its place, its scale and its kind.

A classic object is one slice, its attributes lie at the top. An enhanced object holds many:
an attribute is looked up in the frame's own functional groups, then in the shared ones, then
at the top (PS3.3, C.7.6.16; hospital practice: some vendors share what others repeat).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from pydicom import Dataset

from medld.errors import InputError
from medld.geometry.grid import MIN_SPACING, SHEAR_TOLERANCE
from medld.io.dicom.headers import MULTI_FRAME_CLASSES
from medld.io.dicom.privacy import quiet
from medld.io.dicom.series import Frame, Source
from medld.io.dicom.values import items_of, numbers_of, value_of, whole_of, words_of

__all__ = ["Kind", "attribute_of", "blank_frame", "frames_of", "words_of"]

UNIT_TOLERANCE = 5e-3  # of the length of a direction: cosines rounded to two digits pass
MAX_COORDINATE = 1e6  # mm

_LOCALISERS = ("LOCALIZER", "SCOUT", "SURVIEW", "TOPOGRAM")
_PROJECTIONS = ("PROJECTION IMAGE", "MIP", "MAX_IP", "MIN_IP", "CURVED_MPR", "VOLUME_RENDER", "SURFACE_RENDER")
_TYPE_MACROS = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence")


@dataclass(frozen=True)
class Kind:
    """What frames of one volume have in common besides their size and orientation.

    Args:
        sop_class: SOP Class UID.
        image_type: Image Type or Frame Type, from its third value on: what was imaged of the signal.
        echo_time: ms, rounded to 0.001; None if not stated.
        echo_numbers: Echo Numbers (0018,0086) as text.
    """

    sop_class: str
    image_type: tuple[str, ...]
    echo_time: float | None
    echo_numbers: str


@quiet()
def frames_of(source: Source, head: Dataset) -> list[tuple[Frame, Kind]]:
    """The frames of one object, in their order.

    Args:
        source: Where the object is.
        head: Its header, as `read_head` gives it.

    Raises:
        InputError: E_NO_GEOM for a missing or senseless place, E_MIXED for localisers, E_4D for mosaics,
            E_NOT_IMAGE for projections, E_PIXELS for a senseless scale.
    """
    if str(value_of(head, "SOPClassUID")) in MULTI_FRAME_CLASSES:
        return _enhanced_frames(source, head)
    if whole_of(head, "NumberOfFrames", 1) > 1:
        raise InputError("several frames in one classic image do not say where each lies", "E_NO_GEOM")
    kind = _kind(head, words_of(head, "ImageType"), numbers_of(head, "EchoTime", 1))
    _refuse_mosaic(head)
    return [(_frame(source, head, 0, _Lookup(head, ())), kind)]


def blank_frame(source: Source, head: Dataset) -> Frame:
    """A frame that stands for an object without usable place, so that it can be listed; its place is NaN."""
    nowhere = np.full(3, np.nan)
    return Frame(source, head, 0, nowhere, np.full(6, np.nan), (float("nan"), float("nan")))


def attribute_of(frame: Frame, macro: str, keyword: str) -> Any:
    """A value that belongs to a frame: of its functional groups if it has some, else of the header; or None."""
    return _lookup(frame.head, frame.index).value(macro, keyword)


def _lookup(head: Dataset, index: int) -> _Lookup:
    """Where the attributes of one frame are looked for."""
    own = items_of(head, "PerFrameFunctionalGroupsSequence")[index : index + 1]
    return _Lookup(head, (*own, *items_of(head, "SharedFunctionalGroupsSequence")[:1]))


@dataclass(frozen=True)
class _Lookup:
    """Where the attributes of a frame are looked for: functional groups first, then the top of the header."""

    top: Dataset
    groups: tuple[Dataset, ...]

    def find(self, macro: str, keyword: str) -> Dataset | None:
        """The data set that holds an attribute; a macro counts only if its first item does."""
        for group in self.groups:
            items = items_of(group, macro)
            if items and value_of(items[0], keyword) is not None:
                return items[0]
        return self.top if value_of(self.top, keyword) is not None else None

    def value(self, macro: str, keyword: str) -> Any:
        """A value, None if it is nowhere."""
        found = self.find(macro, keyword)
        return None if found is None else value_of(found, keyword)

    def numbers(self, macro: str, keyword: str, count: int) -> tuple[float, ...] | None:
        """So many finite numbers, None if they are nowhere or senseless."""
        found = self.find(macro, keyword)
        return None if found is None else numbers_of(found, keyword, count)


def _enhanced_frames(source: Source, head: Dataset) -> list[tuple[Frame, Kind]]:
    """The frames of an enhanced object."""
    own = items_of(head, "PerFrameFunctionalGroupsSequence")
    shared = items_of(head, "SharedFunctionalGroupsSequence")[:1]
    count = whole_of(head, "NumberOfFrames", 1)
    if len(own) != count:
        raise InputError(f"expected the places of {count} frames, the header has {len(own)}", "E_NO_GEOM")
    frames = []
    for index, group in enumerate(own):
        lookup = _Lookup(head, (group, *shared))
        stated = [item for macro in _TYPE_MACROS if (item := lookup.find(macro, "FrameType")) is not None]
        words = words_of(stated[0], "FrameType") if stated else words_of(head, "ImageType")
        echo = lookup.numbers("MREchoSequence", "EffectiveEchoTime", 1)
        kind = _kind(head, words, echo or numbers_of(head, "EchoTime", 1))
        frames.append((_frame(source, head, index, lookup), kind))
    return frames


def _frame(source: Source, head: Dataset, index: int, lookup: _Lookup) -> Frame:
    """One frame; refused if its place or scale is missing or senseless."""
    position = lookup.numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = lookup.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = lookup.numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    if position is None or max(map(abs, position)) > MAX_COORDINATE:
        raise _no_geometry("ImagePositionPatient", "three numbers")
    if orientation is None or not _is_orthonormal(orientation):
        raise _no_geometry("ImageOrientationPatient", "two unit vectors at right angles")
    if spacing is None or min(spacing) < MIN_SPACING or max(spacing) > MAX_COORDINATE:
        raise _no_geometry("PixelSpacing", "two positive numbers")
    slope, inter = _scale(lookup)
    return Frame(source, head, index, np.array(position), np.array(orientation), (spacing[0], spacing[1]), slope, inter)


def _no_geometry(keyword: str, expected: str) -> InputError:
    """The error for a place that is not stated."""
    return InputError(f"expected {expected} in {keyword}, which is missing or senseless", "E_NO_GEOM")


@lru_cache(maxsize=64)
def _is_orthonormal(orientation: tuple[float, ...]) -> bool:
    """Whether the directions of row and column are unit vectors at right angles, within rounding."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    return bool((np.abs(lengths - 1) < UNIT_TOLERANCE).all() and abs(row @ column) < SHEAR_TOLERANCE)


def _scale(lookup: _Lookup) -> tuple[float, float]:
    """Rescale slope and intercept; 1 and 0 where they are not stated."""
    values = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        if lookup.find("PixelValueTransformationSequence", keyword) is None:
            values.append(default)
            continue
        found = lookup.numbers("PixelValueTransformationSequence", keyword, 1)
        if found is None or (keyword == "RescaleSlope" and found[0] == 0):
            raise InputError(f"expected a finite number in {keyword}, and a slope that is not 0", "E_PIXELS")
        values.append(found[0])
    return values[0], values[1]


def _kind(head: Dataset, words: tuple[str, ...], echo: tuple[float, ...] | None) -> Kind:
    """The kind of a frame, by its Image Type or Frame Type; localisers and projections are refused."""
    if any(name in word for word in words for name in _LOCALISERS):
        raise InputError("a localiser: single images for planning, not a volume", "E_MIXED")
    if words[:1] == ("DERIVED",) and any(word in _PROJECTIONS for word in words[2:]):
        raise InputError(
            "a projection or curved reformat of another series; take the series it was made from", "E_NOT_IMAGE"
        )
    numbers = value_of(head, "EchoNumbers", "")
    echo_time = None if echo is None else round(echo[0], 3)
    return Kind(str(value_of(head, "SOPClassUID")), words[2:], echo_time, str(numbers))


def _refuse_mosaic(head: Dataset) -> None:
    """Refuse the sheets on which Siemens stores the slices of one volume as tiles.

    Raises:
        InputError: E_4D.
    """
    if "MOSAIC" in words_of(head, "ImageType") or _counts_tiles(head):
        raise InputError("a mosaic: all slices of a volume on one sheet; convert it with dcm2niix first", "E_4D")


def _counts_tiles(head: Dataset) -> bool:
    """Whether Siemens' NumberOfImagesInMosaic (0019,xx0A) is there, in any of its private blocks."""
    # The keys alone: a look at the elements would convert them all.
    tags = [tag for tag in head.keys() if tag.group == 0x0019 and tag.elem > 0xFF and tag.elem & 0xFF == 0x0A]  # noqa: SIM118
    creators = [head.get((0x0019, tag.elem >> 8)) for tag in tags]
    return any("SIEMENS MR HEADER" in str(creator) for creator in creators)
