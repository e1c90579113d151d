"""`medld enhance` with a model: a tiny one with random weights, since only the way through is at stake."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_model import save_tiny_model

from medld.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose networks do something, if nothing sensible."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", summary="random")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A small T2w scan of whole numbers."""
    # Off centre, or symmetry leaves so few distinct values that it counts as a label map.
    axes = np.meshgrid(np.linspace(-1, 0.9, 16), np.linspace(-0.8, 1, 16), np.linspace(-1, 0.7, 6), indexing="ij")
    values = np.round(900 * np.exp(-2 * sum(a**2 for a in axes))).astype(np.int16)
    path = tmp_path / "sub-01_T2w.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])), path)
    return path


def enhance(scan: Path, model: Path, name: str, *options: object) -> bytes:
    """Enhance on the CPU; the output's bytes."""
    output = scan.with_name(name)
    command = ["enhance", scan, "--model", model, "--device", "cpu", "-o", output, *options]
    assert main([str(part) for part in command]) == 0
    return output.read_bytes()


def test_the_record_names_the_weights(scan: Path, model: Path) -> None:
    enhance(scan, model, "x.nii")
    record = json.loads(scan.with_name("x.json").read_text())
    card = json.loads((model / "model.json").read_text())
    assert record["model"] == {"name": "tiny", "sha256": card["sha256"]}
    assert record["settings"]["model"] == "tiny"
    assert len(record["model"]["sha256"]) == 3
    assert record["method"].startswith("fidelity")
    assert not any("spline" in warning for warning in record["warnings"])


def test_fidelity_gives_the_same_bytes_whatever_the_seed(scan: Path, model: Path) -> None:
    assert enhance(scan, model, "a.nii", "--seed", 1) == enhance(scan, model, "b.nii", "--seed", 2)


def test_a_sample_depends_on_its_seed_alone(scan: Path, model: Path) -> None:
    options = ("--mode", "detail", "--steps", 2, "--seed")
    first = enhance(scan, model, "a.nii", *options, 1)
    assert enhance(scan, model, "b.nii", *options, 1) == first
    assert enhance(scan, model, "c.nii", *options, 2) != first


def test_uncertainty_is_a_float_map_on_the_outputs_grid(scan: Path, model: Path) -> None:
    spread = scan.with_name("sd.nii.gz")
    enhance(scan, model, "x.nii", "--mode", "detail", "--steps", 2, "--samples", 3, "--uncertainty", spread)
    deviation, output = nib.load(spread), nib.load(scan.with_name("x.nii"))
    assert deviation.get_data_dtype() == np.float32
    assert np.allclose(deviation.affine, output.affine)
    values = deviation.get_fdata()
    assert values.shape == output.shape
    assert values.min() >= 0
    assert values.max() > 0
    # It is an output too, and so is never enhanced.
    assert main(["enhance", str(spread), "--model", str(model)]) == 2


def test_ct_has_no_samples_to_spread(scan: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spread = scan.with_name("sd.nii")
    options = ["--modality", "ct", "--mode", "detail", "--samples", "2", "--uncertainty", str(spread)]
    assert main(["enhance", str(scan), "--model", str(model), "--device", "cpu", *options]) == 2
    assert "refused, E_CONFIG: --uncertainty" in capsys.readouterr().err
    assert list(scan.parent.iterdir()) == [scan]


def test_a_damaged_model_is_refused(scan: Path, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "one_step.safetensors").write_bytes(b"damaged")
    assert main(["enhance", str(scan), "--model", str(broken)]) == 2
