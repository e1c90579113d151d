from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fine_scans import make_head, make_volume, save_cohort, save_scan
from scipy.ndimage import map_coordinates

from medld.errors import GridError, InputError, OutputError
from medld.evaluation.exchange import OtherTool, align_axes, matching, resample, write_scans
from medld.evaluation.protocol import load_protocol
from medld.evaluation.simulate import simulate
from medld.evaluation.sources import find_source
from medld.geometry import Grid
from medld.io import read_volume
from medld.volume import Volume

HALF_A_MICROMETRE = 5e-4
AFFINE = np.array([[-0.89, 0.02, 0.1, 30], [0.04, 0.9, 0.03, -20], [0.1, -0.03, 0.99, 5], [0, 0, 0, 1]])


def _oblique(shape: tuple[int, int, int]) -> Grid:
    direction, _ = np.linalg.qr(AFFINE[:3, :3])
    affine = AFFINE.copy()
    affine[:3, :3] = direction * np.sign(np.diag(direction)) * [-0.9, 0.9, 1.0]
    return Grid(shape, affine)


def _names(matches: list[Path]) -> list[str]:
    return [path.name for path in matches]


@pytest.mark.parametrize(
    ("output", "is_its"),
    [
        ("sub-1_T1w.nii.gz", True),
        ("sub-1_T1w.nii", True),
        ("sub-1_T1w_SynthSR.nii.gz", True),
        ("sub-1_desc-sr_T1w.nii.gz", True),
        ("sub-1_T1w-eclare.mha", True),
        ("sub-1_T2w.nii.gz", False),
        ("sub-12_T1w.nii.gz", False),
        ("sub-1_T1wx.nii.gz", False),
    ],
)
def test_an_output_has_the_name_of_its_scan_or_a_longer_one(output: str, is_its: bool) -> None:
    assert _names(matching("sub-1_T1w", (), [Path(output)])) == ([output] if is_its else [])


def test_an_output_of_a_longer_name_is_not_taken_for_a_shorter_scans() -> None:
    files = [Path("a_sr.nii.gz"), Path("a_two_sr.nii.gz"), Path("a.nii.gz")]
    assert _names(matching("a", ["a_two"], files)) == ["a.nii.gz"]
    assert _names(matching("a", ["a_two"], files[:2])) == ["a_sr.nii.gz"]


def test_finds_outputs_by_protocol_and_beside_each_other_only_for_one(tmp_path: Path) -> None:
    tool = OtherTool("x", tmp_path)
    save_scan(tmp_path / "p" / "deep" / "a_x.nii.gz", make_head())
    save_scan(tmp_path / "b_x.nii.gz", make_head())
    names = ("deep/a.nii.gz", "b.nii.gz")
    assert tool.find("deep/a.nii.gz", "p", names, alone=False) == tmp_path / "p" / "deep" / "a_x.nii.gz"
    assert tool.find("b.nii.gz", "p", names, alone=False) is None
    assert tool.find("b.nii.gz", "p", names, alone=True) == tmp_path / "b_x.nii.gz"
    save_scan(tmp_path / "b_y.nii.gz", make_head())
    with pytest.raises(InputError, match=r"b_x\.nii\.gz, b_y\.nii\.gz"):
        tool.find("b.nii.gz", "p", names, alone=True)


def test_names_outputs_whose_truth_is_missing(tmp_path: Path) -> None:
    save_scan(tmp_path / "p" / "a_x.nii.gz", make_head())
    save_scan(tmp_path / "p" / "c_x.nii.gz", make_head())
    assert OtherTool("x", tmp_path).unmatched(("a.nii.gz",), "p", alone=False) == ("c_x.nii.gz",)
    assert OtherTool("x", tmp_path / "none").unmatched(("a.nii.gz",), "p", alone=True) == ()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_other_axes_are_the_same_voxels(order: tuple[int, int, int], flips: tuple[int, ...], tmp_path: Path) -> None:
    grid = _oblique((12, 13, 14))
    truth = Volume(make_head(shape=grid.shape).astype(np.float32), grid)
    stored = truth.permuted(order)
    for axis in flips:
        stored = stored.flipped(axis)
    path = save_scan(tmp_path / "a.nii.gz", stored.array, stored.grid.affine)
    found = OtherTool("x", tmp_path).read(path, grid)
    np.testing.assert_array_equal(found.array, truth.array)
    assert align_axes(stored, grid).grid.is_close(grid, HALF_A_MICROMETRE)


