"""Code streams: what compressed pixels say of themselves, read before a decoder sees them.

A decoder believes the stream, not the DICOM header around it: one that declares 60000 x 60000
pixels in 100 bytes is cheap to write. So both are compared first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medld.errors import InputError

__all__ = [
    "END",
    "FRAME_MARKERS",
    "J2K_SYNTAXES",
    "RLE",
    "SYNTAXES",
    "CodeStream",
    "check_syntax",
    "read_code_stream",
    "unwrapped",
]

JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_LS_NEAR = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
J2K_LOSSLESS, J2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS, HTJ2K_RPCL, HTJ2K = (f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))
RLE = "1.2.840.10008.1.2.5"

# Start-of-frame markers that a syntax allows (ITU-T T.81 table B.1, T.87 annex C).
FRAME_MARKERS = {
    JPEG_BASELINE: (0xC0,),
    JPEG_EXTENDED: (0xC0, 0xC1),
    JPEG_LOSSLESS: (0xC3,),
    JPEG_LOSSLESS_SV1: (0xC3,),
    JPEG_LS: (0xF7,),
    JPEG_LS_NEAR: (0xF7,),
}
J2K_SYNTAXES = frozenset({J2K_LOSSLESS, J2K, HTJ2K_LOSSLESS, HTJ2K_RPCL, HTJ2K})
SYNTAXES = frozenset({*FRAME_MARKERS, *J2K_SYNTAXES, RLE})
"""The compressed transfer syntaxes that can be read."""

_J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
END = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_JP2_MARK = b"jP  "
_MAX_JP2_BOXES = 4096  # bytes in which the code stream begins where it is wrapped in a JP2 file


@dataclass(frozen=True)
class CodeStream:
    """What a code stream says of itself: size, components, bits and sign of its numbers."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool


def check_syntax(syntax: str) -> None:
    """Refuse a compressed transfer syntax that cannot be decoded.

    Raises:
        InputError: E_CODEC.
    """
    if syntax not in SYNTAXES:
        # A UID that is none may hold anything, and is not quoted.
        name = syntax if len(syntax) <= 64 and set(syntax) <= set("0123456789.") else "an invalid one"
        raise InputError(f"expected a transfer syntax that can be read, got {name}; decompress the scan", "E_CODEC")


def read_code_stream(data: bytes, syntax: str) -> CodeStream:
    """What a JPEG, JPEG-LS or JPEG 2000 code stream says of itself; nothing is decoded.

    Raises:
        InputError: E_CODEC for another kind of stream, E_TRUNC for one that ends inside its header.
    """
    stream = _read_siz(data) if syntax in J2K_SYNTAXES else _read_sof(data, FRAME_MARKERS[syntax])
    if stream is None:
        raise InputError("the code stream ends inside its header; copy the file again", "E_TRUNC")
    return stream


def unwrapped(data: bytes) -> bytes:
    """A JPEG 2000 code stream without the JP2 boxes that some writers leave around it."""
    if data[4:8] != _JP2_MARK:
        return data
    start = data.find(_J2K_START, 0, _MAX_JP2_BOXES)
    return data[start:] if start > 0 else data


def _read_siz(data: bytes) -> CodeStream | None:
    """The SIZ segment of JPEG 2000 (ITU-T T.800 A.5.1); None if the data end before it does."""
    if data[:4] != _J2K_START[: len(data)]:
        raise InputError("expected a JPEG 2000 code stream, got something else; convert the scan again", "E_CODEC")
    if len(data) < 43:
        return None
    right, bottom, left, top = (int(n) for n in np.frombuffer(data[8:24], ">u4"))
    components = int.from_bytes(data[40:42], "big")
    depth = data[42]
    return CodeStream(bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80))


def _read_sof(data: bytes, allowed: tuple[int, ...]) -> CodeStream | None:
    """The start of frame of JPEG or JPEG-LS (ITU-T T.81 B.2.2); None if the data end before it does."""
    if data[:2] != b"\xff\xd8"[: len(data)]:
        raise InputError("expected a JPEG code stream, got something else; convert the scan again", "E_CODEC")
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise InputError("the code stream's markers are damaged; copy the file again", "E_CODEC")
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker in allowed:
            if place + 10 > len(data):
                return None
            rows, columns = (int(n) for n in np.frombuffer(data[place + 5 : place + 9], ">u2"))
            return CodeStream(rows, columns, data[place + 9], data[place + 4], False)
        if marker == 0xDA or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            raise InputError("the code stream is of another kind than the header says", "E_CODEC")
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
