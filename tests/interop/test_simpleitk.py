"""Against SimpleITK: a voxel lies at the same place, with the signs of LPS and RAS between the two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medld.geometry import Grid
from medld.io import SUFFIXES, Storage, read_volume, write_volume
from medld.volume import Volume

INDEX = (4, 2, 5)
POSITION_MM = 1e-4  # NIfTI-1 stores float32


def lps_to_ras(point: tuple[float, float, float]) -> np.ndarray:
    return np.array(point) * (-1, -1, 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_simpleitk_reads_what_we_write(suffix: str, scan: Volume, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    seen = write_volume(path, scan, Storage(dtype=np.dtype("i2")), description="test")
    image = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(image).T, seen)
    expected = (scan.grid.affine @ (*INDEX, 1))[:3]
    assert np.abs(lps_to_ras(image.TransformIndexToPhysicalPoint(INDEX)) - expected).max() < POSITION_MM


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "i8"])
def test_we_read_what_simpleitk_writes(
    suffix: str, compressed: bool, dtype: str, oblique: Grid, rng: np.random.Generator, tmp_path: Path
) -> None:
    array = rng.integers(0, 250, oblique.shape).astype(dtype)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(oblique.spacing)
    image.SetOrigin((oblique.affine[:3, 3] * (-1, -1, 1)).tolist())
    image.SetDirection((np.diag([-1.0, -1, 1]) @ oblique.direction).ravel().tolist())
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path), compressed)
    volume, storage = read_volume(path)
    assert np.array_equal(volume.array, array)
    assert volume.grid.is_close(oblique, POSITION_MM)
    assert storage.dtype == np.dtype("i4" if dtype == "i8" else dtype)


@pytest.mark.parametrize(
    ("source", "goal"), [(".nii.gz", ".mha"), (".nrrd", ".nii"), (".mhd", ".nrrd"), (".mha", ".nii.gz")]
)
def test_a_converted_volume_stays_in_place(source: str, goal: str, scan: Volume, tmp_path: Path) -> None:
    write_volume(tmp_path / f"a{source}", scan, Storage(dtype=np.dtype("i2")), description="test")
    first, storage = read_volume(tmp_path / f"a{source}")
    write_volume(tmp_path / f"b{goal}", first, storage, description="test")
    second, _ = read_volume(tmp_path / f"b{goal}")
    assert np.array_equal(second.array, first.array)
    assert second.grid.is_close(first.grid, POSITION_MM)


def test_left_handed_grids_survive_every_format(left_handed: Grid, rng: np.random.Generator, tmp_path: Path) -> None:
    volume = Volume(rng.integers(0, 900, left_handed.shape).astype(np.float32), left_handed)
    for suffix in SUFFIXES:
        write_volume(tmp_path / f"a{suffix}", volume, Storage(dtype=np.dtype("i2")), description="test")
        again, _ = read_volume(tmp_path / f"a{suffix}")
        assert np.array_equal(again.grid.affine, left_handed.affine), suffix
        assert np.array_equal(again.array, volume.array), suffix
