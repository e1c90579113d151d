"""Codecs: the compressed pixels of one frame as an array, by imagecodecs alone.

    Layout       what a header says of the stored numbers: size, bits, sign

A code stream that disagrees with its header is refused. GDCM and the plug-ins of pylibjpeg are
never used: both crashed, or can be made to, by files.

The decoders are C and are run in a process of their own (`medld.io.dicom.worker`), which is why
nothing here imports pydicom at the top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from medld.errors import InputError
from medld.io.dicom.codestream import (
    END,
    FRAME_MARKERS,
    J2K_SYNTAXES,
    RLE,
    SYNTAXES,
    CodeStream,
    check_syntax,
    read_code_stream,
    unwrapped,
)

__all__ = ["Layout", "check_syntax", "decode_frame", "register_codecs", "to_stored"]

_RLE_HEADER = 64
_RLE_GAIN = 64  # PackBits: two bytes become 128 at most


@dataclass(frozen=True)
class Layout:
    """How stored numbers lie in the pixel data, PS3.3 C.7.6.3.1.

    Args:
        rows: Rows of a frame.
        columns: Columns of a frame.
        bits_allocated: 8, 16 or 32.
        bits_stored: 1 to `bits_allocated`; the bits above them mean nothing.
        signed: Whether the stored bits are a two's complement number.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers, native byte order."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * (self.bits_allocated // 8)


def to_stored(words: np.ndarray, layout: Layout) -> np.ndarray:
    """Allocated words as stored numbers: what lies above the stored bits is dropped, the sign is spread.

    Args:
        words: Integers of `layout.dtype`; changed in place where they are writeable.
        layout: Their layout.
    """
    shift = layout.bits_allocated - layout.bits_stored
    if shift:
        # A right shift is arithmetic for signed numbers and logical for unsigned ones.
        out = words if words.flags.writeable else np.empty_like(words)
        words = np.right_shift(np.left_shift(words, shift, out=out), shift, out=out)
    return words


def decode_frame(data: bytes, syntax: str, layout: Layout) -> np.ndarray:
    """Decode one frame. Only to be called where a crash does no harm: see `medld.io.dicom.worker`.

    Args:
        data: The compressed frame, its fragments joined.
        syntax: Transfer Syntax UID.
        layout: What the header says.

    Returns:
        (rows, columns) stored numbers, of `layout.dtype`.

    Raises:
        InputError: E_CODEC for an unknown syntax, a stream that is none or contradicts the header;
            E_TRUNC for one that ends early.
        MemoryError: If the decoder asks for more than there is.
    """
    check_syntax(syntax)
    if syntax == RLE:
        return to_stored(_decode_rle(data, layout), layout)
    data = unwrapped(data) if syntax in J2K_SYNTAXES else data
    stream = read_code_stream(data, syntax)
    _check_agrees(stream, layout)
    if not data.rstrip(b"\0").endswith(END):
        raise InputError("the code stream has no end; copy the file again", "E_TRUNC")
    decoded = _run(_decoder(syntax), data)
    if decoded.shape != (layout.rows, layout.columns) or decoded.dtype.kind not in "ui":
        raise InputError("the decoder gave another size than the header says; convert the scan again", "E_CODEC")
    return to_stored(_as_words(decoded, stream, layout), layout)


def register_codecs() -> None:
    """Let pydicom decode with imagecodecs only, in this process: every other plug-in is removed.

    RLE stays with pydicom's own decoder. To be called before anything else that decodes pixels by
    pydicom (tests, notebooks); `medld` itself decodes in a process of its own.
    """
    from pydicom.pixels.decoders.base import get_decoder

    for syntax in sorted(SYNTAXES - {RLE}):
        decoder = get_decoder(syntax)
        for plugin in [*decoder.available_plugins, *decoder.missing_dependencies]:
            decoder.remove_plugin(plugin.split(" ")[0])
        decoder.add_plugin("imagecodecs", ("medld.io.dicom.codecs", "_decode_for_pydicom"))
    decoder = get_decoder(RLE)
    for plugin in set(decoder.available_plugins) - {"pydicom"}:
        decoder.remove_plugin(plugin)


def is_available(uid: str) -> bool:
    """Whether a transfer syntax can be decoded here; pydicom asks."""
    return uid in SYNTAXES


DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("numpy", "imagecodecs"))
"""What pydicom tells a user to install."""


