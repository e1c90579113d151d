"""Against nibabel: the same positions, letters and values."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medld.geometry import Grid
from medld.io import Storage, read_header, read_volume, write_volume
from medld.volume import Volume


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_orientation_and_spacing_are_nibabels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.standard_normal((3, 3)))[0] * rng.uniform(0.3, 6, 3)
    grid = Grid((5, 6, 7), affine)
    assert np.allclose(grid.spacing, nib.affines.voxel_sizes(affine))
    # Where an axis lies near a diagonal the two choose differently: nibabel settles one axis at a
    # time, we the three together. Above 1/sqrt(2) no two axes can want the same letter.
    if (np.abs(grid.direction).max(axis=0) > 0.71).all():
        assert grid.orientation == "".join(nib.aff2axcodes(affine))


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_values_and_affine_are_nibabels(
    dtype: str, kind: type, oblique: Grid, rng: np.random.Generator, tmp_path: Path
) -> None:
    image = kind(rng.integers(-100 if dtype[0] != "u" else 0, 100, oblique.shape).astype(dtype), oblique.affine)
    image.header.set_slope_inter(0.37, -12.5)
    nib.save(image, tmp_path / "a.nii.gz")
    loaded = nib.load(tmp_path / "a.nii.gz")
    volume, storage = read_volume(tmp_path / "a.nii.gz")
    assert np.array_equal(volume.array, loaded.get_fdata().astype(np.float32))
    assert np.array_equal(volume.grid.affine, loaded.affine)
    assert storage.dtype == loaded.get_data_dtype()
    assert (storage.slope, storage.inter) == (loaded.dataobj.slope, loaded.dataobj.inter)


def test_nibabel_reads_what_we_write(scan: Volume, tmp_path: Path) -> None:
    storage = Storage(dtype=np.dtype("i2"), slope=0.5, inter=3.0)
    seen = write_volume(tmp_path / "a.nii.gz", scan, storage, description="medld 0.1.0 sr")
    loaded = nib.load(tmp_path / "a.nii.gz")
    assert np.array_equal(loaded.get_fdata(dtype=np.float32), seen)
    assert np.allclose(loaded.affine, scan.grid.affine, atol=1e-5)
    assert np.allclose(loaded.header.get_qform(), scan.grid.affine, atol=1e-4)
    assert bytes(loaded.header["descrip"].tobytes()).startswith(b"medld 0.1.0 sr")
    # nibabel's checker finds nothing to say about the header.
    report = [r for r in nib.Nifti1Header.diagnose_binaryblock(loaded.header.binaryblock).splitlines() if r]
    assert report == []


@pytest.mark.data
def test_the_shipped_scans_are_read_as_nibabel_reads_them(data: Path) -> None:
    for path in sorted((data / "val").glob("*.nii.gz")):
        loaded = nib.load(path)
        header = read_header(path)
        assert np.array_equal(header.grid.affine, loaded.affine)
        assert header.dtype == loaded.get_data_dtype()
        assert np.array_equal(read_volume(path)[0].array, loaded.get_fdata(dtype=np.float32))
