"""Headers of results: what is the source's stays to the byte, what is no longer true is gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    PATIENT,
    STUDY_DATE,
    edit,
    edit_bytes,
    make_enhanced,
    make_series,
    set_tag,
)
from dicom_result import only_series, read_all, write_finer
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from medld.errors import InputError
from medld.geometry import Grid
from medld.io.dicom import Series
from medld.io.dicom.classic import classic_header
from medld.io.dicom.copying import copy_header, format_ds
from medld.io.dicom.derivation import Derivation, describe, name_series, plain
from medld.io.dicom.tags import DROPPED, place_slice

INSTITUTION = PATIENT["InstitutionName"].encode()  # 18 bytes of ASCII, in the place of which others go


def raw_values(path: Path, tag: Any) -> list[bytes]:
    """Values of an element at every depth, as bytes, without padding."""
    found: list[bytes] = []

    def visit(dataset: Dataset) -> None:
        for key in list(dataset.keys()):
            element = dataset.get_item(key)
            assert element is not None
            if key == tag and isinstance(element.value, bytes):
                found.append(element.value.rstrip(b" \0"))
            elif dataset[key].VR == "SQ":
                for item in dataset[key].value:
                    visit(item)

    visit(dcmread(path, stop_before_pixels=True))
    return found


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize(
    ("charset", "text"),
    [
        (["", "ISO 2022 IR 87"], "\u5c71\u7530".encode("iso2022_jp") + b"-Klinik"),
        # The escape sequence comes twice: allowed, and no encoder writes it so.
        (["", "ISO 2022 IR 87"], b"\x1b$B;3\x1b$BED\x1b(B-Klin"),
        (["GB18030"], "\u533b\u9662\u9662\u9662\u4e00".encode("gb18030") + b"-Klinik"),
        (["ISO_IR 100"], "Universit\u00e4t K\u00f6ln ".encode("latin-1")),
        (["ISO_IR 192"], "\u75c5\u9662-M\u00fcnchen".encode()),
    ],
)
def test_text_of_any_character_set_survives_to_the_byte(
    charset: list[str], text: bytes, syntax: str, tmp_path: Path
) -> None:
    text = text.ljust(len(INSTITUTION))[: len(INSTITUTION)]
    paths = make_series(tmp_path / "in", slices=3, syntax=syntax)
    set_tag(paths, "SpecificCharacterSet", charset)
    edit_bytes(paths, lambda content: content.replace(INSTITUTION, text))
    write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        header = dcmread(path, stop_before_pixels=True)
        assert raw_values(path, Tag("InstitutionName")) == [text.rstrip()]
        assert list(np.atleast_1d(header.SpecificCharacterSet)) == list(charset)
        assert raw_values(path, Tag("PatientName")) == [PATIENT["PatientName"].encode()]


@pytest.mark.parametrize(
    ("charset", "codec", "text"),
    [
        (["", "ISO 2022 IR 87"], "iso2022_jp", "\u982d\u90e8 T2"),
        (["GB18030"], "gb18030", "\u5934\u90e8 T2"),
        (["ISO_IR 192"], "utf-8", "Sch\u00e4del \U0001f9e0"),
        (["ISO_IR 100"], "latin-1", "Sch\u00e4del T2"),
        (["ISO_IR 6"], "ascii", "Skull"),
    ],
)
def test_a_description_in_any_character_set_is_carried_on(
    charset: list[str], codec: str, text: str, tmp_path: Path
) -> None:
    old = PATIENT["SeriesDescription"].encode()
    paths = make_series(tmp_path / "in", slices=3)
    set_tag(paths, "SpecificCharacterSet", charset)
    edit_bytes(paths, lambda content: content.replace(old, text.encode(codec).ljust(len(old))[: len(old)]))
    write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    for dataset in read_all(tmp_path / "out"):
        assert dataset.SeriesDescription.startswith(text[:6])
        assert dataset.SeriesDescription.endswith("medld SR 1.33mm")


def test_nothing_private_and_nothing_dropped_is_left_at_any_depth(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=3)
    series = only_series(tmp_path / "in")
    result = {Tag("SourceImageSequence"), Tag("PixelPaddingValue")}

    def clutter(dataset: Dataset) -> None:
        item = Dataset()
        item.add_new(0x00090010, "LO", "SECRET")
        item.add_new(0x00091001, "LO", "hidden")
        item.CodeMeaning = "kept"
        inner = Dataset()
        inner.ReferencedSOPInstanceUID = "1.2.3"
        item.ReferencedImageSequence = [inner]
        dataset.ProcedureCodeSequence = [item]
        dataset.add_new(0x00290010, "LO", "SECRET")
        dataset.add_new(0x00291010, "OB", b"hidden")
        dataset.add_new(0x60000010, "US", 5)
        dataset.add_new(0x60003000, "OW", b"hidden")
        dataset.add_new(0x50003000, "OW", b"hidden")
        for tag in DROPPED:
            if tag not in dataset and tag not in result:
                vr = dictionary_VR(tag).split(" ")[0]
                dataset[tag] = DataElement(tag, vr, sample_value(vr))

    for frame in series.frames:
        clutter(frame.head)
    write_finer(series, tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert b"hidden" not in path.read_bytes()
        dataset = dcmread(path)
        elements = list(dataset.iterall())
        assert not [element for element in elements if element.tag.is_private]
        assert not [element for element in elements if element.tag.group in range(0x5000, 0x6100)]
        left = {keyword_for_tag(e.tag) for e in elements if e.tag in DROPPED - result}
        assert not left
        assert dataset.ProcedureCodeSequence[0].CodeMeaning == "kept"


def sample_value(vr: str) -> Any:
    """A value of a VR that a clutter of elements can hold."""
    known: dict[str, Any] = {
        **{"SQ": [Dataset()], "US": 1, "SS": 1, "UL": 1, "FD": 1.0, "FL": 1.0, "OB": b"\0\0", "OV": b"\0" * 8},
        **{"UI": "1.2.3", "DS": "1", "IS": "1", "CS": "X", "DT": "20200101", "OW": b"\0\0", "AT": 0x00080008},
    }
    return known.get(vr, "x")


@pytest.mark.parametrize("tag", ["PatientID", "StudyInstanceUID", "AccessionNumber", "FrameOfReferenceUID"])
def test_a_result_is_filed_with_its_source(tag: str, tmp_path: Path) -> None:
    (first, *_) = make_series(tmp_path / "in", slices=3)
    write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    assert {dataset[tag].value for dataset in read_all(tmp_path / "out")} == {dcmread(first)[tag].value}


def test_every_source_is_named_and_the_equipment_list_grows(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "in", slices=4)

    def add_equipment(dataset: Dataset, index: int) -> None:
        item = Dataset()
        item.Manufacturer = "Archive"
        dataset.ContributingEquipmentSequence = [item]

    edit(paths, add_equipment)
    write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    sources = {str(dcmread(path).SOPInstanceUID) for path in paths}
    results = read_all(tmp_path / "out")
    for dataset in results:
        assert {str(item.ReferencedSOPInstanceUID) for item in dataset.SourceImageSequence} == sources
        assert [item.Manufacturer for item in dataset.ContributingEquipmentSequence] == ["Archive", "medld"]
        assert dataset.ContributingEquipmentSequence[1].ManufacturerModelName == "interpolation"
        assert dataset.ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert "not for diagnostic use" in dataset.DerivationDescription
        assert "ab" * 32 in dataset.DerivationDescription
    assert len({dataset.SeriesInstanceUID for dataset in results}) == 1
    assert len({dataset.SOPInstanceUID for dataset in results} | sources) == len(results) + len(sources)
    assert [dataset.InstanceNumber for dataset in results] == list(range(1, len(results) + 1))


@pytest.mark.parametrize(("source", "result"), [(3, 301), (None, 1), (2**31 - 1, 2**31 - 1)])
def test_the_series_number_is_the_source_s_times_100_plus_1(source: int | None, result: int, tmp_path: Path) -> None:
    set_tag(make_series(tmp_path / "in", slices=3), "SeriesNumber", source)
    series = only_series(tmp_path / "in")
    write_finer(series, tmp_path / "out")
    write_finer(series, tmp_path / "chosen", series_number=77)
    assert {dataset.SeriesNumber for dataset in read_all(tmp_path / "out")} == {result}
    assert {dataset.SeriesNumber for dataset in read_all(tmp_path / "chosen")} == {77}


def test_without_a_moment_the_source_s_dates_stay_and_with_one_those_of_the_acquisition_do(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=3)
    series = only_series(tmp_path / "in")
    write_finer(series, tmp_path / "silent")
    when = datetime(2031, 5, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=2)))
    write_finer(series, tmp_path / "dated", when=when)
    for dataset in read_all(tmp_path / "silent"):
        assert {dataset.SeriesDate, dataset.ContentDate, dataset.AcquisitionDate} == {STUDY_DATE}
        assert "InstanceCreationDate" not in dataset
    for dataset in read_all(tmp_path / "dated"):
        assert {dataset.StudyDate, dataset.AcquisitionDate} == {STUDY_DATE}
        assert {dataset.SeriesDate, dataset.ContentDate, dataset.InstanceCreationDate} == {"20310506"}
        assert dataset.ContributingEquipmentSequence[-1].ContributionDateTime == "20310506070809.000000+0200"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(("01", None, None), "01"), (("00", "00", "00"), "00"), ((None, None, "01"), "01")],
)
def test_lossy_once_is_lossy_for_ever(flags: tuple[str | None, ...], expected: str, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "in", slices=3)
    for path, flag in zip(paths, flags, strict=True):
        set_tag([path], "LossyImageCompression", flag)
        if flag == "01":
            set_tag([path], "LossyImageCompressionRatio", "7.5")
            set_tag([path], "LossyImageCompressionMethod", "ISO_10918_1")
    write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    for dataset in read_all(tmp_path / "out"):
        assert dataset.LossyImageCompression == expected
        assert (expected == "01") == ("LossyImageCompressionRatio" in dataset)


@pytest.mark.parametrize(("source", "result"), [(None, "NO"), ("NO", "NO"), ("YES", "YES")])
def test_burned_in_text_stays_declared(source: str | None, result: str, tmp_path: Path) -> None:
    set_tag(make_series(tmp_path / "in", slices=3)[:1], "BurnedInAnnotation", source)
    write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    assert {dataset.BurnedInAnnotation for dataset in read_all(tmp_path / "out")} == {result}


def test_results_of_a_source_without_a_frame_of_reference_share_one(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=3)
    series = only_series(tmp_path / "in")
    for frame in series.frames:
        del frame.head.FrameOfReferenceUID
    write_finer(series, tmp_path / "out")
    write_finer(series, tmp_path / "other", settings={"steps": 9})
    found = {dataset.FrameOfReferenceUID for name in ("out", "other") for dataset in read_all(tmp_path / name)}
    assert len(found) == 1


@given(st.text(max_size=80), st.sampled_from(["", "echo 2.46 ms, phase", "x" * 70]), st.text(max_size=30))
def test_a_series_description_fits_and_says_what_we_did(source: str, note: str, prefix: str) -> None:
    source = " ".join("".join(c for c in source if c.isprintable()).split())
    name = name_series(source, note, Derivation("m", {}, {}, 4.0, 1.0, prefix=prefix))
    assert len(name) <= 64
    assert name.endswith("medld SR 1.0mm")
    assert prefix.strip() or name.startswith(source[:10])


@given(st.text(max_size=2000), st.dictionaries(st.text(), st.text(), max_size=20))
def test_a_derivation_description_fits_any_character_set(model: str, hashes: dict[str, str]) -> None:
    text = describe(Derivation(model, hashes, {}, 4.0, 1.0))
    assert len(text) <= 1024
    assert text.isascii()
    assert text.isprintable()
    assert "\\" not in text
    assert text.endswith("not for diagnostic use")
    assert plain(text, 1024) == text


@given(st.integers(0, 2**32 - 1))
def test_decimal_strings_of_16_characters_hold_a_place_to_a_nanometre_and_less(seed: int) -> None:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.standard_normal((3, 3)))[0] * rng.uniform(0.2, 9, 3)
    affine[:3, 3] = rng.uniform(-900, 900, 3)
    grid = Grid((512, 512, 400), affine)
    source = make_source(grid)
    ends = []
    for k in (0, grid.shape[2] - 1):
        header = Dataset()
        place_slice(header, grid, source, k)
        ends.append(header)
    first, last = ends
    positions = [np.array(h.ImagePositionPatient, dtype=float) for h in ends]
    cosines = np.array(first.ImageOrientationPatient, dtype=float)
    again = np.eye(4)
    again[:3, 0] = cosines[:3] * float(first.PixelSpacing[1])
    again[:3, 1] = cosines[3:] * float(first.PixelSpacing[0])
    again[:3, 2] = (positions[1] - positions[0]) / (grid.shape[2] - 1)
    again[:3, 3] = positions[0]
    # A position of three digits and a sign has 11 decimals, cosines and spacings have 13.
    assert np.abs(np.diag((-1, -1, 1, 1)) @ again - affine).max() < 1e-11
    assert last.SpacingBetweenSlices == pytest.approx(grid.spacing[2], abs=1e-13)
    texts = [str(v) for h in ends for e in h if e.VR == "DS" for v in (e.value if e.VM > 1 else [e.value])]
    assert max(map(len, texts)) <= 16


def make_source(grid: Grid) -> Series:
    """A series of thicker slices in the same box, of which only the grid counts."""
    thick = grid.with_shape((*grid.shape[:2], grid.shape[2] // 4))
    return Series(frames=(), number=1, uid="1.2", grid=thick, refusal=None, slice_thickness=4.0)


@given(st.floats(-1e300, 1e300))
def test_every_number_fits_into_a_decimal_string(value: float) -> None:
    text = str(format_ds(value))
    assert len(text) <= 16
    assert float(format_ds(value)) == pytest.approx(value, rel=1e-8, abs=1e-300)


@pytest.mark.parametrize("vr", ["DS", None])  # implicit VR says none
@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"70.5", b"70.5"),
        (b"070.500E+00 ", b"070.500E+00"),
        (b"1\\\\2.5", b"1\\\\2.5"),
        (b"70.12345678901212345", b"70.1234567890121"),
        (b"0.5\\-0.02178837516915578", b"0.5\\-0.0217883751692"),
        (b"n/a", b""),
        (b"nan\\1", b"\\1"),
    ],
)
def test_only_decimal_strings_that_are_none_are_changed(written: bytes, kept: bytes, vr: str | None) -> None:
    tag = Tag("ImagePositionPatient")
    item, outer = Dataset(), Dataset()
    for dataset in (item, outer):
        dataset[tag] = RawDataElement(tag, vr, len(written), written, 0, vr is None, True)
    outer.ProcedureCodeSequence = [item]
    copy = copy_header(outer)
    for dataset in (copy, copy.ProcedureCodeSequence[0]):
        element = dataset.get_item(tag)
        assert element is not None
        assert (element.value or b"").rstrip() == kept


def test_a_header_is_left_as_it_was(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=3)
    series = only_series(tmp_path / "in")
    before = {id(frame.head): copy_header(frame.head).to_json() for frame in series.frames}
    write_finer(series, tmp_path / "out")
    assert {id(frame.head): copy_header(frame.head).to_json() for frame in series.frames} == before


def test_an_enhanced_object_becomes_classic_images_with_what_its_groups_say(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "in.dcm", slices=4, echo_times=(4.6,), thickness=4.0)
    series = only_series(tmp_path / "in.dcm")
    write_finer(series, tmp_path / "out")
    for dataset in read_all(tmp_path / "out"):
        assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.4"
        assert float(dataset.EchoTime) == 4.6
        assert dataset.SourceImageSequence[0].ReferencedFrameNumber == [1, 2, 3, 4]
        assert not [e for e in dataset if e.tag.group == 0x5200 or e.keyword.startswith("Dimension")]
        for keyword in ("ScanningSequence", "SequenceVariant"):
            assert dataset[keyword].value


def test_what_is_no_ct_or_mr_image_is_not_written(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=3)
    frame = only_series(tmp_path / "in").frames[0]
    frame.head.SOPClassUID = "1.2.840.10008.5.1.4.1.1.128"  # PET
    with pytest.raises(InputError, match="CT or MR") as caught:
        classic_header(frame)
    assert caught.value.code == "E_NOT_IMAGE"


@pytest.mark.parametrize(
    "change",
    [
        lambda dataset: setattr(dataset, "SeriesDescription", "../../../etc/passwd"),
        lambda dataset: setattr(dataset, "SeriesDescription", "<script>alert(1)</script>\n\0/x"),
        lambda dataset: setattr(dataset, "PatientID", "/tmp/../x"),
    ],
)
def test_no_header_reaches_a_file_s_name(change: Callable[[Any], None], tmp_path: Path) -> None:
    edit(make_series(tmp_path / "in", slices=3), lambda dataset, index: change(dataset))
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    after = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    assert after - before == {Path("out"), *(Path("out") / f"IM-{n:04d}.dcm" for n in range(1, 10))}
