from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fine_scans import make_head, save_cohort, save_scan

from medld.build import build_networks
from medld.checkpoint import load_model, save_model
from medld.config import ModelConfig, NetworkConfig
from medld.errors import CheckpointError, ConfigError, InputError, OutputError
from medld.evaluation import BASELINES, evaluate, load_protocol, simulate, simulate_scans
from medld.evaluation.sources import find_source
from medld.io import read_volume

PLAIN = ("cubic", "B")
"""Baselines of most tests here: what the others do is in test_baselines.py."""

PROTOCOLS = ["through-plane-4x", "isotropic-2x"]
FILES = ("results.json", "subjects.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two T1 scans, a T2 scan, a CT scan and a file that is none."""
    folder = save_cohort(tmp_path_factory.mktemp("scans"), 2)
    save_scan(folder / "deeper" / "sub-02_T2w.nii.gz", make_head(3).astype(np.float32))
    save_scan(folder / "sub-03_CT.nii.gz", (make_head(4) * 1.5 - 1000).astype(np.int16))
    (folder / "sub-04_T1w.nii.gz").write_text("not an image")
    return folder


def _evaluate(folder: Path | str, out: Path, protocols: Any = PROTOCOLS, **options: Any) -> dict[str, Any]:
    plain = {"model": "baseline", "baselines": PLAIN, "device": "cpu", "pages": False}
    evaluate(folder, protocols, out, **{**plain, **options})
    record: dict[str, Any] = json.loads((out / "results.json").read_text())
    return record


def _bytes(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in FILES]


def test_the_record_holds_every_scan_by_every_protocol_and_method(folder: Path, tmp_path: Path) -> None:
    record = _evaluate(folder, tmp_path / "out", baselines=BASELINES)
    rows = [(row["protocol"], row["file"], row["method"]) for row in record["subjects"]]
    files = ["deeper/sub-02_T2w.nii.gz", "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz", "sub-03_CT.nii.gz"]
    assert rows == [(p, f, m) for p in PROTOCOLS for f in files for m in BASELINES]
    assert {(s["protocol"], s["code"]) for s in record["skipped"]} == {(p, "E_NOT_IMAGE") for p in PROTOCOLS}
    with (tmp_path / "out" / "subjects.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["psnr"]) for row in table] == [row["psnr"] for row in record["subjects"]]
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES)


def test_groups_are_contrasts_and_ct_stands_apart(folder: Path, tmp_path: Path) -> None:
    record = _evaluate(folder, tmp_path / "out")
    lines = [(s["group"], s["method"], s["scans"]) for s in record["summary"] if s["protocol"] == "isotropic-2x"]
    assert lines == [(g, m, n) for g, n in (("CT", 1), ("T1w", 2), ("T2w", 1)) for m in PLAIN]


def test_the_table_and_what_few_subjects_do_not_say_are_reported(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    record = _evaluate(folder, tmp_path / "out", report=lines.append)
    assert sum("through-plane-4x" in line and "T1w" in line and "cubic  " in line for line in lines) == 1
    assert any(line.startswith("T2w: 1 subject, too few") for line in lines)
    assert lines[-len(record["warnings"]) :] == record["warnings"]


def test_gains_count_from_b_or_from_what_is_named(folder: Path, tmp_path: Path) -> None:
    for row in _evaluate(folder, tmp_path / "b")["subjects"]:
        assert row["gain"] == 0 if row["method"] == "B" else row["gain"] < 0
    for row in _evaluate(folder, tmp_path / "cubic", against="cubic")["subjects"]:
        assert row["gain"] == 0 if row["method"] == "cubic" else row["gain"] > 0
    with pytest.raises(ConfigError, match="--against"):
        _evaluate(folder, tmp_path / "no", against="lanczos")


def test_the_same_run_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for out in ("first", "second"):
        _evaluate(folder, tmp_path / out)
    assert _bytes(tmp_path / "first") == _bytes(tmp_path / "second")


def test_results_are_json_even_of_a_perfect_output(tmp_path: Path) -> None:
    fine = save_cohort(tmp_path / "fine", 1)
    truth, _ = simulate(read_volume(fine / "sub-01_T1w.nii.gz")[0], load_protocol("through-plane-4x"))
    save_scan(tmp_path / "x" / "sub-01_T1w.nii.gz", truth.array, truth.grid.affine)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    _evaluate(fine, tmp_path / "out", ["through-plane-4x"], others={"x": tmp_path / "x"})
    record = json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=refuse)
    best = next(row for row in record["subjects"] if row["method"] == "x")
    assert (best["psnr"], best["detail_share"]) == ("inf", 1)


def test_a_limit_takes_whole_subjects_and_leaves_their_numbers_alone(folder: Path, tmp_path: Path) -> None:
    whole = _evaluate(folder, tmp_path / "whole")
    part = _evaluate(folder, tmp_path / "part", limit=2)
    assert part["subjects"] == [row for row in whole["subjects"] if row["subject"] in ("sub-01", "sub-02")]


def test_earlier_results_are_replaced_only_when_told(folder: Path, tmp_path: Path) -> None:
    _evaluate(folder, tmp_path, limit=1)
    with pytest.raises(OutputError):
        _evaluate(folder, tmp_path, limit=1)
    _evaluate(folder, tmp_path, limit=1, overwrite=True)


def test_refuses_a_run_without_scans_or_protocols_or_sense(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        evaluate(tmp_path, ["through-plane-4x"], tmp_path / "out")
    with pytest.raises(ConfigError):
        evaluate(folder, [], tmp_path / "out")
    with pytest.raises(ConfigError, match="limit"):
        evaluate(folder, ["through-plane-4x"], tmp_path / "out", limit=0)
    (tmp_path / "again.yaml").write_text("name: isotropic-2x\naxes: through-plane\nratio: 3\n")
    with pytest.raises(ConfigError, match="Rename"):
        evaluate(folder, ["isotropic-2x", str(tmp_path / "again.yaml")], tmp_path / "out")
    (tmp_path / "sub-01_T1w.nii.gz").write_text("not an image")
    with pytest.raises(InputError, match="skipped"):
        evaluate(tmp_path, ["through-plane-4x"], tmp_path / "out", model="baseline")
    assert not (tmp_path / "out").exists()


def test_a_scan_without_a_foreground_is_skipped_in_one_sentence(tmp_path: Path) -> None:
    fine = save_cohort(tmp_path / "fine", 1)
    air = np.random.default_rng(0).normal(-1000, 20, (24, 26, 32))
    save_scan(fine / "sub-02_CT.nii.gz", air.astype(np.int16))
    record = _evaluate(fine, tmp_path / "out", ["through-plane-4x"])
    (skipped,) = record["skipped"]
    assert (skipped["file"], skipped["code"]) == ("sub-02_CT.nii.gz", "E_PIXELS")
    assert "99.5th percentile" in skipped["reason"]


def test_other_tools_stand_in_the_table_by_scan_and_protocol(tmp_path: Path) -> None:
    fine, given, made = save_cohort(tmp_path / "fine", 3), tmp_path / "given", tmp_path / "made"
    assert simulate_scans(fine, PROTOCOLS, given) == 6
    for protocol in PROTOCOLS:
        for number in (1, 2):  # the third fails
            name = f"sub-{number:02}_T1w"
            truth, scan = simulate(read_volume(fine / f"{name}.nii.gz")[0], load_protocol(protocol))
            np.testing.assert_array_equal(read_volume(given / protocol / f"{name}.nii.gz")[0].array, scan.array)
            save_scan(made / protocol / f"{name}_x.nii.gz", 0.9 * truth.array, truth.grid.affine)
    save_scan(made / "isotropic-2x" / "sub-99_T1w.nii.gz", make_head())
    lines: list[str] = []
    record = _evaluate(fine, tmp_path / "out", others={"x": made}, report=lines.append)
    rows = [row for row in record["subjects"] if row["method"] == "x"]
    assert [row["file"][:6] for row in rows] == ["sub-01", "sub-02"] * 2
    assert all(len(row["output_sha256"]) == 64 for row in rows)
    assert {(one["method"], one["file"]) for one in record["skipped"]} == {("x", "sub-03_T1w.nii.gz")}
    assert any("sub-99_T1w.nii.gz  of x left out" in line for line in lines)


def test_another_tool_without_a_single_output_is_refused_before_the_start(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="outputs of x"):
        _evaluate(folder, tmp_path / "out", others={"x": tmp_path})
    assert not (tmp_path / "out").exists()


def test_subgroups_come_from_the_table_beside_the_scans(tmp_path: Path) -> None:
    fine = save_cohort(tmp_path / "fine", 4)
    lines = ["participant_id\tsex\tage", *(f"sub-{n:02}\t{'FM'[n % 2]}\t{20 + 15 * n}" for n in range(1, 5))]
    (fine / "participants.tsv").write_text("\n".join(lines) + "\n")
    record = _evaluate(fine, tmp_path / "out", ["through-plane-4x"])
    found = {(s["factor"], s["level"]): s["subjects"] for s in record["subgroups"] if s["method"] == "B"}
    ages = {("age_band", "18-39"): 1, ("age_band", "40-64"): 1, ("age_band", "65+"): 2}
    assert found == {("sex", "F"): 2, ("sex", "M"): 2} | ages
    assert sum("too small to say anything" in line for line in record["warnings"]) == 5
    assert {row["sex"] for row in record["subjects"]} == {"F", "M"}
    assert "35" not in {row.get("age") for row in record["subjects"]}
    assert len(record["settings"]["participants"]) == 64


def test_metrics_beyond_the_headline_get_columns_and_statistics(tmp_path: Path) -> None:
    fine = save_cohort(tmp_path / "fine", 5)
    lines: list[str] = []
    record = _evaluate(fine, tmp_path / "out", ["through-plane-4x"], metrics=["residual"], report=lines.append)
    cubic, b = record["summary"]
    for summary in (cubic, b):
        statistic = summary["statistics"]["residual_rms"]
        own = [row["residual_rms"] for row in record["subjects"] if row["method"] == summary["method"]]
        assert statistic["value"]["mean"] == pytest.approx(np.mean(own))
        assert statistic["value"]["low"] <= statistic["value"]["mean"] <= statistic["value"]["high"]
    assert cubic["statistics"]["residual_rms"]["difference"]["low"] > 0
    assert any("residual_rms" in line for line in lines)


def test_a_bids_tree_is_evaluated_like_the_flat_folder(tmp_path: Path) -> None:
    flat = save_cohort(tmp_path / "flat", 2)
    for path in sorted(flat.iterdir()):
        goal = tmp_path / "bids" / path.name[:6] / "anat" / path.name
        goal.parent.mkdir(parents=True)
        os.link(path, goal)
    records = [_evaluate(tmp_path / name, tmp_path / f"out-{name}") for name in ("flat", "bids")]
    assert records[1]["subjects"][0]["file"] == "sub-01/anat/sub-01_T1w.nii.gz"
    assert records[0]["summary"] == records[1]["summary"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained model. Its head is zero, so what it adds to B is nothing."""
    config = ModelConfig(one_step=NetworkConfig(channels=(4, 4, 8), blocks=(1, 1, 1), embedding=8))
    networks = build_networks(config)
    assert networks.one_step is not None
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, config, {"one_step": networks.one_step.state_dict()}, {})
    return folder


def test_a_model_that_adds_nothing_gains_nothing(folder: Path, model: Path, tmp_path: Path) -> None:
    rows = _evaluate(folder, tmp_path, ["through-plane-4x"], model=model, limit=2)["subjects"]
    gains = [row["gain"] for row in rows if row["method"] == "medld"]
    assert len(gains) == 3
    assert gains == pytest.approx([0, 0, 0], abs=1e-3)


def test_several_models_stand_beside_each_other(folder: Path, model: Path, tmp_path: Path) -> None:
    record = _evaluate(folder, tmp_path, ["through-plane-4x"], model=[model, f"again={model}"], limit=1)
    assert [row["method"] for row in record["subjects"]] == ["cubic", "B", "tiny", "again"]
    assert [(one["method"], one["name"]) for one in record["models"]] == [("tiny", "tiny"), ("again", "tiny")]


def test_the_record_names_model_weights_and_settings(folder: Path, model: Path, tmp_path: Path) -> None:
    record = _evaluate(folder, tmp_path, ["through-plane-3.5x"], model=model, limit=1, mode="detail", threads=1)
    assert record["model"] == {"name": "tiny", "sha256": dict(load_model(model).sha256)}
    settings = {"mode": "detail", "limit": 1, "device": "cpu", "threads": 1, "against": "B", "seed": 0}
    assert settings.items() <= record["settings"].items()
    assert record["protocols"][0]["ratio"] == 3.5
    assert record["device"] == "cpu"
    assert str(tmp_path.parent) not in (tmp_path / "results.json").read_text()


def test_what_a_model_does_not_cover_is_said(folder: Path, model: Path, tmp_path: Path) -> None:
    rows = _evaluate(folder, tmp_path, ["through-plane-4x"], model=model)["subjects"]
    how = {row["group"]: row["how"] for row in rows if row["method"] == "medld"}
    assert "baseline" in how["CT"]
    assert "baseline" not in how["T1w"]


def test_a_model_that_answers_nan_is_skipped_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    config = ModelConfig(one_step=NetworkConfig(channels=(4, 4, 8), blocks=(1, 1, 1), embedding=8))
    network = build_networks(config).one_step
    assert network is not None
    broken = {name: value.fill_(float("nan")) for name, value in network.state_dict().items()}
    save_model(tmp_path / "broken", config, {"one_step": broken}, {})
    record = _evaluate(folder, tmp_path / "out", ["through-plane-4x"], model=tmp_path / "broken", limit=1)
    assert [row["method"] for row in record["subjects"]] == ["cubic", "B"]
    (skipped,) = record["skipped"]
    assert (skipped["method"], skipped["code"]) == ("medld", "E_NUMERIC")


def test_a_named_model_must_be_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        evaluate(folder, ["through-plane-4x"], tmp_path / "out", model="no-such-model")


def test_simulated_scans_can_be_written_on_the_way(folder: Path, tmp_path: Path) -> None:
    _evaluate(folder, tmp_path / "out", ["through-plane-4x"], scans_to=tmp_path / "scans")
    names = sorted(p.relative_to(tmp_path / "scans").as_posix() for p in (tmp_path / "scans").rglob("*.nii.gz"))
    read = [scan.name for scan in find_source(folder).scans if "sub-04" not in scan.name]
    assert names == [f"through-plane-4x/{name}" for name in read]
