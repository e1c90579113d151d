"""Reading a series: scanner units, where they come from, and how a result is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import RLE, edit, leaks, make_series, phantom, set_tag
from pydicom import Dataset, dcmread

from medld.errors import InputError, LabelMapError
from medld.geometry import Grid
from medld.io import Storage, read_volume, write_volume
from medld.io.dicom.privacy import hash_uid
from medld.io.dicom.read import read_series
from medld.io.dicom.series import Frame, Refusal, Series, Source
from medld.volume import Volume


def series_of(paths: list[Path], **changes: Any) -> Series:
    """Files in slice order as the catalogue gives them; the grid is any grid of their shape."""
    frames = []
    for path in paths:
        head = dcmread(path, stop_before_pixels=True)
        scaling = float(head.get("RescaleSlope", 1)), float(head.get("RescaleIntercept", 0))
        place, axes = np.zeros(3), np.eye(3)[:2].ravel()
        frames.append(Frame(Source(path, None, path.stat().st_size), head, 0, place, axes, (1.0, 1.0), *scaling))
    head = frames[0].head
    grid = Grid((head.Columns, head.Rows, len(frames)), np.diag([0.8, 0.9, 4.0, 1.0]))
    modality = {"CT": "ct", "MR": "mr"}[head.Modality]
    series = Series(tuple(frames), 1, head.SeriesInstanceUID, grid, None, modality=modality)  # type: ignore[arg-type]
    return replace(series, **changes)


def as_nifti(folder: Path, volume: Volume, storage: Storage) -> tuple[np.ndarray, Storage]:
    """The voxels and the storage of what `write_volume` makes of a series."""
    path = folder / "out.nii.gz"
    seen = write_volume(path, volume, storage, description="a test")
    again, stored = read_volume(path, force=True)
    np.testing.assert_array_equal(seen, again.array)
    return again.array, stored


def test_a_series_becomes_a_volume_without_patient_data(tmp_path: Path) -> None:
    series = series_of(make_series(tmp_path), contrast="T2w", warnings=("W_DUP: one image was there twice",))
    volume, storage = read_series(series)
    assert (volume.grid, volume.modality, volume.contrast) == (series.grid, "mr", "T2w")
    assert volume.array.dtype == np.float32
    assert volume.array.flags.f_contiguous
    assert volume.provenance == {
        "file": f"series-{hash_uid(series.uid)}",
        "format": "dicom",
        "modality_from": "Modality (0008,0060)",
        "slices": 12,
    }
    assert storage.warnings == series.warnings
    assert not leaks(f"{volume.provenance} {storage} {volume}")


@pytest.mark.parametrize(("modality", "dtype"), [("CT", np.int16), ("CT", np.uint16), ("MR", np.uint16)])
def test_the_storage_is_the_files(modality: str, dtype: Any, tmp_path: Path) -> None:
    _, storage = read_series(series_of(make_series(tmp_path, modality=modality, dtype=dtype)))
    assert (storage.format, storage.dtype) == ("dicom", dtype)
    assert (storage.slope, storage.inter) == (1.0, -1024.0 if modality == "CT" else 0.0)
    assert storage.bits_stored == (12 if dtype == np.uint16 else 16)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"modality": "CT"}, np.int16),
        ({"modality": "MR"}, np.int16),
        ({"modality": "MR", "bits_stored": 16, "slope": 40.0}, np.uint16),
        ({"modality": "MR", "bits_stored": 16, "slope": 90.0}, np.float32),
        ({"modality": "MR", "slope": 1.27985347985347}, np.float32),
        ({"modality": "CT", "slope": 0.5}, np.float32),
        ({"modality": "CT", "slope": 2.0, "inter": -1024.5}, np.float32),
    ],
)
def test_written_as_nifti_every_voxel_is_what_was_read(options: dict[str, Any], dtype: Any, tmp_path: Path) -> None:
    values = phantom(6, (20, 24), options["modality"]) * max(options.get("slope", 1.0), 1.0)
    volume, storage = read_series(series_of(make_series(tmp_path / "s", slices=6, values=values, **options)))
    for format in ("nifti1", "nifti2"):
        assert storage.converted_to(format).dtype == dtype  # type: ignore[arg-type]
    voxels, stored = as_nifti(tmp_path, volume, storage)
    np.testing.assert_array_equal(voxels, volume.array)
    assert (stored.dtype, stored.slope, stored.inter) == (dtype, 1.0, 0.0)
    assert storage.converted_to("nrrd").dtype == dtype


def test_half_slopes_of_even_numbers_are_whole(tmp_path: Path) -> None:
    values = np.rint(phantom(3, (20, 24))) // 2 * 2
    volume, storage = read_series(series_of(make_series(tmp_path, slices=3, values=values, slope=0.5)))
    np.testing.assert_array_equal(volume.array, values.transpose(2, 1, 0))
    assert storage.converted_to("nifti1").dtype == np.int16


def test_maps_of_another_unit_are_float_in_every_format(tmp_path: Path) -> None:
    _, storage = read_series(series_of(make_series(tmp_path, modality="CT")))
    for plain in (storage.as_float32().converted_to("nifti1"), storage.converted_to("nifti1").as_float32()):
        assert (plain.format, plain.dtype, plain.slope, plain.inter) == ("nifti1", np.float32, 1.0, 0.0)
    assert storage.as_float32().bits_stored is None


@pytest.mark.parametrize("offset", [0.0, -400.0, 300.0])
def test_slices_of_several_slopes_get_one_that_holds_all(offset: float, tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=5)

    def scale(dataset: Dataset, index: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{0.3 + 0.2 * index:.2f}", f"{offset:g}"

    volume, storage = read_series(series_of(edit(paths, scale)))
    assert any("scaled differently" in warning for warning in storage.warnings)
    info = np.iinfo(storage.dtype)
    numbers = (volume.array.astype(np.float64) - storage.inter) / storage.slope
    assert info.min <= numbers.min()
    assert numbers.max() <= info.max
    # As fine as 16 bits allow, but for the room that a result has above its source.
    assert numbers.max() - numbers.min() > 0.75 * (info.max - info.min)
    back = np.rint(numbers) * storage.slope + storage.inter
    assert np.abs(back - volume.array).max() <= 0.5 * storage.slope + 1e-4
    if offset == 0:
        assert storage.inter == 0
    np.testing.assert_array_equal(as_nifti(tmp_path, volume, storage)[0], volume.array)


def test_slices_of_several_bit_layouts_share_one_that_holds_all(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "a", slices=2, dtype=np.uint16)
    paths += make_series(tmp_path / "b", slices=2, dtype=np.int16)
    volume, storage = read_series(series_of(paths))
    assert (storage.dtype, storage.bits_stored) == (np.int16, 16)
    numbers = (volume.array - storage.inter) / storage.slope
    assert numbers.min() >= -(2**15)
    assert numbers.max() < 2**15


def test_metal_is_reported_and_kept(tmp_path: Path) -> None:
    values = phantom(3, (20, 24), "CT")
    values[1, 5:8, 5:8] = 30000
    volume, storage = read_series(series_of(make_series(tmp_path, modality="CT", slices=3, values=values)))
    assert volume.array.max() == 30000
    assert [warning.split(":")[0] for warning in storage.warnings] == ["W_RANGE"]
    values[1, 5:8, 5:8] = 3071
    _, storage = read_series(series_of(make_series(tmp_path, modality="CT", slices=3, values=values)))
    assert storage.warnings == ()


def test_a_refused_series_is_refused_with_its_own_words(tmp_path: Path) -> None:
    refusal = Refusal("E_GAP", "slice 7 of 12 is missing at z = 34.0")
    series = series_of(make_series(tmp_path), grid=None, refusal=refusal, number=None)
    with pytest.raises(InputError, match="slice 7 of 12 is missing") as caught:
        read_series(series)
    assert caught.value.code == "E_GAP"


def test_an_output_of_ours_is_read_only_to_compare_it(tmp_path: Path) -> None:
    series = series_of(make_series(tmp_path), second_pass=True)
    with pytest.raises(InputError) as caught:
        read_series(series)
    assert caught.value.code == "E_SECOND_PASS"
    assert read_series(series, allow_output=True)[0].grid == series.grid


@pytest.mark.parametrize("force", [False, True])
def test_a_constant_scan_is_refused_even_if_forced(force: bool, tmp_path: Path) -> None:
    series = series_of(make_series(tmp_path, values=np.full((12, 20, 24), 7.0)))
    with pytest.raises(InputError) as caught:
        read_series(series, force=force)
    assert caught.value.code == "E_PIXELS"


def test_values_beyond_float32_are_refused(tmp_path: Path) -> None:
    paths = set_tag(make_series(tmp_path), "RescaleSlope", "1e38")
    with pytest.raises(InputError) as caught:
        read_series(series_of(paths))
    assert caught.value.code == "E_PIXELS"


def test_a_label_map_is_read_only_if_forced(tmp_path: Path) -> None:
    labels = np.rint(phantom(12, (20, 24)) / 100)
    series = series_of(make_series(tmp_path, values=labels))
    with pytest.raises(LabelMapError):
        read_series(series)
    assert read_series(series, force=True)[0].array.max() == labels.max()


def test_the_limit_of_voxels_holds(tmp_path: Path) -> None:
    series = series_of(make_series(tmp_path))
    assert series.grid is not None
    count = int(np.prod(series.grid.shape))
    read_series(series, max_voxels=count)
    with pytest.raises(InputError) as caught:
        read_series(series, max_voxels=count - 1)
    assert caught.value.code == "E_TOO_BIG"


def test_what_goes_wrong_names_the_slice_and_no_patient(tmp_path: Path) -> None:
    paths = make_series(tmp_path, syntax=RLE)
    series = series_of(paths)
    paths[6].write_bytes(paths[6].read_bytes()[:-40])
    with pytest.raises(InputError, match="slice 7 of 12") as caught:
        read_series(series)
    assert caught.value.code == "E_TRUNC"
    assert not leaks(str(caught.value))
