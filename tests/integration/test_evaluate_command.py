"""`medld evaluate` from the command line: other tools, models, parts, subgroups."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fine_scans import save_cohort

from medld.cli import main

PROTOCOL = "through-plane-2x"
FREE = ["--model", "baseline", "--baselines", "linear", "B", "--no-pages"]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of three heads."""
    return save_cohort(tmp_path / "scans", 3)


def evaluate(source: Path, out: Path, *more: str) -> dict[str, Any]:
    """Results of a command that must succeed."""
    assert main(["evaluate", str(source), "--protocol", PROTOCOL, "--out", str(out), *more]) == 0
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def methods(results: dict[str, Any]) -> set[str]:
    """Columns of a table."""
    return {row["method"] for row in results["summary"]}


def test_what_another_tool_made_of_the_written_scans_stands_in_the_table(scans: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(scans), "--protocol", PROTOCOL, "--write-scans", str(tmp_path / "coarse")]) == 0
    tool = tmp_path / "tool" / PROTOCOL
    tool.mkdir(parents=True)
    for truth in scans.iterdir():  # a tool that is always right
        shutil.copy(truth, tool)
    assert len(list((tmp_path / "coarse" / PROTOCOL).glob("*.nii.gz"))) == 3
    results = evaluate(scans, tmp_path / "out", *FREE, "--other", f"oracle={tmp_path / 'tool'}")
    assert methods(results) == {"linear", "B", "oracle"}
    assert {row["psnr"] for row in results["subjects"] if row["method"] == "oracle"} == {"inf"}


def test_parts_put_together_are_the_whole(scans: Path, tmp_path: Path) -> None:
    whole = evaluate(scans, tmp_path / "whole", *FREE)
    for number in (1, 2):
        part = tmp_path / f"part{number}"
        command = ["evaluate", str(scans), "--protocol", PROTOCOL, "--out", str(part), *FREE]
        assert main([*command, "--shard", f"{number}/2"]) == 0
        assert not (part / "results.json").exists()
    parts = [str(tmp_path / f"part{number}") for number in (2, 1)]
    assert main(["evaluate", "--merge", *parts, "--out", str(tmp_path / "merged"), "--no-pages"]) == 0
    for out in (tmp_path / "whole", tmp_path / "merged"):
        assert {path.name for path in out.iterdir()} == {"results.json", "subjects.csv"}
    merged = json.loads((tmp_path / "merged" / "results.json").read_text())
    assert merged["subjects"] == whole["subjects"]
    assert merged["summary"] == whole["summary"]


def test_gains_count_from_the_named_method_and_subgroups_from_the_named_table(scans: Path, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("subject,sex\nsub-01,F\nsub-02,M\nsub-03,F\n")
    more = ("--against", "linear", "--participants", str(table), "--metrics", "nrmse")
    results = evaluate(scans, tmp_path / "out", *FREE, *more)
    assert {row["gain"] for row in results["subjects"] if row["method"] == "linear"} == {0.0}
    assert any(group["factor"] == "sex" and group["level"] == "F" for group in results["subgroups"])
    assert "nrmse_euclidean" in (tmp_path / "out" / "subjects.csv").read_text().splitlines()[0]


def test_outputs_are_written_segmented_by_another_tool_and_compared(scans: Path, tmp_path: Path) -> None:
    evaluate(scans, tmp_path / "first", *FREE, "--write-outputs", str(tmp_path / "made"))
    for path in (tmp_path / "made").rglob("*.nii.gz"):  # a tool that finds what is brighter than 600
        image = nib.load(path)
        labels = (np.asarray(image.dataobj) > 600).astype(np.uint8)
        goal = tmp_path / "seg" / path.relative_to(tmp_path / "made")
        goal.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(labels, image.affine), goal)
    labels_of = [f"--labels={name}={tmp_path / 'seg' / name}" for name in ("truth", "linear", "B")]
    results = evaluate(scans, tmp_path / "out", *FREE, *labels_of)
    means = {row["method"]: row["statistics"]["dice_mean"]["value"]["mean"] for row in results["summary"]}
    assert 0.5 < means["linear"] < means["B"] < 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["scans"],
        ["scans", "--out", "out"],
        ["scans", "--protocol", PROTOCOL],
        ["--protocol", PROTOCOL, "--out", "out"],
        ["scans", "--protocol", PROTOCOL, "--out", "out", "--other", "folder"],
        ["scans", "--protocol", PROTOCOL, "--out", "out", "--other", "a=x", "--other", "a=y"],
        ["scans", "--protocol", PROTOCOL, "--out", "out", "--labels", "folder"],
        ["scans", "--protocol", PROTOCOL, "--out", "out", "--labels", "truth=x"],
        ["scans", "--protocol", PROTOCOL, "--out", "out", "--model", "baseline", "--samples", "4"],
        ["scans", "--protocol", PROTOCOL, "--out", "out", "--metrics", "lesions_kept"],
        ["scans", "--merge", "part", "--out", "out"],
        ["--merge", "part"],
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], scans: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(scans.parent)
    assert main(["evaluate", *arguments]) == 2
    assert "E_CONFIG" in capsys.readouterr().err
    assert [path.name for path in scans.parent.iterdir()] == ["scans"]
