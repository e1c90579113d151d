"""Pixels: what is read is what was stored, in every encoding, or the file is refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from dicom_factory import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG_LOSSLESS,
    JPEG_LS,
    RLE,
    edit,
    edit_bytes,
    encode,
    make_enhanced,
    make_series,
    set_tag,
)
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, encapsulate_extended

from medld.errors import InputError
from medld.io.dicom.pixels import layout_of, read_frames
from medld.io.dicom.series import Frame, Source

NATIVE = {"explicit": EXPLICIT, "implicit": IMPLICIT, "big endian": BIG_ENDIAN, "deflated": DEFLATED}
COMPRESSED = {"RLE": RLE, "JPEG lossless": JPEG_LOSSLESS, "JPEG-LS": JPEG_LS, "J2K": J2K}
if hasattr(imagecodecs, "htj2k_encode"):  # not in the oldest version, which decodes it all the same
    COMPRESSED["HTJ2K"] = HTJ2K
SYNTAXES = NATIVE | COMPRESSED
SHAPE = (14, 18)  # rows, columns


def head_of(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True, force=True)


def frame(source: Source, head: Dataset, index: int = 0) -> Frame:
    """A frame as the catalogue makes it; where it lies does not matter here."""
    slope, inter = (float(head.get(keyword, n)) for keyword, n in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    return Frame(source, head, index, np.zeros(3), np.eye(3)[:2].ravel(), (1.0, 1.0), slope, inter)


def frames_of(paths: Sequence[Path]) -> list[Frame]:
    return [frame(Source(path, None, path.stat().st_size), head_of(path)) for path in paths]


def read(frames: Sequence[Frame], dtype: Any = np.float32) -> np.ndarray:
    head = frames[0].head
    return read_frames(frames, shape=(head.Columns, head.Rows, len(frames)), dtype=dtype)


def refusal(frames: Sequence[Frame]) -> InputError:
    with pytest.raises(InputError) as caught:
        read(frames)
    return caught.value


def plain_pixels(folder: Path, **options: Any) -> np.ndarray:
    """The stored numbers of the same series uncompressed, (columns, rows, slices), by numpy alone."""
    stored = []
    for path in make_series(folder / "plain", shape=SHAPE, **options):
        dataset = dcmread(path)
        dtype = np.dtype(f"<{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}")
        stored.append(np.frombuffer(dataset.PixelData, dtype, dataset.Rows * dataset.Columns).reshape(SHAPE).T)
    return np.stack(stored, axis=2)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_stored_numbers_are_those_of_the_file(syntax: str, tmp_path: Path) -> None:
    stored = plain_pixels(tmp_path, slices=3)
    numbers = read(frames_of(make_series(tmp_path / "x", slices=3, shape=SHAPE, syntax=SYNTAXES[syntax])), np.uint16)
    assert numbers.dtype == np.uint16
    assert numbers.flags.f_contiguous
    np.testing.assert_array_equal(numbers, stored)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_scanner_units_are_slope_and_intercept_of_signed_numbers(syntax: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"modality": "CT", "slices": 3, "dtype": np.int16, "slope": 4.7, "inter": -500.0}
    stored = plain_pixels(tmp_path, **options)
    assert stored.min() < 0 < stored.max()
    units = read(frames_of(make_series(tmp_path / "x", shape=SHAPE, syntax=SYNTAXES[syntax], **options)))
    assert units.dtype == np.float32
    np.testing.assert_array_equal(units, (stored.astype(np.float64) * 4.7 - 500).astype(np.float32))


@pytest.mark.parametrize("syntax", NATIVE)
def test_odd_bytes_are_read_in_every_byte_order(syntax: str, tmp_path: Path) -> None:
    (path,) = make_series(tmp_path, slices=1, shape=(5, 7), dtype=np.uint8, syntax=NATIVE[syntax])
    expected = dcmread(path).pixel_array
    np.testing.assert_array_equal(read(frames_of([path]), np.uint8)[:, :, 0].T, expected)


def test_bytes_in_big_endian_words_are_turned_back(tmp_path: Path) -> None:
    (path,) = make_series(tmp_path, slices=1, shape=SHAPE, dtype=np.uint8, syntax=BIG_ENDIAN)
    stored = read(frames_of([path]), np.uint8)

    def to_words(dataset: Dataset, index: int) -> None:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"

    edit([path], to_words)
    np.testing.assert_array_equal(read(frames_of([path]), np.uint8), stored)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_outside_the_stored_ones_are_ignored(signed: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    dtype = np.dtype(np.int16 if signed else np.uint16)
    paths = make_series(tmp_path, slices=3, shape=SHAPE, dtype=dtype, bits_stored=12, inter=0.0)
    clean = read(frames_of(paths), dtype)

    def litter(dataset: Dataset, index: int) -> None:
        words = np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF
        noise = rng.integers(0, 16, words.size, dtype=np.uint16) << 12
        dataset.PixelData = (words | noise).tobytes()

    edit(paths, litter)
    np.testing.assert_array_equal(read(frames_of(paths), dtype), clean)


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=4, shape=SHAPE, slope=2.0, inter=5.0)
    stored = read(frames_of(paths), np.uint16)
    slopes, inters = np.array([0.1, 1.0, 1.27985347985347, 3.0]), np.array([0.5, -7.0, 0.0, 1e6])

    def scale(dataset: Dataset, index: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slopes[index]:.14g}", f"{inters[index]:g}"

    units = read(frames_of(edit(paths, scale)))
    np.testing.assert_array_equal(units, (stored * slopes + inters).astype(np.float32))


def test_monochrome1_and_padding_are_left_alone(tmp_path: Path) -> None:
    paths = make_series(tmp_path, modality="CT", slices=3, shape=SHAPE)
    before = read(frames_of(paths))
    set_tag(paths, "PhotometricInterpretation", "MONOCHROME1")
    edit(paths, lambda dataset, index: dataset.add_new("PixelPaddingValue", "SS", int(before.min()) + 1024))
    np.testing.assert_array_equal(read(frames_of(paths)), before)


def test_what_follows_the_pixels_is_not_taken_for_them(tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=3, shape=SHAPE)
    before = read(frames_of(paths))

    def trail(dataset: Dataset, index: int) -> None:
        dataset.DataSetTrailingPadding = bytes(1000)

    np.testing.assert_array_equal(read(frames_of(edit(paths, trail))), before)


@pytest.mark.parametrize("syntax", ["explicit", "big endian", "RLE", "J2K"])
def test_frames_of_one_object_are_read_one_by_one_in_any_order(syntax: str, tmp_path: Path) -> None:
    path = make_enhanced(tmp_path / "e.dcm", slices=6, shape=SHAPE, syntax=SYNTAXES[syntax])
    source, head = Source(path, None, path.stat().st_size), head_of(path)
    # pydicom gets the same object uncompressed.
    plain = dcmread(make_enhanced(tmp_path / "p.dcm", slices=6, shape=SHAPE)).pixel_array
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1], [2]):
        stored = read([frame(source, head, index) for index in order], np.uint16)
        np.testing.assert_array_equal(stored, plain[order].transpose(2, 1, 0))


def _no_table(frames: list[bytes]) -> bytes:
    return encapsulate(frames, has_bot=False)


def _table(frames: list[bytes]) -> bytes:
    return encapsulate(frames, has_bot=True)


def _fragments(frames: list[bytes]) -> bytes:
    return encapsulate(frames, fragments_per_frame=3, has_bot=True)


@pytest.mark.parametrize("pack", [_no_table, _table, _fragments])
def test_frames_are_told_apart_with_and_without_offset_tables(
    pack: Callable[[list[bytes]], bytes], tmp_path: Path
) -> None:
    path = make_enhanced(tmp_path / "e.dcm", slices=4, shape=SHAPE, syntax=JPEG_LS)
    plain = dcmread(make_enhanced(tmp_path / "p.dcm", slices=4, shape=SHAPE)).pixel_array

    def repack(dataset: Dataset, index: int) -> None:
        dataset.PixelData = pack([encode(pixels, JPEG_LS, 12) for pixels in plain])

    edit([path], repack)
    source, head = Source(path, None, path.stat().st_size), head_of(path)
    stored = read([frame(source, head, index) for index in range(4)], np.uint16)
    np.testing.assert_array_equal(stored, plain.transpose(2, 1, 0))


def test_an_extended_offset_table_is_followed(tmp_path: Path) -> None:
    path = make_enhanced(tmp_path / "e.dcm", slices=4, shape=SHAPE, syntax=RLE)
    plain = dcmread(make_enhanced(tmp_path / "p.dcm", slices=4, shape=SHAPE)).pixel_array

    def extend(dataset: Dataset, index: int) -> None:
        packed, offsets, lengths = encapsulate_extended([encode(pixels, RLE, 12) for pixels in plain])
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = packed, offsets, lengths

    edit([path], extend)
    source, head = Source(path, None, path.stat().st_size), head_of(path)
    stored = read([frame(source, head, index) for index in range(4)], np.uint16)
    np.testing.assert_array_equal(stored, plain.transpose(2, 1, 0))


@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_compressed_frames_than_stated_is_refused(change: int, tmp_path: Path) -> None:
    path = make_enhanced(tmp_path / "e.dcm", slices=4, shape=SHAPE, syntax=JPEG_LS)
    set_tag([path], "NumberOfFrames", 4 + change)
    source, head = Source(path, None, path.stat().st_size), head_of(path)
    assert refusal([frame(source, head, index) for index in range(3)]).code in ("E_TRUNC", "E_CODEC")


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "RLE", "J2K"])
def test_members_of_an_archive_are_read_in_place(syntax: str, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "s", slices=3, shape=SHAPE, syntax=SYNTAXES[syntax])
    archive = tmp_path / "s.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in paths:
            file.write(path, path.name)
    members = [frame(Source(archive, path.name, path.stat().st_size), head_of(path)) for path in paths]
    np.testing.assert_array_equal(read(members), read(frames_of(paths)))


@pytest.mark.parametrize("cut", [1, 9, 60, 200])
@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian", "RLE", "JPEG lossless", "JPEG-LS", "J2K"])
def test_a_cut_file_is_refused_and_its_slice_named(syntax: str, cut: int, tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=3, shape=SHAPE, syntax=SYNTAXES[syntax])
    frames = frames_of(paths)
    edit_bytes(paths[1:2], lambda data: data[:-cut])
    error = refusal(frames)
    assert error.code == "E_TRUNC"
    assert "slice 2 of 3" in str(error)


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_noise_in_the_place_of_a_frame_is_refused(syntax: str, tmp_path: Path, rng: np.random.Generator) -> None:
    paths = make_series(tmp_path, slices=3, shape=SHAPE, syntax=SYNTAXES[syntax])

    def garble(dataset: Dataset, index: int) -> None:
        dataset.PixelData = encapsulate([rng.bytes(400)])

    edit(paths[2:], garble)
    error = refusal(frames_of(paths))
    assert error.code in ("E_TRUNC", "E_CODEC")
    assert "slice 3 of 3" in str(error)


def test_fragments_may_lack_their_delimiter(tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=3, shape=SHAPE, syntax=JPEG_LS)
    frames = frames_of(paths)
    before = read(frames)
    edit_bytes(paths, lambda data: data[:-8])
    np.testing.assert_array_equal(read(frames), before)


def test_a_bomb_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=3, shape=SHAPE, syntax=RLE)
    set_tag(paths, "Rows", 60000)
    set_tag(paths, "Columns", 60000)
    assert refusal(frames_of(paths)).code == "E_TOO_BIG"


def test_fragments_that_outweigh_their_frame_are_refused(tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=3, shape=SHAPE, syntax=RLE)

    def bloat(dataset: Dataset, index: int) -> None:
        dataset.PixelData = encapsulate([bytes(2**21)])

    assert refusal(frames_of(edit(paths, bloat))).code == "E_TOO_BIG"


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("SamplesPerPixel", 3, "E_NOT_IMAGE"),
        ("Rows", 0, "E_NOT_IMAGE"),
        ("Rows", None, "E_NOT_IMAGE"),
        ("BitsAllocated", 12, "E_PIXELS"),
        ("BitsAllocated", 64, "E_PIXELS"),
        ("BitsStored", 17, "E_PIXELS"),
        ("BitsStored", 0, "E_PIXELS"),
        ("HighBit", 15, "E_PIXELS"),
        ("RescaleSlope", "0", "E_PIXELS"),
    ],
)
def test_senseless_layouts_and_scalings_are_refused(keyword: str, value: Any, code: str, tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=3, shape=SHAPE)
    set_tag(paths[1:2], keyword, value)
    frames = frames_of(paths)
    with pytest.raises(InputError) as caught:
        read_frames(frames, shape=(SHAPE[1], SHAPE[0], 3), dtype=np.float32)
    assert caught.value.code == code


def test_slices_of_another_size_are_refused(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "a", slices=2, shape=SHAPE)
    paths += make_series(tmp_path / "b", slices=1, shape=SHAPE[::-1])
    assert refusal(frames_of(paths)).code == "E_MIXED"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.9999", "Xylander"])
def test_an_unknown_transfer_syntax_is_refused(syntax: str, tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=3, shape=SHAPE)
    frames = frames_of(paths)
    for each in frames:
        each.head.file_meta["TransferSyntaxUID"]._value = syntax
    error = refusal(frames)
    assert error.code == "E_CODEC"
    assert "Xylander" not in str(error)


@pytest.mark.parametrize(("wrong", "right"), [(RLE, EXPLICIT), (EXPLICIT, RLE)])
def test_pixels_packed_otherwise_than_the_header_says_are_refused(wrong: str, right: str, tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=3, shape=SHAPE, syntax=right)
    frames = frames_of(paths)
    for each in frames:
        each.head.file_meta.TransferSyntaxUID = wrong
    assert refusal(frames).code in ("E_CODEC", "E_TRUNC")


def test_files_of_several_syntaxes_make_one_volume(tmp_path: Path) -> None:
    kinds = [EXPLICIT, RLE, JPEG_LS, IMPLICIT, J2K]
    plain = make_series(tmp_path / "plain", slices=5, shape=SHAPE)
    mixed = [
        make_series(tmp_path / str(place), slices=5, shape=SHAPE, syntax=kind)[place]
        for place, kind in enumerate(kinds)
    ]
    np.testing.assert_array_equal(read(frames_of(mixed)), read(frames_of(plain)))


def test_a_layout_without_optional_numbers_is_the_plain_one(tmp_path: Path) -> None:
    (path,) = make_series(tmp_path, slices=1, shape=SHAPE)
    head = head_of(path)
    for keyword in ("BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"):
        delattr(head, keyword)
    layout = layout_of(head)
    assert (layout.rows, layout.columns, layout.bits_stored, layout.signed) == (*SHAPE, 16, False)
    assert layout.dtype == np.uint16
