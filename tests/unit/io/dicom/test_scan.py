"""Scan: the same header as pydicom reads, or none."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, RLE, edit, make_enhanced, make_series, unvalidated
from pydicom import Dataset, Sequence, dcmread
from pydicom.dataelem import RawDataElement

from medld.io.dicom.privacy import quiet
from medld.io.dicom.scan import HEAD_BYTES, scan_header

PLAIN = {"explicit": EXPLICIT, "implicit": IMPLICIT, "compressed": RLE}


def same(data: bytes) -> bool:
    """Whether a scan gave a header, which is then pydicom's; else the stream is where it was."""
    stream, other = BytesIO(data), BytesIO(data)
    found = scan_header(stream)
    if found is None:
        assert stream.tell() == 0
        return False
    expected = dcmread(other, stop_before_pixels=True)
    assert stream.tell() == other.tell()
    assert found.original_encoding == expected.original_encoding
    assert found.original_character_set == expected.original_character_set
    assert found.preamble == expected.preamble
    for ours, theirs in ((found, expected), (found.file_meta, expected.file_meta)):
        assert list(ours.keys()) == list(theirs.keys())
        for tag in list(ours.keys()):
            mine, given = ours.get_item(tag), theirs.get_item(tag)
            if isinstance(mine, RawDataElement) and isinstance(given, RawDataElement):
                assert mine == given
            else:
                assert ours[tag] == theirs[tag]
    return True


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("syntax", PLAIN)
def test_plain_headers_are_those_of_pydicom(syntax: str, modality: str, tmp_path: Path) -> None:
    (path,) = make_series(tmp_path, modality=modality, slices=1, syntax=PLAIN[syntax])
    assert same(path.read_bytes())


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_of_either_kind_of_length_are_plain(undefined: bool, syntax: str, tmp_path: Path) -> None:
    def nest(dataset: Dataset, index: int) -> None:
        item = Dataset()
        item.CodeValue, item.CodeMeaning = "1", "inner"
        outer = Dataset()
        outer.PurposeOfReferenceCodeSequence = Sequence([item])
        dataset.SourceImageSequence = Sequence([outer, outer])
        for sequence in (dataset["SourceImageSequence"], outer["PurposeOfReferenceCodeSequence"]):
            sequence.is_undefined_length = undefined

    (path,) = edit(make_series(tmp_path, slices=1, syntax=PLAIN[syntax]), nest)
    assert same(path.read_bytes())
    assert same(make_enhanced(tmp_path / "e.dcm", syntax=PLAIN[syntax]).read_bytes())


def test_a_longer_header_is_looked_at_twice_and_a_very_long_one_left_to_pydicom(tmp_path: Path) -> None:
    for count, plain in ((HEAD_BYTES[0], True), (HEAD_BYTES[1], False)):

        def grow(dataset: Dataset, index: int, count: int = count) -> None:
            dataset.private_block(0x0029, "TEST", create=True).add_new(0x10, "OB", bytes(count))

        (path,) = edit(make_series(tmp_path / str(count), slices=1), grow)
        assert same(path.read_bytes()) == plain


@pytest.mark.parametrize("syntax", [BIG_ENDIAN, DEFLATED])
def test_other_encodings_are_left_to_pydicom(syntax: str, tmp_path: Path) -> None:
    (path,) = make_series(tmp_path, slices=1, syntax=syntax)
    assert not same(path.read_bytes())


@pytest.mark.parametrize(("name", "plain"), [("ISO_IR 192", True), ("ISO 2022 IR 87", False), ("NONE SUCH", False)])
def test_unusual_character_sets_are_left_to_pydicom(name: str, plain: bool, tmp_path: Path) -> None:
    def rename(dataset: Dataset, index: int) -> None:
        dataset.SpecificCharacterSet = name

    with quiet(), unvalidated():
        (path,) = edit(make_series(tmp_path, slices=1), rename)
        assert same(path.read_bytes()) == plain


def test_what_is_no_header_is_left_to_pydicom(tmp_path: Path, rng: np.random.Generator) -> None:
    data = make_series(tmp_path, slices=1)[0].read_bytes()
    for other in (b"", b"text", data[132:], data[:140], data[:400], b"\0" * 128 + b"DICM", rng.bytes(5000)):
        assert not same(other)


@pytest.mark.parametrize("syntax", PLAIN)
def test_a_damaged_header_is_read_as_pydicom_does_or_left_to_it(
    syntax: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    (path,) = make_series(tmp_path, slices=1, shape=(6, 6), syntax=PLAIN[syntax])
    data = path.read_bytes()
    outcomes: list[Any] = []
    with quiet():
        for _ in range(100):
            damaged = bytearray(data)
            for place in rng.integers(132, len(data) - 80, rng.integers(1, 4)):
                damaged[place] = rng.integers(256)
            outcomes.append(same(bytes(damaged)))
    assert {True, False} == set(outcomes)
