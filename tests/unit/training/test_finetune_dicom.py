"""Tuning on DICOM studies: the whole way on synthetic heads, in seconds, and nobody is named anywhere."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_factory import leaks, make_series, set_tag
from scipy.ndimage import gaussian_filter

from medld.build import build_networks
from medld.checkpoint import load_model, save_model
from medld.config import ModelConfig, parse_config
from medld.io import file_sha256
from medld.training.finetune import finetune

NETWORK = {"channels": [8, 8, 8], "blocks": [1, 1, 1], "embedding": 8}
SMALL = ["data.in_plane=16", "data.slices=4", "validation_crop=32", "validation_ratios=[2.0]", "warm_up=1"]
PATIENTS = ("Anna-7701", "Berta-7702", "Clara-7703", "Dora-7704")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine heads of four patients, and of the first one also what else a study holds."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    for number, patient in enumerate(PATIENTS, start=1):
        head = (500 + 900 * gaussian_filter(rng.standard_normal((36, 36, 40)), 1.0)).clip(1, 4000)
        place = folder / patient / f"MPRAGE_{number}"
        paths = make_series(
            place, values=head, pixel_spacing=(1, 1), spacing=1, thickness=1, study=number, series=number
        )
        set_tag(paths, "PatientID", patient)
    extra = make_series(folder / PATIENTS[0] / "T2_ax", spacing=5, thickness=5, study=1, series=9)
    set_tag(extra, "PatientID", PATIENTS[0])
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers at random, so that there is something to learn."""
    folder = tmp_path_factory.mktemp("models") / "start"
    config = parse_config({"one_step": NETWORK}, ModelConfig, origin="test")
    torch.manual_seed(0)
    networks = build_networks(config)
    assert networks.one_step is not None
    torch.nn.init.normal_(networks.one_step.head.weight, std=0.03)  # type: ignore[operator]
    save_model(folder, config, {"one_step": networks.one_step.state_dict()}, {"name": "start", "training": {}})
    return folder


def test_studies_tune_a_model_and_name_nobody(studies: Path, start: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    before = {path: file_sha256(path) for path in studies.rglob("*.dcm")}
    settings = [*SMALL, "steps=40", "learning_rate=2e-3", "validate_every=20", "ema=0.8"]
    tuned = finetune(studies, tmp_path / "out", model=start, device="cpu", overrides=settings, report=lines.append)
    assert tuned.better
    assert load_model(tmp_path / "out").sha256 != load_model(start).sha256
    assert any("E_COHORT" in line and "series-9-" in line for line in lines)
    assert any(line.startswith("3 scans of 3 subjects to learn from, 1 of 1") for line in lines)
    with (tmp_path / "out" / "validation.csv").open() as stream:
        assert {row["contrast"] for row in csv.DictReader(stream)} == {"T1w"}
    told = ["\n".join(lines), *(path.read_text(errors="replace") for path in (tmp_path / "out").iterdir())]
    for text in told:
        assert leaks(text) == []
        assert not any(patient in text or patient.split("-")[0] in text for patient in PATIENTS)
        assert str(studies) not in text
    assert {path: file_sha256(path) for path in studies.rglob("*.dcm")} == before
