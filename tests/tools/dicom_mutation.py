"""Mutation: one change to the files of a series, as damage or malice would make it.

A mutation is a few numbers, so that a failing example can be read and repeated. `apply` never
fails: what cannot be applied leaves the files as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from dicom_factory import unvalidated
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

SCALE = 1 << 16  # places are fractions of a file's length, in this many steps
MAX_HEAD = 2048

BYTE_KINDS = ("flip", "flip in head", "cut", "insert", "delete", "repeat", "splice", "append")
FILE_KINDS = ("swap", "copy", "drop", "empty")
ELEMENT_KINDS = ("text", "number", "remove", "exchange", "nudge")
KINDS = BYTE_KINDS + FILE_KINDS + ELEMENT_KINDS

TEXT_TAGS = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "InstanceNumber",
    "EchoTime",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "NumberOfFrames",
    "ImageType",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "FrameOfReferenceUID",
    "PatientID",
    "PatientName",
    "Modality",
    "SpecificCharacterSet",
    "PhotometricInterpretation",
    "SeriesDescription",
    "SeriesNumber",
    "WindowCenter",
    "StudyDate",
)
TEXTS = (
    b"",
    b"0",
    b"-0.0",
    b"-1",
    b"1",
    b"3",
    b"nan",
    b"-inf",
    b"1e308",
    b"1e-320",
    b"1e5",
    b"4.05",
    b"2147483648",
    b"99999999999999999999999999",
    b"abc",
    b"1\\2",
    b"1\\1",
    b"0\\0\\34",
    b"-40\\-50\\42",
    b"-40\\-50\\42.04",
    b"-40\\-50\\1e30",
    b"0\\0\\nan",
    b"1\\0\\0\\0\\1\\0",
    b"1\\0\\0\\0\\0.9999\\0.0141",
    b"-1\\0\\0\\0\\1\\0",
    b"0\\0\\0\\0\\0\\0",
    b"1\\0\\0\\1\\0\\0",
    b"1\\2\\3\\4\\5\\6\\7\\8\\9",
    b"\\\\\\",
    b"ORIGINAL\\PRIMARY\\LOCALIZER",
    b"DERIVED\\SECONDARY\\M\\MOSAIC",
    b"1.2.840.10008.5.1.4.1.1.2",
    b"1.2.840.10008.5.1.4.1.1.4.1",
    b"1.2.840.10008.5.1.4.1.1.7",
    b"../../../tmp/x",
    b"1." * 60,
    b"ISO 2022 IR 87\\GB18030",
    b"RGB",
    b"MONOCHROME1",
    b"\x00\x01\xff\xfe",
    b"\xef\xbc\x91",
    b"%s{0}\n<script>",
    b"A" * 3000,
)
PLACE_TAGS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
NUMBER_TAGS = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PlanarConfiguration",
)
NUMBERS = (0, 1, 2, 3, 7, 8, 11, 12, 15, 16, 17, 19, 20, 21, 24, 32, 64, 255, 256, 3000, 32768, 65535)


@dataclass(frozen=True)
class Mutation:
    """One change.

    Args:
        kind: One of `KINDS`.
        file: Which file, modulo their number.
        other: Which other file.
        place: Where in it, of `SCALE`.
        value: What: a byte, a length, a place in the lists above.
    """

    kind: str
    file: int
    other: int
    place: int
    value: int


def apply(mutation: Mutation, files: list[bytes]) -> list[bytes]:
    """The files after a mutation."""
    if not files:
        return files
    files = list(files)
    mine, theirs = mutation.file % len(files), mutation.other % len(files)
    if mutation.kind in ELEMENT_KINDS:
        files[mine] = _edit(mutation, files[mine], files[theirs])
    elif mutation.kind in BYTE_KINDS:
        files[mine] = _change_bytes(mutation, files[mine], files[theirs])
    elif mutation.kind == "swap":
        files[mine], files[theirs] = files[theirs], files[mine]
    elif mutation.kind == "copy":
        files.append(files[mine])
    elif mutation.kind == "drop":
        del files[mine]
    else:
        files[mine] = b""
    return files


def _change_bytes(mutation: Mutation, raw: bytes, other: bytes) -> bytes:
    """A file with some bytes changed, added or lost."""
    length = min(len(raw), MAX_HEAD) if mutation.kind == "flip in head" else len(raw)
    at = mutation.place * length // SCALE
    until = min(at + 1 + mutation.value, len(raw))
    if mutation.kind.startswith("flip"):
        return raw[:at] + bytes([byte ^ (mutation.value % 255 + 1) for byte in raw[at : at + 1]]) + raw[at + 1 :]
    if mutation.kind == "cut":
        return raw[:at]
    if mutation.kind == "insert":
        return raw[:at] + np.random.default_rng(mutation.value).bytes(mutation.value + 1) + raw[at:]
    if mutation.kind == "delete":
        return raw[:at] + raw[until:]
    if mutation.kind == "repeat":
        return raw[:until] + raw[at:until] * (1 + mutation.value % 7) + raw[until:]
    if mutation.kind == "splice":
        return raw[:at] + other[mutation.place * len(other) // SCALE :]
    return raw + other


def _edit(mutation: Mutation, raw: bytes, other: bytes) -> bytes:
    """A file with one element changed; the value is written as it is, whatever the standard says of it."""
    names = {"number": NUMBER_TAGS, "nudge": PLACE_TAGS}.get(mutation.kind, TEXT_TAGS)
    tag = Tag(tag_for_keyword(names[mutation.place % len(names)]) or 0)
    with unvalidated():
        try:
            dataset = dcmread(BytesIO(raw), force=True)
            holders = [holder for holder in every_item(dataset) if tag in holder] or [dataset]
            holder = holders[mutation.other % len(holders)]
            implicit, little = dataset.original_encoding
            if mutation.kind == "remove":
                holder.pop(tag, None)
            else:
                value = (
                    _nudged(mutation, holder, tag) if mutation.kind == "nudge" else _value(mutation, tag, little, other)
                )
                vr = dictionary_VR(tag)
                holder[tag] = RawDataElement(tag, vr, len(value), value, 0, bool(implicit), little, True)
            goal = BytesIO()
            dataset.save_as(goal, enforce_file_format="TransferSyntaxUID" in getattr(dataset, "file_meta", {}))
        except Exception:  # the file is damaged already, beyond what pydicom can read or write
            return raw
    return goal.getvalue()


def _value(mutation: Mutation, tag: Any, little: Any, other: bytes) -> bytes:
    """The bytes of an element's new value."""
    if mutation.kind == "number":
        return NUMBERS[mutation.value % len(NUMBERS)].to_bytes(2, "little" if little else "big")
    value = TEXTS[mutation.value % len(TEXTS)]
    if mutation.kind == "exchange":
        element = dcmread(BytesIO(other), force=True, stop_before_pixels=True).get_item(tag)
        value = bytes(element.value or b"") if isinstance(element, RawDataElement) else b""
    return value + b" " * (len(value) % 2)


def _nudged(mutation: Mutation, holder: Dataset, tag: Any) -> bytes:
    """Numbers that miss by a little: from far below what matters to far above."""
    amount = 10.0 ** (-6 + 6 * mutation.value / 300)
    numbers = [float(number) for number in holder[tag].value]
    numbers[mutation.place % len(numbers)] += amount if mutation.place % 2 else -amount
    value = "\\".join(f"{number:.10g}"[:16] for number in numbers).encode()
    return value + b" " * (len(value) % 2)


def every_item(dataset: Dataset) -> Iterator[Dataset]:
    """A data set and all items of its sequences."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from every_item(item)