def _decode_for_pydicom(data: bytes, runner: Any) -> bytes:
    """One frame as bytes, as a decoder plug-in of pydicom gives it."""
    if runner.samples_per_pixel != 1:
        raise NotImplementedError("colour is not decoded")
    signed = runner.pixel_representation == 1
    layout = Layout(runner.rows, runner.columns, runner.bits_allocated, runner.bits_stored, signed)
    decoded = decode_frame(data, runner.transfer_syntax, layout)
    # The stored numbers are final: pydicom must not correct their sign by the code stream's once more.
    runner.set_option("j2k_is_signed", signed)
    runner.set_option("jls_precision", runner.bits_stored)
    return decoded.astype(decoded.dtype.newbyteorder("<")).tobytes()


def _decoder(syntax: str) -> Callable[..., np.ndarray]:
    """The function of imagecodecs that decodes a syntax; its C library is loaded here."""
    import imagecodecs

    if syntax in J2K_SYNTAXES:  # OpenJPEG reads the high-throughput streams as well, and refuses what is cut
        return lambda data: imagecodecs.jpeg2k_decode(data, numthreads=1)
    kinds = {0xC0: imagecodecs.jpeg8_decode, 0xC3: imagecodecs.jpegsof3_decode, 0xF7: imagecodecs.jpegls_decode}
    decoder: Callable[..., np.ndarray] = kinds[FRAME_MARKERS[syntax][0]]
    return decoder


def _run(decode: Callable[[bytes], Any], data: bytes) -> Any:
    """Call a decoder; whatever it raises means that the stream is damaged."""
    try:
        return decode(data)
    except MemoryError:
        raise
    except Exception as error:  # each codec raises errors of its own
        raise InputError("the compressed pixels cannot be decoded; copy the file again", "E_CODEC") from error


def _decode_rle(data: bytes, layout: Layout) -> np.ndarray:
    """RLE Lossless, PS3.5 annex G; words of `layout.dtype`."""
    import imagecodecs

    if len(data) < _RLE_HEADER or _RLE_GAIN * len(data) < layout.frame_bytes:
        raise InputError("the run lengths are too few for the frame; copy the file again", "E_TRUNC")
    _check_segments(data, layout)
    little = layout.dtype.newbyteorder("<")
    decoded = _run(lambda bytes_: imagecodecs.dicomrle_decode(bytes_, little), data)
    # A segment may be followed by a byte of padding, which decodes to nothing; so the sizes must agree.
    if len(decoded) != layout.frame_bytes:
        raise InputError("the run lengths give another size than the header says; convert the scan again", "E_CODEC")
    words = np.frombuffer(bytearray(decoded), little).reshape(layout.rows, layout.columns)
    return words.astype(layout.dtype, copy=False)


def _check_segments(data: bytes, layout: Layout) -> None:
    """One segment for each byte of a word, in order, inside the data."""
    count, *offsets = (int(n) for n in np.frombuffer(data[:_RLE_HEADER], "<u4"))
    if count != layout.bits_allocated // 8:
        raise InputError("expected one run-length segment for each byte of a pixel; convert the scan again", "E_CODEC")
    used = offsets[:count]
    if used[0] != _RLE_HEADER or used != sorted(set(used)):
        raise InputError("the run-length segments overlap; convert the scan again", "E_CODEC")
    if used[-1] >= len(data):
        raise InputError("the last run-length segment is missing; copy the file again", "E_TRUNC")


def _check_agrees(stream: CodeStream, layout: Layout) -> None:
    """Refuse a code stream that declares something else than the header."""
    if stream.components != 1:
        raise InputError("expected one component, got colours", "E_CODEC")
    if (stream.rows, stream.columns) != (layout.rows, layout.columns):
        raise InputError(
            f"the header says {layout.rows} x {layout.columns} pixels, the code stream "
            f"{stream.rows} x {stream.columns}; convert the scan again",
            "E_CODEC",
        )
    if stream.precision > layout.bits_allocated:
        raise InputError(
            f"the header allocates {layout.bits_allocated} bits, the code stream has {stream.precision}; "
            "convert the scan again",
            "E_CODEC",
        )


def _as_words(decoded: np.ndarray, stream: CodeStream, layout: Layout) -> np.ndarray:
    """Decoded numbers as words of `layout.dtype`, whose sign `to_stored` then spreads.

    JPEG and JPEG-LS know no sign, and some JPEG 2000 writers do not set it: their numbers are the
    stored bits. With fewer bits than are stored that has two readings, unless they agree.
    """
    if stream.signed != layout.signed and stream.precision < layout.bits_stored:
        top = (decoded < 0) if stream.signed else (decoded >= 1 << (stream.precision - 1))
        if top.any():
            raise InputError(
                f"the header stores {layout.bits_stored} bits, the code stream {stream.precision} of another sign; "
                "convert the scan again",
                "E_CODEC",
            )
    return np.ascontiguousarray(decoded.astype(layout.dtype))
