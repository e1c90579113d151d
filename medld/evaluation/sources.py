"""Sources: which fine scans an evaluation takes, out of a folder or by a data card.

    a folder        every image file and DICOM series below it; of a BIDS tree what lies in anat/ and is no label map,
                    and beside it what lies in the folder itself
    a card          the scans of one split, as the card lists or finds them below its data folder

A scan keeps the name of its file below the folder, so that rows of several runs can be put side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medld.cards import Split, list_cards, read_card
from medld.dataset import LEFT_OUT, ScanFile, card_scans, hash_scan, holds_dicom, read_scan, subject_of, where_to_get
from medld.dataset import find_scans as find_by_layout
from medld.errors import AcquisitionError, CardError, ConfigError, GridError, InputError
from medld.io import SUFFIXES
from medld.volume import Modality, Volume

UNUSABLE = (InputError, GridError, AcquisitionError, CardError)
"""What keeps one scan out of a table; it is listed with the reason, and the others go on."""

BIDS_FOLDERS = ("sub-*/anat", "sub-*/ses-*/anat")


@dataclass(frozen=True)
class FineScan:
    """A scan that has not been read.

    `name` is its path below the folder, of a DICOM series (`series`) its number and a hash. `contrast` and `modality`
    are what a card or a layout says of it, None where its own name and values are to say; `sha256` is what a card says
    its hash must be.
    """

    path: Path
    name: str
    subject: str
    contrast: str | None = None
    modality: Modality | None = None
    sha256: str | None = None
    series: str | None = None

    @property
    def file(self) -> ScanFile:
        """As the data set has it."""
        told = self.contrast or "unknown"
        return ScanFile(self.path, self.name, self.subject, told, self.modality, sha256=self.sha256, series=self.series)

    @property
    def key(self) -> str:
        """What its noise is drawn by: the file's name, wherever it lies."""
        return self.path.name if self.series is None else self.name

    def hash(self) -> str:
        """SHA-256 of its file, or of all files of a series."""
        return hash_scan(self.file)

    def read(self) -> Volume:
        """The volume, with the modality and contrast that are known of it.

        Raises:
            CardError: The file is not the one that its card means.
            InputError, GridError: It cannot be read.
        """
        volume = read_scan(self.file)
        return replace(volume, contrast="unknown") if self.contrast == "unknown" else volume

    def group(self, volume: Volume) -> str:
        """The part of the table that it belongs to: its contrast; CT stands apart, its foreground is another one."""
        return "CT" if volume.modality == "ct" else self.contrast or volume.contrast


@dataclass(frozen=True)
class Source:
    """The scans of an evaluation, ordered by name, below `folder`; `card` is the card's name, "" without one."""

    folder: Path
    scans: tuple[FineScan, ...]
    card: str = ""
    split: str = ""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Who they are of, sorted."""
        return tuple(sorted({scan.subject for scan in self.scans}))

    def of(self, subjects: Sequence[str]) -> tuple[FineScan, ...]:
        """The scans of these subjects."""
        return tuple(scan for scan in self.scans if scan.subject in subjects)

    def shard(self, index: int, count: int) -> tuple[FineScan, ...]:
        """Every `count`-th subject from the `index`-th on, both from 1: no subject is in two shards."""
        return self.of(self.subjects[index - 1 :: count])


def find_source(
    what: Path | str, data: Path | str | None = None, split: Split = "val", limit: int | None = None
) -> Source:
    """The scans that `what` means: a folder, or a card by name or file, its files below `data`.

    Args:
        what: Folder, name of a shipped card, or a card's YAML file. A folder of a card's name counts as a folder.
        data: The card's folder.
        split: Of the card.
        limit: Only the first so many subjects, in the order of their names.

    Raises:
        InputError: There is no such folder, or no image file in it.
        ConfigError: A card without its folder.
        CardError: The card is wrong, or its files are not there.
    """
    folder = Path(what)
    if folder.is_dir():
        source = Source(folder, tuple(_scans_below(folder)))
    elif str(what) in list_cards() or folder.suffix in (".yaml", ".yml"):
        source = _by_card(str(what), data, split)
    else:
        raise InputError(
            f"Expected a folder of scans or a data card ({', '.join(list_cards())}, or a .yaml file), got '{what}'. "
            "Check the path."
        )
    if not source.scans:
        raise InputError(
            f"Expected image files ({', '.join(SUFFIXES)}) or DICOM below {folder}, found none. Check the path."
        )
    return Source(source.folder, source.of(source.subjects[:limit]), source.card, source.split)


def _scans_below(folder: Path) -> list[FineScan]:
    is_bids = any(next(folder.glob(pattern), None) for pattern in BIDS_FOLDERS)
    found = folder.glob("*") if is_bids else folder.rglob("*")
    paths = [path for path in found if path.is_file() and path.name.lower().endswith(tuple(SUFFIXES))]
    if is_bids:
        paths += [scan.path for scan in find_by_layout(folder, "bids")]
    scans = [FineScan(path, path.relative_to(folder).as_posix(), subject_of(path)) for path in sorted(paths)]
    if holds_dicom(folder, LEFT_OUT):
        studies = find_by_layout(folder, "dicom")
        scans += [FineScan(scan.path, scan.name, scan.subject, series=scan.series) for scan in studies]
    return scans


def _by_card(what: str, data: Path | str | None, split: Split) -> Source:
    card = read_card(what)
    if data is None:
        raise ConfigError(f"Expected the folder with the files of {card.name}, got none. {where_to_get(card)}")
    folder = Path(data)
    scans = [
        FineScan(
            scan.path,
            scan.path.relative_to(folder).as_posix() if scan.series is None else scan.name,
            scan.subject,
            scan.contrast,
            "ct" if card.modality == "ct" else "mr",
            scan.sha256,
            scan.series,
        )
        for scan in card_scans(card, folder, split)
    ]
    return Source(folder, tuple(sorted(scans, key=lambda scan: scan.name)), card.name, split)
