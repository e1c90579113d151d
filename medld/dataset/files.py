"""Files: which scans lie below a folder or belong to a card, whose they are, and what they show; no voxels yet.

A folder without a card is read as flat, as BIDS and for DICOM; a card's `layout` says how its set is named
(`medld.dataset.layouts`). Training and evaluation both take their scans from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from medld.cards import DataCard, Split, known, list_cards, read_card, split_of
from medld.dataset.layouts import ANYBODYS, LAYOUTS, find_unready, match_layout, recognise
from medld.dataset.scanfile import ScanFile, check_names, subject_of, told_contrast
from medld.dataset.studies import holds_dicom, list_studies
from medld.errors import CardError
from medld.io import split_suffix

__all__ = [
    "LAYOUTS",
    "LEFT_OUT",
    "ScanFile",
    "card_scans",
    "check_names",
    "find_scans",
    "subject_of",
    "told_contrast",
    "where_to_get",
]

LEFT_OUT = ("derivatives", "sourcedata", "code")
"""Folders of a BIDS data set that hold no raw scans, or the same ones as DICOM."""

Report = Callable[[str], None]
Wanted = Callable[[ScanFile], bool]


def _silent(line: str) -> None:
    """Nobody listens."""


def find_scans(folder: Path, layout: str | None = None, report: Report = _silent) -> list[ScanFile]:
    """The scans of a folder by one of `LAYOUTS`, or by flat, BIDS and DICOM; sorted by name.

    What is named a label map is left out of BIDS folders, which hold such files beside the scans; of DICOM what cannot
    be used is, and `report` gets a line with its code for each.

    Raises:
        CardError: The names of the layout do not tell people apart.
        InputError: E_TOO_BIG, too many DICOM files.
    """
    names: Sequence[str] = (layout,) if layout else ("flat", "bids")
    scans = [scan for name in names for scan in _search(folder, name, lambda scan: True, report)]
    if layout is None and holds_dicom(folder, LEFT_OUT):
        scans += _studies(folder, report)
    return sorted(scans, key=lambda scan: scan.name)


def _search(folder: Path, name: str, wanted: Wanted, report: Report) -> Iterator[ScanFile]:
    """What a layout finds and is wanted; headers of DICOM are read only of those people."""
    for place in match_layout(folder, name):
        if place.series is None or not place.subject:
            yield from (scan for scan in _open(place, report) if wanted(scan))
        elif wanted(place):
            yield from _open(place, report)


def _open(place: ScanFile, report: Report) -> list[ScanFile]:
    """The scans at a place: a file is one, a folder holds one NIfTI file or DICOM."""
    if place.series is None:
        return [place]
    images = sorted(path for path in place.path.iterdir() if split_suffix(path)[1] and path.name[0] != ".")
    if images:
        return [
            replace(place, path=path, series=None, name=place.name if len(images) == 1 else split_suffix(path)[0])
            for path in images
        ]
    found = _studies(place.path, report)
    if not place.subject:
        return found
    return [_as_named(place, scan, alone=len(found) == 1) for scan in found]


def _as_named(place: ScanFile, scan: ScanFile, *, alone: bool) -> ScanFile:
    """A series under the names of its set, which are nobody's."""
    return replace(
        scan,
        name=place.name if alone and place.session else f"{place.subject}_{scan.name}",
        subject=place.subject,
        contrast=scan.contrast if place.contrast == "unknown" else place.contrast,
        session=place.session or scan.session,
        split=place.split,
    )


def _studies(folder: Path, report: Report) -> list[ScanFile]:
    """The usable series below a folder."""
    entries = list_studies(folder, LEFT_OUT)
    for entry in entries:
        if not entry.usable:
            report(entry.describe())
    return [entry.scan for entry in entries if entry.usable]


