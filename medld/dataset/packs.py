"""Pack: fine volumes in few small files, to travel to a bare machine and be read there without imaging libraries.

    index.json        {"format": 2, "card", "split", "volumes": [...], "left_out": [names]}
    shard-0000.xz     volumes, xz-compressed one by one and put end to end; at most 15 MiB, so that any host takes it

A volume larger than a shard goes on in the next ones. Every volume has its hash. It is unpacked once, into a cache
of .npy files named by that hash, and mapped into memory from there: many processes share one copy, and a data
set may be larger than memory. The cache may be deleted at any time.

Format 1, one .xz file a volume and a plain list of them, is read too.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from medld.dataset.cache import Cache
from medld.dataset.scanfile import ScanFile, check_names
from medld.dataset.volumes import Fine, read_fine
from medld.errors import CardError, OutputError

INDEX = "index.json"
FORMAT = 2
SHARD_BYTES = 15 * 2**20
ROOM = 192
"""Bytes of the index for its head, and for where one part of a volume lies; more than either takes."""

MOST_WORKERS = 8
"""Volumes read at a time: each takes some hundreds of MB."""


@dataclass(frozen=True)
class Packed:
    """What was written: names of the volumes in the pack, names for which there was no room, bytes of the folder."""

    names: tuple[str, ...]
    left_out: tuple[str, ...]
    size: int


def write_pack(
    scans: Sequence[ScanFile],
    out: Path,
    *,
    max_bytes: int | None = None,
    card: str | None = None,
    split: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    report: Callable[[str], None] = lambda line: None,
) -> Packed:
    """Write scans as a pack, whole or not at all.

    Args:
        scans: What to pack, in any order.
        out: The pack's folder; missing or empty.
        max_bytes: Most bytes of the folder. Scans are taken in turns from every part and contrast, in an order that
            their names fix, until the next one has no room.
        card: Name of the card, for the index.
        split: Its split, for the index.
        shard_bytes: Most bytes of a shard.
        report: Takes a line a volume.

    Raises:
        CardError: There is nothing to pack, a file is not the one the card means, two scans have one name, or there is
            no room for one scan of every part and contrast.
        InputError, GridError: A file cannot be read.
        OutputError: E_EXISTS. There is something at `out` already, or it cannot be written.
    """
    if not scans:
        raise CardError("Expected scans to pack, got none. Check the folder and the names.")
    check_names(scans)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"Expected a new or empty folder for the pack, {out} holds something. Choose another.")
    making = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        making.mkdir(parents=True)
        packed = _write_into(making, scans, max_bytes, {"card": card, "split": split}, shard_bytes, report)
        if out.exists():
            out.rmdir()
        os.replace(making, out)
    except OSError as error:
        raise OutputError(f"The pack {out} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return packed


def _write_into(
    folder: Path,
    scans: Sequence[ScanFile],
    max_bytes: int | None,
    origin: Mapping[str, str | None],
    shard_bytes: int,
    report: Callable[[str], None],
) -> Packed:
    """Shards, then the index."""
    order, groups = _in_turns(scans)
    shards = _Shards(folder, shard_bytes)
    entries: list[dict[str, Any]] = []
    used = ROOM + sum(len(json.dumps(scan.name)) + 2 for scan in order)  # what is left out stands in the index
    for index, (fine, raw) in enumerate(_compressed(order)):
        entry = _entry(order[index], fine, raw)
        used += len(raw) + len(json.dumps(entry)) + ROOM * (1 + len(raw) // shard_bytes)
        if max_bytes is not None and used > max_bytes and index >= groups:
            break
        entries.append({**entry, "parts": shards.add(raw)})
        report(f"{fine.name}: {len(raw) / 1e6:.2f} MB")
        if max_bytes is not None and used > max_bytes and index == groups - 1:
            raise CardError(
                f"Expected room for one scan of every source and contrast ({groups}): {used / 1e6:.1f} MB, got "
                f"{max_bytes / 1e6:.1f} MB. Raise --max-mb."
            )
    names = {entry["name"] for entry in entries}
    left_out = [scan.name for scan in scans if scan.name not in names]
    (folder / INDEX).write_text(_index({**origin, "left_out": left_out}, entries), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Packed(tuple(sorted(names)), tuple(sorted(left_out)), size)


def _in_turns(scans: Iterable[ScanFile]) -> tuple[list[ScanFile], int]:
    """One scan of every part and contrast, then a second of every, and so on; and the number of groups.

    Within a group the order is that of the names' hashes: fixed, yet not that of patients before controls.
    """
    groups: dict[tuple[str, str], list[ScanFile]] = {}
    for scan in sorted(scans, key=lambda scan: hashlib.sha256(scan.name.encode()).digest()):
        groups.setdefault((scan.part, scan.contrast), []).append(scan)
    rounds = zip_longest(*(groups[key] for key in sorted(groups)))
    return [scan for one in rounds for scan in one if scan is not None], len(groups)


def _compressed(scans: Sequence[ScanFile]) -> Iterator[tuple[Fine, bytes]]:
    """Scans read and compressed, in order, some at a time: xz releases the interpreter's lock."""

    def compress(scan: ScanFile) -> tuple[Fine, bytes]:
        fine = read_fine(scan)
        return fine, lzma.compress(fine.array.tobytes(), preset=6)

    workers = min(os.cpu_count() or 1, MOST_WORKERS)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(scans), workers):
            yield from pool.map(compress, scans[start : start + workers])


