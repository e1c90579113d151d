"""`medld export` from a model to what others run, and the same voxels out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tiny_model import ONE_STEP, save_tiny_model

from medld.cli import main
from medld.errors import InputError
from medld.export.bundle import Enhancer
from medld.report import RESEARCH_USE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose network does something."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", ONE_STEP, name="tiny")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a T2w of thick sagittal slices and a CT, oblique and in whole numbers."""
    folder = tmp_path_factory.mktemp("scans")
    for name, shape, spacing, air in (
        ("sub-01_T2w.nii.gz", (6, 16, 14), (3.0, 0.9, 1.0), 0),
        ("sub-02_CT.nii.gz", (16, 16, 6), (1.0, 1.0, 2.5), -1000),
    ):
        axes = np.meshgrid(*(np.linspace(-1, 0.9, n) for n in shape), indexing="ij")
        values = np.round(air + 900 * np.exp(-2 * sum(a**2 for a in axes))).astype(np.int16)
        turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
        affine = np.eye(4)
        affine[:3, :3] = turn * spacing
        nib.save(nib.Nifti1Image(values, affine), folder / name)
    (folder / "sub-01_T2w.json").write_text(json.dumps({"SliceThickness": 2.5}))
    return folder


def run(*arguments: object) -> int:
    """One command."""
    return main([str(argument) for argument in arguments])


def outputs(folder: Path) -> Mapping[str, bytes]:
    """The images of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.nii*")}


def settled(record: Any) -> Any:
    """A record without what differs from run to run."""
    return {key: value for key, value in record.items() if key not in ("timings_s", "memory_gib")}


def test_monai_runs_the_bundle_and_gives_what_the_program_gives(model: Path, scans: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    assert run("export", "--to", "monai-bundle", "--model", model, "-o", bundle) == 0
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    places = ["--dataset_dir", scans, "--output_dir", tmp_path / "monai", "--settings", "{'spacing': [1.0]}"]
    done = subprocess.run(
        [str(part) for part in (*command, *places)],
        cwd=bundle,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "sub-01_T2w.nii.gz: done" in done.stdout
    options = ("--device", "cpu", "--threads", 1, "--spacing", 1, "--model", model)
    assert run("enhance", *sorted(scans.glob("*.nii.gz")), "-o", tmp_path / "medld", *options) == 0
    assert len(outputs(tmp_path / "medld")) == 2
    assert outputs(tmp_path / "monai") == outputs(tmp_path / "medld")
    for path in (tmp_path / "medld").glob("*.json"):
        ours, theirs = (settled(json.loads((tmp_path / f / path.name).read_text())) for f in ("medld", "monai"))
        for record in (ours, theirs):
            del record["settings"]["threads"], record["settings"]["model"], record["model"]["name"]
        assert theirs == ours


def test_the_program_loads_the_folder_for_the_hub(model: Path, scans: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    assert run("export", "--to", "huggingface", "--model", model, "-o", hub) == 0
    for name, folder in (("before", model), ("after", hub)):
        assert run("enhance", scans / "sub-01_T2w.nii.gz", "--model", folder, "-o", tmp_path / name / "x.nii") == 0
    assert outputs(tmp_path / "after") == outputs(tmp_path / "before")
    assert (hub / "one_step.safetensors").read_bytes() == (model / "one_step.safetensors").read_bytes()


def test_one_bad_scan_does_not_stop_a_run_but_is_told(model: Path, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "text.nii.gz").write_text("not an image")
    dataset = [{"image": str(path)} for path in (tmp_path / "text.nii.gz", *sorted(scans.glob("*.nii.gz")))]
    with pytest.raises(InputError, match=r"1 of 3 scans.*text\.nii\.gz") as caught:
        Enhancer(model, dataset, tmp_path / "out", device="cpu").run()
    assert caught.value.code == "E_NOT_IMAGE"
    assert len(outputs(tmp_path / "out")) == 2


def test_says_what_it_wrote_and_what_it_is_not_for(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "--to", "huggingface", "--model", model, "-o", tmp_path / "hub") == 0
    text = capsys.readouterr().out
    assert f"tiny -> {tmp_path / 'hub'} (huggingface)" in text
    assert RESEARCH_USE in text


def test_refusals_cost_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    for arguments, code in (
        (("--to", "huggingface", "--model", model, "-o", tmp_path / "there"), "E_EXISTS"),
        (("--to", "monai-bundle", "--model", tmp_path / "no", "-o", tmp_path / "out"), "E_MODEL"),
        (("--to", "onnx", "-o", tmp_path / "out"), "E_CONFIG"),
        (("-o", tmp_path / "out"), "E_CONFIG"),
    ):
        assert run("export", *arguments) == 2
        assert capsys.readouterr().err.startswith(f"medld: {code}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
