"""A folder becomes its volumes, each whole, and everything else is listed with a reason."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import dicom_factory as factory
import numpy as np
import pytest
from dicom_factory import edit, edit_bytes, leaks, make_enhanced, make_series, set_tag, truth
from pydicom import dcmread

from medld.errors import CODES, WARNINGS
from medld.io.dicom.catalogue import list_series
from medld.io.dicom.series import Catalogue, Series


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty study folder."""
    (tmp_path / "study").mkdir()
    return tmp_path / "study"


def codes(catalogue: Catalogue) -> list[str]:
    """Codes of the refused series."""
    return [series.refusal.code for series in catalogue.series if series.refusal]


def warned(series: Series) -> list[str]:
    """Codes of a series' warnings."""
    found = [warning.split(":")[0] for warning in series.warnings]
    assert set(found) <= set(WARNINGS)
    return found


def only(catalogue: Catalogue) -> Series:
    """The one series that there is."""
    (series,) = catalogue.series
    return series


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "coronal", "oblique"])
def test_a_sound_series_has_the_affine_of_its_headers(folder: Path, orientation: str) -> None:
    paths = make_series(folder, orientation=orientation, thickness=3.0)
    series = only(list_series(folder))
    values, affine = truth(paths)
    assert series.refusal is None
    assert series.grid is not None
    assert series.grid.shape == values.shape
    np.testing.assert_allclose(series.grid.affine, affine, atol=1e-9)
    assert (series.number, series.modality, series.slice_thickness, series.warnings) == (1, "mr", 3.0, ())
    assert [source.path for source in series.sources] == paths


