"""Whole experiments on toys: every pipeline says what it does, and runs from its card to its table."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.ndimage import gaussian_filter
from tiny_model import save_tiny_model

from medld import __version__
from medld.build import build_networks
from medld.cards import card_path
from medld.checkpoint import load_model, save_model
from medld.config import ModelConfig, NetworkConfig, TrainConfig, read_config
from medld.evaluation import evaluate
from medld.metrics import psnr

FOLDER = Path(__file__).parents[2] / "pipelines"
NETWORK = "{channels: [4, 4, 4], blocks: [1, 1, 1], embedding: 8}"
AUTOENCODER = "{width: 4, encoder_blocks: 1, decoder_blocks: 1, embedding: 8}"
TOY = ("steps=2", "batch=1", "warm_up=1", "precision=float32", "data.in_plane=16", "data.slices=4", "log_every=1")
Start = Callable[..., None]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run a pipeline as `python pipelines/NAME.py ARGUMENTS` does."""

    def start(name: str, *arguments: object) -> None:
        path = FOLDER / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        monkeypatch.syspath_prepend(str(FOLDER))
        runpy.run_path(str(path), run_name="__main__")

    return start


def save_head(path: Path, seed: int, *, ct: bool = False) -> Path:
    """A textured ball, in HU for CT."""
    shape = (40, 36, 44)
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    texture = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.2)
    head = np.where(sum(a**2 for a in axes) < 1, 600 + 900 * texture, 0).clip(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image((2 * head - 1000 if ct else head).astype(np.int16), np.eye(4)), path)
    return path


