"""Sketches: cuts and spectra survive the disk, and a report does without what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medld.geometry import Grid
from medld.report import Sketch, Sketcher, SketchStore
from medld.report.planes import Planes, cut_planes
from medld.report.sketch import BANDS
from medld.volume import Volume


@pytest.fixture
def truth(rng: np.random.Generator) -> Volume:
    """Sagittal slices, in scanner units far from zero, across the first array axis."""
    grid = Grid((48, 10, 12), np.array([[0, -1.0, 0, 3], [0, 0, 1.25, 7], [1.5, 0, 0, -9], [0, 0, 0, 1]]))
    return Volume(rng.random(grid.shape).astype(np.float32) * 3000 - 1000, grid)


def sketch(truth: Volume, output: np.ndarray) -> Sketch:
    """A sketch with one method and its uncertainty."""
    sketcher = Sketcher(truth, "through-plane-4x", "a/sub-01_T1w.nii.gz", 0, 4.0)
    sketcher.add("m", output, spread=np.abs(output - truth.array))
    sketcher.add("plain", output, pictured=False)
    return sketcher.finish()


def values(planes: Planes) -> list[np.ndarray]:
    """Of the three planes."""
    return [plane.values for plane in planes]


def test_planes_are_those_of_the_volumes_in_parts_of_the_truths_range(truth: Volume) -> None:
    found = sketch(truth, truth.array + 300)
    low, extent = truth.array.min(), np.ptp(truth.array)
    for own, plane in zip(values(found.truth), cut_planes(truth), strict=True):
        assert own == pytest.approx((plane.values - low) / extent, abs=1e-3)  # float16
        assert own.shape == plane.values.shape
    for one, other, spread in zip(*map(values, (found.outputs["m"], found.truth, found.spreads["m"])), strict=True):
        assert one - other == pytest.approx(np.full(one.shape, 300 / extent), abs=1e-3)
        assert spread == pytest.approx(np.full(one.shape, 300 / extent), abs=1e-3)
    assert "plain" not in found.outputs


def test_the_spread_of_samples_is_their_deviation(truth: Volume, rng: np.random.Generator) -> None:
    samples = [truth.array + 100 * rng.standard_normal(truth.array.shape) for _ in range(4)]
    sketcher = Sketcher(truth, "p", "f", 0, 4.0)
    sketcher.add("known", truth.array, spread=np.std(samples, axis=0, ddof=1))
    sketcher.add("drawn", truth.array, samples=samples)
    sketcher.add("alone", truth.array, samples=samples[:1])
    sketcher.add("unseen", truth.array, samples=samples, pictured=False)
    spreads = sketcher.finish().spreads
    assert set(spreads) == {"known", "drawn"}
    for one, other in zip(values(spreads["known"]), values(spreads["drawn"]), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
        assert one.max() > 0.01


def test_a_sketch_comes_back_from_disk_as_it_was(truth: Volume, rng: np.random.Generator, tmp_path: Path) -> None:
    made, store = sketch(truth, truth.array + rng.random(truth.array.shape)), SketchStore((tmp_path / "a" / "b",))
    store.save(made)
    found = store.find(made.protocol, made.file)
    assert found is not None
    assert (found.protocol, found.file, found.ratio, found.window) == (made.protocol, made.file, 4.0, made.window)
    for one, other in ((found.truth, made.truth), (found.outputs["m"], made.outputs["m"])):
        assert all(np.array_equal(a, b) for a, b in zip(values(one), values(other), strict=True))
        assert [(p.name, p.spacing, p.left) for p in one] == [(p.name, p.spacing, p.left) for p in other]
    assert found.truth_spectrum is not None
    assert np.array_equal(found.truth_spectrum, made.truth_spectrum)
    assert {name: list(s) for name, s in found.spectra.items()} == {n: list(s) for n, s in made.spectra.items()}
    assert list(found.spreads) == ["m"]


def test_scans_are_found_in_all_folders_and_no_other_scan_is(truth: Volume, tmp_path: Path) -> None:
    made = sketch(truth, truth.array)
    first, second = (SketchStore((tmp_path / name,)) for name in "ab")
    first.save(made)
    second.save(replace(made, file="b"))
    both = SketchStore((*first.folders, *second.folders, tmp_path / "not there"))
    assert both.find(made.protocol, made.file) is not None
    assert both.find(made.protocol, "b") is not None
    assert both.find("isotropic-2x", made.file) is None
    assert SketchStore().find(made.protocol, made.file) is None


@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_a_damaged_sketch_is_as_good_as_none(keep: int, truth: Volume, tmp_path: Path) -> None:
    made, store = sketch(truth, truth.array), SketchStore((tmp_path,))
    store.save(made)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:keep])
    assert store.find(made.protocol, made.file) is None


def test_removing_leaves_nothing_of_ours_and_all_of_others(truth: Volume, tmp_path: Path) -> None:
    store = SketchStore((tmp_path / "own", tmp_path / "shared"))
    store.save(sketch(truth, truth.array))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "notes.txt").write_text("keep")
    store.remove()
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["shared", "notes.txt"]


@pytest.mark.parametrize("band", [2, 9, 14])
def test_a_wave_is_in_its_own_band_of_the_spectrum(band: int, truth: Volume) -> None:
    frequency = (band + 0.5) / (2 * BANDS)  # cycles a voxel, in the middle of the band
    wave = np.cos(2 * np.pi * frequency * np.arange(truth.grid.shape[0]))[:, None, None]
    found = sketch(truth, np.broadcast_to(wave, truth.grid.shape)).spectra["m"]
    assert int(np.argmax(found)) == band
    # A Hann window's neighbours hold the rest.
    assert found[band - 1 : band + 2].sum() > 0.99 * found.sum()


def test_a_short_axis_has_no_spectrum(truth: Volume) -> None:
    made = Sketcher(truth, "p", "f", 1, 2.0)
    made.add("m", truth.array)
    assert made.finish().truth_spectrum is None
    assert made.finish().spectra == {}


def test_a_sketch_is_small(truth: Volume, tmp_path: Path) -> None:
    grid = Grid((64, 64, 64), np.eye(4))
    array = np.random.default_rng(0).random(grid.shape).astype(np.float32)
    store = SketchStore((tmp_path,))
    store.save(sketch(Volume(array, grid), array))
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size < array.nbytes / 15
