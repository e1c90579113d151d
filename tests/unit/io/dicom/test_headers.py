"""A header is read whole and fast, and what it claims is checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dicom_factory as factory
import numpy as np
import pytest
from dicom_factory import edit, edit_bytes, leaks, make_enhanced, make_series, set_tag
from pydicom import Dataset, dcmread

from medld.errors import InputError
from medld.io.dicom.headers import examine, read_head
from medld.io.dicom.series import Source
from medld.io.dicom.soundness import BoundedStream
from medld.io.dicom.values import is_uid, numbers_of, value_of, whole_of


def source_of(path: Path) -> Source:
    """A file as a source."""
    return Source(path, None, path.stat().st_size)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """One CT slice."""
    return make_series(tmp_path, modality="CT", slices=1)[0]


def code_of(path: Path, **options: Any) -> str | None:
    """The code of the refusal, None if the header is taken; the sentence holds nothing of the patient's."""
    try:
        read_head(source_of(path), **options)
    except InputError as error:
        return error.code if leaks(str(error)) == [] else "a message that names the patient"
    return None


@pytest.mark.parametrize(
    "syntax",
    [
        factory.EXPLICIT,
        factory.IMPLICIT,
        factory.BIG_ENDIAN,
        factory.DEFLATED,
        factory.J2K,
        factory.JPEG_LS,
        factory.RLE,
    ],
)
def test_everything_but_the_pixels_is_there(tmp_path: Path, syntax: str) -> None:
    path = make_series(tmp_path, slices=1, syntax=syntax)[0]
    head, whole = read_head(source_of(path)), dcmread(path)
    assert "PixelData" not in head
    del whole.PixelData
    assert head == whole
    inflated = syntax == factory.DEFLATED
    assert head.file_meta.TransferSyntaxUID == (factory.EXPLICIT if inflated else syntax)


def test_sequences_are_there_to_their_depth(tmp_path: Path) -> None:
    path = make_enhanced(tmp_path / "x.dcm")
    head, whole = read_head(source_of(path)), dcmread(path)
    assert head.PerFrameFunctionalGroupsSequence == whole.PerFrameFunctionalGroupsSequence
    assert head.SharedFunctionalGroupsSequence == whole.SharedFunctionalGroupsSequence


@pytest.mark.parametrize("syntax", [factory.EXPLICIT, factory.IMPLICIT, factory.BIG_ENDIAN])
@pytest.mark.parametrize("meta", [True, False])
def test_no_preamble_is_needed(tmp_path: Path, syntax: str, meta: bool) -> None:
    path = make_series(tmp_path, slices=1, syntax=syntax)[0]
    whole, raw = dcmread(path), path.read_bytes()
    start = 132 if meta else 144 + int.from_bytes(raw[140:144], "little")
    path.write_bytes(raw[start:])
    head = read_head(source_of(path))
    assert head.file_meta.TransferSyntaxUID == syntax
    assert head.ImagePositionPatient == whole.ImagePositionPatient


def test_a_header_says_nothing_of_the_file_and_holds_no_stream(path: Path) -> None:
    head = read_head(source_of(path))
    assert head.filename is None
    assert head.buffer is None


def test_large_private_values_are_not_kept(path: Path) -> None:
    def change(dataset: Any, index: int) -> None:
        block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        block.add_new(0x10, "OB", b"\0" * 2**20)
        block.add_new(0x11, "OB", b"\1" * 100)

    edit([path], change)
    head = read_head(source_of(path))
    assert (0x0029, 0x1010) not in head
    assert (0x0029, 0x1011) in head


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7", "E_NOT_IMAGE"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.128", "E_NOT_IMAGE"),
        ("Rows", 0, "E_NOT_IMAGE"),
        ("Rows", None, "E_NOT_IMAGE"),
        ("SamplesPerPixel", 3, "E_NOT_IMAGE"),
        ("PhotometricInterpretation", "PALETTE COLOR", "E_NOT_IMAGE"),
        ("PhotometricInterpretation", "MONOCHROME1", None),
        ("Rows", 4, "E_TOO_FEW"),
        ("NumberOfFrames", 2**31 - 1, "E_TOO_BIG"),
        ("NumberOfFrames", 0, "E_NOT_IMAGE"),
        ("NumberOfFrames", 2, "E_TRUNC"),
        ("Rows", 21, "E_TRUNC"),
        ("BitsAllocated", 32, "E_TRUNC"),
        ("BitsAllocated", 12, "E_PIXELS"),
        ("BitsStored", 17, "E_PIXELS"),
        ("HighBit", 11, "E_PIXELS"),
        ("SOPInstanceUID", "1.2.x", "E_BAD_ID"),
        ("SeriesInstanceUID", "../../x", "E_BAD_ID"),
        ("SeriesInstanceUID", "1." + "2" * 63, "E_BAD_ID"),
        ("StudyInstanceUID", None, "E_BAD_ID"),
        ("FrameOfReferenceUID", "<script>", "E_BAD_ID"),
        ("FrameOfReferenceUID", None, None),
        ("InstanceNumber", None, None),
    ],
)
def test_what_a_header_claims_is_checked(path: Path, keyword: str, value: Any, code: str | None) -> None:
    set_tag([path], keyword, value)
    assert code_of(path) == code


