"""`medld enhance --adapt-steps`: what is written, said and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fine_scans import make_head
from tiny_model import ONE_STEP, save_tiny_model

from medld.acquisition import AxisAcquisition, along
from medld.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose network was never trained."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", ONE_STEP)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Fourteen slices of a head, four pixels thick."""
    head = make_head(3, (100, 52, 56))
    array = along(AxisAcquisition(56, 14).inner_matrix, head, -1)
    path = tmp_path / "sub-01_T1w.nii.gz"
    nib.save(nib.Nifti1Image(np.round(array).astype(np.int16), np.diag([1.0, 1.0, 4.0, 1.0])), path)
    return path


def enhance(scan: Path, name: str, *options: object) -> tuple[bytes, dict[str, Any]]:
    """The bytes of the restored values, and the record."""
    output = scan.with_name(f"{name}.nii.gz")
    command = ("enhance", scan, "--device", "cpu", "--force", "-o", output, *options)
    assert main([str(part) for part in command]) == 0
    return np.asarray(nib.load(output).dataobj).tobytes(), json.loads(scan.with_name(f"{name}.json").read_text())


def test_the_report_says_what_happened_and_a_seed_gives_the_same_bytes(scan: Path, model: Path) -> None:
    before = model.joinpath("one_step.safetensors").read_bytes()
    plain, without = enhance(scan, "plain", "--model", model)
    none, _ = enhance(scan, "none", "--model", model, "--adapt-steps", 0)
    first, record = enhance(scan, "first", "--model", model, "--adapt-steps", 2)
    again, _ = enhance(scan, "again", "--model", model, "--adapt-steps", 2)
    assert plain == none
    assert first == again
    assert model.joinpath("one_step.safetensors").read_bytes() == before
    assert without["adaptation"] is None
    told = record["adaptation"]
    assert (told["steps"], told["config"]["steps"], told["config"]["seed"]) == (2, 2, 0)
    assert {row["blend"] for row in told["held_out"]["blends"]} == set(told["config"]["blends"])
    assert (first == plain) == (told["blend"] == 0)
    assert record["timings_s"]["adaptation"] > 0
    assert record["model"] == without["model"]


def test_a_scan_too_small_is_restored_as_ever_and_the_reason_told(scan: Path, model: Path) -> None:
    image = nib.load(scan)
    nib.save(image.slicer[:60], scan)
    plain, _ = enhance(scan, "plain", "--model", model)
    values, record = enhance(scan, "adapted", "--model", model, "--adapt-steps", 2)
    assert values == plain
    assert record["adaptation"]["steps"] == 0
    assert record["adaptation"]["reason"].startswith("too small")


def test_where_interpolation_does_better_nothing_is_tuned(scan: Path, tmp_path: Path) -> None:
    harmful = save_tiny_model(tmp_path / "models" / "harmful", ONE_STEP, shaken=0.2)
    output = scan.with_name("out.nii.gz")
    command = ["enhance", scan, "--device", "cpu", "--model", harmful, "--adapt-steps", 2, "-o", output]
    assert main([str(part) for part in command]) == 0
    record = json.loads(scan.with_name("out.json").read_text())
    assert record["model"] is None
    assert record["adaptation"]["reason"].startswith("interpolation restores this scan")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model", "baseline"], "baseline has none"),
        (["--model", "MODEL", "--trust", "mask.nii.gz"], "leave out --uncertainty"),
        (["--model", "MODEL", "--uncertainty", "width.nii.gz"], "leave out --uncertainty"),
        (["--model", "MODEL", "--adapt-steps", "-1"], "at least 0"),
        (["--model", "LATENT"], "has none"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    scan: Path, model: Path, tmp_path: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from tiny_model import LATENT

    from medld.config import ModelConfig

    latent = LATENT.model_copy(update={"one_step": None, "fidelity": "latent"})
    names = {"MODEL": str(model), "LATENT": str(save_tiny_model(tmp_path / "latent", ModelConfig(**dict(latent))))}
    before = sorted(tmp_path.iterdir())
    given = [names.get(option, option) for option in options]
    assert main(["enhance", str(scan), "--device", "cpu", "--adapt-steps", "2", *given]) == 2
    assert reason in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
