"""What an evaluation can be given or asked for beside outputs: samples, label maps, and the outputs as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fine_scans import make_head, make_volume, save_cohort, save_scan
from tiny_model import NETWORK, save_tiny_model

from medld.build import build_networks
from medld.checkpoint import save_model
from medld.config import ModelConfig
from medld.errors import ConfigError, OutputError
from medld.evaluation import evaluate, load_protocol
from medld.evaluation.figures import choose_metrics, reimage, unseen
from medld.evaluation.labels import by_bids, make_label_maps
from medld.evaluation.simulate import image
from medld.io import read_volume

SCAN = "sub-01_T1w.nii.gz"


def _evaluate(folder: Path, out: Path, protocol: str = "through-plane-2x", **options: Any) -> dict[str, Any]:
    evaluate(folder, [protocol], out, **{"model": "baseline", "baselines": ["linear", "B"], "device": "cpu", **options})
    record: dict[str, Any] = json.loads((out / "results.json").read_text())
    return record


def _rows(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in record["subjects"]}


@pytest.mark.parametrize("name", ["through-plane-3.5x", "isotropic-2x", "through-plane-5mm-gap"])
def test_what_slices_see_and_what_they_do_not_add_up_at_right_angles(name: str) -> None:
    protocol = load_protocol(name)
    made = image(make_volume(make_head(shape=(26, 28, 32))), protocol)
    truth = made.truth.array
    left = unseen(truth, made, protocol)
    scale = float(np.abs(made.scan.array).max())
    assert np.abs(reimage(left, made, protocol)).max() < 1e-4 * scale  # it leaves no trace
    seen = (truth - left).astype(np.float64)
    assert np.abs(unseen(seen, made, protocol)).max() < 1e-4 * scale
    assert abs((seen * left).sum()) < 1e-4 * np.linalg.norm(seen) * np.linalg.norm(left)
    assert np.linalg.norm(left) > 0.05 * np.linalg.norm(truth)


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that draws samples, if no sensible ones."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", summary="random")


def test_samples_agree_where_the_scan_was_measured_and_differ_elsewhere(latent: Path, tmp_path: Path) -> None:
    scans = save_cohort(tmp_path / "fine", 1)
    record = _evaluate(scans, tmp_path / "out", model=latent, mode="detail", samples=3)
    row = _rows(record)["medld"]
    assert row["spread"] > 1e-4
    assert row["disagreement_relative_to_range"] < row["spread"] / 5
    assert row["disagreement_share"] < 0.2
    assert "disagreement_relative_to_noise" not in row
    assert not any(name.startswith(("spread", "disagreement")) for name in _rows(record)["B"])
    assert record["settings"]["samples"] == 3
    assert _rows(_evaluate(scans, tmp_path / "again", model=latent, mode="detail", samples=3)) == _rows(record)


def test_samples_of_a_noisy_scan_are_told_over_its_noise(latent: Path, tmp_path: Path) -> None:
    scans = save_cohort(tmp_path / "fine", 1)
    row = _rows(_evaluate(scans, tmp_path / "o", "through-plane-4x-noise3", model=latent, mode="detail", samples=2))
    assert 0 < row["medld"]["disagreement_relative_to_noise"] < 1


def test_samples_of_no_model_or_one_without_diffusion_are_refused(tmp_path: Path) -> None:
    scans = save_cohort(tmp_path / "fine", 1)
    networks = build_networks(config := ModelConfig(one_step=NETWORK))
    assert networks.one_step is not None
    save_model(tmp_path / "plain", config, {"one_step": networks.one_step.state_dict()}, {})
    for model in ("baseline", tmp_path / "plain"):
        with pytest.raises(ConfigError, match="diffusion part"):
            _evaluate(scans, tmp_path / "out", model=model, samples=2)
    with pytest.raises(ConfigError, match="at least two"):
        _evaluate(scans, tmp_path / "out", model="baseline", samples=1)
    assert not (tmp_path / "out").exists()


def _segment(made: Path, goal: Path, name: str = SCAN) -> None:
    """Three tissues by brightness, of every volume below a folder, into the same folders below another."""
    for path in made.rglob("*.nii.gz"):
        volume = read_volume(path, force=True, allow_output=True)[0]
        labels = np.digitize(volume.array, (300, 600, 900)).astype(np.uint8)
        save_scan(goal / path.parent.relative_to(made) / name, labels, volume.grid.affine)


def test_outputs_written_then_segmented_get_their_dice(tmp_path: Path) -> None:
    scans, made, seg = save_cohort(tmp_path / "fine", 1), tmp_path / "made", tmp_path / "seg"
    _evaluate(scans, tmp_path / "first", outputs_to=made)
    assert {path.relative_to(made).as_posix() for path in made.rglob("*.nii.gz")} == {
        f"{method}/through-plane-2x/{SCAN}" for method in ("truth", "linear", "B")
    }
    _segment(made, seg)
    record = _evaluate(scans, tmp_path / "out", labels={name: seg / name for name in ("truth", "linear", "B")})
    rows = _rows(record)
    assert rows["linear"]["dice_mean"] < rows["B"]["dice_mean"] < 1
    assert {"dice_1", "dice_2", "dice_3"} <= set(rows["B"])
    assert record["settings"]["labels"] == ["truth", "linear", "B"]
    same = _rows(_evaluate(scans, tmp_path / "same", labels={"truth": seg / "truth", "B": seg / "truth"}))
    assert same["B"]["dice_mean"] == 1
    assert "dice_mean" not in same["linear"]


def test_a_map_of_the_whole_truth_is_cut_as_the_truth_is(tmp_path: Path) -> None:
    """33 slices make 16 of 2 voxels: the last one is cut."""
    fine, seg = tmp_path / "fine", tmp_path / "seg"
    save_scan(fine / SCAN, make_head(1, (24, 26, 33)).astype(np.int16))
    _evaluate(fine, tmp_path / "first", outputs_to=tmp_path / "made")
    _segment(fine, seg / "truth", "sub-01_desc-three_dseg.nii.gz")  # by BIDS
    _segment(tmp_path / "made" / "truth", seg / "B", "sub-01_T1w_labels.nii.gz")
    record = _evaluate(fine, tmp_path / "out", labels={"truth": seg / "truth", "B": seg / "B"})
    assert _rows(record)["B"]["dice_mean"] == 1
    assert record["skipped"] == []


def test_a_map_on_another_grid_or_missing_is_skipped_in_one_sentence_and_the_row_stays(tmp_path: Path) -> None:
    scans, seg = save_cohort(tmp_path / "fine", 2), tmp_path / "seg"
    labels = np.digitize(make_head(1), (300, 600)).astype(np.uint8)
    affine = np.diag([0.9, 0.9, 1.0, 1.0])
    for name in ("truth", "B"):
        save_scan(seg / name / SCAN, labels, affine)
    affine[2, 3] = 0.5  # half a voxel off
    save_scan(seg / "B" / SCAN, labels, affine)
    record = _evaluate(scans, tmp_path / "out", labels={"truth": seg / "truth", "B": seg / "B"})
    assert len(record["subjects"]) == 4
    assert not any("dice_mean" in row for row in record["subjects"])
    reasons = {one["file"]: (one["metric"], one["reason"]) for one in record["skipped"]}
    assert "not resampled" in reasons[SCAN][1]
    assert "found none" in reasons["sub-02_T1w.nii.gz"][1]


def test_label_maps_need_the_truths_and_a_methods(tmp_path: Path) -> None:
    for folders in ({"B": "x"}, {"truth": "x"}, {"truth": "x", "else": "x"}):
        with pytest.raises(ConfigError, match="--labels"):
            make_label_maps(folders, ["B"])
    assert make_label_maps({}, ["B"]).methods == ()
    with pytest.raises(ConfigError, match="--labels"):
        choose_metrics(["dice"])


def test_changed_label_maps_are_measured_again(tmp_path: Path) -> None:
    maps = make_label_maps({"truth": tmp_path, "B": tmp_path}, ["B"])
    assert maps.hashes(SCAN, "p", (SCAN,), alone=True) == {"labels of truth": "", "labels of B": ""}
    hashes = []
    for value in (1, 2):
        save_scan(tmp_path / SCAN, np.full((4, 4, 4), value, dtype=np.uint8))
        hashes.append(maps.hashes(SCAN, "p", (SCAN,), alone=True)["labels of B"])
    assert len(set(hashes)) == 2
    assert "" not in hashes


@pytest.mark.parametrize(
    ("scan", "expected"),
    [
        ("sub-01/anat/sub-01_ses-2_T1w.nii.gz", "sub-01/anat/sub-01_ses-2_dseg.nii.gz"),
        ("head.nii", "head_dseg.nii.gz"),
    ],
)
def test_a_segmentation_has_the_scans_name_by_bids(scan: str, expected: str) -> None:
    assert by_bids(scan) == expected


def test_outputs_are_not_written_among_the_scans(tmp_path: Path) -> None:
    scans = save_cohort(tmp_path / "fine", 1)
    with pytest.raises(OutputError, match="outside"):
        _evaluate(scans, tmp_path / "out", outputs_to=scans / "made")
