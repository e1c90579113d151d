"""Pixel element: where a file holds its pixels, and the bytes of single frames of it.

    native        one block of words; read as many bytes as the header says, no more
    encapsulated  fragments in items, PS3.5 annex A.4; joined to frames by pydicom after a check that
                  all are there, since it takes what is left of a cut file for the whole

Frames are read one by one; nothing is decoded here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames

from medld.errors import InputError
from medld.io.dicom.codecs import Layout, to_stored
from medld.io.dicom.codestream import check_syntax

__all__ = ["BIG_ENDIAN", "EXPLICIT", "IMPLICIT", "NATIVE", "iterate_encapsulated", "iterate_native"]

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"  # inflated by `open_source`
NATIVE = frozenset({IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED})

MAX_GROWTH = 4  # times its uncompressed size that a frame may take when compressed, and one MiB
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = {False: b"\xe0\x7f\x10\x00", True: b"\x7f\xe0\x00\x10"}  # (7FE0,0010), by big endian
_OFFSET_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


def iterate_native(
    stream: BinaryIO, layout: Layout, syntax: str, count: int, wanted: frozenset[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Stored numbers of the wanted frames of an uncompressed object."""
    big = syntax == BIG_ENDIAN
    needed = layout.frame_bytes * count
    if max(wanted) >= count:
        raise InputError(f"expected {max(wanted) + 1} frames, the header says {count}", "E_TRUNC")
    swapped = _find_native(stream, needed, big)
    start = stream.tell()
    words = layout.dtype.newbyteorder(">" if big else "<")
    for index in sorted(wanted):
        stream.seek(start + index * layout.frame_bytes)
        frame = np.empty((layout.rows, layout.columns), words)
        _fill(stream, frame, swapped)
        yield index, to_stored(frame.astype(layout.dtype, copy=False), layout)


def _find_native(stream: BinaryIO, needed: int, big: bool) -> bool:
    """Move to the first of `needed` bytes of pixels; whether single bytes were swapped in pairs.

    Nearly always they are the last of the file, so that the header need not be parsed again.

    Raises:
        InputError: E_TRUNC, if the element or the file is shorter.
    """
    tag, order = _PIXEL_DATA[big], "big" if big else "little"
    end = stream.seek(0, 2)
    even = needed + needed % 2
    if end >= even + 12:
        stream.seek(end - even - 12)
        header = stream.read(12)
        stated = int.from_bytes(header[8:], order) == even  # type: ignore[arg-type]
        if stated and (header[4:8] == tag or (header[:4] == tag and header[4:8] in (b"OW\0\0", b"OB\0\0"))):
            stream.seek(0)
            if tag not in stream.read(end - even - 12):  # else they may be those of another object, appended to this
                stream.seek(end - even)
                return big and header[4:6] == b"OW"
    _, kind, length = _parse_to_pixels(stream, big)
    if length == _UNDEFINED:
        raise InputError("expected uncompressed pixels, got fragments; convert the scan again", "E_CODEC")
    if length < needed or end - stream.tell() < needed:
        got = min(length, end - stream.tell())
        raise InputError(f"expected {needed} bytes of pixels, got {got}; copy the file again", "E_TRUNC")
    return big and kind == b"OW"


def _fill(stream: BinaryIO, frame: np.ndarray, swapped: bool) -> None:
    """Fill an array from a stream."""
    view = frame.reshape(-1).view(np.uint8).data
    while view:
        got = stream.readinto(view)  # type: ignore[attr-defined]
        if not got:
            raise InputError("the file ends inside its pixels; copy it again", "E_TRUNC")
        view = view[got:]
    if swapped and frame.dtype.itemsize == 1:
        # PS3.5 7.3: bytes lie in words, whose order turns. Odd sizes have no such words to turn.
        if frame.size % 2:
            raise InputError("expected an even number of bytes a frame in big endian words", "E_CODEC")
        flat = frame.reshape(-1)
        flat[...] = flat.reshape(-1, 2)[:, ::-1].reshape(-1)


