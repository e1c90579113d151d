"""Maps of the spread: exact float32 values on the result's grid, beside the source, the same bytes every time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import highdicom
import numpy as np
import pytest
from dicom_factory import PATIENT, STUDY_DATE, edit_bytes, make_enhanced, make_series, set_tag
from dicom_result import derivation, finer, only_series
from pydicom import dcmread

from medld.errors import OutputError, RestorationError
from medld.io.dicom import read_series, write_map
from medld.volume import Volume


def write_some_map(source: Path, path: Path, *, when: datetime | None = None) -> Volume:
    """Write a map of some spread; what was written."""
    series = only_series(source)
    volume, _ = read_series(series)
    spread = finer(volume)
    spread = spread.with_array(np.abs(spread.array) * np.float32(0.03) + np.float32(0.1))
    write_map(path, spread, series, derivation(volume, spread, when=when))
    return spread


@pytest.mark.parametrize(("modality", "unit"), [("MR", "1"), ("CT", "[hnsf'U]")])
@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_highdicom_reads_the_values_at_their_places(modality: str, unit: str, orientation: str, tmp_path: Path) -> None:
    make_series(tmp_path / "in", modality=modality, orientation=orientation, slices=4)
    spread = write_some_map(tmp_path / "in", tmp_path / "map.dcm")
    image = highdicom.imread(tmp_path / "map.dcm")
    volume = image.get_volume(dtype=np.float32, apply_voi_transform=False)
    affine = np.diag((-1, -1, 1, 1)) @ volume.affine[:, [2, 1, 0, 3]]
    array = volume.array.transpose(2, 1, 0)
    if not np.allclose(affine[:3, 3], spread.grid.affine[:3, 3]):  # highdicom counts slices from the other end
        array = array[:, :, ::-1]
    assert np.array_equal(array, spread.array)
    mapping = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == unit
    assert image.ContentLabel == "UNCERTAINTY"


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=4)
    for name in ("a", "b"):
        write_some_map(tmp_path / "in", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_a_map_is_filed_beside_its_source_as_a_series_of_its_own(kind: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    if kind == "classic":
        source, *_ = make_series(tmp_path / "in", slices=3)
    else:
        source = make_enhanced(tmp_path / "in" / "a.dcm", slices=3)
    write_some_map(tmp_path / "in", tmp_path / "map.dcm")
    before, after = dcmread(source), dcmread(tmp_path / "map.dcm")
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber", "FrameOfReferenceUID"):
        assert after[keyword].value == before[keyword].value
    assert after.SeriesInstanceUID != before.SeriesInstanceUID
    assert after.ContentDate == after.StudyDate == STUDY_DATE
    assert not [element for element in after.iterall() if element.tag.is_private]


def test_the_moment_of_the_job_is_the_map_s(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=3)
    write_some_map(tmp_path / "in", tmp_path / "map.dcm", when=datetime(2031, 5, 6, 7, 8, 9))
    dataset = dcmread(tmp_path / "map.dcm")
    assert {dataset.ContentDate, dataset.SeriesDate, dataset.InstanceCreationDate} == {"20310506"}
    assert dataset.StudyDate == STUDY_DATE


def test_headers_that_highdicom_refuses_are_taken_over_all_the_same(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "in", slices=3)
    set_tag(set_tag(set_tag(paths, "PatientSex", "U"), "PatientBirthDate", "0000"), "ReferringPhysicianName", None)
    set_tag(set_tag(paths, "SpecificCharacterSet", ["", "ISO 2022 IR 87"]), "ContentTime", None)
    name = PATIENT["PatientName"].encode()
    japanese = ("\u5c71\u7530".encode("iso2022_jp") + b"^Taro").ljust(len(name), b"o")
    edit_bytes(paths, lambda content: content.replace(name, japanese))
    write_some_map(tmp_path / "in", tmp_path / "map.dcm")
    assert japanese in (tmp_path / "map.dcm").read_bytes()
    assert dcmread(tmp_path / "map.dcm").PatientSex == "U"


def test_a_spread_that_is_not_finite_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=3)
    series = only_series(tmp_path / "in")
    volume, _ = read_series(series)
    with pytest.raises(RestorationError):
        write_map(tmp_path / "m", volume.with_array(volume.array * np.nan), series, derivation(volume, volume))
    assert not (tmp_path / "m").exists()
    with pytest.raises(OutputError):
        write_map(tmp_path / "none" / "m", volume, series, derivation(volume, volume))
