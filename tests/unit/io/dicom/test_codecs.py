"""Codecs: what comes out is what went in, or a refusal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from dicom_factory import RLE, encode

from medld.errors import InputError
from medld.io.dicom import codestream as cs
from medld.io.dicom.codecs import Layout, decode_frame, to_stored

ROWS, COLUMNS = 24, 31


def frame(rng: np.random.Generator, layout: Layout) -> np.ndarray:
    """Smooth content that reaches both ends of what the layout holds."""
    low, high = (-(2 ** (layout.bits_stored - 1)), 2 ** (layout.bits_stored - 1) - 1)
    if not layout.signed:
        low, high = 0, 2**layout.bits_stored - 1
    y, x = np.mgrid[0 : 1 : layout.rows * 1j, 0 : 1 : layout.columns * 1j]
    values = np.rint(low + (high - low) * (x + y) / 2 + rng.normal(0, (high - low) / 50, x.shape))
    values = np.clip(values, low, high).astype(layout.dtype)
    values[0, 0], values[-1, -1] = low, high
    return values


def layout(bits_allocated: int = 16, bits_stored: int = 12, signed: bool = False) -> Layout:
    return Layout(ROWS, COLUMNS, bits_allocated, bits_stored, signed)


def refused(data: bytes, syntax: str, of: Layout) -> str:
    """The code with which a stream is refused."""
    with pytest.raises(InputError) as caught:
        decode_frame(data, syntax, of)
    return caught.value.code


ENCODERS: dict[str, tuple[str, Callable[[np.ndarray, int], bytes]]] = {
    "RLE": (cs.RLE, lambda words, bits: encode(words, RLE, bits)),
    "JPEG lossless": (cs.JPEG_LOSSLESS_SV1, lambda words, bits: imagecodecs.ljpeg_encode(words, bitspersample=bits)),
    "JPEG lossless, any predictor": (
        cs.JPEG_LOSSLESS,
        lambda words, bits: imagecodecs.ljpeg_encode(words, bitspersample=bits),
    ),
    "JPEG-LS": (cs.JPEG_LS, lambda words, bits: imagecodecs.jpegls_encode(words)),
    "JPEG-LS, near": (cs.JPEG_LS_NEAR, lambda words, bits: imagecodecs.jpegls_encode(words)),
    "JPEG 2000": (
        cs.J2K_LOSSLESS,
        lambda words, bits: imagecodecs.jpeg2k_encode(words, reversible=True, codecformat="j2k", bitspersample=bits),
    ),
    "JPEG 2000 in boxes": (
        cs.J2K,
        lambda words, bits: imagecodecs.jpeg2k_encode(words, reversible=True, codecformat="jp2", bitspersample=bits),
    ),
}
if hasattr(imagecodecs, "htj2k_encode"):  # not in the oldest version, which decodes it all the same
    ENCODERS["HTJ2K"] = (cs.HTJ2K_LOSSLESS, lambda words, bits: imagecodecs.htj2k_encode(words))
LAYOUTS = {
    "12 of 16": layout(),
    "16": layout(bits_stored=16),
    "12 of 16, signed": layout(signed=True),
    "16, signed": layout(bits_stored=16, signed=True),
    "8": layout(8, 8),
}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("bits", LAYOUTS)
def test_lossless_streams_give_the_numbers_that_were_stored(kind: str, bits: str, rng: np.random.Generator) -> None:
    of, (syntax, encoder) = LAYOUTS[bits], ENCODERS[kind]
    values = frame(rng, of)
    # As writers do: the stored bits without a sign, nothing above them.
    words = (values.astype(np.int64) & (2**of.bits_stored - 1)).astype(f"u{of.bits_allocated // 8}")
    decoded = decode_frame(bytes(encoder(words, of.bits_stored)), syntax, of)
    assert decoded.dtype == of.dtype
    np.testing.assert_array_equal(decoded, values)


@pytest.mark.parametrize("kind", [kind for kind in ("JPEG 2000", "HTJ2K") if kind in ENCODERS])
def test_jpeg_2000_may_state_the_sign_itself(kind: str, rng: np.random.Generator) -> None:
    of = layout(bits_stored=16, signed=True)
    values, (syntax, encoder) = frame(rng, of), ENCODERS[kind]
    np.testing.assert_array_equal(decode_frame(bytes(encoder(values, 16)), syntax, of), values)


@pytest.mark.parametrize(("syntax", "bits"), [(cs.JPEG_BASELINE, 8), (cs.JPEG_EXTENDED, 8), (cs.JPEG_EXTENDED, 12)])
def test_lossy_jpeg_stays_near_its_source(syntax: str, bits: int, rng: np.random.Generator) -> None:
    of = layout(8 if bits == 8 else 16, bits)
    y, x = np.mgrid[:ROWS, :COLUMNS]
    values = (2 ** (bits - 1) * (1 + 0.5 * np.sin(x / 9) * np.cos(y / 7))).astype(of.dtype)
    data = imagecodecs.jpeg8_encode(values, level=95, bitspersample=bits)
    decoded = decode_frame(bytes(data), syntax, of).astype(int)
    assert np.abs(decoded - values).max() < 2**bits / 64


@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "RLE"])
def test_the_size_in_the_stream_is_compared_before_it_is_decoded(kind: str, rng: np.random.Generator) -> None:
    syntax, encoder = ENCODERS[kind]
    data = bytes(encoder(frame(rng, layout()), 12))
    stream = cs.read_code_stream(cs.unwrapped(data), syntax)
    assert (stream.rows, stream.columns, stream.components) == (ROWS, COLUMNS, 1)
    assert refused(data, syntax, Layout(ROWS + 1, COLUMNS, 16, 12, False)) == "E_CODEC"
    assert refused(data, syntax, Layout(COLUMNS, ROWS, 16, 12, False)) == "E_CODEC"
    assert refused(data, syntax, Layout(ROWS, COLUMNS, 8, 8, False)) == "E_CODEC"


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.9, 0.99])
def test_a_cut_stream_is_refused(kind: str, part: float, rng: np.random.Generator) -> None:
    syntax, encoder = ENCODERS[kind]
    data = bytes(encoder(frame(rng, layout()), 12))
    assert refused(data[: int(part * len(data))], syntax, layout()) in ("E_TRUNC", "E_CODEC")


@pytest.mark.parametrize("syntax", sorted(cs.SYNTAXES))
def test_noise_is_no_stream(syntax: str, rng: np.random.Generator) -> None:
    assert refused(rng.bytes(5000), syntax, layout()) in ("E_TRUNC", "E_CODEC")


def test_a_stream_of_another_kind_is_refused(rng: np.random.Generator) -> None:
    values = frame(rng, layout())
    made = {syntax: bytes(encoder(values, 12)) for syntax, encoder in ENCODERS.values()}
    for syntax, data in made.items():
        for other in cs.SYNTAXES - {syntax}:
            if {syntax, other} <= {cs.JPEG_LOSSLESS, cs.JPEG_LOSSLESS_SV1}:
                continue
            if {syntax, other} <= {cs.JPEG_LS, cs.JPEG_LS_NEAR} or {syntax, other} <= cs.J2K_SYNTAXES:
                continue
            assert refused(data, other, layout()) in ("E_CODEC", "E_TRUNC")


def test_colours_are_refused() -> None:
    data = imagecodecs.jpeg8_encode(np.zeros((ROWS, COLUMNS, 3), np.uint8))
    assert refused(bytes(data), cs.JPEG_BASELINE, layout(8, 8)) == "E_CODEC"


def test_an_unknown_syntax_is_refused_and_not_quoted_unless_it_is_a_uid() -> None:
    for syntax, quoted in (("1.2.840.10008.1.2.4.100", True), ("Xylander^Zenobia", False), ("1" * 65, False)):
        with pytest.raises(InputError) as caught:
            decode_frame(b"", syntax, layout())
        assert caught.value.code == "E_CODEC"
        assert (syntax in str(caught.value)) == quoted


def test_a_sign_with_two_readings_is_refused_unless_they_agree() -> None:
    signed = layout(bits_stored=16, signed=True)
    small = np.full((ROWS, COLUMNS), 100, np.uint8)
    np.testing.assert_array_equal(decode_frame(bytes(imagecodecs.jpegls_encode(small)), cs.JPEG_LS, signed), 100)
    assert refused(bytes(imagecodecs.jpegls_encode(small + 100)), cs.JPEG_LS, signed) == "E_CODEC"


def test_run_length_segments_must_fit_the_words(rng: np.random.Generator) -> None:
    data = encode(frame(rng, layout()), RLE, 12)
    assert refused(data, cs.RLE, layout(8, 8)) == "E_CODEC"
    assert refused(data, cs.RLE, layout(32, 32)) == "E_CODEC"
    offsets = np.frombuffer(data[:64], "<u4").copy()
    for place, offset in ((1, 0), (1, 65), (2, 64), (2, 10**6)):
        damaged = offsets.copy()
        damaged[place] = offset
        assert refused(damaged.tobytes() + data[64:], cs.RLE, layout()) in ("E_CODEC", "E_TRUNC")


def test_a_few_run_lengths_cannot_claim_a_huge_frame() -> None:
    header = np.array([2, 64, 70] + [0] * 13, "<u4").tobytes()
    assert refused(header + b"\x81\x00" * 2000, cs.RLE, Layout(60000, 60000, 16, 16, False)) == "E_TRUNC"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("allocated", [8, 16, 32])
def test_bits_above_the_stored_ones_mean_nothing(allocated: int, signed: bool, rng: np.random.Generator) -> None:
    raw = rng.integers(0, 2**allocated, (ROWS, COLUMNS), dtype=np.uint64)
    for stored in range(1, allocated + 1):
        of = Layout(ROWS, COLUMNS, allocated, stored, signed)
        expected = (raw & np.uint64(2**stored - 1)).astype(np.int64)
        if signed:
            expected = np.where(expected >= 2 ** (stored - 1), expected - 2**stored, expected)
        words = raw.astype(f"u{allocated // 8}").view(of.dtype)
        np.testing.assert_array_equal(to_stored(words, of), expected)


def test_pydicom_decodes_with_nothing_else_once_codecs_are_registered(tmp_path: Path) -> None:
    script = """
import sys
import numpy as np
from pathlib import Path
from dicom_factory import J2K, JPEG_LOSSLESS, JPEG_LS, RLE, make_series
from pydicom import dcmread
from pydicom.pixels import get_decoder
from medld.io.dicom.codecs import register_codecs
from medld.io.dicom.codestream import RLE as RLE_UID, SYNTAXES
register_codecs()
register_codecs()
for syntax in SYNTAXES:
    expected = ("pydicom",) if syntax == RLE_UID else ("imagecodecs",)
    assert get_decoder(syntax).available_plugins == expected, syntax
root = Path(sys.argv[1])
for dtype in (np.int16, np.uint16):
    plain = make_series(root / f"plain {dtype}", slices=1, dtype=dtype, inter=-300.0)
    for syntax in (J2K, JPEG_LOSSLESS, JPEG_LS, RLE):
        packed = make_series(root / f"{syntax} {dtype}", slices=1, dtype=dtype, inter=-300.0, syntax=syntax)
        np.testing.assert_array_equal(dcmread(packed[0]).pixel_array, dcmread(plain[0]).pixel_array)
"""
    tools = Path(__file__).resolve().parents[3] / "tools"
    code = f"import sys; sys.path.insert(0, {str(tools)!r})\n{script}"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
