"""Journal: what an evaluation has found so far, one line a scan and protocol, on disk before the next one begins.

    {"head": {...}, "shard": [2, 4]}        what the figures rest on
    {"protocol": ..., "file": ..., ...}     rows of one scan, or why there are none
    {"complete": true}

A run that is killed goes on where its journal ends; half a line at its end is dropped. Shards of one evaluation have
a journal each, which may lie in one folder or come from several machines, as long as their heads are the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medld.errors import ConfigError, OutputError
from medld.evaluation.table import Row

WHOLE = (1, 1)


@dataclass(frozen=True)
class Entry:
    """One scan by one protocol: its rows, and what was left out with the reason.

    `sha256` is the file's, `outputs` that of each other tool's file ("" where it had none): where one of them has
    changed, the scan is measured again.
    """

    protocol: str
    file: str
    sha256: str
    outputs: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    skipped: tuple[Mapping[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Protocol and file."""
        return self.protocol, self.file


@dataclass
class Journal:
    """A journal that can be gone on with."""

    path: Path
    head: Mapping[str, Any]
    shard: tuple[int, int] = WHOLE
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    complete: bool = False

    def add(self, entry: Entry) -> None:
        """Put an entry on disk; a later one of a scan counts."""
        self._write(asdict(entry))
        self.entries[entry.key] = entry

    def finish(self) -> None:
        """Say that nothing is left to do."""
        if not self.complete:
            self._write({"complete": True})
        self.complete = True

    def _write(self, line: Mapping[str, Any]) -> None:
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _append(self.path, {"head": self.head, "shard": self.shard})
        _append(self.path, line)


def parse_shard(shard: str | tuple[int, int]) -> tuple[int, int]:
    """Which part of how many, both from 1.

    Raises:
        ConfigError: It is none.
    """
    try:
        index, count = (int(number) for number in (shard.split("/") if isinstance(shard, str) else shard))
    except ValueError:
        index, count = 0, 0
    if not 1 <= index <= count:
        raise ConfigError(f"Expected a shard such as 2/4, the second of four, got {shard}.")
    return index, count


def journal_path(out: Path, shard: tuple[int, int]) -> Path:
    """Where the journal of a shard lies."""
    return out / ("rows.jsonl" if shard == WHOLE else f"rows-{shard[0]}-of-{shard[1]}.jsonl")


def open_journal(out: Path, head: Mapping[str, Any], shard: tuple[int, int], *, overwrite: bool = False) -> Journal:
    """The journal of a run of this head: the one that is there, or a new one.

    Raises:
        OutputError: One of a run with other settings is there, and is not to be overwritten.
    """
    path = journal_path(out, shard)
    if path.exists():
        _cut_half_a_line(path)
    if path.exists():
        found = read_journal(path)
        differences = differing(found.head, plain(head))
        if not differences:
            return found
        if not overwrite:
            raise OutputError(
                f"{path} is of an unfinished run that differs in {', '.join(differences)}. Give the same settings to "
                "go on with it, choose another folder, or overwrite it."
            )
        path.unlink()
    return Journal(path, plain(head), shard)


def read_journal(path: Path) -> Journal:
    """A journal as far as its lines are whole.

    Raises:
        OutputError: The file is no journal.
    """
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
        shard = lines[0]["shard"]
        journal = Journal(path, lines[0]["head"], (int(shard[0]), int(shard[1])))
        for line in lines[1:]:
            journal.complete = "complete" in line
            if not journal.complete:
                entry = _entry(line)
                journal.entries[entry.key] = entry
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise OutputError(f"Expected the rows of an evaluation in {path}, got something else. Remove it.") from error
    return journal


def gather_shards(paths: Iterable[Path]) -> tuple[Mapping[str, Any], dict[tuple[str, str], Entry]]:
    """The head and all entries of the journals of one evaluation.

    Raises:
        ConfigError: They are not all the shards of one evaluation, each once and complete.
    """
    journals = [read_journal(path) for path in paths]
    if not journals:
        raise ConfigError("Expected folders with shards of an evaluation (rows-1-of-4.jsonl, ...), found none there.")
    first = journals[0]
    for other in journals[1:]:
        differences = differing(first.head, other.head)
        if differences or other.shard[1] != first.shard[1]:
            raise ConfigError(
                f"Expected shards of one evaluation, {first.path} and {other.path} differ in "
                f"{', '.join(differences) or 'the number of shards'}."
            )
    count = first.shard[1]
    complete = sorted(journal.shard[0] for journal in journals if journal.complete)
    if complete != list(range(1, count + 1)):
        listed = ", ".join(map(str, complete)) or "none"
        raise ConfigError(f"Expected {count} shards, each once and complete, got {listed}. Run the others first.")
    return first.head, {key: entry for journal in journals for key, entry in journal.entries.items()}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys in which two heads differ."""
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


def plain(head: Mapping[str, Any]) -> dict[str, Any]:
    """A head as it comes back from disk: lists for tuples."""
    return json.loads(json.dumps(head))  # type: ignore[no-any-return]


def in_order(entries: Mapping[tuple[str, str], Entry], protocols: Sequence[str], files: Sequence[str]) -> list[Entry]:
    """The entries by protocol and file as these are listed."""
    return [entries[key] for protocol in protocols for file in files if (key := (protocol, file)) in entries]


def _entry(line: Mapping[str, Any]) -> Entry:
    rows = tuple(Row(**row) for row in line["rows"])
    return Entry(line["protocol"], line["file"], line["sha256"], line["outputs"], rows, tuple(line["skipped"]))


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _cut_half_a_line(path: Path) -> None:
    """Leave whole lines alone, so that the next one begins on its own; without any the file goes."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if not whole:
        path.unlink()
    elif whole < len(content):
        os.truncate(path, whole)
