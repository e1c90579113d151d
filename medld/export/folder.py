"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medld.errors import OutputError


@contextmanager
def whole_folder(out: Path, mark: str, *, overwrite: bool) -> Iterator[Path]:
    """Fill a hidden folder beside `out`, which takes its name at the end; an error or Ctrl-C leaves nothing behind.

    Args:
        out: The folder to make; missing parents are created.
        mark: A file that tells an earlier folder of the same kind, relative to it.
        overwrite: Replace such a folder, or an empty one; any other is never touched.

    Yields:
        Where to write.

    Raises:
        OutputError: `out` is there and may not be replaced, or cannot be written.
    """
    _refuse(out, mark, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=".medld-", dir=out.parent))
        try:
            made = hidden / "new"  # a folder of its own: the hidden one is closed to others
            made.mkdir()
            yield made
            _move(made, out, hidden / "old")
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"{out} cannot be written: {error.strerror or error}. Make room, or name another folder with -o."
        ) from error


def _refuse(out: Path, mark: str, overwrite: bool) -> None:
    """Refuse a folder that holds anything but what may be replaced."""
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise OutputError(f"{out} exists. Add --overwrite to replace it, or name another folder with -o.")
    if not out.is_dir() or (any(out.iterdir()) and not (out / mark).is_file()):
        raise OutputError(
            f"Expected an earlier export with {mark} at {out}, found something else, which is never replaced. "
            "Name another folder with -o."
        )


def _move(made: Path, out: Path, old: Path) -> None:
    """Put `made` in the place of `out`; if that fails, what was there comes back."""
    replaced = os.path.lexists(out)
    if replaced:
        os.replace(out, old)
    try:
        os.replace(made, out)
    except OSError:
        if replaced:
            os.replace(old, out)
        raise
