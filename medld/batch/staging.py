"""Staging: several files that appear together, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["staged"]


@contextmanager
def staged(targets: Sequence[Path]) -> Iterator[Mapping[Path, Path]]:
    """Write files into hidden folders beside their targets and move them in place at the end.

    A folder per target's folder, because a file is moved in one step only within a file system. When
    anything goes wrong, a Ctrl-C included, the hidden folders are removed and so is whatever was
    made or moved on the way; a target that was replaced already keeps its new content.

    Args:
        targets: Files to write, moved in this order; missing folders are created.

    Yields:
        Where to write each target. A target that is not written is not moved; a file written beside
        one (the voxels of an .mhd header) is moved first.
    """
    made: list[Path] = []
    folders: dict[Path, Path] = {}
    try:
        for parent in dict.fromkeys(target.parent for target in targets):
            _make_folder(parent, made)
            # Named before it is there, so that no moment is left in which it would not be removed.
            folders[parent] = parent / f".medld-{secrets.token_hex(6)}"
            folders[parent].mkdir()
        where = {target: folders[target.parent] / target.name for target in targets}
        yield where
        _publish(where, folders, made)
    except BaseException:
        _remove(folders, made)
        raise
    _remove(folders, [])


def _make_folder(folder: Path, made: list[Path]) -> None:
    """Create a folder with its parents and note each that was missing."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        made.append(parent)
        parent.mkdir(exist_ok=True)


def _publish(where: Mapping[Path, Path], folders: Mapping[Path, Path], made: list[Path]) -> None:
    """Move all that was written in place, companions of the targets first; note what is new."""
    named = set(where.values())
    moves = [
        (file, parent / file.name)
        for parent, folder in folders.items()
        for file in folder.iterdir()
        if file not in named
    ]
    moves += [(source, target) for target, source in where.items() if source.exists()]
    for source, target in moves:
        if not os.path.lexists(target):
            made.append(target)
        os.replace(source, target)


def _remove(folders: Mapping[Path, Path], made: Sequence[Path]) -> None:
    """Remove the hidden folders, then what was made, the latest first; folders only if empty."""
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    for path in reversed(made):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