@pytest.mark.parametrize("change", ["shift", "shape", "spacing"])
def test_another_grid_is_refused_unless_asked_to_resample(change: str, tmp_path: Path) -> None:
    grid = _oblique((14, 15, 16))
    own = {
        "shift": Grid(grid.shape, grid.affine + np.array([[0, 0, 0, 0.05], *[[0.0] * 4] * 3])),
        "shape": grid.cropped((0, 0, 0), (14, 15, 15)),
        "spacing": grid.with_shape((28, 30, 32)),
    }[change]
    path = save_scan(tmp_path / "a.nii.gz", make_head(shape=own.shape).astype(np.float32), own.affine)
    with pytest.raises(GridError, match=r"14 x 15 x 16 .*--resample-others") as caught:
        OtherTool("x", tmp_path).read(path, grid)
    assert caught.value.code == "E_NO_GEOM"
    found = OtherTool("x", tmp_path, resample=True).read(path, grid)
    assert found.array.shape == grid.shape
    assert "resampled" in found.how


def test_a_header_rounded_to_single_precision_is_the_same_grid(tmp_path: Path) -> None:
    grid = _oblique((14, 15, 16))
    affine = grid.affine.astype(np.float32).astype(np.float64)
    path = save_scan(tmp_path / "a.nii.gz", make_head(shape=grid.shape), affine)
    assert "resampled" not in OtherTool("x", tmp_path).read(path, grid).how


def test_resampling_is_scipys_cubic_spline_at_the_truths_voxels() -> None:
    grid = _oblique((14, 15, 16))
    own = grid.with_shape((20, 21, 22))
    volume = Volume(make_head(shape=own.shape).astype(np.float32), own)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1) + 0.5
    inside = np.moveaxis(index * np.array(own.shape) / np.array(grid.shape) - 0.5, -1, 0)
    expected = map_coordinates(volume.array.astype(np.float64), inside, order=3, mode="nearest")
    np.testing.assert_allclose(resample(volume, grid).array, expected, atol=1e-3)


def test_an_output_of_another_place_is_refused_even_then() -> None:
    grid = _oblique((14, 15, 16))
    away = grid.affine + np.array([[0, 0, 0, 8.0], *[[0.0] * 4] * 3])
    with pytest.raises(GridError, match="of its box"):
        resample(Volume(make_head(shape=grid.shape), Grid(grid.shape, away)), grid)


def test_an_output_with_nan_is_refused(tmp_path: Path) -> None:
    array = make_head()
    array[3, 3, 3] = np.nan
    path = save_scan(tmp_path / "a.nii.gz", array)
    with pytest.raises(InputError, match="NaN") as caught:
        OtherTool("x", tmp_path).read(path, make_volume(array).grid)
    assert caught.value.code == "E_PIXELS"


def test_simulated_scans_are_those_that_are_compared_and_say_what_they_are(tmp_path: Path) -> None:
    source = find_source(save_cohort(tmp_path / "fine", 2))
    (tmp_path / "fine" / "broken.nii.gz").write_text("not an image")
    lines: list[str] = []
    protocols = [load_protocol("through-plane-5mm-gap"), load_protocol("isotropic-2x")]
    count = write_scans(find_source(tmp_path / "fine"), protocols, tmp_path / "out", lines.append)
    assert (count, len(lines)) == (4, 2)
    path = tmp_path / "out" / "through-plane-5mm-gap" / "sub-01_T1w.nii.gz"
    volume, _ = read_volume(path)
    truth, scan = simulate(source.scans[0].read(), protocols[0], "sub-01_T1w.nii.gz")
    np.testing.assert_array_equal(volume.array, scan.array)
    assert volume.grid.is_close(scan.grid)
    told = json.loads(path.with_name("sub-01_T1w.json").read_text())
    assert told["SliceThickness"] == pytest.approx(4)
    assert told["SpacingBetweenSlices"] == pytest.approx(scan.grid.spacing[2])
    assert told["TargetSpacing"] == pytest.approx(truth.grid.spacing)


def test_simulated_scans_do_not_go_among_the_fine_ones(tmp_path: Path) -> None:
    source = find_source(save_cohort(tmp_path, 1))
    with pytest.raises(OutputError, match="outside"):
        write_scans(source, [load_protocol("isotropic-2x")], tmp_path / "sim")
