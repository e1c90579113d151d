"""Files: which scans lie below a folder or belong to a card, whose they are, and what they show; no voxels yet.

    flat               *.nii, *.nii.gz in the folder itself
    bids               sub-*/anat/, sub-*/ses-*/anat/
    ixi                IXI002-Guys-0828-T1.nii.gz, in one folder or in IXI-T1/, IXI-T2/, IXI-PD/
    hcp                100307/unprocessed/3T/T1w_MPR1/100307_3T_T1w_MPR1.nii.gz
    brats              BraTS2021_00000/BraTS2021_00000_t1.nii.gz, BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz
    totalsegmentator   s0000/ct.nii.gz

A folder without a card is read as flat and as BIDS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from medld.cards import DataCard, Split, known, split_of
from medld.errors import CardError
from medld.io import guess_modality, is_label_name, split_suffix
from medld.volume import Contrast


@dataclass(frozen=True)
class ScanFile:
    """A scan that has not been read. `part` is the source in a card that gathers several, `sha256` what the file's
    hash must be (None: anything), `modality` what a card says ("mr", "ct"; None: as its name and values say).
    """

    path: Path
    name: str
    subject: str
    contrast: str
    modality: str | None = None
    part: str = ""
    sha256: str | None = None
    weight: float = 1.0
    axes: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class _Layout:
    """Where the files are, and a pattern on their names that tells subject and contrast (`what`)."""

    globs: tuple[str, ...]
    pattern: re.Pattern[str] | None = None
    contrasts: Mapping[str, str] = field(default_factory=dict)


_T12 = {"T1w": "T1w", "T2w": "T2w"}
_BRATS = {"t1": "T1w", "t1n": "T1w", "t1ce": "ce-T1w", "t1c": "ce-T1w", "t2": "T2w", "t2w": "T2w"}
LAYOUTS: Mapping[str, _Layout] = {
    "flat": _Layout(("*.nii", "*.nii.gz")),
    "bids": _Layout(("sub-*/anat/*.nii*", "sub-*/ses-*/anat/*.nii*")),
    "ixi": _Layout(
        ("IXI*.nii*", "*/IXI*.nii*"),
        re.compile(r"(?P<subject>IXI\d{3})-\w+-\d{4}-(?P<what>T1|T2|PD)\.nii(\.gz)?"),
        {"T1": "T1w", "T2": "T2w", "PD": "PDw"},
    ),
    "hcp": _Layout(
        ("*/unprocessed/3T/T1w_MPR*/*.nii*", "*/unprocessed/3T/T2w_SPC*/*.nii*"),
        re.compile(r"(?P<subject>\d{6})_3T_(?P<what>T[12]w)_(MPR|SPC)\d\.nii(\.gz)?"),
        _T12,
    ),
    "brats": _Layout(
        ("BraTS*/BraTS*.nii*", "*/BraTS*/BraTS*.nii*"),
        re.compile(
            r"(?P<subject>BraTS2021_\d{5}|BraTS-GLI-\d{5})(-\d{3})?[-_](?P<what>t1n?|t1ce?|t2w?|t2f|flair)\.nii(\.gz)?"
        ),
        {**_BRATS, "t2f": "FLAIR", "flair": "FLAIR"},
    ),
    "totalsegmentator": _Layout(
        ("s*/ct.nii*", "*/s*/ct.nii*"), re.compile(r"(?P<subject>s\d{4})/(?P<what>ct)\.nii(\.gz)?"), {"ct": "CT"}
    ),
}


def find_scans(folder: Path, layout: str | None = None) -> list[ScanFile]:
    """The scans of a folder by one of `LAYOUTS`, or by flat and BIDS; sorted by name. What is named a label map is left
    out of BIDS folders, which hold such files beside the scans.
    """
    names = ("flat", "bids") if layout is None else (layout,)
    return sorted((scan for name in names for scan in _search(folder, name)), key=lambda scan: scan.name)


def _search(folder: Path, name: str) -> Iterator[ScanFile]:
    layout = LAYOUTS[name]
    for path in sorted({path for pattern in layout.globs for path in folder.glob(pattern) if path.is_file()}):
        if layout.pattern is None:
            if name == "flat" or not (is_label_name(path) or split_suffix(path)[0].endswith("mask")):
                yield ScanFile(path, split_suffix(path)[0], subject_of(path), guess_modality(path, 0.0).contrast)
        elif found := layout.pattern.fullmatch(f"{path.parent.name}/{path.name}") or layout.pattern.fullmatch(
            path.name
        ):
            contrast = layout.contrasts[found["what"]]
            stem = split_suffix(path)[0]
            own = stem if found["subject"] in stem else f"{found['subject']}_{contrast}"
            yield ScanFile(path, own, found["subject"], contrast)


def card_scans(card: DataCard, folder: Path, split: Split) -> list[ScanFile]:
    """The scans of one split of a card, their files below `folder`; sorted by name.

    Raises:
        CardError: The folder or a listed file is missing, nothing is found, or the card does not say who is in which
            split or how its files are found.
    """
    if not folder.is_dir():
        raise CardError(f"Expected the files of {card.name} in a folder {folder}, found none. Check --data.")
    if card.splits.rule == "listed":
        scans = _listed(card, folder, split)
    elif card.splits.rule == "by-subject-hash":
        layout = known(card.layout)
        if layout is None or layout == "convert":
            raise CardError(
                f"The files of {card.name} are not found by a rule (layout: {card.layout}). Convert them to NIfTI, put "
                "them into one folder or a BIDS tree, and name that folder instead of the card."
            )
        scans = [scan for scan in find_scans(folder, layout) if split_of(scan.subject) == split]
    else:
        raise CardError(f"{card.name} leaves the splits to its source. Name the folder of one split, not the card.")
    if not scans:
        raise CardError(f"Expected files of the split {split} of {card.name} below {folder}, found none.")
    return scans


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
    missing = [scan for scan in scans if not scan.path.is_file()]
    if missing:
        raise CardError(
            f"Expected the {len(scans)} files of {card.name} ({split}) below {folder}, {len(missing)} are missing, "
            f"the first is {missing[0].path.relative_to(folder).as_posix()}. Check --data."
        )
    return sorted(scans, key=lambda scan: scan.name)


def subject_of(path: Path) -> str:
    """The BIDS subject in a file's name, else the name without its endings."""
    first = path.name.split("_")[0]
    return first if first.startswith("sub-") else split_suffix(path)[0]


def told_contrast(contrast: str) -> Contrast:
    """A card's contrast as networks are told it; most are unknown to them."""
    return contrast if contrast in get_args(Contrast) else "unknown"  # type: ignore[return-value]


def check_names(scans: Sequence[ScanFile]) -> None:
    """Raises: CardError, if two scans have one name."""
    seen: dict[str, ScanFile] = {}
    for scan in scans:
        if scan.name in seen:
            raise CardError(f"Expected every name once, got {seen[scan.name].path} and {scan.path}. Rename one.")
        seen[scan.name] = scan
