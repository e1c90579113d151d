"""Writing: whole or not at all, in the input's own form, and what is returned is what a reader sees."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medld.errors import OutputError, RestorationError
from medld.geometry import Grid
from medld.io import SUFFIXES, Storage, read_header, read_volume, write_volume
from medld.volume import Volume

AFFINE_MM = 1e-4  # NIfTI-1 stores float32: 90 mm to about 4e-6, times the voxel count


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reading_what_was_written_gives_the_same(
    suffix: str, dtype: str, order: str, scan: Volume, tmp_path: Path
) -> None:
    storage = Storage(dtype=np.dtype(dtype))
    values = np.array(scan.array % 251 + 0.25, order=order)
    path = tmp_path / f"scan{suffix}"
    seen = write_volume(path, scan.with_array(values), storage, description="test")
    volume, again = read_volume(path)
    assert np.array_equal(volume.array, seen)
    assert volume.array.dtype == np.float32
    assert volume.grid.is_close(scan.grid, AFFINE_MM)
    assert again.dtype == storage.dtype
    expected = values if dtype[0] == "f" else np.rint(values)
    assert np.array_equal(seen, expected)


def test_slope_and_intercept_are_kept_and_rounding_is_seen(scan: Volume, tmp_path: Path) -> None:
    storage = Storage(dtype=np.dtype("u1"), slope=0.5, inter=-10.0)
    values = scan.array / 10
    seen = write_volume(tmp_path / "a.nii.gz", scan.with_array(values), storage, description="test")
    assert np.abs(seen - values).max() <= 0.25 + 1e-5
    volume, again = read_volume(tmp_path / "a.nii.gz")
    assert (again.slope, again.inter) == (0.5, -10.0)
    assert np.array_equal(volume.array, seen)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "u4"])
def test_values_are_clipped_to_what_the_type_holds(dtype: str, scan: Volume, tmp_path: Path) -> None:
    values = scan.array.copy()
    values[0, 0, 0], values[1, 0, 0] = -1e12, 1e12
    seen = write_volume(tmp_path / "a.nii", scan.with_array(values), Storage(dtype=np.dtype(dtype)), description="t")
    info = np.iinfo(dtype)
    assert (seen[0, 0, 0], seen[1, 0, 0]) == (np.float32(info.min), np.float32(info.max))


def test_every_chunk_is_written_in_order(tmp_path: Path) -> None:
    shape = (700, 800, 5)  # several chunks
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape, order="F")
    volume = Volume(array, Grid(shape, np.eye(4)))
    seen = write_volume(tmp_path / "a.nii", volume, Storage(dtype=np.dtype("i4")), description="t")
    assert np.array_equal(seen, array)
    assert np.array_equal(read_volume(tmp_path / "a.nii")[0].array, array)


def test_codes_units_display_and_version_are_kept(scan: Volume, tmp_path: Path) -> None:
    image = nib.Nifti2Image(scan.array.astype("i2"), scan.grid.affine)
    image.header.set_sform(scan.grid.affine, 4)
    image.header.set_qform(scan.grid.affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["cal_max"] = 700
    nib.save(image, tmp_path / "a.nii.gz")
    volume, storage = read_volume(tmp_path / "a.nii.gz")
    write_volume(tmp_path / "b.nii.gz", volume, storage, description="test")
    written = nib.load(tmp_path / "b.nii.gz")
    assert isinstance(written, nib.Nifti2Image)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (4, 1)
    assert written.header.get_xyzt_units() == ("mm", "sec")
    assert written.header["cal_max"] == 700
    assert written.get_data_dtype() == np.int16


def test_a_qform_that_differs_moves_as_the_affine_does(scan: Volume, tmp_path: Path) -> None:
    other = np.diag([0.7, 0.9, 3.3, 1.0])
    image = nib.Nifti1Image(scan.array.astype("i2"), scan.grid.affine)
    image.header.set_sform(scan.grid.affine, 2)
    image.header.set_qform(other, 1)
    nib.save(image, tmp_path / "a.nii")
    volume, storage = read_volume(tmp_path / "a.nii")
    fine = volume.grid.with_shape((11, 8, 28))
    write_volume(tmp_path / "b.nii", Volume(np.repeat(volume.array, 4, 2), fine), storage, description="test")
    header = nib.load(tmp_path / "b.nii").header
    assert np.allclose(header.get_sform(), fine.affine, atol=AFFINE_MM)
    assert np.allclose(header.get_qform(), Grid(volume.grid.shape, other).with_shape(fine.shape).affine, atol=AFFINE_MM)


def test_a_header_without_position_stays_so_around_the_same_centre(scan: Volume, tmp_path: Path) -> None:
    image = nib.Nifti1Image(scan.array.astype("i2"), None)
    image.header.set_zooms((0.7, 0.9, 3.3))
    nib.save(image, tmp_path / "a.nii")
    volume, storage = read_volume(tmp_path / "a.nii")
    fine = Volume(np.repeat(volume.array, 4, 2), volume.grid.with_shape((11, 8, 28)))
    write_volume(tmp_path / "b.nii", fine, storage, description="test")
    again, codes = read_volume(tmp_path / "b.nii")
    assert (codes.sform_code, codes.qform_code) == (0, 0)
    assert again.grid.is_close(fine.grid, AFFINE_MM)


def test_the_same_volume_gives_the_same_bytes_and_no_time_stamp(scan: Volume, tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, scan, Storage(dtype=np.dtype("i2")), description="test")
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content == (tmp_path / "b.nii.gz").read_bytes()
    assert content[4:8] == b"\0\0\0\0"
    gzip.decompress(content)


def test_nothing_of_the_input_header_that_could_name_a_patient_is_carried_over(scan: Volume, tmp_path: Path) -> None:
    image = nib.Nifti1Image(scan.array.astype("i2"), scan.grid.affine)
    for field, size in (("descrip", 80), ("db_name", 18), ("aux_file", 24), ("intent_name", 16)):
        image.header[field] = b"DOE^JANE"[:size]
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    nib.save(image, tmp_path / "a.nii")
    volume, storage = read_volume(tmp_path / "a.nii")
    assert np.array_equal(volume.array, scan.array)
    write_volume(tmp_path / "b.nii", volume, storage, description="test")
    assert b"DOE" not in (tmp_path / "b.nii").read_bytes()


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_scaled_values_become_float32_where_there_is_no_slope(suffix: str, scan: Volume, tmp_path: Path) -> None:
    storage = Storage(dtype=np.dtype("i2"), slope=0.1)
    values = scan.array / np.float32(7)
    seen = write_volume(tmp_path / f"a{suffix}", scan.with_array(values), storage, description="t")
    assert np.array_equal(seen, values)
    assert read_header(tmp_path / f"a{suffix}").dtype == np.float32
    assert "float32" in storage.converted_to("metaimage").warnings[-1]


def test_an_mhd_comes_with_its_data_file(scan: Volume, tmp_path: Path) -> None:
    write_volume(tmp_path / "a.mhd", scan, Storage(), description="t")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mhd", "a.raw"]
    write_volume(tmp_path / "a.mhd", scan.with_array(scan.array + 1), Storage(), description="t")
    assert np.array_equal(read_volume(tmp_path / "a.mhd")[0].array, scan.array + 1)


def test_an_mhd_never_takes_the_place_of_a_foreign_data_file(scan: Volume, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"a\.raw"):
        write_volume(tmp_path / "a.mhd", scan, Storage(), description="t")
    assert [p.name for p in tmp_path.iterdir()] == ["a.raw"]
    assert (tmp_path / "a.raw").read_bytes() == b"precious"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_a_result_that_is_not_finite_is_never_written(value: float, suffix: str, scan: Volume, tmp_path: Path) -> None:
    values = scan.array.copy()
    values[2, 3, 4], values[3, 3, 3] = value, -value
    with pytest.raises(RestorationError) as caught:
        write_volume(tmp_path / f"a{suffix}", scan.with_array(values), Storage(), description="t")
    assert caught.value.code == "E_NUMERIC"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file(scan: Volume, tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    write_volume(path, scan, Storage(), description="t")
    old = path.read_bytes()

    class Interrupted(np.ndarray):
        """Values whose last slab is never ready."""

        def astype(self, *args: object, **kwargs: object) -> np.ndarray:
            raise KeyboardInterrupt

    broken = replace(scan, array=scan.array.view(Interrupted))
    with pytest.raises(KeyboardInterrupt):
        write_volume(path, broken, Storage(), description="t")
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def test_a_missing_folder_is_refused_with_what_to_do(scan: Volume, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="create it"):
        write_volume(tmp_path / "none" / "a.nii", scan, Storage(), description="t")


def test_the_input_is_not_changed_by_writing(scan: Volume, tmp_path: Path) -> None:
    before = scan.array.copy()
    for storage in (
        Storage(dtype=np.dtype("u1"), slope=2, inter=1),
        Storage(dtype=np.dtype("i2")),
        Storage(),
    ):
        seen = write_volume(tmp_path / "a.nii", scan, storage, description="t")
        assert not np.shares_memory(seen, scan.array)
    assert np.array_equal(scan.array, before)


@pytest.mark.data
def test_real_scans_come_back_as_they_were(data: Path, tmp_path: Path) -> None:
    for source in sorted((data / "thick").glob("*.nii.gz")):
        volume, storage = read_volume(source)
        write_volume(tmp_path / "a.nii.gz", volume, storage, description="t")
        old, new = nib.load(source), nib.load(tmp_path / "a.nii.gz")
        assert np.array_equal(np.asanyarray(old.dataobj), np.asanyarray(new.dataobj))
        assert np.array_equal(old.affine, new.affine)
        assert old.get_data_dtype() == new.get_data_dtype()
        for field in ("sform_code", "qform_code", "xyzt_units", "cal_max", "cal_min"):
            assert old.header[field] == new.header[field], field