def test_a_study_as_it_comes_from_an_archive(folder: Path, tmp_path: Path) -> None:
    """Two series of one description, a scout, a report, a capture, a directory and other files."""
    make_series(folder / "DICOM" / "A", series=2)
    make_series(folder / "DICOM" / "B", series=3, modality="CT", study=1)
    scout = make_series(folder / "DICOM" / "C", series=1, slices=1)
    set_tag(scout, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for number, uid in (
        (4, "1.2.840.10008.5.1.4.1.1.88.11"),
        (5, "1.2.840.10008.5.1.4.1.1.7"),
        (6, "1.2.840.10008.1.3.10"),
    ):
        set_tag(make_series(folder / "DICOM" / str(number), series=number, slices=1), "SOPClassUID", uid)
    (folder / "AUTORUN.INF").write_text("[autorun]")
    (folder / "scan.nii.gz").write_bytes(b"\x1f\x8b\x08" + b"\0" * 50)
    found = list_series(folder)
    assert [(series.number, series.modality) for series in found.usable] == [(1, "mr"), (2, "ct")]
    assert codes(found) == ["E_MIXED"]
    assert len(found.skipped) == 5
    assert {refusal.code for refusal in found.skipped.values()} == {"E_NOT_IMAGE"}
    with zipfile.ZipFile(tmp_path / "cd.zip", "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(tmp_path))
    packed = list_series(tmp_path / "cd.zip")
    for one, other in zip(found.usable, packed.usable, strict=True):
        assert one.grid is not None
        assert other.grid is not None
        np.testing.assert_array_equal(one.grid.affine, other.grid.affine)
    assert codes(packed) == codes(found)


def test_numbers_do_not_depend_on_file_names(folder: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    echo = make_series(folder / "one", series=7, slices=4)
    for index, path in enumerate(make_series(folder / "two", series=7, slices=4)):
        dataset = dcmread(path)
        dataset.EchoTime, dataset.InstanceNumber = 80, 5 + index
        dataset.SOPInstanceUID += ".2"
        factory.save(dataset, path)
    make_series(folder / "three", series=3, slices=5)
    paths = [*echo, *(folder / "two").iterdir(), *(folder / "three").iterdir()]
    expected = [(series.uid, series.head.EchoTime) for series in list_series(folder).usable]
    assert len(expected) == 3
    (tmp_path / "shuffled").mkdir()
    for place, path in zip(rng.permutation(len(paths)), paths, strict=True):
        shutil.copy(path, tmp_path / "shuffled" / f"{place:03d}")
    again = [(series.uid, series.head.EchoTime) for series in list_series(tmp_path / "shuffled").usable]
    assert again == expected


def test_echoes_are_volumes_of_their_own_that_say_which(folder: Path) -> None:
    make_enhanced(folder / "x.dcm", slices=4, echo_times=(2.3, 4.6, 6.9))
    found = list_series(folder)
    assert [series.note for series in found.usable] == ["echo 2.3 ms", "echo 4.6 ms", "echo 6.9 ms"]
    assert [[frame.index for frame in series.frames] for series in found.usable] == [
        list(range(start, start + 4)) for start in (0, 4, 8)
    ]


def test_magnitude_and_phase_of_an_echo_come_together(folder: Path) -> None:
    path = make_enhanced(folder / "x.dcm", slices=4, echo_times=(2.3, 4.6), times=2)

    def change(dataset: Any, index: int) -> None:
        for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            item = factory.Dataset()
            item.FrameType = ["ORIGINAL", "PRIMARY", "T1", "PM"[(number // 4) % 2 == 0]]
            group.MRImageFrameTypeSequence = [item]

    edit([path], change)
    notes = [series.note for series in list_series(folder).usable]
    assert notes == [f"echo {echo} ms, {part}" for echo in (2.3, 4.6) for part in ("magnitude", "phase")]


@pytest.mark.parametrize("times", [2, 5])
def test_a_time_series_is_no_set_of_volumes(folder: Path, times: int) -> None:
    make_enhanced(folder / "x.dcm", slices=4, times=times)
    found = list_series(folder)
    assert codes(found) == ["E_4D"]
    assert not found.usable


def test_the_same_image_twice_is_taken_once(folder: Path) -> None:
    paths = make_series(folder / "a")
    shutil.copytree(folder / "a", folder / "b")
    series = only(list_series(folder))
    assert warned(series) == ["W_DUP"]
    assert len(series.frames) == len(paths)


def test_a_cut_copy_beside_a_whole_one_does_no_harm(folder: Path) -> None:
    paths = make_series(folder / "a")
    (folder / "b.dcm").write_bytes(paths[3].read_bytes()[:-300])
    series = only(list_series(folder))
    assert series.refusal is None
    assert warned(series) == ["W_DUP"]


def test_one_uid_for_different_images_is_refused(folder: Path) -> None:
    set_tag(make_series(folder), "SOPInstanceUID", "1.2.3.4")
    assert codes(list_series(folder)) == ["E_BAD_ID"]


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("ImagePositionPatient", None, "E_NO_GEOM"),
        ("BitsStored", 99, "E_PIXELS"),
        ("SOPInstanceUID", "x", "E_BAD_ID"),
        ("PatientID", "another", "E_MIXED"),
        ("StudyInstanceUID", "1.2.3", "E_MIXED"),
    ],
)
@pytest.mark.parametrize("which", [0, 5, -1])
def test_one_bad_slice_refuses_its_series_and_no_other(
    folder: Path, which: int, keyword: str, value: Any, code: str
) -> None:
    set_tag([make_series(folder / "a")[which]], keyword, value)
    make_series(folder / "b", series=2)
    found = list_series(folder)
    assert codes(found) == [code]
    assert len(found.usable) == 1


@pytest.mark.parametrize("which", [0, 5, -1])
def test_one_cut_slice_refuses_its_series(folder: Path, which: int) -> None:
    edit_bytes([make_series(folder)[which]], lambda raw: raw[:-200])
    assert codes(list_series(folder)) == ["E_TRUNC"]


def test_a_file_cut_before_its_series_is_known_is_not_passed_over_in_silence(folder: Path) -> None:
    edit_bytes([make_series(folder)[-1]], lambda raw: raw[:400])
    found = list_series(folder)
    assert [refusal.code for refusal in found.skipped.values()] == ["E_TRUNC"]
    assert warned(only(found)).count("W_INCOMPLETE") >= 1


def test_a_slice_of_another_echo_is_not_left_out_in_silence(folder: Path) -> None:
    set_tag(make_series(folder)[-1:], "EchoTime", "99")
    found = list_series(folder)
    assert codes(found) == ["E_TOO_FEW"]
    assert "W_INCOMPLETE" in warned(found.usable[0])


def test_missing_ends_are_told_by_the_numbers(folder: Path) -> None:
    paths = make_series(folder / "a")
    paths[0].unlink()
    paths = make_series(folder / "b", series=2)
    for path in paths[:9]:
        set_tag([path], "ImagesInAcquisition", 12)
    for path in paths[9:]:
        path.unlink()
    make_series(folder / "c", series=3)
    assert [warned(series) for series in list_series(folder).usable] == [["W_INCOMPLETE"], ["W_INCOMPLETE"], []]


@pytest.mark.parametrize("numbers", ["random", "same", "none"])
def test_numbers_that_mean_nothing_say_nothing(folder: Path, numbers: str, rng: np.random.Generator) -> None:
    paths = make_series(folder)
    for path in paths:
        number = {"random": int(rng.integers(1, 10**8)), "same": 1, "none": None}[numbers]
        set_tag([path], "InstanceNumber", number)
        set_tag([path], "ImagesInAcquisition", None)
    assert warned(only(list_series(folder))) == []


def test_orientations_rounded_to_either_side_stay_together(folder: Path) -> None:
    paths = make_series(folder)
    for index, path in enumerate(paths):
        edit(
            [path],
            lambda d, _, i=index: setattr(
                d, "ImageOrientationPatient", ["1", f"{(-1) ** i * 5e-6:.6f}", "0", "0", "1", "0"]
            ),
        )
    assert only(list_series(folder)).refusal is None


def test_stacks_of_two_orientations_are_two_volumes_and_three_planes_none(folder: Path) -> None:
    def merged(*orientations: Any) -> Catalogue:
        shutil.rmtree(folder)
        for number, orientation in enumerate(orientations):
            paths = make_series(folder / str(number), slices=5, series=number + 1, orientation=orientation)
            set_tag(paths, "SeriesInstanceUID", "1.2.3.9")
        return list_series(folder)

    assert len(merged("axial", "oblique").usable) == 2
    assert codes(merged("axial", "sagittal", "coronal")) == ["E_MIXED"]


def test_the_limit_holds_for_a_volume_of_many_files(folder: Path) -> None:
    make_series(folder)
    assert codes(list_series(folder, max_voxels=12 * 20 * 24)) == []
    assert codes(list_series(folder, max_voxels=12 * 20 * 24 - 1)) == ["E_TOO_BIG"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"DerivationDescription": "medld 0.1; model x"}, (True, [])),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "DRG", "NORM", "DRS"]}, (False, ["W_SECOND_PASS"])),
        ({"DerivationDescription": "Deep Learning reconstruction"}, (False, ["W_SECOND_PASS"])),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, (False, ["W_REFORMAT"])),
        ({"DerivationDescription": "said again"}, (False, [])),
    ],
)
def test_a_second_pass_is_noticed(folder: Path, change: dict[str, Any], expected: tuple[bool, list[str]]) -> None:
    paths = make_series(folder)
    for keyword, value in change.items():
        set_tag(paths, keyword, value)
    series = only(list_series(folder))
    assert (series.second_pass, warned(series)) == expected


