"""Staged files appear together or not at all."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from medld.batch.staging import staged


def test_all_files_appear_at_the_end(tmp_path: Path) -> None:
    targets = [tmp_path / "a" / "one.txt", tmp_path / "b" / "c" / "two.txt"]
    with staged(targets) as where:
        for target in targets:
            where[target].write_text(target.name)
            assert not target.exists()
    assert [t.read_text() for t in targets] == ["one.txt", "two.txt"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "c", "one.txt", "two.txt"]


def test_an_error_leaves_the_disk_as_it_was(tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("old")

    def fail() -> None:
        with staged([kept, tmp_path / "new" / "x.txt"]) as where:
            where[kept].write_text("new")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert kept.read_text() == "old"
    assert list(tmp_path.iterdir()) == [kept]


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out" / "x.txt"

    def be_interrupted() -> None:
        with staged([target]) as where:
            where[target].write_text("half")
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_move_takes_the_earlier_ones_back(tmp_path: Path) -> None:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    second.mkdir()  # a file cannot replace a folder

    def write_both() -> None:
        with staged([first, second]) as where:
            where[first].write_text("1")
            where[second].write_text("2")

    with pytest.raises(OSError, match="second"):
        write_both()
    assert [p.name for p in tmp_path.iterdir()] == ["second.txt"]


def test_companions_move_too_and_missing_targets_do_not(tmp_path: Path) -> None:
    header, never = tmp_path / "scan.mhd", tmp_path / "never.txt"
    with staged([header, never]) as where:
        where[header].write_text("header")
        where[header].with_suffix(".raw").write_text("voxels")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scan.mhd", "scan.raw"]


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    plain, target = tmp_path / "plain", tmp_path / "target"
    plain.write_text("")
    with staged([target]) as where:
        where[target].write_text("")
    assert target.stat().st_mode == plain.stat().st_mode


def write_series(folder: Path, content: str) -> None:
    """A folder of two files."""
    folder.mkdir()
    for name in ("IM-0001.dcm", "IM-0002.dcm"):
        (folder / name).write_text(content)


def contents(folder: Path) -> dict[str, str]:
    """All files below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target, record = tmp_path / "out" / "series", tmp_path / "out" / "series.json"
    with staged([record, target]) as where:
        write_series(where[target], "new")
        where[record].write_text("{}")
        assert not target.exists()
    assert contents(tmp_path) == {
        "out/series/IM-0001.dcm": "new",
        "out/series/IM-0002.dcm": "new",
        "out/series.json": "{}",
    }


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "series"
    write_series(target, "old")
    (target / "IM-0003.dcm").write_text("old")
    with staged([target]) as where:
        write_series(where[target], "new")
    assert contents(tmp_path) == {"series/IM-0001.dcm": "new", "series/IM-0002.dcm": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["series"]


@pytest.mark.parametrize("exists", [False, True])
def test_ctrl_c_while_a_folder_is_written_leaves_the_disk_as_it_was(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "series"
    if exists:
        write_series(target, "old")
    before = contents(tmp_path)

    def be_interrupted() -> None:
        with staged([target]) as where:
            write_series(where[target], "new")
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert contents(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["series"] * exists


@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_move_brings_the_old_folder_back(tmp_path: Path, exists: bool) -> None:
    first, second = tmp_path / "series", tmp_path / "second.txt"
    if exists:
        write_series(first, "old")
    second.mkdir()  # a file cannot replace a folder
    before = contents(tmp_path)

    def write_both() -> None:
        with staged([first, second]) as where:
            write_series(where[first], "new")
            where[second].write_text("2")

    with pytest.raises(OSError, match="second"):
        write_both()
    assert contents(tmp_path) == before
    assert {p.name for p in tmp_path.iterdir()} == {"second.txt", *(["series"] * exists)}
