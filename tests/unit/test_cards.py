"""Data cards: what the schema refuses, what the linter finds, and that the shipped ones are true."""

from __future__ import annotations

import copy
import csv
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medld.cards import DataCard, card_path, known, lint_card, lint_file, list_cards, read_card, split_of
from medld.errors import CardError

Change = Callable[[dict[str, Any]], Any]

SETS = ("ixi", "hcp", "oasis", "kirby21", "brats", "fastmri", "adni", "lidc", "rplhr", "ldct", "totalsegmentator")


def file_entry(subject: str, contrast: str = "T1w", part: str | None = "site") -> dict[str, Any]:
    """A file whose hash is that of its name."""
    name = f"sub-{subject}_{contrast}.nii.gz"
    entry = {
        "file": name,
        "subject": subject,
        "contrast": contrast,
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
    }
    return entry if part is None else {**entry, "part": part}


@pytest.fixture
def content() -> dict[str, Any]:
    """A card without a fault: three people, four files, one source."""
    return {
        "name": "own",
        "title": "Three people",
        "origin": ["https://example.org/own"],
        "version": "1",
        "licence": "CC0-1.0",
        "access": "On request",
        "citation": ["A paper, 2020"],
        "attribution": "Name us",
        "modality": "mr",
        "body_parts": ["head"],
        "contrasts": ["T1w", "T2w"],
        "vendors": {"unknown": "headers were wiped"},
        "field_strengths_t": [3],
        "ages": {"low": 20, "high": 60},
        "sexes": {"female": 1, "male": 1, "not_given": 1},
        "counts": {"subjects": 3, "files": 4},
        "spacing_mm": ["1 isotropic"],
        "units": "arbitrary",
        "known_defects": {"none": "every scan was looked at"},
        "preprocessing": ["Nothing was done"],
        "parts": [
            {
                "name": "site",
                "origin": "https://example.org/site",
                "version": "1",
                "licence": "CC0-1.0",
                "attribution": "Name us",
                "notes": ["one scanner"],
            }
        ],
        "layout": "flat",
        "splits": {
            "rule": "listed",
            "why": "By subject",
            "files": {
                "train": [file_entry("a"), file_entry("a", "T2w"), file_entry("b")],
                "val": [file_entry("c")],
            },
        },
        "decisions": ["All files weigh the same"],
        "use": {"good_for": ["tests"], "not_good_for": ["anything else"], "ethics": ["nobody is real"]},
    }


def put(place: str, value: Any) -> Change:
    """A change that sets `a.b` to a value."""

    def change(content: dict[str, Any]) -> None:
        *parents, last = place.split(".")
        for parent in parents:
            content = content[parent]
        content[last] = value

    return change


def add(split: str, *entries: dict[str, Any]) -> Change:
    """A change that adds files to a split, a new one where there is none."""
    return lambda content: content["splits"]["files"].setdefault(split, []).extend(entries)


def linted(content: dict[str, Any], change: Change) -> list[str]:
    """The linter's words on a changed card that the schema takes."""
    changed = copy.deepcopy(content)
    change(changed)
    return lint_card(DataCard.model_validate(changed))


