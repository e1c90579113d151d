"""Tuning: a model folder either way, the better of two, within its time, naming nobody."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medld.build import build_networks
from medld.checkpoint import load_model, save_model
from medld.config import ModelConfig, parse_config
from medld.errors import CheckpointError, ConfigError, MedldError, OutputError
from medld.io import file_sha256
from medld.training.finetune import Tuned, finetune
from medld.training.table import LEAST_GAIN, Table

NETWORK = {"channels": [8, 8, 8], "blocks": [1, 1, 1], "embedding": 8}
SMALL = ["data.in_plane=16", "data.slices=4", "validation_crop=32", "validation_ratios=[2.0]", "warm_up=1"]
Tune = Callable[..., Tuned]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four textured heads of four people."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    for name in ("Anna", "Berta", "Clara", "Dora"):
        head = (500 + 900 * gaussian_filter(rng.standard_normal((36, 36, 40)), 1.0)).clip(1)
        nib.save(nib.Nifti1Image(head.astype(np.float32), np.eye(4)), folder / f"sub-{name}_T1w.nii.gz")
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
    (folder / "scope.json").write_text("{}")
    return folder


@pytest.fixture
def tune(cohort: Path, start: Path, tmp_path: Path) -> Tune:
    """Tunes `start` to `cohort` into OUT of a fresh folder, with more settings."""

    def tune(*settings: str, out: Path = tmp_path / "out", max_minutes: float | None = None) -> Tuned:
        return finetune(cohort, out, model=start, device="cpu", max_minutes=max_minutes, overrides=[*SMALL, *settings])

    return tune


def test_a_model_that_learned_is_kept_and_loads(tune: Tune, start: Path, tmp_path: Path) -> None:
    tuned = tune("steps=40", "learning_rate=2e-3", "validate_every=20", "ema=0.8")
    before, after = tuned.table.gains
    assert tuned.better
    assert after >= before + LEAST_GAIN
    assert load_model(tmp_path / "out").sha256 != load_model(start).sha256
    with (tmp_path / "out/validation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert np.mean([float(row["tuned_gain"]) for row in rows]) == pytest.approx(after, abs=1e-3)


def test_a_model_that_got_worse_is_not_called_better(tune: Tune, start: Path, tmp_path: Path) -> None:
    tuned = tune("steps=3", "learning_rate=0.3", "validate_every=3", "ema=0.1")
    assert not tuned.better
    assert (tmp_path / "out/scope.json").is_file(), "what was measured of the start's weights stays true of them"
    assert tuned.table.gains[1] < tuned.table.gains[0]
    assert dict(load_model(tmp_path / "out").sha256) == dict(load_model(start).sha256)
    assert "not better" in (tmp_path / "out/README.md").read_text()


def test_the_folder_tells_where_it_comes_from_and_names_nobody(tune: Tune, cohort: Path, start: Path) -> None:
    out = start.parent / "told"
    tune("steps=2", "validate_every=1", out=out)
    card = json.loads((out / "model.json").read_text())
    assert card["training"]["start"]["sha256"] == {"one_step.safetensors": file_sha256(start / "one_step.safetensors")}
    assert card["training"]["cohort"]["training_subjects"] == 3
    for path in out.iterdir():
        text = path.read_bytes()
        assert not any(name in text for name in (b"Anna", b"Berta", b"Clara", b"Dora", str(cohort).encode())), path


def test_a_bound_in_time_cuts_the_schedule_and_leaves_room_for_the_table(tune: Tune) -> None:
    tuned = tune("steps=1000000", "validate_every=100000", max_minutes=6 / 60)
    assert 1 < tuned.steps < 100_000
    assert tuned.table.rows


def test_nothing_stays_behind_beside_the_model(tune: Tune, tmp_path: Path) -> None:
    tune("steps=1", "validate_every=1", out=tmp_path / "new" / "model")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]
    with pytest.raises(ConfigError):
        tune("steps=none", out=tmp_path / "other" / "model")
    assert list((tmp_path / "other").iterdir()) == []


def test_what_exists_is_refused_and_only_a_model_is_replaced(tune: Tune, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError):
            finetune(tmp_path, out, overwrite=overwrite)
    assert (out / "thesis.txt").read_text() == "years of work"


def test_an_older_model_is_replaced_where_asked(tune: Tune, cohort: Path, start: Path, tmp_path: Path) -> None:
    tune("steps=1", "validate_every=1")
    (tmp_path / "out/validation.csv").write_text("old")
    settings = [*SMALL, "steps=1", "validate_every=1"]
    finetune(cohort, tmp_path / "out", model=start, device="cpu", overrides=settings, overwrite=True)
    assert (tmp_path / "out/validation.csv").read_text() != "old"


def test_a_model_of_another_kind_is_refused(cohort: Path, start: Path, tmp_path: Path) -> None:
    for name, change in (("ct", {"modalities": ("ct",)}), ("latent", {"one_step": None})):
        other = tmp_path / name
        config = load_model(start).config.model_copy(update=change)
        networks = build_networks(config)
        states = {"one_step": networks.one_step.state_dict()} if networks.one_step else {}
        save_model(other, config, states, {"name": name})
        with pytest.raises(CheckpointError):
            finetune(cohort, tmp_path / "out", model=other, device="cpu", overrides=SMALL)
    assert not (tmp_path / "out").exists()


def test_a_difference_too_small_to_mean_anything_is_no_improvement() -> None:
    row: dict[str, str | float] = {"start_gain": 1.0, "tuned_gain": 1.0 + LEAST_GAIN / 2}
    table = Table((row,), False)
    assert "not better" in table.verdict
    assert "is better" in replace(table, better=True).verdict


def test_refusals_come_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(MedldError) as refusal:
        finetune(tmp_path, tmp_path / "out")
    assert refusal.value.code == "E_COHORT"
    assert list(tmp_path.iterdir()) == []
