from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from fine_scans import make_head, save_cohort, save_scan

from medld.cards import card_path
from medld.errors import CardError, ConfigError, InputError
from medld.evaluation.sources import find_source


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_a_flat_folder_gives_every_image_below_it(tmp_path: Path) -> None:
    _touch(tmp_path, "b_T1w.nii.gz", "deep/a.nrrd", "notes.txt", "deep/a.json")
    source = find_source(tmp_path)
    assert [scan.name for scan in source.scans] == ["b_T1w.nii.gz", "deep/a.nrrd"]
    assert source.subjects == ("a", "b_T1w")


def test_a_bids_tree_gives_its_anatomy_without_masks_and_derivatives(tmp_path: Path) -> None:
    wanted = ["sub-01/anat/sub-01_T1w.nii.gz", "sub-02/ses-1/anat/sub-02_ses-1_FLAIR.nii.gz"]
    others = ["sub-01/anat/sub-01_desc-brain_mask.nii.gz", "sub-01/func/sub-01_task-x_bold.nii.gz"]
    _touch(tmp_path, *wanted, *others, "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz")
    source = find_source(tmp_path)
    assert [scan.name for scan in source.scans] == wanted
    assert source.subjects == ("sub-01", "sub-02")


def test_shards_share_out_whole_subjects(tmp_path: Path) -> None:
    names = [f"sub-{subject}_{what}.nii.gz" for subject in "abcde" for what in ("T1w", "T2w")]
    _touch(tmp_path, *names)
    source = find_source(tmp_path)
    shards = [source.shard(index, 3) for index in (1, 2, 3)]
    assert sorted(scan.name for shard in shards for scan in shard) == names
    subjects = [{scan.subject for scan in shard} for shard in shards]
    assert sum(map(len, subjects)) == 5
    assert source.shard(1, 1) == source.scans
    assert source.shard(6, 6) == ()


def test_a_limit_takes_whole_subjects(tmp_path: Path) -> None:
    _touch(tmp_path, "sub-a_T1w.nii.gz", "sub-a_T2w.nii.gz", "sub-b_T1w.nii.gz")
    assert [scan.name for scan in find_source(tmp_path, limit=1).scans] == ["sub-a_T1w.nii.gz", "sub-a_T2w.nii.gz"]


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A card of two validation scans, one of a contrast that networks do not know, and its files beside it."""
    content: Any = yaml.safe_load(card_path("medld-mri-train").read_text(encoding="utf-8"))
    files = []
    for subject, contrast in (("a", "T1w"), ("b", "PDw")):
        path = save_scan(tmp_path / "data" / "val" / f"{subject}.nii.gz", make_head(1).astype("int16"))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append({"file": f"val/{path.name}", "subject": subject, "contrast": contrast, "sha256": digest})
    content["splits"]["files"] = {"val": files}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_card_says_whose_and_what_its_scans_are(card: Path, tmp_path: Path) -> None:
    source = find_source(card, tmp_path / "data")
    first, second = source.scans
    assert (first.name, first.subject, source.card, source.split) == ("val/a.nii.gz", "a", "medld-mri-train", "val")
    volume = second.read()
    assert (volume.contrast, volume.modality, second.group(volume)) == ("unknown", "mr", "PDw")


def test_a_file_that_is_not_the_cards_is_refused(card: Path, tmp_path: Path) -> None:
    source = find_source(card, tmp_path / "data")
    save_scan(source.scans[0].path, make_head(2).astype("int16"))
    with pytest.raises(CardError, match="hash"):
        source.scans[0].read()


def test_refuses_a_card_without_its_folder_or_files_and_what_is_nothing(card: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data"):
        find_source("medld-mri-train")
    with pytest.raises(CardError):
        find_source(card, tmp_path / "data", "train")
    with pytest.raises(InputError, match="folder of scans or a data card"):
        find_source(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="image files"):
        find_source(tmp_path / "empty")


def test_a_folder_comes_before_a_card_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_cohort(tmp_path / "ixi", 1)
    monkeypatch.chdir(tmp_path)
    assert find_source("ixi").card == ""
