"""Loading: the volumes that a training draws from, out of folders and packs."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medld.dataset.files import find_scans
from medld.dataset.packs import INDEX, read_pack, write_pack
from medld.dataset.volumes import Fine, read_fine
from medld.errors import CardError


@dataclass(frozen=True)
class Source:
    """Which files of a folder to use (shell pattern), how often, and along which axes.

    Packs made from a card bring weights and axes of their own: weights are multiplied, and of the axes those
    remain that both allow.
    """

    files: str
    weight: float = 1.0
    axes: tuple[int, ...] = (0, 1, 2)


def load(folders: Sequence[Path], sources: Sequence[Source] = (Source("*"),), cache: Path | None = None) -> list[Fine]:
    """All volumes of folders (flat, BIDS, DICOM) or packs that match a source; the first match counts. Sorted by name.

    Args:
        folders: Of two volumes with one name the last one stays.
        sources: What to take.
        cache: Where packs are unpacked to; see `read_pack`. Their arrays are read-only memory maps.

    Raises:
        CardError: A folder is missing, nothing in it matches, or a pack is damaged.
        InputError, GridError: A file cannot be read.
        OutputError: A pack cannot be unpacked anywhere.
    """
    volumes: dict[str, Fine] = {}
    for folder in folders:
        if not folder.is_dir():
            raise CardError(f"Expected a folder of volumes at {folder}, found none. Check data.folders.")
        for fine in _read(folder, sources, cache):
            volumes[fine.name] = fine
    if not volumes:
        raise CardError(f"Expected volumes that match data.sources in {', '.join(map(str, folders))}, found none.")
    return [volumes[name] for name in sorted(volumes)]


def _read(folder: Path, sources: Sequence[Source], cache: Path | None) -> Iterator[Fine]:
    if (folder / INDEX).exists():
        found: Iterable[Fine] = read_pack(folder, lambda name: _match(name, sources) is not None, cache)
    else:
        found = (read_fine(scan) for scan in find_scans(folder) if _match(scan.name, sources) is not None)
    for fine in found:
        source = _match(fine.name, sources)
        assert source is not None
        axes = tuple(axis for axis in source.axes if axis in fine.axes)
        if not axes:
            raise CardError(
                f"Expected an axis along which {fine.name} may be degraded: its pack says {fine.axes}, "
                f"data.sources {source.axes}. Leave it out or name another."
            )
        yield replace(fine, weight=fine.weight * source.weight, axes=axes)


def _match(name: str, sources: Sequence[Source]) -> Source | None:
    return next((source for source in sources if fnmatch.fnmatch(name, source.files)), None)


def pack(folder: Path, out: Path, names: Sequence[str] = ("*",)) -> int:
    """Write the volumes of `folder` that match one of `names` as a pack into `out`; returns its size in bytes.

    Raises: as `write_pack`.
    """
    scans = [scan for scan in find_scans(folder) if any(fnmatch.fnmatch(scan.name, name) for name in names)]
    return write_pack(scans, out).size
