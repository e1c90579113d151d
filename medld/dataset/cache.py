"""Cache: where the volumes of packs lie unpacked, as .npy files named by the hash of what they were unpacked from.

A file is written under another name and moved, so it is whole or not there, however many processes unpack at
once. A cache may be deleted at any time.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medld.errors import OutputError

VARIABLE = "MEDLD_CACHE"
UNPACKED = ".unpacked"


class Cache:
    """The folders in which unpacked volumes may lie, the best first.

    Args:
        pack: The pack's folder.
        folder: The only place to use; None takes the environment's MEDLD_CACHE, else `.unpacked` beside the pack, or,
            where that cannot be written, a folder of this user among the system's temporary files.
    """

    def __init__(self, pack: Path, folder: Path | None = None) -> None:
        given = folder or os.environ.get(VARIABLE)
        self._private = Path(tempfile.gettempdir()) / f"medld-unpacked-{_user()}"
        self._folders = [Path(given)] if given else [pack.resolve().parent / UNPACKED, self._private]

    def find(self, name: str) -> Iterator[Path]:
        """Files of that name, complete ones as a rule."""
        # os.path says False of what may not be looked at, pathlib raises.
        return (folder / name for folder in self._folders if os.path.isfile(folder / name))

    def store(self, name: str, array: NDArray[np.uint8]) -> Path:
        """Write an array in the first folder that takes it.

        Raises:
            OutputError: E_EXISTS. None does.
        """
        reason: OSError | None = None
        for folder in self._folders:
            try:
                # Among the files of others, scans are for their owner only; beside a pack, for whom the pack is for.
                folder.mkdir(mode=0o700 if folder == self._private else 0o777, parents=True, exist_ok=True)
                return _write(folder, name, array)
            except OSError as error:
                reason = reason or error
        places = ", ".join(map(str, self._folders))
        raise OutputError(
            f"Expected room to unpack volumes in {places}, got: {reason}. Set {VARIABLE} to a folder."
        ) from reason


def _write(folder: Path, name: str, array: NDArray[np.uint8]) -> Path:
    temporary = folder / f"{name}.{os.getpid()}-{threading.get_ident()}.part"
    try:
        with temporary.open("wb") as file:
            np.save(file, array)
        os.replace(temporary, folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    return folder / name


def _user() -> str:
    """What tells users of one machine apart."""
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
