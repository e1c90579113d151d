"""Staging: files and folders that appear together, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["staged"]


@dataclass
class _Traces:
    """What is done to the disk, noted before it is done, so that it can always be undone.

    Args:
        folders: Hidden folder in each folder that gets something.
        parents: Folders that had to be made.
        moved: Targets that were not there before.
        aside: Where the old folder waits that stood in a target's place.
    """

    folders: dict[Path, Path] = field(default_factory=dict)
    parents: list[Path] = field(default_factory=list)
    moved: list[Path] = field(default_factory=list)
    aside: dict[Path, Path] = field(default_factory=dict)


@contextmanager
def staged(targets: Sequence[Path]) -> Iterator[Mapping[Path, Path]]:
    """Write files into hidden folders beside their targets and move them in place at the end.

    A folder per target's folder, because a file is moved in one step only within a file system. When
    anything goes wrong, a Ctrl-C included, the hidden folders are removed and so is whatever was
    made or moved on the way; a file that was replaced already keeps its new content, a folder that
    was moved aside comes back.

    Args:
        targets: Files or folders to write, moved in this order; missing parents are created. A
            folder that stands in a target's place is moved aside for a folder, and then removed.

    Yields:
        Where to write each target. A target that is not written is not moved; a file written beside
        one (the voxels of an .mhd header) is moved first.
    """
    traces = _Traces()
    try:
        for parent in dict.fromkeys(target.parent for target in targets):
            _make_folder(parent, traces.parents)
            # Named before it is there, so that no moment is left in which it would not be removed.
            traces.folders[parent] = parent / f".medld-{secrets.token_hex(6)}"
            traces.folders[parent].mkdir()
        where = {target: traces.folders[target.parent] / target.name for target in targets}
        yield where
        _publish(where, traces)
    except BaseException:
        _undo(traces)
        raise
    try:
        _remove(traces.folders)
    except BaseException:  # a Ctrl-C now comes too late to take anything back
        _remove(traces.folders)
        raise


def _make_folder(folder: Path, made: list[Path]) -> None:
    """Create a folder with its parents and note each that was missing."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        made.append(parent)
        parent.mkdir(exist_ok=True)


def _publish(where: Mapping[Path, Path], traces: _Traces) -> None:
    """Move all that was written in place, companions of the targets first; note what is new."""
    named = set(where.values())
    moves = [
        (file, parent / file.name)
        for parent, folder in traces.folders.items()
        for file in folder.iterdir()
        if file not in named
    ]
    moves += [(source, target) for target, source in where.items() if source.exists()]
    for source, target in moves:
        if source.is_dir():
            _synchronise(source)
        if source.is_dir() and target.is_dir():
            # A full folder cannot be replaced in one step: the old one waits in the hidden folder.
            traces.aside[target] = source.with_name(f".old-{target.name}")
            os.rename(target, traces.aside[target])
        if not os.path.lexists(target):
            traces.moved.append(target)
        os.replace(source, target)


def _synchronise(folder: Path) -> None:
    """Have the files of a folder on the disk before its name says that they are there."""
    for file in folder.iterdir():
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())


def _undo(traces: _Traces) -> None:
    """Take back what was moved, bring back what was moved aside, remove folders that were made and are empty."""
    for target in reversed(traces.moved):
        _delete(target)
    for target, old in traces.aside.items():
        if old.exists():
            os.rename(old, target)
    _remove(traces.folders)
    for parent in reversed(traces.parents):
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()


def _delete(target: Path) -> None:
    """Delete a file, or a folder with all that is in it."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target, ignore_errors=True)
    else:
        target.unlink(missing_ok=True)


def _remove(folders: Mapping[Path, Path]) -> None:
    """Remove the hidden folders."""
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
