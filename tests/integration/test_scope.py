"""`medld enhance` and scans that its model should not restore: what is written, said and overridden."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_model import ONE_STEP, save_tiny_model

from medld.cli import main
from medld.io import read_volume
from medld.scope import DOMAIN, Domain, take_fingerprint


@pytest.fixture(scope="module")
def harmful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a network that answers nonsense."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "harmful", ONE_STEP, shaken=0.2, summary="random")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A smooth T1w scan of 14 slices."""
    axes = np.meshgrid(np.linspace(-1, 0.9, 56), np.linspace(-0.8, 1, 52), np.linspace(-1, 0.7, 14), indexing="ij")
    values = np.round(900 * np.exp(-2 * sum(a**2 for a in axes))).astype(np.int16)
    path = tmp_path / "sub-01_T1w.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])), path)
    return path


def enhance(scan: Path, name: str, *options: object) -> tuple[np.ndarray, dict[str, object]]:
    """The restored values and the record."""
    output = scan.with_name(f"{name}.nii.gz")
    assert main([str(part) for part in ("enhance", scan, "--device", "cpu", "-o", output, *options)]) == 0
    record = json.loads(scan.with_name(f"{name}.json").read_text())
    return np.asarray(nib.load(output).dataobj), record


def codes(record: dict[str, object]) -> set[str]:
    """Codes of the warnings in a record."""
    warnings = record["warnings"]
    assert isinstance(warnings, list)
    return {w.partition(":")[0] for w in warnings if w.startswith("W_")}


def test_a_model_that_does_harm_is_not_used(scan: Path, harmful: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values, record = enhance(scan, "a", "--model", harmful)
    plain, _ = enhance(scan, "b", "--model", "baseline")
    np.testing.assert_array_equal(values, plain)
    assert codes(record) == {"W_HELD_OUT"}
    assert len(record["warnings"]) == 1  # type: ignore[arg-type]
    assert record["model"] is None
    assert record["scope"]["held_out"]["gain_db"] < 0  # type: ignore[index]
    assert record["scope"]["fallback"] is True  # type: ignore[index]
    assert "W_HELD_OUT" in capsys.readouterr().err


def test_force_keeps_the_model_and_the_warning(scan: Path, harmful: Path) -> None:
    values, record = enhance(scan, "a", "--model", harmful, "--force")
    plain, _ = enhance(scan, "b", "--model", "baseline")
    assert np.abs(values.astype(float) - plain).max() > 10
    assert codes(record) == {"W_HELD_OUT"}
    assert record["model"] is not None
    assert record["scope"]["fallback"] is False  # type: ignore[index]


def test_a_scan_outside_of_the_training_domain_is_reported_with_the_reason(scan: Path, harmful: Path) -> None:
    fingerprint = take_fingerprint(read_volume(scan)[0])
    likes = [{name: factor * value for name, value in fingerprint.items()} for factor in (0.8, 1.2)]
    (harmful / DOMAIN).write_text(Domain.of([like | {"pixel_mm": 4.0} for like in likes]).as_json())
    try:
        _, record = enhance(scan, "a", "--model", harmful)
    finally:
        (harmful / DOMAIN).unlink()
    assert codes(record) == {"W_SCOPE", "W_HELD_OUT"}
    (reason,) = record["scope"]["outside"]  # type: ignore[index]
    assert reason.startswith("pixel spacing (mm) is 1,")


def test_what_needs_the_model_is_refused_where_it_would_do_harm(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny_model(tmp_path / "models" / "harmful", shaken=0.2)
    command = ["enhance", scan, "--device", "cpu", "--model", model, "--mode", "detail", "--samples", 2]
    command += ["-o", tmp_path / "out.nii.gz", "--uncertainty", tmp_path / "sd.nii.gz"]
    before = sorted(tmp_path.iterdir())
    assert main([str(part) for part in command]) == 2
    assert "keep the model with --force" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    assert main([str(part) for part in [*command, "--force"]]) == 0
    assert (tmp_path / "sd.nii.gz").is_file()


def test_another_modality_is_outside(scan: Path, harmful: Path) -> None:
    _, record = enhance(scan, "a", "--model", harmful, "--modality", "ct")
    assert codes(record) == {"W_SCOPE"}
    assert record["method"] == "baseline B"


def test_without_a_model_nothing_is_checked(scan: Path) -> None:
    _, record = enhance(scan, "a", "--model", "baseline")
    assert record["scope"] is None
    assert codes(record) == set()


def test_the_estimated_slice_profile_is_in_the_record(scan: Path) -> None:
    _, record = enhance(scan, "a", "--model", "baseline", "--slice-profile", "auto")
    told = record["scan"]
    assert told["slice_profile_from"] == told["slice_thickness_from"] == "estimated"  # type: ignore[index]
    assert told["slice_thickness_mm"][2] == told["slice_profile_estimate"]["thickness_mm"]  # type: ignore[index]