def test_a_card_without_fault_has_no_problems(content: dict[str, Any]) -> None:
    assert lint_card(DataCard.model_validate(content)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (add("val", file_entry("a", "FLAIR")), "subject a is in train and val"),
        (add("test", file_entry("c", "T2w")), "subject c is in test and val"),
        (put("counts.subjects", 4), "counts.subjects: 4, the splits list 3"),
        (put("counts.files", 3), "counts.files: 3, the splits list 4"),
        (put("counts.files", {"unknown": "nobody counted them"}), "counts.files: None, the splits list 4"),
        (add("train", {**file_entry("d"), "sha256": file_entry("a")["sha256"]}), f"sha256 {file_entry('a')['sha256']}"),
        (add("train", {**file_entry("d"), "file": file_entry("b")["file"]}), "file sub-b_T1w.nii.gz stands there 2"),
        (put("title", "TODO"), "title: placeholder text 'TODO'"),
        (put("units", "to be filled in, tbd"), "units: placeholder text"),
        (put("vendors", {"unknown": "fill me in later"}), "vendors.unknown: placeholder text 'fill me in'"),
        (put("citation", ["A paper", "???"]), "citation[1]: placeholder text"),
        (put("use.ethics", ["unknown"]), "use.ethics[0]: placeholder text 'unknown'"),
        (put("splits.why", "..."), "splits.why: placeholder text"),
        (put("contrasts", ["T1w", "T2w", "T3w"]), "'T3w' is not one of"),
        (add("train", file_entry("d", "t1")), "'t1' is not one of"),
        (put("contrasts", ["T1w"]), "contrasts: T2w stands in the contrasts or in the files"),
        (put("contrasts", ["T1w", "T2w", "FLAIR"]), "contrasts: FLAIR stands in the contrasts or in the files"),
        (put("known_defects", []), "known_defects: an empty list"),
        (put("origin", []), "origin: an empty list"),
        (put("use.good_for", []), "use.good_for: an empty list"),
        (add("test"), "splits.files.test: an empty list"),
        (put("splits.files", {}), "splits.files: an empty list"),
        (put("ages", {"low": 61, "high": 60}), "ages: low 61 is above high 60"),
        (put("sexes", {"female": 1, "male": 1}), "sexes: 1 + 1 + 0 are not counts.subjects, 3"),
        (put("splits.rule", "by-subject-hash"), "do not go with the rule by-subject-hash"),
        (put("splits.files", {"unknown": "the list was lost"}), "0 files do not go with the rule listed"),
        (add("train", file_entry("d", part="other")), "parts: other is named by files or in the parts"),
        (add("train", file_entry("d", part=None)), "a file without its part"),
        (lambda content: content["parts"].append({**content["parts"][0], "name": "spare"}), "parts: spare is named"),
        (lambda content: content["parts"].append(content["parts"][0]), "parts: site stands there twice"),
    ],
)
def test_the_linter_finds_a_planted_defect(content: dict[str, Any], change: Change, words: str) -> None:
    assert any(words in problem for problem in linted(content, change)), linted(content, change)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda content: content.pop("licence"), "licence"),
        (put("ages", None), "ages"),
        (put("ages", "unknown"), "ages"),
        (put("ages", {"unknown": "no"}), "ages.unknown"),
        (put("ages", {"unknown": None}), "ages"),
        (put("ages", {"unknown": "two words too many", "none": "and another reason"}), "ages"),
        (put("vendors", "Siemens"), "vendors"),
        (put("counts.subjects", "many"), "counts.subjects"),
        (put("modality", "pet"), "modality"),
        (put("licence", ""), "licence"),
        (put("licences", "CC0-1.0"), "licences"),
        (put("origin", ["example.org"]), "origin[0]"),
        (add("train", {**file_entry("d"), "sha256": "0" * 63}), "splits.files.train[3].sha256"),
        (add("train", {**file_entry("d"), "file": "../secret.nii.gz"}), "splits.files.train[3].file"),
        (add("train", {**file_entry("d"), "file": "/etc/passwd"}), "splits.files.train[3].file"),
        (add("train", {**file_entry("d"), "axes": [0, 3]}), "splits.files.train[3].axes"),
        (add("train", {**file_entry("d"), "weight": 0}), "splits.files.train[3].weight"),
        (add("training", file_entry("d")), "splits.files.training"),
    ],
)
def test_the_schema_refuses_and_names_file_and_field(
    content: dict[str, Any], change: Change, field: str, tmp_path: Path
) -> None:
    change(content)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(CardError, match=rf"own\.yaml is no data card\. (.*; )?{re.escape(field)}: ") as caught:
        read_card(path)
    assert caught.value.code == "E_CARD"
    assert len(lint_file(path)) == 1


def test_a_comma_in_a_reason_is_explained(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    del content["vendors"]
    path.write_text(yaml.safe_dump(content) + "vendors: {unknown: headers were wiped, all of them}\n")
    with pytest.raises(CardError, match=r"vendors: .*quote commas"):
        read_card(path)


def test_a_file_that_is_not_there_or_no_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="ixi"):
        read_card("ixii")
    with pytest.raises(CardError, match=r"nowhere\.yaml"):
        read_card(tmp_path / "nowhere.yaml")