def test_the_limit_is_on_the_declared_size(path: Path) -> None:
    assert code_of(path, max_voxels=20 * 24) is None
    assert code_of(path, max_voxels=20 * 24 - 1) == "E_TOO_BIG"


@pytest.mark.parametrize("syntax", [factory.EXPLICIT, factory.IMPLICIT, factory.DEFLATED, factory.J2K, factory.RLE])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, syntax: str) -> None:
    path = make_series(tmp_path, slices=1, syntax=syntax)[0]
    raw = path.read_bytes()
    for keep in np.linspace(1, len(raw) - 30, 60, dtype=int):
        path.write_bytes(raw[:keep])
        assert code_of(path) in ("E_TRUNC", "E_NOT_IMAGE")
    path.write_bytes(raw[: len(raw) * 2 // 3])
    assert code_of(path) == "E_TRUNC"


def test_a_cut_file_still_says_to_which_series_it_belongs(path: Path) -> None:
    uid = dcmread(path).SeriesInstanceUID
    edit_bytes([path], lambda raw: raw[:-100])
    head = examine(source_of(path))
    assert head.refusal is not None
    assert head.refusal.code == "E_TRUNC"
    assert head.dataset is not None
    assert head.dataset.SeriesInstanceUID == uid


@pytest.mark.parametrize(
    "content",
    [b"", b"text\n" * 40, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"text\n" * 40, b"\x08\0\x05\0" * 30],
)
def test_what_is_no_dicom_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert code_of(tmp_path / "x") in ("E_NOT_IMAGE", "E_TRUNC")


def test_a_length_that_lies_allocates_nothing(path: Path) -> None:
    raw = path.read_bytes()
    place = raw.index(b"LO", 400)  # some text becomes one of 4 GB
    path.write_bytes(raw[:place] + b"UT\0\0\xfe\xff\xff\xff" + raw[place + 4 :])
    assert code_of(path) in ("E_TRUNC", "E_NOT_IMAGE")
    with path.open("rb") as stream:
        assert len(BoundedStream(stream, path.stat().st_size).read(2**62)) == path.stat().st_size


@pytest.mark.parametrize(
    ("charset", "name", "code"),
    [
        (None, b"Plain^Name", None),
        (b"ISO_IR 100", "M\u00fcller^J\u00f6rg".encode("latin-1"), None),
        (b"ISO_IR 192", "M\u00fcller^J\u00f6rg".encode(), None),
        (b"ISO_IR 192", "M\u00fcller^J\u00f6rg".encode("latin-1"), "E_CHARSET"),
        (b"GB18030", "\u738b^\u5c0f\u6771".encode("gb18030"), None),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", None),
        (b"ISO_IR 999 ", "M\u00fcller".encode(), "E_CHARSET"),
    ],
)
def test_text_that_could_not_be_written_back_is_refused(
    path: Path, charset: bytes | None, name: bytes, code: str | None
) -> None:
    def change(raw: bytes) -> bytes:
        for tag, new in ((b"\x10\0\x10\0PN", name), (b"\x08\0\x05\0CS", charset)):
            if tag in raw:
                start = raw.index(tag) + 6
                end = start + 2 + int.from_bytes(raw[start : start + 2], "little")
                value = (new or b"") + b" " * (len(new or b"") % 2)
                raw = raw[:start] + len(value).to_bytes(2, "little") + value + raw[end:]
        return raw

    set_tag([path], "SpecificCharacterSet", "ISO_IR 100")
    edit_bytes([path], change)
    assert code_of(path) == code


def test_the_limit_counts_all_frames_of_an_object(tmp_path: Path) -> None:
    path = make_enhanced(tmp_path / "x.dcm", slices=5)
    assert code_of(path) is None
    assert code_of(path, max_voxels=5 * 20 * 24 - 1) == "E_TOO_BIG"


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-4], lambda raw: raw.replace(b"\xfe\xff\x00\xe0", b"\xfe\xff\x01\xe0")]
)
def test_a_broken_chain_of_fragments_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = make_series(tmp_path, slices=1, syntax=factory.J2K)[0]
    edit_bytes([path], damage)
    assert code_of(path) == "E_TRUNC"


@pytest.mark.parametrize("uid", ["1.2.3", "1.02.3", "2.25." + "9" * 59])
def test_uids_are_digits_and_dots(uid: str) -> None:
    assert is_uid(uid)


@pytest.mark.parametrize("uid", ["", "1", "1.", ".1", "1..2", "1.2\n", "1.2a", "../1.2", "1.2 3", "1." * 32 + "1"])
def test_all_else_is_no_uid(uid: str) -> None:
    assert not is_uid(uid)


def test_senseless_values_are_none() -> None:
    dataset = Dataset()
    with factory.unvalidated():
        dataset.PixelSpacing = ["1", "nan"]
        dataset.EchoTime = "12.5"
        dataset.ImageType = ["A", "B"]
    assert numbers_of(dataset, "PixelSpacing", 2) is None
    assert numbers_of(dataset, "ImageType", 2) is None
    assert numbers_of(dataset, "EchoTime", 1) == (12.5,)
    assert numbers_of(dataset, "EchoTime", 2) is None
    assert value_of(dataset, "Rows", "none") == "none"
    assert whole_of(dataset, "ImageType") == -1
