"""ScanFile: a scan that has not been read, and what is known of it without its voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from medld.errors import CardError
from medld.io import split_suffix
from medld.volume import Contrast


@dataclass(frozen=True)
class ScanFile:
    """A scan that has not been read.

    Args:
        path: The file; of DICOM the folder below which its objects lie. May name a patient: see `label`.
        name: What it is called in packs and tables.
        subject: Whose it is; all scans of a person have the same.
        contrast: As a card may call it; "unknown" where nothing says it.
        modality: What a card says ("mr", "ct"); None: as its header, name and values say.
        part: The source in a card that gathers several.
        sha256: What the file's hash must be; None: anything.
        weight: Its share among all scans.
        axes: Array axes along which it may be degraded.
        session: The visit, "" where nothing says it.
        split: The split that the source put it into ("train", "val", "test"), "" where it has none.
        series: Which volume of DICOM below `path`; None for an image file.
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
    session: str = ""
    split: str = ""
    series: str | None = None

    @property
    def label(self) -> str:
        """What a message may call it: the file's name, of DICOM a name that tells nothing of the patient."""
        return self.path.name if self.series is None else self.name


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
            both = " and ".join(str(one.path if one.series is None else one.name) for one in (seen[scan.name], scan))
            raise CardError(f"Expected every name once, got {both}. Rename one.")
        seen[scan.name] = scan
