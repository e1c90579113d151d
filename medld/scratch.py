"""Scratch: where an array of a volume's size lies, in memory or, beyond a size, in a file that has no name.

The system writes such a file's pages out when memory is short, so they count as room on a disk, not as memory that a
restoration needs. The file is gone with its array, however the program ends.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medld.errors import InputError

MAPPED_VOXELS = 512**3
"""An array of more lies on the disk; so many are half a GiB."""

FLOAT_BYTES = 4
GIB = 2**30


@dataclass(frozen=True)
class Scratch:
    """Makes float32 arrays; large ones lie in `folder`, None for the system's folder of temporary files."""

    folder: Path | None = None

    def empty(self, shape: Sequence[int], *, order: Literal["C", "F"] = "C") -> NDArray[np.float32]:
        """An array whose values are undefined.

        Raises:
            InputError: The disk has no room for it (E_TOO_BIG).
        """
        if not is_mapped(prod(shape)):
            return np.empty(shape, np.float32, order=order)
        size = FLOAT_BYTES * prod(shape)
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                _reserve(file.fileno(), size)
                mapping = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise self._refusal(size, error.strerror or "it cannot be written") from error
        array: NDArray[np.float32] = np.ndarray(shape, np.float32, mapping, order=order)
        return array

    def check_room(self, size: float) -> None:
        """Refuse before the long work what the disk has no room for; `size` in bytes.

        Raises:
            InputError: E_TOO_BIG.
        """
        free = shutil.disk_usage(self.folder or tempfile.gettempdir()).free
        if size > free:
            raise self._refusal(size, f"it has {free / GIB:.3g} GiB")

    def _refusal(self, size: float, reason: str) -> InputError:
        where = "for temporary files" if self.folder is None else "of the output"
        return InputError(
            f"expected room for {size / GIB:.3g} GiB in the folder {where}, where arrays of more than "
            f"{MAPPED_VOXELS / 1e6:.3g} million voxels lie meanwhile: {reason}; make room, name another folder with "
            "-o, or ask for a coarser --spacing",
            "E_TOO_BIG",
        )


def is_mapped(voxels: int) -> bool:
    """Whether an array of so many voxels lies on the disk."""
    return voxels > MAPPED_VOXELS


def _reserve(file: int, size: int) -> None:
    """Give a file its size and its blocks: one with holes would end the program where the disk is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