def make_card(shipped: str, suffix: str, folder: Path) -> Path:
    """A shipped card that lists two toys, one for each split."""
    content: Any = yaml.safe_load(card_path(shipped).read_text(encoding="utf-8"))
    content["splits"]["files"] = {}
    for split, subject in (("train", "sub-a"), ("val", "sub-b")):
        path = save_head(folder / split / f"{subject}_{suffix}.nii.gz", seed=ord(subject[-1]), ct=suffix == "CT")
        content["splits"]["files"][split] = [
            {
                "file": path.relative_to(folder).as_posix(),
                "subject": subject,
                "contrast": suffix,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        ]
    card = folder / "card.yaml"
    card.write_text(yaml.safe_dump(content), encoding="utf-8")
    return card


def save_tiny(folder: Path, *volumes: str) -> Path:
    """An untrained one-step model that says it was trained on some volumes."""
    config = ModelConfig(one_step=NetworkConfig(channels=(4, 4, 4), blocks=(1, 1, 1), embedding=8))
    network = build_networks(config).one_step
    assert network is not None
    card = {"training": {"device": "cpu", "volumes": volumes}, "versions": {"medld": __version__}}
    save_model(folder, config, {"one_step": network.state_dict()}, card)
    return folder


def options(card: Path, out: Path, *settings: str) -> list[object]:
    """The command line of a training from a card, cut down to a toy."""
    own = ["--card", card, "--data", card.parent, "--out", out, "--device", "cpu", "--protocol", "through-plane-4x"]
    return [*own, *(part for setting in (*TOY, *settings) for part in ("--set", setting))]


def methods(results: Path) -> dict[str, str]:
    """Method and what the program says it did, from a table."""
    return {row["method"]: row["how"] for row in json.loads((results / "results.json").read_text())["subjects"]}


@pytest.mark.parametrize("name", ["brain_mri", "torso_ct", "fine_tune", "evaluate_public", "train_mri", "model_card"])
def test_every_pipeline_says_what_it_does(name: str, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        start(name, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"python pipelines/{name}.py" in text
    assert "--out" in text


def test_a_known_pace_sets_the_steps_without_a_trial(
    tmp_path: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    save_head(tmp_path / "data" / "sub-a_T1w.nii.gz", 0)
    sizes = (f"model.one_step={NETWORK}", "data.sources=[{files: 'sub-*'}]", "device=cpu", "trackers=[]", *TOY[1:])
    given = ("--seconds", 60, "--pace", 0.05, "--data", tmp_path / "data", "--out", tmp_path / "runs")
    start("train_mri", "one-step", *given, "--set", *sizes)
    assert "0.1 steps a second" in capsys.readouterr().out
    config = read_config(tmp_path / "runs" / "mri_one_step" / "config.yaml", TrainConfig)
    assert config.steps == 2, "a minute at a step in twenty seconds, less a safety"


def test_the_readme_has_a_line_for_every_pipeline() -> None:
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    described = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert sorted(described) == sorted(path.name for path in FOLDER.glob("*.py"))


def test_brain_mri_goes_from_card_to_table_and_on(tmp_path: Path, start: Start) -> None:
    card = make_card("medld-mri-train", "T1w", tmp_path / "data, all of it")
    parts = (("one-step", "one_step", NETWORK), ("autoencoder", "autoencoder", AUTOENCODER))
    joint = [f"joint:model.{part}={size}" for _, part, size in (*parts, ("", "denoiser", NETWORK))]
    settings = [*(f"{stage}:model.{part}={size}" for stage, part, size in parts), *joint]
    arguments = options(card, tmp_path / "out", *settings)
    start("brain_mri", *arguments)
    whole = load_model(tmp_path / "out" / "mri_joint" / "model")
    assert set(whole.sha256) == {"one_step.safetensors", "autoencoder.safetensors", "denoiser.safetensors"}
    for run, part in (("mri_one_step", "one_step"), ("mri_autoencoder", "autoencoder")):
        assert (
            whole.sha256[f"{part}.safetensors"]
            == load_model(tmp_path / "out" / run / "model").sha256[f"{part}.safetensors"]
        ), "the joint stage begins with the weights of the others and leaves these alone"
    assert methods(tmp_path / "out" / "fidelity")["medld"] == "fidelity (one-step)"
    assert methods(tmp_path / "out" / "detail")["medld"].startswith("realism")
    start("brain_mri", *arguments, "--set", "steps=3")
    assert load_model(tmp_path / "out" / "mri_joint" / "model").card["training"]["steps"] == 3


def test_torso_ct_trains_on_hounsfield_units(tmp_path: Path, start: Start) -> None:
    card = make_card("medld-ct-train", "CT", tmp_path / "data")
    start("torso_ct", *options(card, tmp_path / "out", f"model.one_step={NETWORK}"))
    assert load_model(tmp_path / "out" / "ct_one_step" / "model").config.modalities == ("ct",)
    assert methods(tmp_path / "out" / "fidelity")["medld"] == "fidelity (one-step)"


def test_fine_tune_judges_start_and_tuned_on_scans_that_took_no_part(tmp_path: Path, start: Start) -> None:
    tiny = save_tiny(tmp_path / "tiny", "sub-known_T1w")
    for seed, subject in enumerate(("sub-a", "sub-b")):
        save_head(tmp_path / "cohort" / f"{subject}_T1w.nii.gz", seed)
    save_head(tmp_path / "others" / "sub-c_T1w.nii.gz", 2)
    places = (
        tmp_path / "cohort",
        "--out",
        tmp_path / "tuned",
        "--model",
        tmp_path / "tiny",
        "--test",
        tmp_path / "others",
    )
    toy = [part for setting in (*TOY, "validation_ratios=[4]", "validate_every=1") for part in ("--set", setting)]
    start("fine_tune", *places, "--device", "cpu", "--protocol", "through-plane-4x", *toy)
    results = [
        json.loads((tmp_path / "tuned" / f"test-{who}" / "results.json").read_text()) for who in ("start", "tuned")
    ]
    for result, model in zip(results, (tiny, tmp_path / "tuned"), strict=True):
        assert result["model"]["sha256"] == dict(load_model(model).sha256)
        assert {row["subject"] for row in result["subjects"]} == {"sub-c"}


def test_evaluate_public_writes_one_table(tmp_path: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = save_tiny(tmp_path / "tiny", "sub-known_T1w", "sub-elsewhere_T1w")
    save_head(tmp_path / "scans" / "sub-known_T1w.nii.gz", 0)
    save_head(tmp_path / "scans" / "sub-new_T2w.nii.gz", 1)
    protocols = ("through-plane-4x", "isotropic-2x")
    own = ("--model", tiny, "--protocol", *protocols, "--device", "cpu")
    start("evaluate_public", tmp_path / "scans", "--out", tmp_path / "out", *own)
    assert "names that the model was trained on (1): sub-known_T1w.nii.gz" in capsys.readouterr().out
    rows = [line.split(" | ") for line in (tmp_path / "out" / "table.md").read_text().splitlines()[2:]]
    assert [(row[0], row[1]) for row in rows] == [(f"| {p}", c) for p in protocols for c in ("T1w", "T2w")]
    summary = json.loads((tmp_path / "out" / "results.json").read_text())["summary"]
    scores = {(s["protocol"], s["group"], s["method"]): s for s in summary}
    for row in rows:
        for method, cell in zip(("cubic", "B", "medld"), row[3:6], strict=True):
            figures = scores[row[0].removeprefix("| "), row[1], method]
            assert cell == f"{figures['psnr']:.2f} / {figures['ssim']:.4f}"
        assert row[6].startswith(f"{figures['gain']:+.2f} ")


def test_model_card_holds_what_was_measured_of_these_weights(tmp_path: Path, start: Start) -> None:
    data = make_card("medld-mri-train", "T1w", tmp_path / "data")
    config = ModelConfig(one_step=NetworkConfig(channels=(4, 4, 4), blocks=(1, 1, 1), embedding=8))
    parts = {"one_step": {"steps": 17, "volumes": ["sub-a_T1w"]}}
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = build_networks(config).one_step
        assert network is not None
        card = {"training": {"device": "toy", "parts": parts}, "versions": {"medld": __version__}}
        save_model(tmp_path / f"model-{seed}", config, {"one_step": network.state_dict()}, card)
    model, scans, results = tmp_path / "model-0", data.parent / "val", tmp_path / "results"
    evaluate(scans, ["through-plane-4x"], results, model=model, device="cpu", pages=False)
    evaluate(scans, ["through-plane-4x"], tmp_path / "detail", model=model, mode="detail", device="cpu", pages=False)
    own = [scans, "--results", results, tmp_path / "detail", "--card", data, "--out", tmp_path / "card"]
    start("model_card", *own, "--model", model)
    text = (tmp_path / "card" / "README.md").read_text()
    record = json.loads((results / "results.json").read_text())
    (line,) = (line for line in record["summary"] if line["method"] == "medld")
    figures = (f"{line['psnr']:.2f}", f"{line['gain']:+.2f}", f"{line['ssim']:.4f}")
    assert all(told in text for told in (*figures, *load_model(model).sha256.values()))
    # The toy has no flow, so its modes differ in name alone.
    rows = re.findall(r"^\| through-plane-4x \| T1w \| (\w+) \| ([\d.]+) \|", text, re.MULTILINE)
    assert ("fidelity", figures[0]) in rows
    assert ("detail", figures[0]) in rows
    # The older network without the same sources does not count.
    with (FOLDER / "results" / "leave_one_out_near.csv").open(newline="") as stream:
        gains = [line["gain"] for line in csv.DictReader(stream) if line["volume"] == "sub-remind022_T2w"]
    assert f"| remind | T2w | 1 | {' | '.join(f'{float(gain):+.2f}' for gain in gains)} |" in text
    pictures = re.findall(r"\]\((failures/[^)]+\.png)\)", text)
    assert 1 <= len(pictures) <= 2
    for picture in pictures:
        with Image.open(tmp_path / "card" / picture) as image:
            assert image.width > 5 * image.height / 2
    with pytest.raises(SystemExit, match="got others"):
        start("model_card", *own, "--model", tmp_path / "model-1")


def test_a_source_left_out_is_judged_and_not_learned(tmp_path: Path, start: Start) -> None:
    for index, name in enumerate(("cstar01_T1w", "lindner01_T1w", "ds002748s01_T1w")):
        save_head(tmp_path / "heads" / f"sub-{name}.nii.gz", index)
    out = tmp_path / "out"
    settings = [part for text in (*TOY, f"model.one_step={NETWORK}") for part in ("--set", text)]
    arguments = ("--packs", tmp_path / "heads", "--out", out, "--steps", 2, "--ratios", 3, "--device", "cpu", *settings)

    start("leave_one_out", *arguments, "--sources", "cstar")
    first = (out / "leave_one_out.csv").read_text()
    start("leave_one_out", *arguments, "--sources", "cstar", "none")
    lines = (out / "leave_one_out.csv").read_text()

    learned = {name: load_model(out / "runs" / name / "model").volumes() for name in ("cstar", "none")}
    assert learned["cstar"] == ("sub-ds002748s01_T1w", "sub-lindner01_T1w")
    assert len(learned["none"]) == 3
    assert lines.startswith(first), "what is there is not made again"
    judged = [line.split(",")[:3:2] for line in lines.splitlines()[1:]]
    assert judged == [["cstar", "sub-cstar01_T1w"], ["none", "sub-cstar01_T1w"], ["none", "sub-lindner01_T1w"]]


def test_adaptation_is_measured_scan_by_scan(tmp_path: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = save_tiny(tmp_path / "tiny")
    head = np.random.default_rng(0).random((100, 52, 56)).astype(np.float32) + 1
    for name, part in (("large", head), ("small", head[:60])):
        (tmp_path / "heads").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(part, np.eye(4)), tmp_path / "heads" / f"sub-{name}_T1w.nii.gz")
    variants = ("", "learning_rate=1e-3,batch=3")
    arguments = (tiny, tmp_path / "heads", "--out", tmp_path / "out", "--device", "cpu", "--steps", 1)
    start("adapt_study", *arguments, "--variants", *variants)
    text = (tmp_path / "out" / "adapt_study.csv").read_text()
    lines = list(csv.DictReader(text.splitlines()))
    assert [(line["variant"], line["volume"]) for line in lines] == [
        (variant, f"sub-{name}_T1w") for variant in variants for name in ("large", "small")
    ]
    for line in lines:
        kept = float(line["blend"])
        assert line["chosen"] == (line[f"blend_{kept:g}"] if kept else line["before"])
        assert (line["in_plane_1"] == "") == line["reason"].startswith("too small")
    assert "| defaults | 4 | 2 |" in capsys.readouterr().out
    start("adapt_study", *arguments, "--variants", *variants)
    assert (tmp_path / "out" / "adapt_study.csv").read_text() == text


def test_of_an_answer_that_lacks_nothing_but_noise_all_of_the_error_is_noise(
    tmp_path: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = np.zeros((64, 64, 64))
    truth[4:-4, 4:-4, 4:-4] = 100 + np.random.default_rng(0).normal(0, 2, (56, 56, 56))
    nib.save(nib.Nifti1Image(truth.astype(np.float32), np.eye(4)), tmp_path / "sub-a_T1w.nii.gz")
    thick = truth.reshape(64, 64, 16, 4).mean(3).repeat(4, axis=2)
    coarse = truth.reshape(32, 2, 32, 2, 32, 2).mean((1, 3, 5)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    left_out = tmp_path / "left_out.csv"
    left_out.write_text(f"volume,ratio,baseline,gain\nsub-a_T1w,4,{psnr(truth, thick) - 1},1\n")
    names, row = "protocol,file,ratio,method,psnr", f"isotropic-2x,sub-a_T1w.nii.gz,2,B,{psnr(truth, coarse)}"
    (tmp_path / "subjects.csv").write_text(f"{names}\n{row}\n")
    start("noise_floor", tmp_path, left_out)
    start("noise_floor", tmp_path, tmp_path, "--method", "B")
    parts = re.findall(r"\| ([\d.]+) \|$", capsys.readouterr().out, re.MULTILINE)
    assert [float(part) for part in parts] == pytest.approx([1, 1], rel=0.1)


def test_gates_of_a_model(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An untrained decoder adds nothing, so every answer is B."""
    scans = save_head(tmp_path / "scans" / "sub-a_T1w.nii.gz", seed=1).parent
    start("gates", save_tiny_model(tmp_path / "model", shaken=0.0), scans, "--protocol", "through-plane-4x")
    *_, mean = capsys.readouterr().out.splitlines()
    baseline, *answers = map(float, mean.split()[-5:])
    assert answers == pytest.approx([baseline] * len(answers), abs=0.02)
