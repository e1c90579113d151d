from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from medld.build import build_networks
from medld.checkpoint import load_model, save_model
from medld.config import ModelConfig, NetworkConfig
from medld.errors import CheckpointError, ConfigError, InputError, OutputError
from medld.evaluation import evaluate, load_protocol, simulate, upsample_cubic
from medld.evaluation.run import find_scans, subject_of
from medld.geometry import Grid, choose_target
from medld.io import read_volume
from medld.metrics import Reference
from medld.superres import Request, SuperResolver
from medld.volume import Volume

SINGLE_PRECISION = 2e-4
"""Of the range: A^+ divides float32 sums by eigenvalues down to 1e-4 of the largest, at 2x to 6x."""


def _head(seed: int = 0, shape: tuple[int, int, int] = (40, 44, 48)) -> np.ndarray:
    """A textured ellipsoid in empty air, 0 to about 1500."""
    rng = np.random.default_rng(seed)
    i, j, k = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    texture = gaussian_filter(rng.standard_normal(shape), 1.2)
    return np.where(i**2 + j**2 + k**2 < 1, 600 + 900 * texture, 0).clip(0)


def _save(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (0.9, 0.9, 1.0)) -> None:
    image = nibabel.Nifti1Image(array, np.diag([*spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def _volume(array: np.ndarray) -> Volume:
    return Volume(array.astype(np.float32), Grid(array.shape, np.diag([0.9, 0.9, 1.0, 1.0])), "mr", "T1w")


def _spline_by_scipy(slices: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Cubic B-spline along the last axis at `positions` (slices), mirrored at and level beyond the faces."""
    positions = np.clip(positions, -0.5, slices.shape[-1] - 0.5)
    index = np.meshgrid(*(np.arange(n) for n in slices.shape[:-1]), positions, indexing="ij")
    # Whole in-plane positions: there a spline gives back its samples, so only the last axis is interpolated.
    return np.asarray(map_coordinates(slices.astype(np.float64), index, order=3, mode="reflect"))


def _baseline_by_scipy(slices: np.ndarray, n: int) -> np.ndarray:
    """B along the last axis by design sections 2 and 4: b + A^T (A A^T + lambda)^-1 (y - A b)."""
    k = slices.shape[-1]
    r = n / k
    margin = int(np.ceil(r))
    voxels = np.arange(-margin, n + margin)
    centres = (np.arange(k) + 0.5) * r - 0.5
    sigma = r / np.sqrt(8 * np.log(2))
    a = np.exp(-((voxels - centres[:, None]) ** 2) / (2 * sigma**2))
    a /= a.sum(1, keepdims=True)
    normal = a @ a.T
    normal += 1e-6 * np.linalg.norm(normal, 2) * np.eye(k)
    b = _spline_by_scipy(slices, (voxels + 0.5) / r - 0.5)
    result = b + (slices - b @ a.T) @ np.linalg.solve(normal, a)
    return result[..., margin:-margin]


@pytest.mark.parametrize("name", ["through-plane-2x", "through-plane-3.5x", "through-plane-4x", "through-plane-6x"])
def test_cubic_and_b_are_those_of_an_independent_scipy_implementation(name: str) -> None:
    truth, scan = simulate(_volume(_head()), load_protocol(name))
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
    truth, scan = simulate(_volume(_head()), load_protocol("isotropic-2x"))
    expected = scan.array.astype(np.float64)
    for axis, n in enumerate(truth.array.shape):
        moved = np.moveaxis(expected, axis, -1)
        expected = np.moveaxis(_spline_by_scipy(moved, (np.arange(n) + 0.5) / 2 - 0.5), -1, axis)
    cubic = upsample_cubic(scan, truth.grid.shape)
    assert np.abs(cubic - expected).max() < 1e-5 * float(np.ptp(truth.array))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two T1 scans, a T2 scan, a CT scan and a file that is none."""
    folder = tmp_path_factory.mktemp("scans")
    _save(folder / "sub-01_T1w.nii.gz", _head(1).astype(np.int16))
    _save(folder / "sub-02_T1w.nii.gz", _head(2).astype(np.int16))
    _save(folder / "deeper" / "sub-02_T2w.nii.gz", _head(3).astype(np.float32))
    _save(folder / "sub-03_CT.nii.gz", (_head(4) * 1.5 - 1000).astype(np.int16))
    (folder / "sub-04_T1w.nii.gz").write_text("not an image")
    return folder


def _evaluate(folder: Path, out: Path, **options: Any) -> dict[str, Any]:
    lines: list[str] = []
    protocols = ["through-plane-4x", "isotropic-2x"]
    evaluate(folder, protocols, out, model="baseline", device="cpu", report=lines.append, **options)
    record: dict[str, Any] = json.loads((out / "results.json").read_text())
    assert sum("through-plane-4x" in line and "T1w" in line and "cubic  " in line for line in lines) == 1
    return record


def test_the_record_holds_every_scan_by_every_protocol(folder: Path, tmp_path: Path) -> None:
    record = _evaluate(folder, tmp_path / "out")
    rows = [(row["protocol"], row["file"], row["method"]) for row in record["subjects"]]
    files = ["deeper/sub-02_T2w.nii.gz", "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz", "sub-03_CT.nii.gz"]
    protocols = ["through-plane-4x", "isotropic-2x"]
    assert rows == [(p, f, m) for p in protocols for f in files for m in ("cubic", "B")]
    assert {(s["protocol"], s["code"]) for s in record["skipped"]} == {(p, "E_NOT_IMAGE") for p in protocols}
    with (tmp_path / "out" / "subjects.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["psnr"]) for row in table] == [row["psnr"] for row in record["subjects"]]


def test_groups_are_contrasts_and_ct_stands_apart(folder: Path, tmp_path: Path) -> None:
    record = _evaluate(folder, tmp_path / "out")
    lines = [(s["group"], s["method"], s["scans"]) for s in record["summary"] if s["protocol"] == "isotropic-2x"]
    assert lines == [(g, m, n) for g, n in (("CT", 1), ("T1w", 2), ("T2w", 1)) for m in ("cubic", "B")]


def test_gains_count_from_b(folder: Path, tmp_path: Path) -> None:
    record = _evaluate(folder, tmp_path / "out")
    for row in record["subjects"]:
        assert row["gain"] == 0 if row["method"] == "B" else row["gain"] < 0


def test_the_same_run_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for out in ("first", "second"):
        _evaluate(folder, tmp_path / out)
    for name in ("results.json", "subjects.csv"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_limit_takes_whole_subjects_and_leaves_their_numbers_alone(folder: Path, tmp_path: Path) -> None:
    whole = _evaluate(folder, tmp_path / "whole")
    part = _evaluate(folder, tmp_path / "part", limit=2)
    kept = [row for row in whole["subjects"] if row["subject"] in ("sub-01", "sub-02")]
    assert part["subjects"] == kept


def test_earlier_results_are_replaced_only_when_told(folder: Path, tmp_path: Path) -> None:
    _evaluate(folder, tmp_path, limit=1)
    with pytest.raises(OutputError):
        _evaluate(folder, tmp_path, limit=1)
    _evaluate(folder, tmp_path, limit=1, overwrite=True)


def test_refuses_a_run_without_scans_or_protocols_or_sense(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        evaluate(tmp_path, ["through-plane-4x"], tmp_path / "out")
    with pytest.raises(ConfigError):
        evaluate(folder, [], tmp_path / "out")
    with pytest.raises(ConfigError, match="limit"):
        evaluate(folder, ["through-plane-4x"], tmp_path / "out", limit=0)
    (tmp_path / "sub-01_T1w.nii.gz").write_text("not an image")
    with pytest.raises(InputError, match="skipped"):
        evaluate(tmp_path, ["through-plane-4x"], tmp_path / "out", model="baseline")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained model. Its head is zero, so what it adds to B is nothing."""
    config = ModelConfig(one_step=NetworkConfig(channels=(4, 4, 8), blocks=(1, 1, 1), embedding=8))
    networks = build_networks(config)
    assert networks.one_step is not None
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, config, {"one_step": networks.one_step.state_dict()}, {})
    return folder


def test_a_model_that_adds_nothing_gains_nothing(folder: Path, model: Path, tmp_path: Path) -> None:
    evaluate(folder, ["through-plane-4x"], tmp_path, model=model, limit=2, device="cpu")
    rows = json.loads((tmp_path / "results.json").read_text())["subjects"]
    gains = [row["gain"] for row in rows if row["method"] == "medld"]
    assert len(gains) == 3
    assert gains == pytest.approx([0, 0, 0], abs=1e-3)


def test_the_record_names_model_weights_and_settings(folder: Path, model: Path, tmp_path: Path) -> None:
    evaluate(folder, ["through-plane-3.5x"], tmp_path, model=model, limit=1, mode="detail", device="cpu", threads=1)
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["model"] == {"name": "tiny", "sha256": dict(load_model(model).sha256)}
    assert record["settings"] == {"mode": "detail", "limit": 1, "device": "cpu", "threads": 1}
    assert record["protocols"][0]["ratio"] == 3.5
    assert record["device"] == "cpu"
    assert str(tmp_path.parent) not in (tmp_path / "results.json").read_text()


def test_what_a_model_does_not_cover_is_said(folder: Path, model: Path, tmp_path: Path) -> None:
    evaluate(folder, ["through-plane-4x"], tmp_path, model=model, device="cpu")
    rows = json.loads((tmp_path / "results.json").read_text())["subjects"]
    how = {row["group"]: row["how"] for row in rows if row["method"] == "medld"}
    assert "baseline" in how["CT"]
    assert "baseline" not in how["T1w"]


def test_a_named_model_must_be_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        evaluate(folder, ["through-plane-4x"], tmp_path / "out", model="no-such-model")


def test_a_subject_is_the_bids_entity_or_the_name(folder: Path) -> None:
    assert subject_of(Path("sub-07_ses-1_T1w.nii.gz")) == "sub-07"
    assert subject_of(Path("knee.left.nrrd")) == "knee.left"
    assert [p.name for p in find_scans(folder, 1)] == ["sub-01_T1w.nii.gz"]
