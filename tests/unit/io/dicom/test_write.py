"""Series of results: the quantised values, exactly, at their places, and the same bytes every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import edit, make_enhanced, make_series, set_tag
from dicom_result import derivation, finer, only_series, read_all, write_finer
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from medld.errors import GridError, InputError, OutputError, RestorationError
from medld.geometry import Grid
from medld.io.dicom import read_series, write_series
from medld.io.dicom.stored import PixelFormat, nearest_index
from medld.io.formats import Storage

AFFINE_MM = 1e-11  # what 16 characters of a position of three digits allow
PADDING = -2000


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "coronal", "oblique"])
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_our_reader_finds_what_was_written(modality: str, orientation: str, tmp_path: Path) -> None:
    make_series(tmp_path / "in", modality=modality, orientation=orientation, slices=5)
    result, _, seen = write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    series = only_series(tmp_path / "out")
    again, _ = read_series(series, allow_output=True)
    assert np.array_equal(again.array, seen)
    assert np.abs(seen - result.array).max() <= 0.5 + 1e-4  # the slope is 1
    assert np.abs(again.grid.affine - result.grid.affine).max() < AFFINE_MM
    assert again.modality == modality.lower()
    assert series.slice_thickness == pytest.approx(result.grid.spacing[2])


def test_an_output_is_not_enhanced_again(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=4)
    write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    with pytest.raises(InputError) as caught:
        read_series(only_series(tmp_path / "out"))
    assert caught.value.code == "E_SECOND_PASS"


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=4)
    for name in ("a", "b"):
        write_finer(only_series(tmp_path / "in"), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 12
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in files)


@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("u2", 12), ("u2", 16), ("i2", 12), ("i2", 16)])
def test_values_are_clipped_to_the_stored_bits(dtype: str, bits: int, tmp_path: Path) -> None:
    values = np.linspace(0, 200, 3 * 20 * 24).reshape(3, 20, 24)
    make_series(tmp_path / "in", slices=3, dtype=dtype, bits_stored=bits, values=values)
    series = only_series(tmp_path / "in")
    source, storage = read_series(series)
    wild = source.with_array(np.where(source.array > 100, np.float32(1e6), np.float32(-1e6)))
    (tmp_path / "out").mkdir()
    seen = write_series(tmp_path / "out", wild, series, storage, derivation(source, wild))
    low, high = (0, 2**bits - 1) if dtype[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert set(np.unique(seen)) == {low, high}
    for dataset in read_all(tmp_path / "out"):
        assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (int(dtype[1]) * 8, bits, bits - 1)
        assert dataset.PixelRepresentation == int(dtype[0] == "i")
        assert {dataset.pixel_array.min(), dataset.pixel_array.max()} <= {low, high}


@given(st.floats(1e-4, 1e3), st.floats(-3000, 3000), st.integers(0, 2**32 - 1))
def test_a_value_is_stored_within_half_a_step(slope: float, inter: float, seed: int) -> None:
    pixels = PixelFormat.of(Storage(format="dicom", dtype=np.dtype("i2"), slope=slope, inter=inter, bits_stored=12))
    low, high = (bound * pixels.slope + pixels.inter for bound in pixels.limits)
    values = np.random.default_rng(seed).uniform(low, high, 100)
    stored = pixels.quantise(values)
    exact = stored.astype(np.float64) * pixels.slope + pixels.inter
    assert np.abs(exact - values).max() <= 0.5 * pixels.slope * (1 + 1e-9)
    assert np.array_equal(pixels.quantise(exact), stored)
    assert np.array_equal(pixels.scale(stored), exact.astype(np.float32))


def test_ct_keeps_slope_and_intercept(tmp_path: Path) -> None:
    make_series(tmp_path / "in", modality="CT", slices=3, slope=2.0, inter=-1000.0)
    write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    for dataset in read_all(tmp_path / "out"):
        assert (float(dataset.RescaleSlope), float(dataset.RescaleIntercept)) == (2.0, -1000.0)
        assert dataset.RescaleType == "HU"


def test_slices_of_several_slopes_get_one(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "in.dcm", slices=4, slopes=[0.5, 0.75, 1.25, 2.0])
    result, _, seen = write_finer(only_series(tmp_path / "in.dcm"), tmp_path / "out")
    (slope,) = {float(dataset.RescaleSlope) for dataset in read_all(tmp_path / "out")}
    assert np.abs(seen - result.array).max() <= slope / 2 + 1e-4  # values are float32
    again, _ = read_series(only_series(tmp_path / "out"), allow_output=True)
    assert np.array_equal(again.array, seen)


@pytest.mark.parametrize("written", [PADDING, 2**16 + PADDING])  # the second as VR US, as GE writes it
def test_padding_is_put_back_where_the_nearest_slice_has_it(written: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    values = rng.uniform(-900, 900, (4, 20, 24))
    holes = rng.random(values.shape) < 0.2
    values[holes] = PADDING - 1024
    paths = make_series(tmp_path / "in", modality="CT", slices=4, values=values)

    def declare(dataset: Dataset, index: int) -> None:
        dataset.add_new(0x00280120, "US" if written > 0 else "SS", written)

    edit(paths, declare)
    _, _, seen = write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    expected = np.repeat(holes.transpose(2, 1, 0), 3, axis=2)
    assert np.array_equal(seen == PADDING - 1024, expected)
    for dataset in read_all(tmp_path / "out"):
        assert (dataset["PixelPaddingValue"].VR, dataset.PixelPaddingValue) == ("SS", PADDING)


def test_a_range_of_padding_is_put_back(tmp_path: Path) -> None:
    values = np.random.default_rng(5).uniform(10, 900, (3, 20, 24))
    values[:, :5, :] = 3
    values[:, 5:8, :] = 6
    paths = make_series(tmp_path / "in", slices=3, values=values)

    def declare(dataset: Dataset, index: int) -> None:
        dataset.add_new(0x00280120, "US", 3)
        dataset.add_new(0x00280121, "US", 7)

    edit(paths, declare)
    _, _, seen = write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    assert (seen[:, :8, :] == 3).all()
    assert (seen[:, 8:, :] > 7).all()


def test_what_was_read_without_inversion_is_written_without(tmp_path: Path) -> None:
    set_tag(make_series(tmp_path / "in", slices=3), "PhotometricInterpretation", "MONOCHROME1")
    result, _, seen = write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    assert {dataset.PhotometricInterpretation for dataset in read_all(tmp_path / "out")} == {"MONOCHROME1"}
    assert np.abs(seen - result.array).max() <= 0.5


def test_an_untouched_slice_axis_keeps_its_thickness(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=3, spacing=4.0, thickness=3.0)
    series = only_series(tmp_path / "in")
    source, storage = read_series(series)
    grid = source.grid.with_shape((48, 40, 3))
    wide = replace(source, array=np.repeat(np.repeat(source.array, 2, 0), 2, 1), grid=grid)
    (tmp_path / "out").mkdir()
    write_series(tmp_path / "out", wide, series, storage, derivation(source, wide))
    for dataset in read_all(tmp_path / "out"):
        assert (float(dataset.SliceThickness), float(dataset.SpacingBetweenSlices)) == (3.0, 4.0)
        assert [float(v) for v in dataset.PixelSpacing] == pytest.approx([0.45, 0.4])
        assert (dataset.Rows, dataset.Columns) == (40, 48)


@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 2))
def test_the_nearest_slice_is_the_nearest(factor: int, count: int, axis: int) -> None:
    affine = np.diag((0.7, 0.8, 5.0, 1.0))
    shape = [4, 4, 4]
    shape[axis] = count
    source = Grid((shape[0], shape[1], shape[2]), affine)
    shape[axis] = count * factor
    found = nearest_index(source.with_shape(shape), source, axis)
    assert np.array_equal(found, np.repeat(np.arange(count), factor))


def test_a_result_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=3)
    series = only_series(tmp_path / "in")
    source, storage = read_series(series)
    array = finer(source).array.copy()
    array[1, 2, 3] = np.nan
    result = finer(source).with_array(array)
    (tmp_path / "out").mkdir()
    with pytest.raises(RestorationError):
        write_series(tmp_path / "out", result, series, storage, derivation(source, result))
    assert not list((tmp_path / "out").iterdir())


def test_only_an_empty_folder_and_the_source_s_axes_are_taken(tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=3)
    series = only_series(tmp_path / "in")
    source, storage = read_series(series)
    with pytest.raises(OutputError, match="not empty"):
        write_series(tmp_path / "in", source, series, storage, derivation(source, source))
    with pytest.raises(OutputError, match="cannot be written"):
        write_series(tmp_path / "none", source, series, storage, derivation(source, source))
    (tmp_path / "out").mkdir()
    for turned in (source.flipped(2), source.permuted((1, 0, 2))):
        with pytest.raises(GridError, match="axes"):
            write_series(tmp_path / "out", turned, series, storage, derivation(source, turned))
