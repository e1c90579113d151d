"""`medld data`: what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from medld.cards import FOLDER, list_cards
from medld.cli import main
from medld.dataset import load


def save_scan(path: Path, seed: int, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Path:
    """A scan of random values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).gamma(2.0, 300.0, (12, 11, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1.0])), path)
    return path


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two people in train/, one in val/."""
    for seed, name in enumerate(("train/sub-1_T1w", "train/sub-1_T2w", "train/sub-2_T1w", "val/sub-3_T1w")):
        save_scan(tmp_path / "data" / f"{name}.nii.gz", seed)
    return tmp_path / "data"


@pytest.fixture
def card(scans: Path, tmp_path: Path) -> Path:
    """A card of these scans."""
    files = {}
    for split in ("train", "val"):
        files[split] = [
            {
                "file": path.relative_to(scans).as_posix(),
                "subject": path.name.split("_")[0],
                "contrast": path.name.split("_")[1][:3],
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in sorted((scans / split).iterdir())
        ]
    content = yaml.safe_load((FOLDER / "ixi.yaml").read_text())
    content |= {
        "name": "own",
        "title": "Three people",
        "contrasts": ["T1w", "T2w"],
        "counts": {"subjects": 3, "files": 4},
        "splits": {"rule": "listed", "why": "By subject", "files": files},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_lint_without_names_looks_at_every_card_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "lint"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{name}: no problem" for name in list_cards()]


def test_lint_goes_on_after_a_bad_card_and_ends_with_two(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, worse = card.with_name("bad.yaml"), card.with_name("worse.yaml")
    bad.write_text(card.read_text().replace("name: own", "name: bad").replace("subjects: 3", "subjects: 5"))
    worse.write_text("name: worse")
    assert main(["data", "lint", str(bad), str(worse), str(card)]) == 2
    printed = capsys.readouterr().out
    assert f"{bad}: 1 problem\n  counts.subjects: 5, the splits list 3" in printed
    assert f"{worse}: 1 problem\n" in printed
    assert "licence: Field required" in printed
    assert f"{card}: no problem" in printed


def test_list_names_every_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(list_cards())


@pytest.mark.parametrize("name", list_cards())
def test_show_tells_everything_in_lines_that_fit(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert main(["data", "show", name]) == 0
    printed = capsys.readouterr().out
    words = " ".join(printed.split())
    for text in (content["title"], *content["use"]["ethics"], *content["decisions"]):
        assert " ".join(str(text).split()) in words
    assert max(len(line) for line in printed.splitlines() if "://" not in line) <= 120


def test_show_counts_the_splits(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(card)]) == 0
    printed = capsys.readouterr().out
    assert "train: 2 subjects, 2 T1w, 1 T2w" in printed
    assert "val: 1 subjects, 1 T1w" in printed


def test_inspect_tells_what_there_is_and_what_is_wrong(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(scans)]) == 0
    printed = capsys.readouterr().out
    assert "4 scans, 3 subjects, 4 readable, 0 with problems" in printed
    assert "3 MR T1w at 1.00x1.00x1.00 mm" in printed
    save_scan(scans / "val" / "sub-4_FLAIR.nii.gz", 9, (1.0, 1.0, 4.0))
    (scans / "val" / "sub-5_T1w.nii").write_text("not a scan")
    assert main(["data", "inspect", str(scans)]) == 2
    printed = capsys.readouterr().out
    assert "val/sub-4_FLAIR.nii.gz: E_COHORT: thick slices: 4 mm beside 1 mm" in printed
    assert "val/sub-5_T1w.nii: E_NOT_IMAGE: " in printed
    assert "6 scans, 5 subjects, 5 readable, 2 with problems" in printed


@pytest.mark.parametrize(("split", "names"), [(None, 3), ("train", 3), ("val", 1)])
def test_pack_writes_a_split_of_a_card(
    split: str | None, names: int, card: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [] if split is None else ["--split", split]
    command = ["data", "pack", str(card), "--data", str(scans), "--out", str(tmp_path / "pack"), *chosen]
    assert main(command) == 0
    assert f"{names} volumes" in capsys.readouterr().out
    direct = {fine.name: fine.array for fine in load([scans / (split or "train")])}
    packed = {fine.name: fine.array for fine in load([tmp_path / "pack"])}
    assert set(packed) == set(direct)
    assert all(np.array_equal(packed[name], direct[name]) for name in direct)
    assert main(command) == 2  # the pack is there already
    assert "E_EXISTS" in capsys.readouterr().err


def test_pack_takes_the_folder_of_scans_from_the_environment(
    card: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDLD_DATA", str(scans))
    assert main(["data", "pack", str(card), "--out", str(tmp_path / "pack")]) == 0


def test_pack_says_what_found_no_room(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pack"
    command = ["data", "pack", str(scans / "train"), "--out", str(out), "--max-mb", "0.0045"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 volumes" in printed
    assert "left out for want of room (1): sub-" in printed
    assert sum(path.stat().st_size for path in out.iterdir()) <= 4500


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["lint", "no-such"], "E_CARD"),
        (["show", "no-such.yaml"], "E_CARD"),
        (["inspect", "EMPTY"], "E_CARD"),
        (["pack", "no-such", "--out", "OUT"], "E_CARD"),
        (["pack", "EMPTY", "--out", "OUT"], "E_CARD"),
        (["pack", "SCANS", "--out", "OUT", "--split", "val"], "E_CONFIG"),
        (["pack", "SCANS", "--out", "OUT", "--max-mb", "0"], "E_CONFIG"),
        (["pack", "SCANS", "--out", "OUT", "--max-mb", "0.001"], "E_CARD"),
        (["pack", "medld-mri-train", "--out", "OUT"], "E_CONFIG"),
        (["pack", "medld-mri-train", "--out", "OUT", "--data", "EMPTY"], "E_CARD"),
        (["unpack"], "E_CONFIG"),
        ([], "E_CONFIG"),
    ],
)
def test_refusals_cost_one_line_and_leave_nothing(
    arguments: list[str],
    code: str,
    scans: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MEDLD_DATA", raising=False)
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": tmp_path / "empty", "OUT": tmp_path / "pack", "SCANS": scans / "train"}
    assert main(["data", *(str(places.get(word, word)) for word in arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"medld: {code}: ")
    assert len(printed.err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "empty"]


def test_pack_refuses_a_damaged_file(
    card: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = scans / "train" / "sub-2_T1w.nii.gz"
    file.write_bytes(file.read_bytes() + b"\0")
    assert main(["data", "pack", str(card), "--data", str(scans), "--out", str(tmp_path / "pack")]) == 2
    assert "E_CARD: sub-2_T1w.nii.gz is damaged or another file" in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()
