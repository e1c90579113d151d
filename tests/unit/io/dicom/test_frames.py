"""Frames say where they lie and what their numbers mean, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import edit, leaks, make_enhanced, make_series, set_tag
from pydicom import Dataset, dcmread

from medld.errors import InputError
from medld.io.dicom.frames import Kind, frames_of
from medld.io.dicom.headers import read_head
from medld.io.dicom.series import Frame, Source


def read(path: Path) -> list[tuple[Frame, Kind]]:
    """The frames of a file."""
    source = Source(path, None, path.stat().st_size)
    return frames_of(source, read_head(source))


def code_of(path: Path) -> str | None:
    """The code of the refusal, None for frames."""
    try:
        read(path)
    except InputError as error:
        return error.code if leaks(str(error)) == [] else "a message that names the patient"
    return None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """One oblique CT slice."""
    return make_series(tmp_path, modality="CT", slices=1, orientation="oblique", slope=2.0)[0]


def test_a_classic_object_is_one_frame_with_its_own_place_and_scale(path: Path) -> None:
    ((frame, kind),) = read(path)
    dataset = dcmread(path)
    np.testing.assert_array_equal(frame.position, np.array(dataset.ImagePositionPatient, dtype=float))
    np.testing.assert_array_equal(frame.orientation, np.array(dataset.ImageOrientationPatient, dtype=float))
    assert frame.pixel_spacing == tuple(map(float, dataset.PixelSpacing))
    assert (frame.slope, frame.inter) == (2.0, -1024.0)
    assert kind.image_type == tuple(dataset.ImageType)[2:]


def test_an_enhanced_object_is_its_frames_in_order(tmp_path: Path) -> None:
    slopes = list(np.linspace(1, 2, 10))
    path = make_enhanced(tmp_path / "x.dcm", slices=5, echo_times=(2.3, 4.6), slopes=slopes)
    frames = read(path)
    assert [frame.index for frame, _ in frames] == list(range(10))
    np.testing.assert_allclose([frame.slope for frame, _ in frames], slopes)
    assert [kind.echo_time for _, kind in frames] == [2.3] * 5 + [4.6] * 5
    own = dcmread(path).PerFrameFunctionalGroupsSequence
    for frame, group in zip((frame for frame, _ in frames), own, strict=True):
        assert list(frame.position) == [float(x) for x in group.PlanePositionSequence[0].ImagePositionPatient]


def test_a_frames_own_group_wins_over_the_shared_one_and_that_over_the_top(tmp_path: Path) -> None:
    path = make_enhanced(tmp_path / "x.dcm", slices=3)

    def change(dataset: Any, index: int) -> None:
        own = Dataset()
        own.PixelSpacing = ["0.5", "0.6"]
        dataset.PerFrameFunctionalGroupsSequence[1].PixelMeasuresSequence = [own]
        dataset.PerFrameFunctionalGroupsSequence[2].PixelMeasuresSequence = [Dataset()]  # holds nothing: does not count
        dataset.PixelSpacing = ["7", "7"]

    edit([path], change)
    assert [frame.pixel_spacing for frame, _ in read(path)] == [(0.9, 0.8), (0.5, 0.6), (0.9, 0.8)]

    def remove(dataset: Any, index: int) -> None:
        del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence

    edit([path], remove)
    assert [frame.pixel_spacing for frame, _ in read(path)] == [(7, 7), (0.5, 0.6), (7, 7)]


def test_places_of_fewer_frames_than_there_are_are_refused(tmp_path: Path) -> None:
    path = make_enhanced(tmp_path / "x.dcm", slices=4)
    edit([path], lambda dataset, index: dataset.PerFrameFunctionalGroupsSequence.pop())
    assert code_of(path) == "E_NO_GEOM"


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("ImagePositionPatient", None, "E_NO_GEOM"),
        ("ImagePositionPatient", ["1", "2"], "E_NO_GEOM"),
        ("ImagePositionPatient", ["1", "2", "inf"], "E_NO_GEOM"),
        ("ImagePositionPatient", ["1", "2", "1e30"], "E_NO_GEOM"),
        ("ImageOrientationPatient", ["1", "0", "0", "0.1", "1", "0"], "E_NO_GEOM"),
        ("ImageOrientationPatient", ["1", "0", "0", "0", "0", "0"], "E_NO_GEOM"),
        ("ImageOrientationPatient", ["1", "0", "0", "0", "2", "0"], "E_NO_GEOM"),
        ("ImageOrientationPatient", ["0.866", "0.5", "0", "-0.5", "0.866", "0"], None),
        ("PixelSpacing", ["0", "1"], "E_NO_GEOM"),
        ("PixelSpacing", ["-1", "1"], "E_NO_GEOM"),
        ("PixelSpacing", ["nan", "1"], "E_NO_GEOM"),
        ("PixelSpacing", ["006.757812E-01", "006.757812E-01"], None),
        ("RescaleSlope", "0", "E_PIXELS"),
        ("RescaleSlope", "nan", "E_PIXELS"),
        ("RescaleIntercept", "inf", "E_PIXELS"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"], "E_MIXED"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"], "E_4D"),
        ("ImageType", ["DERIVED", "SECONDARY", "PROJECTION IMAGE"], "E_NOT_IMAGE"),
        ("ImageType", ["DERIVED", "SECONDARY", "MPR"], None),
        ("ImageType", ["ORIGINAL", "PRIMARY", "MPR"], None),
        ("ImageType", ["DERIVED", "SECONDARY"], None),
        ("ImageType", None, None),
    ],
)
def test_place_scale_and_type_decide(path: Path, keyword: str, value: Any, code: str | None) -> None:
    set_tag([path], keyword, value)
    assert code_of(path) == code


@pytest.mark.parametrize("creator", ["SIEMENS MR HEADER", "SOMEBODY ELSE"])
def test_a_mosaic_is_known_by_its_count_of_tiles_in_whatever_block(path: Path, creator: str) -> None:
    def change(dataset: Any, index: int) -> None:
        dataset.private_block(0x0019, "FIRST COMER", create=True)
        dataset.private_block(0x0019, creator, create=True).add_new(0x0A, "US", 36)

    edit([path], change)
    assert code_of(path) == ("E_4D" if creator.startswith("SIEMENS") else None)


def test_several_frames_in_a_classic_image_have_no_place(tmp_path: Path) -> None:
    path = make_enhanced(tmp_path / "x.dcm", slices=3)
    set_tag([path], "SOPClassUID", "1.2.840.10008.5.1.4.1.1.4")
    assert code_of(path) == "E_NO_GEOM"