def card_scans(card: DataCard, folder: Path, split: Split, report: Report = _silent) -> list[ScanFile]:
    """The scans of one split of a card, their files below `folder`; sorted by name.

    Args:
        card: The card; its `layout` says how files are found, unless it lists them.
        folder: The data folder.
        split: Which scans.
        report: Gets a line for each DICOM series that cannot be used.

    Raises:
        CardError: The folder or a listed file is missing, nothing is found or it is another set, with a word on where
            to get the data and under which terms; or the card does not say how its files are found or split.
        InputError: E_TOO_BIG, too many DICOM files.
    """
    if not folder.is_dir():
        raise CardError(f"Expected the files of {card.name} in a folder {folder}, found none. {where_to_get(card)}")
    if card.splits.rule == "listed":
        return _listed(card, folder, split)
    layout = known(card.layout)
    if layout is None or layout == "convert":
        raise CardError(
            f"The files of {card.name} are not found by a rule (layout: {card.layout}). Convert them to NIfTI, put "
            "them into one folder or a BIDS tree, and name that folder instead of the card."
        )
    seen: Counter[str] = Counter()
    unusable: list[str] = []

    def is_wanted(scan: ScanFile) -> bool:
        own = scan.split if card.splits.rule == "source" else split_of(scan.subject)
        seen[own] += 1
        return own == split

    def note(line: str) -> None:
        unusable.append(line)
        report(line)

    scans = [replace(scan, modality=card.modality) for scan in _search(folder, layout, is_wanted, note)]
    if not scans:
        raise CardError(
            f"Expected files of the split {split} of {card.name} below {folder}, found none"
            + (_where_else(card, seen, split, unusable) or _what_else(card, folder, layout))
        )
    return sorted(scans, key=lambda scan: scan.name)


def _where_else(card: DataCard, seen: Counter[str], split: Split, unusable: Sequence[str]) -> str:
    """What was found of a card where nothing of one split can be used; "" if nothing was."""
    if seen[split]:
        return f" that can be used. {unusable[0]}" if unusable else " that can be used."
    others = ", ".join(f"{count} of {name}" for name, count in sorted(seen.items()) if name and count)
    if others:
        return f", but {others}. Choose another split, or add scans."
    if seen[""]:
        return (
            f": {card.name} leaves the splits to its source, and no folder is named after one. Keep the source's "
            "folders, or name the folder of one split, not the card."
        )
    return ""


def _what_else(card: DataCard, folder: Path, layout: str) -> str:
    """What there is in the place of a card's files, and where to get those."""
    if hint := find_unready(folder, layout):
        return f": {hint}."
    if not any(folder.iterdir()):
        return f": the folder is empty. {where_to_get(card)}"
    other = recognise(folder)
    looks = f" It looks like {_cards_of(other)}." if other and other != layout else ""
    return f": nothing is named like {LAYOUTS[layout].example}.{looks} Check --data. {where_to_get(card)}"


def _cards_of(layout: str) -> str:
    """The shipped cards of a layout, or its name."""
    assert layout not in ANYBODYS
    cards = [name for name in list_cards() if known(read_card(name).layout) == layout]
    return " or ".join(cards) or layout


def where_to_get(card: DataCard) -> str:
    """Where the files of a card come from and under which terms, in a line."""
    source = f"the sources that `medld data show {card.name}` lists" if card.parts else card.origin[0]
    terms = f"access: {card.access}; licence: {card.licence}".replace("\n", " ")
    return f"Get the files from {source} and name their folder with --data; {terms}."


def _listed(card: DataCard, folder: Path, split: Split) -> list[ScanFile]:
    scans = [
        ScanFile(
            folder / file.file,
            split_suffix(file.file)[0],
            file.subject,
            file.contrast,
            card.modality,
            file.part or "",
            file.sha256,
            file.weight,
            file.axes,
        )
        for file in card.files(split)
    ]
    if not scans:
        raise CardError(f"Expected files of the split {split} of {card.name}, it lists none. Choose another split.")
    missing = [scan for scan in scans if not scan.path.is_file()]
    if missing:
        raise CardError(
            f"Expected the {len(scans)} files of {card.name} ({split}) below {folder}, {len(missing)} are missing, "
            f"the first is {missing[0].path.relative_to(folder).as_posix()}. Check --data. {where_to_get(card)}"
        )
    return sorted(scans, key=lambda scan: scan.name)
