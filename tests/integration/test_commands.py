"""The other commands: thin, but they must reach what they wrap and pass its refusals on."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medld import __version__
from medld.cli import main
from medld.report import RESEARCH_USE

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


def save_ball(path: Path) -> Path:
    """A smooth ball of 1 mm voxels."""
    axes = np.meshgrid(*(np.linspace(-1, 1, 32),) * 3, indexing="ij")
    values = 1000 * np.exp(-4 * sum(a**2 for a in axes))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), path)
    return path


def test_info_names_versions_devices_and_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert f"medld {__version__}" in text
    assert "device cpu" in text
    assert "model" in text
    assert RESEARCH_USE in text


def test_evaluate_writes_its_results_and_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_ball(tmp_path / "fine" / "sub-01_T1w.nii.gz")
    out = tmp_path / "out"
    command = ["evaluate", str(tmp_path / "fine"), "--protocol", "through-plane-4x", "--out", str(out)]
    assert main([*command, "--device", "cpu"]) == 0
    assert {p.name for p in out.iterdir()} == {"results.json", "subjects.csv", "report.html", "report.pdf"}
    assert "through-plane-4x" in capsys.readouterr().out
    assert main(command) == 2  # results are there already
    assert "E_EXISTS" in capsys.readouterr().err


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_train_prints_the_resolved_config(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config), "--set", "log_every=7", "--dry-run"]) == 0
    assert "log_every: 7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["evaluate", "FOLDER", "--protocol", "no-such", "--out", "out"], "E_CONFIG"),
        (["evaluate", "FOLDER", "--protocol", "through-plane-4x", "--out", "out"], "E_NOT_IMAGE"),
        (["train", "no-such.yaml", "--dry-run"], "E_CONFIG"),
    ],
)
def test_refusals_cost_one_line(
    arguments: list[str], code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path) if a == "FOLDER" else a for a in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"medld: {code}: ")
    assert "Traceback" not in printed.err
