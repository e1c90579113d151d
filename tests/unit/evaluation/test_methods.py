"""Cubic, B and other tools' outputs as the program makes them, and models under their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fine_scans import make_head, make_volume, save_scan
from scipy.ndimage import map_coordinates

from medld.checkpoint import list_models
from medld.errors import CheckpointError, ConfigError, InputError
from medld.evaluation import load_protocol, simulate, upsample_cubic
from medld.evaluation.exchange import OtherTool
from medld.evaluation.methods import BASELINES, Case, Resolver, load_models, make_methods, request_for
from medld.evaluation.simulate import image
from medld.geometry import choose_target
from medld.io import read_volume
from medld.metrics import Reference
from medld.superres import Request, SuperResolver

SINGLE_PRECISION = 2e-4
"""Of the range: A^+ divides float32 sums by eigenvalues down to 1e-4 of the largest, at 2x to 6x."""

HEAD = (40, 44, 48)


def _spline_by_scipy(slices: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Cubic B-spline along the last axis at `positions` (slices), mirrored at and level beyond the faces."""
    positions = np.clip(positions, -0.5, slices.shape[-1] - 0.5)
    index = np.meshgrid(*(np.arange(n) for n in slices.shape[:-1]), positions, indexing="ij")
    # Whole in-plane positions: there a spline gives back its samples, so only the last axis is interpolated.
    return np.asarray(map_coordinates(slices.astype(np.float64), index, order=3, mode="reflect"))


def _baseline_by_scipy(slices: np.ndarray, n: int, fwhm: float | None = None) -> np.ndarray:
    """B along the last axis by design sections 2 and 4: b + A^T (A A^T + lambda)^-1 (y - A b); `fwhm` in voxels."""
    k = slices.shape[-1]
    r = n / k
    margin = int(np.ceil(r))
    voxels = np.arange(-margin, n + margin)
    centres = (np.arange(k) + 0.5) * r - 0.5
    sigma = (fwhm or r) / np.sqrt(8 * np.log(2))
    a = np.exp(-((voxels - centres[:, None]) ** 2) / (2 * sigma**2))
    a /= a.sum(1, keepdims=True)
    normal = a @ a.T
    normal += 1e-6 * np.linalg.norm(normal, 2) * np.eye(k)
    b = _spline_by_scipy(slices, (voxels + 0.5) / r - 0.5)
    result = b + (slices - b @ a.T) @ np.linalg.solve(normal, a)
    return result[..., margin:-margin]


@pytest.mark.parametrize("name", ["through-plane-2x", "through-plane-3.5x", "through-plane-4x", "through-plane-6x"])
def test_cubic_and_b_are_those_of_an_independent_scipy_implementation(name: str) -> None:
    truth, scan = simulate(make_volume(make_head(shape=HEAD)), load_protocol(name))
    n, k = truth.array.shape[2], scan.array.shape[2]
    data_range = float(np.ptp(truth.array))
    cubic = _spline_by_scipy(scan.array, (np.arange(n) + 0.5) * k / n - 0.5)
    assert np.abs(upsample_cubic(scan, truth.grid.shape) - cubic).max() < 1e-5 * data_range
    request = Request(choose_target(scan.grid, spacing=truth.grid.spacing), consistency="exact")
    b = SuperResolver(None, device="cpu").restore(scan, request).volume
    assert b.grid.is_close(truth.grid)
    assert np.abs(b.array - _baseline_by_scipy(scan.array, n)).max() < SINGLE_PRECISION * data_range
    reference = Reference(truth.array)
    assert reference.psnr(b.array) == pytest.approx(reference.psnr(_baseline_by_scipy(scan.array, n)), abs=2e-3)


@pytest.mark.data
def test_b_of_a_real_scan_is_the_independent_one(data: Path) -> None:
    volume, _ = read_volume(data / "val" / "sub-ds002748s07_T1w.nii.gz")
    truth, scan = simulate(volume, load_protocol("through-plane-4x"))
    request = Request(choose_target(scan.grid, spacing=truth.grid.spacing), consistency="exact")
    b = SuperResolver(None, device="cpu").restore(scan, request).volume.array
    expected = _baseline_by_scipy(scan.array, truth.array.shape[2])
    assert np.abs(b - expected).max() < SINGLE_PRECISION * float(np.ptp(truth.array))