FLASH = {"ScanningSequence": "GR", "SequenceVariant": ["SP", "OSP"], "EchoTime": "2.46", "RepetitionTime": "300"}


@pytest.mark.parametrize(
    ("tags", "contrast"),
    [
        ({"ScanningSequence": "SE", "EchoTime": "90", "RepetitionTime": "4000"}, "T2w"),
        ({"ScanningSequence": "SE", "EchoTime": "12", "RepetitionTime": "600"}, "T1w"),
        ({"ScanningSequence": "SE", "EchoTime": "12", "RepetitionTime": "600", "ContrastBolusAgent": "Gd"}, "ce-T1w"),
        (
            {"ScanningSequence": ["SE", "IR"], "EchoTime": "90", "RepetitionTime": "9000", "InversionTime": "2500"},
            "FLAIR",
        ),
        ({"ScanningSequence": "SE", "EchoTime": "15", "RepetitionTime": "3000"}, "unknown"),
        ({"ScanningSequence": "EP", "EchoTime": "90", "RepetitionTime": "4000"}, "unknown"),
        ({"ScanningSequence": "GR", "EchoTime": "3", "RepetitionTime": "20"}, "unknown"),
        (FLASH | {"FlipAngle": "80"}, "T1w"),
        (FLASH | {"FlipAngle": "20"}, "unknown"),
        (FLASH | {"FlipAngle": "80", "SequenceVariant": "SS"}, "unknown"),
    ],
)
def test_contrast_is_told_by_the_times_of_the_sequence(folder: Path, tags: dict[str, Any], contrast: str) -> None:
    paths = make_series(folder, slices=3)
    for keyword, value in tags.items():
        set_tag(paths, keyword, value)
    assert only(list_series(folder)).contrast == contrast


def test_nothing_that_is_listed_names_the_patient(folder: Path) -> None:
    make_series(folder / "good")
    set_tag(make_series(folder / "bad", series=2), "ImagePositionPatient", None)
    edit_bytes(make_series(folder / "cut", series=3), lambda raw: raw[:500])
    found = list_series(folder)
    listed = [repr(series.refusal) + str(series.warnings) + series.note for series in found.series]
    refusals = list(found.skipped.values())
    assert leaks(str(listed) + str(refusals) + repr(found.series[0])) == []
    assert {refusal.code for refusal in refusals} <= set(CODES)
