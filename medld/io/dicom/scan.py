"""Scan: the header of a plainly written object, as pydicom reads it, at a quarter of the time.

pydicom reads a header element by element from the file and is ready for everything; of a series of
500 slices that is most of the time that reading takes. Here the elements are found in one block of
bytes and handed to pydicom undecoded, as it keeps them itself. What is not plain is left to pydicom:
an element of undefined length alone, the whole header (`scan_header` then gives None) where there
is no preamble, an unknown value representation or character set, tags out of order, or more bytes
than are looked at.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from struct import Struct
from typing import Any, Protocol, cast

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag

from medld.io.dicom.values import shared_tag

__all__ = ["scan_header"]

HEAD_BYTES = (1 << 16, 1 << 20)  # looked at, the second if the first do not do
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # where pydicom stops
_CHARACTER_SET = 0x00080005  # a plain number: comparing with a tag is slow
_UNDEFINED = 0xFFFFFFFF
_SYNTAX = BaseTag(0x00020010)
_IMPLICIT = b"1.2.840.10008.1.2"
_EXPLICIT = (b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.4.", b"1.2.840.10008.1.2.5")  # the second with its branches
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
# Character sets that need no more than their name. Others are rare and pydicom warns about some.
_KNOWN_SETS = frozenset({b"", b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 192"})

_explicit = Struct("<HH2sH").unpack_from
_implicit = Struct("<HHI").unpack_from
_length = Struct("<I").unpack_from

_Elements = dict[BaseTag, RawDataElement | DataElement]


class _Readable(Protocol):
    """What of a stream is needed."""

    def read(self, count: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...


def scan_header(stream: _Readable) -> FileDataset | None:
    """The same as `dcmread(stream, stop_before_pixels=True)`, or None if the header is not plain.

    Args:
        stream: At its beginning. Afterwards it stands at the element that holds the pixels, or at
            its beginning again if the answer is None.
    """
    for count in HEAD_BYTES:
        block = stream.read(count)
        found = _scan(block)
        if found is not None:
            stream.seek(found[1])
            return found[0]
        stream.seek(0)
        if len(block) < count:
            break
    return None


def _scan(block: bytes) -> tuple[FileDataset, int] | None:
    """The header in a block of bytes, and where it ends."""
    if len(block) < 144 or block[128:140] != b"DICM\2\0\0\0UL\4\0":
        return None
    start = 144 + _length(block, 140)[0]
    meta = _elements(block[:start], 132, explicit=True)
    # pydicom goes by the group of the elements, not by the length that they state.
    if meta is None or any(tag >> 16 != 2 for tag in meta[0]) or block[start : start + 2] == b"\2\0":
        return None
    file_meta = FileMetaDataset(meta[0])
    file_meta.set_original_encoding(False, True, "iso8859")
    stated = meta[0].get(_SYNTAX)
    syntax = bytes(stated.value or b"").rstrip(b" \0") if stated is not None else b""
    implicit = syntax == _IMPLICIT
    if not (implicit or syntax in _EXPLICIT or syntax.startswith(_EXPLICIT[1])):
        return None
    body = _elements(block, start, explicit=not implicit)
    if body is None or body[1] == len(block):
        return None
    elements, end, encoding = body
    dataset = FileDataset("", elements, block[:128], file_meta, implicit, True)
    dataset.filename = None
    dataset.set_original_encoding(implicit, True, encoding)
    return dataset, end


def _elements(block: bytes, place: int, *, explicit: bool) -> tuple[_Elements, int, Any] | None:
    """The elements from a place up to the pixels or the end, undecoded, where they end, and Python's name of the
    text's encoding; None if they are not plain.
    """
    found: _Elements = {}
    encoding: Any = "iso8859"
    last, end = 0, len(block)
    while place + 8 <= end:
        if explicit:
            group, element, kind, length = _explicit(block, place)
            value = place + 8
            if kind in _LONG:
                if place + 12 > end:
                    return None
                length, value = _length(block, place + 8)[0], place + 12
            elif kind not in _SHORT:
                return None
        else:
            group, element, length = _implicit(block, place)
            kind, value = None, place + 8
            if not found and block[place + 4 : place + 6] in _SHORT:
                return None  # explicit in truth; pydicom knows what to do
        tag = group << 16 | element
        if tag in _PIXELS:
            return found, place, encoding
        if tag <= last:
            return None
        last = tag
        if length == _UNDEFINED:
            odd, place = _undefined(block, place, explicit, encoding)
            if odd is None:
                return None
            found[shared_tag(tag)] = odd
            continue
        place = value + length
        if place > end:
            return None
        raw = block[value:place] if length else _empty(kind)
        key, name = shared_tag(tag), _name(kind)
        found[key] = RawDataElement(key, name, length, raw, value, not explicit, True)
        if tag == _CHARACTER_SET:
            stated = bytes(raw or b"").strip(b" \0")
            if stated not in _KNOWN_SETS:
                return None
            encoding = list(_encodings(stated))
    return (found, place, encoding) if place == end else None


def _undefined(block: bytes, place: int, explicit: bool, encoding: Any) -> tuple[Any, int]:
    """An element of undefined length, read by pydicom, and where it ends; None if it does not end in the block."""
    stream = BytesIO(block)
    stream.seek(place)
    try:
        element = next(data_element_generator(stream, not explicit, True, encoding=encoding), None)
    except Exception:  # pydicom raises errors of many kinds where the block ends
        return None, place
    return (element if stream.tell() < len(block) else None), stream.tell()


@lru_cache(maxsize=64)
def _name(kind: bytes | None) -> str | None:
    """A value representation as text."""
    return None if kind is None else kind.decode("ascii")


@lru_cache(maxsize=64)
def _empty(kind: bytes | None) -> bytes | None:
    """What pydicom takes for an empty value."""
    return cast("bytes | None", empty_value_for_VR(_name(kind), raw=True))


@lru_cache(maxsize=16)
def _encodings(name: bytes) -> tuple[str, ...]:
    """Python's names of a character set."""
    return tuple(convert_encodings(name.decode("ascii")))
