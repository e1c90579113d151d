"""A toy calibrated from its scans to its table, and the file read beside the weights again."""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medld import __version__
from medld.build import build_networks
from medld.calibration import read_calibration
from medld.checkpoint import load_model, save_model
from medld.config import AutoencoderConfig, ModelConfig, NetworkConfig
from medld.errors import CheckpointError, CohortError

PIPELINE = Path(__file__).parents[2] / "pipelines" / "calibrate.py"
NETWORK = NetworkConfig(channels=(4, 4, 4), blocks=(1, 1, 1), embedding=8)


@pytest.fixture(autouse=True)
def _find_what_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PIPELINE.parent))


def calibrate(*arguments: object) -> None:
    """Run the pipeline in this process."""
    fixed = ("--device", "cpu", "--protocol", "through-plane-4x", "--fit-protocol")
    runpy.run_path(str(PIPELINE))["main"]([*map(str, arguments), *fixed])


def save_heads(folder: Path, *names: str) -> list[Path]:
    """Textured balls, each with another seed."""
    folder.mkdir(exist_ok=True)
    paths = []
    for name in names:
        rng = np.random.default_rng(sum(name.encode()))
        i, j, k = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in (44, 42, 40)), indexing="ij")
        texture = gaussian_filter(rng.standard_normal(i.shape), 1.2)
        head = np.where(i**2 + j**2 + k**2 < 1, 600 + 900 * texture, 0).clip(0).astype(np.int16)
        paths.append(folder / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(head, np.eye(4)), paths[-1])
    return paths


def save_tiny(folder: Path, *learned: str, latent: bool = False) -> Path:
    """An untrained model, with a sampling part or without."""
    autoencoder = AutoencoderConfig(width=4, encoder_blocks=1, decoder_blocks=1, embedding=8)
    parts = {"autoencoder": autoencoder, "denoiser": NETWORK} if latent else {}
    config = ModelConfig(one_step=NETWORK, **parts)
    networks = build_networks(config)
    states = {name: getattr(networks, name).state_dict() for name in ("one_step", *parts)}
    training = {"parts": {"one_step": {"volumes": learned}, "denoiser": {"volumes": [*learned, "sub-e_T1w"]}}}
    if latent:
        training["parts"]["autoencoder"] = {"volumes": []}
    save_model(folder, config, states, {"training": training, "versions": {"medld": __version__}})
    return folder


def test_from_scans_to_a_calibration_and_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny(tmp_path / "model", "sub-learned_T1w")
    names = [f"sub-{letter}_T1w" for letter in "abcde"]
    save_heads(tmp_path / "scans", *names, "sub-learned_T1w", "sub-other_T2w")
    fit = save_heads(tmp_path / "fit", "sub-fit_T1w")
    own = ("--files", "*_T1w*", "--fit", *fit, "--model", model, "--keep", tmp_path / "keep")
    calibrate(tmp_path / "scans", *own, "--out", model, "--test", tmp_path / "scans" / "sub-other_T2w.nii.gz")
    weights = load_model(model).sha256
    found = read_calibration(model, weights)
    assert found is not None
    (only,) = found.modes[0].bins
    assert (only.contrast, len(only.subjects)) == ("T1w", 5)
    assert "sub-" not in (model / "calibration.json").read_text()
    with (model / "coverage.csv").open() as file:
        rows = {row["scan"]: row for row in csv.DictReader(file)}
    assert set(rows) == {*names, "sub-other_T2w"}
    assert {rows[name]["subjects"] for name in names} == {"4"}
    assert rows["sub-other_T2w"]["subjects"] == "5"
    assert np.mean([float(rows[name]["covered_foreground"]) for name in names]) == pytest.approx(0.9, abs=0.05)
    assert "| through-plane-4x | 5 T1w (held out) |" in capsys.readouterr().out
    other = save_tiny(tmp_path / "other")
    (other / "calibration.json").write_bytes((model / "calibration.json").read_bytes())
    with pytest.raises(CheckpointError, match="belongs to others"):
        read_calibration(other, load_model(other).sha256)