def _entry(scan: ScanFile, fine: Fine, raw: bytes) -> dict[str, Any]:
    """A volume in the index, but for where it lies."""
    return {
        "name": fine.name,
        "subject": scan.subject,
        "part": scan.part,
        "modality": fine.modality,
        "contrast": fine.contrast,
        "shape": fine.array.shape,
        "spacing": fine.spacing,
        "weight": fine.weight,
        "axes": fine.axes,
        "file_sha256": scan.sha256,
        "sha256": hashlib.sha256(raw).hexdigest(),
    }


def _index(head: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> str:
    """The index as JSON, one line a volume."""
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    rest = json.dumps({"format": FORMAT, **head})[1:-1]
    return f'{{{rest},\n"volumes": [\n{lines}\n]}}\n'


class _Shards:
    """Files of at most `limit` bytes, filled one after the other."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._count, self._used = 0, limit  # so that the first volume begins a file

    def add(self, raw: bytes) -> list[tuple[str, int, int]]:
        """Store the bytes of a volume; returns its parts as (file, offset, bytes)."""
        if self._used + len(raw) > self._limit:
            self._used = self._limit  # whole volumes do not straddle
        parts = []
        while raw:
            if self._used == self._limit:
                self._count, self._used = self._count + 1, 0
            name = f"shard-{self._count - 1:04d}.xz"
            piece, raw = raw[: self._limit - self._used], raw[self._limit - self._used :]
            with (self._folder / name).open("ab") as file:
                file.write(piece)
            parts.append((name, self._used, len(piece)))
            self._used += len(piece)
        return parts


def read_pack(folder: Path, wanted: Callable[[str], bool], cache: Path | None = None) -> Iterator[Fine]:
    """The volumes of a pack whose names are wanted, their arrays mapped from the cache (read-only).

    Args:
        folder: The pack.
        wanted: Takes a name.
        cache: Where volumes are unpacked to; None takes the environment's MEDLD_CACHE, else `.unpacked` beside the
            pack, or, where that cannot be written, a folder of the system's for temporary files.

    Raises:
        CardError: The pack is damaged or of a later format.
        OutputError: No volume can be unpacked anywhere.
    """
    entries = [entry for entry in _read_index(folder) if wanted(entry["name"])]
    unpacked = Cache(folder, cache)

    def read(entry: Mapping[str, Any]) -> Fine:
        return Fine(
            entry["name"],
            _mapped(folder, entry, unpacked),
            tuple(entry["spacing"]),
            entry["contrast"],
            entry.get("weight", 1.0),
            tuple(entry.get("axes", (0, 1, 2))),
            entry.get("modality", "mr"),
        )

    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_WORKERS)) as pool:
        yield from pool.map(read, entries)


def _read_index(folder: Path) -> list[dict[str, Any]]:
    """The entries of an index of either format."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CardError(f"{INDEX} of {folder} is damaged. Pack it again.") from error
    if isinstance(index, dict) and index.get("format") != FORMAT:
        raise CardError(f"{folder} is a pack of format {index.get('format')}, expected {FORMAT} or 1. Update medld.")
    entries: list[dict[str, Any]] = index if isinstance(index, list) else index["volumes"]
    return entries


def _mapped(folder: Path, entry: Mapping[str, Any], cache: Cache) -> NDArray[np.uint8]:
    """The array of a volume, unpacked where it is not yet."""
    name, shape = f"{entry['sha256']}.npy", tuple(entry["shape"])
    for path in cache.find(name):
        try:
            array: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        except (OSError, ValueError):
            continue  # half a file, as a full disk leaves it: unpacked again
        if array.shape == shape and array.dtype == np.uint8:
            return array
    raw = _raw(folder, entry)
    try:
        array = np.frombuffer(lzma.decompress(raw), np.uint8).reshape(shape)
    except (lzma.LZMAError, ValueError) as error:
        raise CardError(f"{entry['name']} of {folder} is damaged: {error}. Pack it again.") from error
    mapped: NDArray[np.uint8] = np.load(cache.store(name, array), mmap_mode="r")
    return mapped


def _raw(folder: Path, entry: Mapping[str, Any]) -> bytes:
    """The compressed bytes of a volume, checked."""
    if "parts" in entry:
        pieces = []
        for file, offset, count in entry["parts"]:
            with _opened(folder, file) as stream:
                stream.seek(offset)
                pieces.append(stream.read(count))
        raw, files = b"".join(pieces), ", ".join(file for file, _, _ in entry["parts"])
    else:
        files = entry["file"]
        with _opened(folder, files) as stream:
            raw = stream.read()
    if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
        raise CardError(f"{files} of {folder} is damaged: its hash differs from the index. Pack it again.")
    return raw


def _opened(folder: Path, file: str) -> BinaryIO:
    try:
        return (folder / Path(file).name).open("rb")
    except OSError as error:
        raise CardError(f"Expected {file} in the pack {folder}, it cannot be read. Copy the pack again.") from error
