"""Fine volumes to learn from: read from NIfTI files or from a pack, kept as 8-bit arrays.

A pack is a folder of xz-compressed 8-bit volumes beside `index.json`: a tenth of the bytes of floats,
small enough to travel to a bare machine, and read without any imaging library. 255 is the 99.9th
percentile of the non-zero voxels; rounding leaves 59 dB, far below the noise of any scan.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import lzma
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medld.errors import CardError

INDEX = "index.json"
PERCENTILE = 99.9
TISSUE = 0.05


@dataclass(frozen=True, eq=False)
class Fine:
    """A fine volume: 8-bit array (I, J, K), `spacing` in mm per axis, and how it may be used.

    `weight` is its share among all volumes, `axes` the array axes along which it may be degraded.
    """

    name: str
    array: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    contrast: str = "unknown"
    weight: float = 1.0
    axes: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Source:
    """Which files of a folder to use (shell pattern), how often, and along which axes."""

    files: str
    weight: float = 1.0
    axes: tuple[int, ...] = (0, 1, 2)


def load(folders: Sequence[Path], sources: Sequence[Source] = (Source("*"),)) -> list[Fine]:
    """All volumes of NIfTI folders or packs that match a source; the first match counts. Sorted by name.

    Raises:
        CardError: A folder is missing, or nothing in it matches.
    """
    volumes: dict[str, Fine] = {}
    for folder in folders:
        if not folder.is_dir():
            raise CardError(f"Expected a folder of volumes at {folder}, found none. Check data.folders.")
        reader = _read_pack if (folder / INDEX).exists() else _read_folder
        for fine in reader(folder, lambda name: _match(name, sources) is not None):
            source = _match(fine.name, sources)
            assert source is not None
            volumes[fine.name] = Fine(
                fine.name, fine.array, fine.spacing, fine.contrast, source.weight, tuple(source.axes)
            )
    if not volumes:
        raise CardError(f"Expected volumes that match data.sources in {', '.join(map(str, folders))}, found none.")
    return [volumes[name] for name in sorted(volumes)]


def _match(name: str, sources: Sequence[Source]) -> Source | None:
    return next((source for source in sources if fnmatch.fnmatch(name, source.files)), None)


def to_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Scanner units to 8 bits, 255 at the 99.9th percentile of the non-zero voxels; negative values become 0."""
    tissue = array[array > 0]
    top = float(np.percentile(tissue, PERCENTILE)) if tissue.size else 1.0
    return np.clip(np.round(array / top * 255), 0, 255).astype(np.uint8)


def _read_folder(folder: Path, wanted: Callable[[str], bool]) -> Iterable[Fine]:
    from medld.io import read_volume

    for path in sorted(folder.glob("*.nii*")):
        name = path.name.split(".nii")[0]
        if wanted(name):
            volume, _ = read_volume(path)
            yield Fine(name, to_bytes(volume.array), volume.grid.spacing, volume.contrast)


def _read_pack(folder: Path, wanted: Callable[[str], bool]) -> Iterable[Fine]:
    entries = [entry for entry in json.loads((folder / INDEX).read_text()) if wanted(entry["name"])]

    def read(entry: dict[str, Any]) -> Fine:
        raw = (folder / entry["file"]).read_bytes()
        if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
            raise CardError(f"{entry['file']} of {folder} is damaged: its hash differs from the index. Pack it again.")
        array = np.frombuffer(lzma.decompress(raw), np.uint8).reshape(entry["shape"])
        return Fine(entry["name"], array, tuple(entry["spacing"]), entry["contrast"])

    with ThreadPoolExecutor() as pool:  # lzma releases the interpreter's lock
        yield from pool.map(read, entries)


def pack(folder: Path, out: Path, names: Sequence[str] = ("*",)) -> int:
    """Write the volumes of `folder` that match one of `names` as a pack into `out`; returns its size in bytes."""
    out.mkdir(parents=True, exist_ok=True)
    entries, total = [], 0
    for fine in _read_folder(folder, lambda name: any(fnmatch.fnmatch(name, pattern) for pattern in names)):
        raw = lzma.compress(fine.array.tobytes(), preset=6)
        (out / f"{fine.name}.xz").write_bytes(raw)
        entries.append(
            {
                "name": fine.name,
                "file": f"{fine.name}.xz",
                "shape": fine.array.shape,
                "spacing": fine.spacing,
                "contrast": fine.contrast,
                "sha256": hashlib.sha256(raw).hexdigest(),
            }
        )
        total += len(raw)
    (out / INDEX).write_text(json.dumps(entries, indent=1))
    return total
