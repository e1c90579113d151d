from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medld.errors import ConfigError, OutputError
from medld.evaluation.journal import Entry, gather_shards, in_order, journal_path, open_journal, read_journal
from medld.evaluation.table import Row

HEAD = {"settings": {"seed": 0}, "protocols": ["p"], "scans": ("a", "b")}


def _entry(file: str, psnr: float = 30.1) -> Entry:
    values = {"psnr": psnr, "ssim": 1 / 3, "detail_share": float("nan")}
    row = Row("p", "T1w", file, file, "0", "1x1x1", 4.0, "B", "B", values, float("inf"), traits={"sex": "F"})
    return Entry("p", file, "0", {"x": ""}, (row,), ({"code": "E_4D", "reason": "four"},))


def test_what_was_added_comes_back_digit_by_digit(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, HEAD, (1, 1))
    journal.add(_entry("a"))
    found = open_journal(tmp_path, HEAD, (1, 1))
    assert repr(found.entries) == repr({("p", "a"): _entry("a")})  # NaN equals nothing, but its letters
    assert not found.complete


def test_nothing_is_written_before_there_is_something_to_say(tmp_path: Path) -> None:
    open_journal(tmp_path / "out", HEAD, (1, 1))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", range(0, 700, 23))
def test_half_a_line_is_dropped_and_the_next_one_stands_by_itself(tmp_path: Path, kept: int) -> None:
    journal = open_journal(tmp_path, HEAD, (1, 1))
    journal.add(_entry("a"))
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[:kept])
    again = open_journal(tmp_path, HEAD, (1, 1))
    assert set(again.entries) == ({("p", "a")} if kept >= len(content) else set())
    again.add(_entry("b"))
    assert ("p", "b") in read_journal(journal.path).entries


def test_a_later_entry_of_a_scan_counts(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, HEAD, (1, 1))
    journal.add(_entry("a"))
    journal.finish()
    journal.add(_entry("a", 31.0))
    found = read_journal(journal.path)
    assert found.entries["p", "a"].rows[0].values["psnr"] == 31.0
    assert not found.complete


def test_a_journal_of_other_settings_is_refused_by_what_differs(tmp_path: Path) -> None:
    open_journal(tmp_path, HEAD, (1, 1)).add(_entry("a"))
    other = {**HEAD, "settings": {"seed": 1}}
    with pytest.raises(OutputError, match="differs in settings"):
        open_journal(tmp_path, other, (1, 1))
    assert open_journal(tmp_path, other, (1, 1), overwrite=True).entries == {}


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    journal_path(tmp_path, (1, 1)).write_text("{}\n")
    with pytest.raises(OutputError, match="Remove it"):
        open_journal(tmp_path, HEAD, (1, 1))


def _shards(folder: Path, count: int = 2) -> list[Path]:
    paths = []
    for index, file in zip(range(1, count + 1), "ab", strict=False):
        journal = open_journal(folder, HEAD, (index, count))
        journal.add(_entry(file))
        journal.finish()
        paths.append(journal.path)
    return paths


def test_shards_come_together(tmp_path: Path) -> None:
    head, entries = gather_shards(_shards(tmp_path))
    assert head["scans"] == ["a", "b"]
    assert [entry.file for entry in in_order(entries, ["p"], ["b", "a"])] == ["b", "a"]


def test_shards_that_are_missing_unfinished_double_or_strangers_are_refused(tmp_path: Path) -> None:
    first, second = _shards(tmp_path)
    with pytest.raises(ConfigError, match="2 shards, each once and complete, got 1"):
        gather_shards([first])
    with pytest.raises(ConfigError, match="got 1, 1, 2"):
        gather_shards([first, first, second])
    with pytest.raises(ConfigError, match="found none"):
        gather_shards([])
    (third,) = _shards(tmp_path / "other", 1)
    with pytest.raises(ConfigError, match="number of shards"):
        gather_shards([first, third])
    stranger = replace(read_journal(second), head={**HEAD, "protocols": ["q"]}, path=tmp_path / "q.jsonl")
    stranger.add(_entry("b"))
    with pytest.raises(ConfigError, match="differ in protocols"):
        gather_shards([first, stranger.path])
