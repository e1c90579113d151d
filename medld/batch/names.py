"""Names of outputs.

    scan.nii.gz           -> scan_desc-sr.nii.gz
    sub-01_T2w.nii.gz     -> sub-01_desc-sr_T2w.nii.gz
    a DICOM volume        -> series-3-1f2e3d4c5b6a_desc-sr, with nothing of the patient's in it

Records have the name of their output, with the suffix .json.
"""

from __future__ import annotations

import re
from pathlib import Path

from medld.io import split_suffix

__all__ = ["MARK", "clean_mark", "image_suffix", "name_folder", "name_output", "split_name"]

BIDS_NAME = re.compile(r"(?P<entities>sub-[A-Za-z0-9+]+(?:_[A-Za-z]+-[A-Za-z0-9+]+)*)_(?P<suffix>[A-Za-z0-9]+)")
DESC_ENTITY = re.compile(r"(?<=_desc-)[A-Za-z0-9+]+")
MARK = re.compile(r"[A-Za-z0-9_+-]+")
"""What a suffix behind `desc-sr` may be: anything that cannot leave the folder."""

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".zip")


def name_output(path: Path, mark: str = "sr", suffix: str | None = None) -> str:
    """Name of the output of `path`: `desc-sr` before a BIDS suffix, else at the end.

    A BIDS name holds one `desc` at most, so one that is there is extended.

    Args:
        path: The input; only its name is looked at.
        mark: What `desc` says.
        suffix: File suffix of the output; None keeps the input's.

    >>> name_output(Path("sub-01_ses-1_T2w.nii.gz"))
    'sub-01_ses-1_desc-sr_T2w.nii.gz'
    >>> name_output(Path("sub-01_desc-preproc_T2w.nii"))
    'sub-01_desc-preprocsr_T2w.nii'
    >>> name_output(Path("my scan.mha"), suffix=".nii.gz")
    'my scan_desc-sr.nii.gz'
    """
    stem, own_suffix = split_name(path)
    suffix = own_suffix if suffix is None else suffix
    bids = BIDS_NAME.fullmatch(stem)
    if bids is None:
        return f"{stem}_desc-{mark}{suffix}"
    entities = bids["entities"]
    if DESC_ENTITY.search(entities):
        entities = DESC_ENTITY.sub(lambda match: match[0] + mark, entities)
    else:
        entities += f"_desc-{mark}"
    return f"{entities}_{bids['suffix']}{suffix}"


def name_folder(path: Path) -> Path:
    """The folder beside a DICOM file, folder or archive that gets its outputs.

    >>> name_folder(Path("/data/study")).name
    'study_desc-sr'
    """
    path = path.resolve()
    # A UID as a file name has no suffix, though it has dots.
    stem = path.stem if path.suffix.lower() in DICOM_SUFFIXES and not path.is_dir() else path.name
    return path.with_name(f"{stem}_desc-sr") if stem else path / "desc-sr"


def image_suffix(path: Path) -> str:
    """The image suffix of a file name, empty if it has none."""
    return split_suffix(path)[1]


def split_name(path: Path) -> tuple[str, str]:
    """A file name without its suffix, and that suffix, be it an image's or another."""
    stem, suffix = split_suffix(path)
    return (stem, suffix) if suffix else (path.stem, path.suffix)


def clean_mark(mark: str) -> str:
    """A suffix option without the file ending that a caller may have added to it."""
    return mark if "/" in mark else split_name(Path(mark))[0]