def test_a_second_run_takes_what_was_kept_and_gives_the_same_bytes(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    save_heads(tmp_path / "scans", *(f"sub-{letter}_T1w" for letter in "abcde"))
    own = (tmp_path / "scans", "--fit", *save_heads(tmp_path / "fit", "sub-fit_T1w"), "--model", model)
    for out in ("first", "second"):
        calibrate(*own, "--out", tmp_path / out, "--keep", tmp_path / "keep", "--crop", 40)
        kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "keep").iterdir()}
        if out == "first":
            before = kept
    assert kept == before
    assert len({(tmp_path / out / "calibration.json").read_bytes() for out in ("first", "second")}) == 1


def test_what_was_kept_at_another_position_of_the_slider_is_not_taken(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", latent=True)
    save_heads(tmp_path / "scans", *(f"sub-{letter}_T1w" for letter in "abcdf"))
    own = (tmp_path / "scans", "--fit", *save_heads(tmp_path / "fit", "sub-fit_T1w"), "--model", model)
    kept = (*own, "--mode", "detail", "--crop", 20, "--keep", tmp_path / "keep")
    card, found = model / "model.json", []
    for realism in (0.8, 0.4):
        told = json.loads(card.read_text())
        told["config"]["detail"] = [realism, 2]
        card.write_text(json.dumps(told))
        calibrate(*kept, "--out", tmp_path / "out")
        found.append({path.name: path.read_bytes() for path in (tmp_path / "keep").iterdir()})
    assert found[0].keys() == found[1].keys()
    assert all(found[0][name] != found[1][name] for name in found[0])


def test_several_processes_give_the_bytes_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny(tmp_path / "model", latent=True)
    save_heads(tmp_path / "scans", *(f"sub-{letter}_T1w" for letter in "abcdf"))
    own = (tmp_path / "scans", "--fit", *save_heads(tmp_path / "fit", "sub-fit_T1w"), "--model", model)
    told = []
    for jobs in (1, 2):
        out = tmp_path / f"out{jobs}"
        calibrate(*own, "--mode", "detail", "--samples", 2, "--crop", 20, "--out", out, "--threads", 1, "--jobs", jobs)
        told.append(capsys.readouterr().out.replace(str(out), ""))
    for name in ("calibration.json", "coverage.csv"):
        assert len({(tmp_path / f"out{jobs}" / name).read_bytes() for jobs in (1, 2)}) == 1
    assert told[0] == told[1], "lines come in the order of the scans"


def test_samples_give_a_scale_with_their_spread(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", latent=True)
    save_heads(tmp_path / "scans", *(f"sub-{letter}_T1w" for letter in "abcdef"))
    fit = save_heads(tmp_path / "fit", "sub-fit_T1w")
    own = ("--mode", "detail", "--samples", 2, "--crop", 20)
    calibrate(tmp_path / "scans", "--fit", *fit, "--model", model, "--out", tmp_path / "out", *own)
    found = read_calibration(tmp_path / "out", load_model(model).sha256)
    assert found is not None
    (mode,) = found.modes
    assert (mode.realism, mode.steps, mode.samples) == (0.8, 8, 2)
    assert mode.weights == dict(load_model(model).sha256)
    assert mode.scale.features == ("texture", "bend", "spread")
    assert len(mode.bins[0].subjects) == 5, "the flow learned from e, so that e cannot calibrate it"
    calibrate(tmp_path / "scans", "--fit", *fit, "--model", model, "--out", tmp_path / "out", "--crop", 24)
    again = read_calibration(tmp_path / "out", load_model(model).sha256)
    assert again is not None
    assert [one.realism for one in again.modes] == [0.8, 0.0], "the other mode is kept"
    assert list(again.modes[1].weights) == ["one_step.safetensors"], "a flow trained later does not touch it"
    assert len(again.modes[1].bins[0].subjects) == 6, "nor does what that flow learned from"


def test_subjects_of_the_scale_and_of_the_training_do_not_calibrate(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", "sub-a_T1w")
    save_heads(tmp_path / "scans", *(f"sub-{letter}_T1w" for letter in "abcde"))
    with pytest.raises(CohortError, match="got 3"):
        calibrate(
            tmp_path / "scans", "--fit", tmp_path / "scans" / "sub-b_T1w.nii.gz", "--model", model, "--out", tmp_path
        )