def test_a_card_is_called_like_its_file(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(content))
    assert lint_file(path) == ["name: 'own', the file is called other"]


def test_files_of_one_split_or_of_all(content: dict[str, Any]) -> None:
    card = DataCard.model_validate(content)
    assert [file.subject for file in card.files("train")] == ["a", "a", "b"]
    assert [file.subject for file in card.files("val")] == ["c"]
    assert card.files("test") == ()
    assert len(card.files()) == 4


def test_an_absence_prints_its_reason_and_has_no_value(content: dict[str, Any]) -> None:
    card = DataCard.model_validate(content)
    assert str(card.vendors) == "unknown (headers were wiped)"
    assert str(card.known_defects) == "none (every scan was looked at)"
    assert known(card.vendors) is None
    assert known(card.body_parts) == ("head",)


def test_about_a_tenth_of_the_subjects_is_val_and_a_tenth_test() -> None:
    splits = [split_of(f"subject {number}") for number in range(4000)]
    deviation = (4000 * 0.1 * 0.9) ** 0.5
    assert splits.count("val") == pytest.approx(400, abs=4 * deviation)
    assert splits.count("test") == pytest.approx(400, abs=4 * deviation)


@pytest.mark.parametrize("name", list_cards())
def test_every_shipped_card_is_clean(name: str) -> None:
    assert lint_file(card_path(name)) == []


def test_cards_ship_for_the_data_that_users_have() -> None:
    assert {"medld-mri-train", "medld-ct-train"} <= set(list_cards())
    assert [word for word in SETS if not any(word in name for name in list_cards())] == []


@pytest.mark.data
@pytest.mark.parametrize("name", ["medld-mri-train", "medld-ct-train"])
def test_the_hashes_of_our_own_cards_are_those_of_the_files(name: str, data: Path) -> None:
    for file in read_card(name).files():
        assert hashlib.sha256((data / file.file).read_bytes()).hexdigest() == file.sha256, file.file


@pytest.mark.data
@pytest.mark.parametrize(("name", "modality"), [("medld-mri-train", "MR"), ("medld-ct-train", "CT")])
def test_our_own_cards_say_what_the_table_of_participants_says(name: str, modality: str, data: Path) -> None:
    card = read_card(name)
    with (data / "participants.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["modality"] == modality]
    listed = {file.file: file for split in ("train", "val") for file in card.files(split)}  # type: ignore[arg-type]
    wanted = {row["file"]: row for row in rows if row["split"] in ("train", "val")}
    assert set(listed) == set(wanted)
    for path, row in wanted.items():
        file = listed[path]
        split = "train" if file in card.files("train") else "val"
        contrast = row["contrast"].replace("ce-gad_", "ce-")
        assert (file.subject, split, file.contrast) == (row["subject"], row["split"], contrast)
        spacing = [float(s) for s in row["spacing_mm"].split("x")]
        assert file.axes == tuple(axis for axis in range(3) if spacing[axis] < 1.8 * min(spacing))
    ages = [int(row["age"]) for row in wanted.values() if row["age"]]
    assert (known(card.ages).low, known(card.ages).high) == (min(ages), max(ages))  # type: ignore[union-attr]
    sexes = {row["subject"]: row["sex"] for row in wanted.values()}
    counted = [list(sexes.values()).count(sex) for sex in ("F", "M", "")]
    stated = known(card.sexes)
    assert stated is not None
    assert [stated.female, stated.male, stated.not_given] == counted
    for part in card.parts:
        of_part = [row for path, row in wanted.items() if listed[path].part == part.name]
        assert {row["licence"] for row in of_part} == {part.licence}
        assert {row["attribution"] for row in of_part} == {part.attribution}
        assert {f"commit {row['source_commit']}" for row in of_part} == {part.version}
        assert {f"https://github.com/{row['source_repository']}" for row in of_part} == {part.origin}
