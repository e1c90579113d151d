"""What only a process of its own can show: interruption, import time, the module's entry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import medld

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(medld.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
ROLLED = (168, 168, 42)
"""Voxels of a scan whose U-Nets are rolled and whose autoencoder is not."""


def save_slow_scan(path: Path) -> Path:
    """A scan whose restoration takes seconds, far longer than a signal needs to arrive."""
    values = np.random.default_rng(0).integers(0, 3000, (224, 224, 40), dtype=np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 8.0, 1.0])), path)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    scan = save_slow_scan(tmp_path / "scan.nii")
    command = [
        sys.executable,
        "-m",
        "medld.cli",
        "enhance",
        scan,
        "--model",
        "baseline",
        "-o",
        tmp_path / "out" / "x.nii.gz",
    ]
    with subprocess.Popen(
        [str(part) for part in command],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        started = process.stdout.readline()  # printed when the restoration begins
        process.send_signal(number)
        out, err = process.communicate()
    assert str(scan) in started
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    assert "done" not in out
    assert list(tmp_path.iterdir()) == [scan]


def test_help_needs_no_heavy_library() -> None:
    heavy = ("torch", "numpy", "scipy", "nibabel", "SimpleITK", "rich", "pydantic", "PIL", "pydicom", "highdicom")
    code = (
        "import sys\n"
        "from medld.cli import main\n"
        "assert main(['enhance', '--help']) == 0\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "usage: medld enhance" in done.stdout
    assert done.stderr.strip() == "[]"


def test_module_and_script_are_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medld.cli", "--version"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"medld {medld.__version__}\n"


def test_memory_is_what_was_said_before(tmp_path: Path) -> None:
    scan = save_slow_scan(tmp_path / "scan.nii")
    words = ["enhance", scan, "--model", "baseline", "-o", tmp_path / "out.nii", "--report", tmp_path / "out.json"]
    subprocess.run([sys.executable, "-m", "medld.cli", *map(str, words)], env=ENVIRONMENT, check=True, timeout=300)
    memory = json.loads((tmp_path / "out.json").read_text())["memory_gib"]
    assert 0.8 * memory["estimate"] < memory["peak"] < 1.2 * memory["estimate"]


@pytest.mark.parametrize(
    ("mode", "shape"),
    [(["fidelity"], (80, 80, 20)), (["detail", "--steps", "2"], (80, 80, 20)), (["detail", "--steps", "1"], ROLLED)],
    ids=["fidelity", "detail", "detail, rolled"],
)
def test_memory_of_a_model_is_no_more_than_was_said(
    tmp_path: Path, mode: list[str], shape: tuple[int, int, int]
) -> None:
    scan, report = tmp_path / "scan.nii", tmp_path / "out.json"
    values = np.random.default_rng(0).integers(0, 3000, shape, dtype=np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 4.0, 1.0])), scan)
    words = ["enhance", scan, "--device", "cpu", "--force", "-o", tmp_path / "out.nii", "--report", report, "--mode"]
    command = [sys.executable, "-m", "medld.cli", *map(str, words), *mode]
    subprocess.run(command, env=ENVIRONMENT, check=True, timeout=300)
    memory = json.loads(report.read_text())["memory_gib"]
    assert 0.7 * memory["estimate"] < memory["peak"] <= memory["estimate"]