def test_cubic_of_coarse_voxels_is_the_spline_on_every_axis() -> None:
    truth, scan = simulate(make_volume(make_head(shape=HEAD)), load_protocol("isotropic-2x"))
    expected = scan.array.astype(np.float64)
    for axis, n in enumerate(truth.array.shape):
        moved = np.moveaxis(expected, axis, -1)
        expected = np.moveaxis(_spline_by_scipy(moved, (np.arange(n) + 0.5) / 2 - 0.5), -1, axis)
    cubic = upsample_cubic(scan, truth.grid.shape)
    assert np.abs(cubic - expected).max() < 1e-5 * float(np.ptp(truth.array))


def test_b_is_told_of_a_gap() -> None:
    protocol = load_protocol("through-plane-5mm-gap")
    made = image(make_volume(make_head(shape=(20, 22, 60))), protocol)
    request = request_for(made, protocol)
    assert request.thickness == (None, None, 4)
    case = Case(made, protocol, "a.nii.gz", ("a.nii.gz",), True)
    (b,) = make_methods(["B"], {}, [], device="cpu")
    expected = _baseline_by_scipy(made.scan.array, made.truth.array.shape[2], fwhm=4.0)
    assert np.abs(b.restore(case).array - expected).max() < SINGLE_PRECISION * np.ptp(made.truth.array)


def test_b_of_a_block_mean_gives_the_blocks_back() -> None:
    protocol = load_protocol("blockmean-2x")
    made = image(make_volume(make_head(shape=(20, 22, 24))), protocol)
    (b,) = make_methods(["B"], {}, [], device="cpu")
    output = b.restore(Case(made, protocol, "a.nii.gz", ("a.nii.gz",), True)).array
    blocks = output.astype(np.float64).reshape(10, 2, 11, 2, 12, 2).mean((1, 3, 5))
    assert np.abs(blocks - made.scan.array).max() < SINGLE_PRECISION * np.ptp(made.truth.array)


def test_k_space_is_told_as_a_box_along_every_axis() -> None:
    protocol = load_protocol("kspace-2x")
    request = request_for(image(make_volume(make_head()), protocol), protocol)
    assert (request.profile, request.thickness, request.consistency) == ("box", (None, None, None), "exact")


def test_methods_come_in_the_order_of_a_table() -> None:
    names = [method.name for method in make_methods(("B", "nearest", "lanczos"), {}, [OtherTool("x", Path())])]
    assert names == ["nearest", "lanczos", "B", "x"]
    assert [method.name for method in make_methods(BASELINES, {}, [])] == list(BASELINES)


def test_a_method_needs_a_name_of_its_own() -> None:
    for name in ("B", "x", ""):
        with pytest.raises(ConfigError, match="name of its own"):
            make_methods(("cubic",), {}, [OtherTool("x", Path()), OtherTool(name, Path())])
    with pytest.raises(ConfigError, match="quintic"):
        make_methods(("quintic",), {}, [])


def test_one_model_is_ours_and_several_have_their_names() -> None:
    if not list_models():
        pytest.skip("no model is shipped")
    assert list(load_models(None)[0]) == ["medld"]
    assert list(load_models("baseline")[0]) == []
    assert list(load_models(["mri", "again=mri", "baseline"])[0]) == ["mri", "again"]
    with pytest.raises(ConfigError, match="--model NAME=DIR"):
        load_models(["mri", "mri"])
    with pytest.raises(CheckpointError):
        load_models(["mri", "no-such-model"])


def test_an_output_that_is_missing_says_so(tmp_path: Path) -> None:
    protocol = load_protocol("through-plane-4x")
    made = image(make_volume(make_head()), protocol)
    (other,) = make_methods((), {}, [OtherTool("x", tmp_path)])
    case = Case(made, protocol, "a.nii.gz", ("a.nii.gz",), False)
    with pytest.raises(InputError, match=r"output of x for a\.nii\.gz"):
        other.restore(case)
    save_scan(tmp_path / protocol.name / "a_x.nii.gz", made.truth.array)
    output = other.restore(case)
    np.testing.assert_array_equal(output.array, made.truth.array)
    assert (output.how, len(output.sha256)) == ("a_x.nii.gz", 64)


def test_models_and_b_are_resolvers_in_the_mode_that_was_asked() -> None:
    if not list_models():
        pytest.skip("no model is shipped")
    models = load_models("mri")[0]
    b, ours = (method for method in make_methods(("B",), models, [], mode="balanced") if isinstance(method, Resolver))
    assert (b.mode, ours.mode) == ("fidelity", "balanced")
