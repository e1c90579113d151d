"""Soundness: whether the pixels that a header announces can be read, filed and written back.

The claims of a header are checked against the limit, the file and each other, in the order in
which an error would do harm; nothing of a claimed size is allocated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO, Literal

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.config import strict_reading
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import TEXT_VR_DELIMS

from medld.errors import InputError
from medld.io.checks import MIN_PIXELS
from medld.io.dicom.codecs import check_syntax
from medld.io.dicom.values import is_damaged, is_uid, items_of, value_of, whole_of

__all__ = ["BoundedStream", "check_object"]

MAX_HEAD_BYTES = 256 * 2**20  # an enhanced object of 10,000 frames needs about 100 MB
MAX_FRAGMENTS = 1_000_000
SMALL_READ = 64 * 2**10  # bytes that may be allocated without a look at what is left

_NATIVE = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian})
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_DELIMITERS = TEXT_VR_DELIMS | {0x5C, 0x5E, 0x3D}  # also between values, and between the parts of a name
_PIXEL_TAGS = {0x7FE00008: "float", 0x7FE00009: "double", 0x7FE00010: "integer"}
_PIXEL_KINDS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_MACROS = (
    *("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence"),
    *("FrameContentSequence", "MREchoSequence", "MRImageFrameTypeSequence", "CTImageFrameTypeSequence"),
)
_TELLING_IF_ABSENT = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("ImageType", "FrameType", "EchoTime", "EffectiveEchoTime", "EchoNumbers"),
)
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")  # refused as such where they are missing
_SCALE = ("RescaleSlope", "RescaleIntercept")


class BoundedStream:
    """A stream of which no more can be read than there is, nor more than a header needs.

    A damaged length makes a plain file allocate what it claims before it finds less.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.size = size
        self.budget = MAX_HEAD_BYTES
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes, fewer at the end."""
        if not 0 <= count <= SMALL_READ:  # what is small is cut off by the end itself
            left = max(0, self.size - self.tell())
            count = left if count < 0 else min(count, left)
        self.budget -= count
        if self.budget < 0:
            raise InputError(f"expected a header of at most {MAX_HEAD_BYTES >> 20} MiB", "E_TOO_BIG")
        return self._stream.read(count)


@dataclass(frozen=True)
class _Pixels:
    """The element that holds the pixels: kind, where its value begins, bytes (None: in fragments)."""

    kind: str
    start: int
    length: int | None
    order: Literal["<", ">"]


def check_object(dataset: Dataset, stream: BoundedStream, max_voxels: int) -> None:
    """Check an object's header, with the stream standing where the header ends.

    Raises:
        InputError: E_TRUNC, E_BAD_ID, E_CODEC, E_CHARSET, E_NOT_IMAGE, E_TOO_BIG, E_TOO_FEW or E_PIXELS.
    """
    pixels = _find_pixels(stream, dataset)
    _check_elements(dataset)
    _check_identity(dataset)
    _check_syntax(dataset)
    _check_text(dataset)
    _check_pixels(dataset, pixels, max_voxels)
    _check_room(dataset, pixels, stream)


def _find_pixels(stream: BoundedStream, dataset: Dataset) -> _Pixels:
    """The element at which the header ends.

    Raises:
        InputError: E_TRUNC, if the file ends first.
    """
    order: Literal["<", ">"] = "<" if dataset.original_encoding[1] else ">"
    head = stream.read(12)
    if len(head) < 8:
        raise InputError("the file ends before its pixels; copy it again", "E_TRUNC")
    group, element = struct.unpack_from(f"{order}HH", head)
    kind = _PIXEL_TAGS.get(group << 16 | element)
    if kind is None:
        raise InputError("the header is damaged; copy the file again", "E_TRUNC")
    # By the encoding of the header, not by how these bytes look: a length can look like two letters.
    explicit = dataset.original_encoding[0] is False
    if explicit and (len(head) < 12 or head[4:6] not in _PIXEL_KINDS):
        raise InputError("the header is damaged; copy the file again", "E_TRUNC")
    length = struct.unpack_from(f"{order}I", head, 8 if explicit else 4)[0]
    start = stream.tell() - len(head) + (12 if explicit else 8)
    return _Pixels(kind, start, None if length == 0xFFFFFFFF else length, order)


def _check_elements(dataset: Dataset) -> None:
    """Refuse damage where the absence of an element has a meaning of its own: a slope of 1, one frame.

    Raises:
        InputError: E_TRUNC; E_PIXELS for the scale of the values.
    """
    holders = [dataset]
    for groups in _GROUPS:
        for group in items_of(dataset, groups):
            holders += [group, *(item for macro in _MACROS for item in items_of(group, macro)[:1])]
    for holder in holders:
        for keyword in (*_GROUPS, *_MACROS, *_TELLING_IF_ABSENT, *_PLACE, *_SCALE):
            if is_damaged(holder, keyword) and not (keyword in _PLACE and value_of(holder, keyword) is None):
                code = "E_PIXELS" if keyword in _SCALE else "E_TRUNC"
                raise InputError(f"the header's {keyword} is damaged; copy the file again", code)


def _check_identity(dataset: Dataset) -> None:
    """Refuse identifiers by which a result could not be filed.

    Raises:
        InputError: E_BAD_ID.
    """
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        value = value_of(dataset, keyword)
        if value is None or not is_uid(value):
            what = "is missing" if value is None else "is not one: digits and dots, at most 64 characters"
            raise InputError(f"the {keyword} {what}; send the study again from the archive", "E_BAD_ID")
    frame = value_of(dataset, "FrameOfReferenceUID")
    if frame is not None and not is_uid(frame):
        raise InputError("the FrameOfReferenceUID is not one: digits and dots, at most 64 characters", "E_BAD_ID")


def _check_syntax(dataset: Dataset) -> None:
    """Refuse a transfer syntax that cannot be decoded.

    Raises:
        InputError: E_CODEC.
    """
    syntax = str(value_of(dataset.file_meta, "TransferSyntaxUID"))
    if syntax not in _NATIVE:
        check_syntax(syntax)


def _check_text(dataset: Dataset) -> None:
    """Refuse text that cannot be decoded: writing it back would mangle a name.

    Raises:
        InputError: E_CHARSET.
    """
    stated = value_of(dataset, "SpecificCharacterSet", "")
    try:
        # Strict: otherwise pydicom puts its default in the place of what it does not know.
        with strict_reading():
            encodings = convert_encodings([stated] if isinstance(stated, str) else list(stated))
            for element in dataset.values():
                if not isinstance(element, RawDataElement) or element.value is None or _is_plain(element.value):
                    continue
                if _kind_of(element) in _TEXT:
                    decode_bytes(element.value, encodings, _DELIMITERS)
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(
            "text in an unknown character set, or not in the one that the header names; correct "
            "SpecificCharacterSet (0008,0005)",
            "E_CHARSET",
        ) from error


def _is_plain(raw: bytes) -> bool:
    """Whether bytes mean the same in every character set: ASCII without escape sequences."""
    return raw.isascii() and b"\x1b" not in raw


def _kind_of(element: RawDataElement) -> str:
    """Value representation, looked up where the encoding does not state it."""
    if element.VR is not None:
        return str(element.VR)
    return str(dictionary_VR(element.tag)) if dictionary_has_tag(element.tag) else "UN"


def _check_pixels(dataset: Dataset, pixels: _Pixels, max_voxels: int) -> None:
    """Refuse pixels that make no scan, by what the header says of them."""
    rows, columns = (whole_of(dataset, keyword) for keyword in ("Rows", "Columns"))
    if rows < 1 or columns < 1:
        raise InputError("expected an image, the header has no Rows and Columns", "E_NOT_IMAGE")
    samples, frames = whole_of(dataset, "SamplesPerPixel", 1), whole_of(dataset, "NumberOfFrames", 1)
    interpretation = str(value_of(dataset, "PhotometricInterpretation", "MONOCHROME2")).strip()
    if samples != 1 or interpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError("expected grey values, got a colour image", "E_NOT_IMAGE")
    if not frames or frames < 1:
        raise InputError("the header's NumberOfFrames is no positive number", "E_NOT_IMAGE")
    if rows * columns * frames > max_voxels:
        raise InputError(
            f"expected at most {max_voxels:.3g} voxels, the header says {rows} x {columns} x {frames}", "E_TOO_BIG"
        )
    if min(rows, columns) < MIN_PIXELS:
        raise InputError(f"expected at least {MIN_PIXELS} pixels a side, got {rows} x {columns}", "E_TOO_FEW")
    if pixels.kind != "integer":
        raise InputError(f"expected whole numbers as pixels, got {pixels.kind} precision", "E_PIXELS")
    _check_bits(dataset)


def _check_bits(dataset: Dataset) -> None:
    """Refuse pixel formats that do not exist or mean no linear scale."""
    allocated = whole_of(dataset, "BitsAllocated", 0)
    stored = whole_of(dataset, "BitsStored", allocated)
    # The sign is not guessed: half of the range would be wrong.
    high, signed = whole_of(dataset, "HighBit", stored - 1), whole_of(dataset, "PixelRepresentation", -1)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or high != stored - 1 or signed not in (0, 1):
        raise InputError("expected pixels of 8, 16 or 32 bits, the low ones stored; got another format", "E_PIXELS")
    if "ModalityLUTSequence" in dataset and "RescaleSlope" not in dataset:
        raise InputError("values on a table instead of a linear scale (Modality LUT) are not supported", "E_PIXELS")


def _check_room(dataset: Dataset, pixels: _Pixels, stream: BoundedStream) -> None:
    """Refuse a file that ends before its pixels do.

    Raises:
        InputError: E_TRUNC.
    """
    if pixels.length is None:
        _check_fragments(pixels, stream)
        return
    have = min(pixels.length, stream.size - pixels.start)
    if value_of(dataset.file_meta, "TransferSyntaxUID") in _NATIVE:
        pixel_bytes = whole_of(dataset, "BitsAllocated", 16) // 8 * whole_of(dataset, "NumberOfFrames", 1)
        need = whole_of(dataset, "Rows") * whole_of(dataset, "Columns") * pixel_bytes
    else:
        need = pixels.length
    if have < need:
        raise InputError(f"expected {need} bytes of pixels, the file has {max(have, 0)}; copy it again", "E_TRUNC")


def _check_fragments(pixels: _Pixels, stream: BoundedStream) -> None:
    """Walk over compressed fragments without reading them (PS3.5, A.4).

    Raises:
        InputError: E_TRUNC, if one reaches beyond the end of the file or the chain is broken.
    """
    position, complete = pixels.start, False
    for _ in range(MAX_FRAGMENTS):
        stream.seek(position)
        head = stream.read(8)
        if len(head) < 8:
            complete = position == stream.size and position > pixels.start  # without the closing delimiter
            break
        tag, length = struct.unpack("<HHI" if pixels.order == "<" else ">HHI", head)[1:]
        complete = tag == 0xE0DD
        if tag != 0xE000:
            break
        position += 8 + length
    if not complete:
        raise InputError("the compressed pixels are cut or damaged; copy the file again", "E_TRUNC")