def iterate_encapsulated(
    stream: BinaryIO, layout: Layout, syntax: str, count: int, wanted: frozenset[int]
) -> Iterator[tuple[int, bytes]]:
    """Compressed bytes of the wanted frames of an object (PS3.5 annex A.4)."""
    check_syntax(syntax)
    found = 0
    for index, data in enumerate(_iterate_joined(stream, layout, count)):
        found += 1
        if index in wanted:
            yield index, data
    if found != count or max(wanted) >= count:
        # Fewer: cut. More: the frames cannot be told apart, so those given before may be wrong as well.
        code = "E_TRUNC" if found < count else "E_CODEC"
        raise InputError(f"expected {count} compressed frames, got {found}; convert the scan again", code)


def _iterate_joined(stream: BinaryIO, layout: Layout, count: int) -> Iterator[bytes]:
    """Every frame of an encapsulated object, its fragments joined; by pydicom, after a check of the items."""
    dataset, _, length = _parse_to_pixels(stream, False)
    if length != _UNDEFINED:
        raise InputError("expected compressed pixels in fragments, got a plain block; convert the scan", "E_CODEC")
    start = stream.tell()
    _check_items(stream, count * (MAX_GROWTH * layout.frame_bytes + 2**20))
    stream.seek(start)
    tables = [dataset.get(keyword) for keyword in _OFFSET_TABLES]
    extended = (tables[0], tables[1]) if all(isinstance(table, bytes) for table in tables) else None
    try:
        yield from generate_frames(stream, number_of_frames=count, extended_offsets=extended)
    except (ValueError, struct.error) as error:
        raise InputError("the fragments of the pixels are damaged; copy the file again", "E_TRUNC") from error


def _check_items(stream: BinaryIO, most: int) -> None:
    """Walk over the fragments of an encapsulated object up to its delimiter; nothing is kept.

    Raises:
        InputError: E_TRUNC, if the file ends before; E_CODEC, if something else is between them;
            E_TOO_BIG, if they hold more than `most` bytes.
    """
    total = 0
    while True:
        header = stream.read(8)
        if (header[:4] == _DELIMITER and len(header) == 8) or (not header and total):
            return  # some writers leave the delimiter out; that all frames are there is checked elsewhere
        length = int.from_bytes(header[4:], "little")
        if len(header) == 8 and (header[:4] != _ITEM or length == _UNDEFINED):
            raise InputError("expected fragments of compressed pixels, got something else", "E_CODEC")
        total += length
        if total > most:
            raise InputError("the compressed pixels take far more bytes than plain ones would", "E_TOO_BIG")
        # Seeking goes past the end of a file without a word; reading the last byte does not.
        if len(header) < 8 or (length and (stream.seek(length - 1, 1), stream.read(1))[1] == b""):
            raise InputError("the file ends inside its compressed pixels; copy it again", "E_TRUNC")


def _parse_to_pixels(stream: BinaryIO, big: bool) -> tuple[Dataset, bytes, int]:
    """Move to the first byte of the pixel data; the offset tables, and the element's kind and length."""
    stream.seek(0)
    try:
        dataset = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(_OFFSET_TABLES))
    except Exception as error:  # pydicom raises errors of many kinds where a header is damaged
        raise InputError("the header is damaged; copy the file again", "E_TRUNC") from error
    header = stream.read(8)  # pydicom stops before the element's tag
    if len(header) < 8:
        raise InputError("the file ends before its pixels; copy it again", "E_TRUNC")
    if header[:4] != _PIXEL_DATA[big]:
        raise InputError("expected whole numbers as pixels, got none", "E_PIXELS")
    kind = b"" if dataset.original_encoding[0] else header[4:6]
    if kind not in (b"", b"OW", b"OB"):
        raise InputError("the element of the pixels is damaged; copy the file again", "E_TRUNC")
    length = stream.read(4) if kind else header[4:]
    return dataset, kind, int.from_bytes(length, "big" if big else "little")
