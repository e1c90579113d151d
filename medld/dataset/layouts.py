"""Layouts: how public sets name their files, and what a name tells of subject, contrast and session.

    flat               scan.nii.gz in the folder itself
    bids               sub-01/[ses-1/]anat/sub-01_ses-1_T1w.nii.gz
    dicom              DICOM objects in any order of folders, a person by the hash of the Patient ID
    ixi                IXI-T1/IXI002-Guys-0828-T1.nii.gz, or all in one folder
    hcp                100307/unprocessed/3T/T1w_MPR1/100307_3T_T1w_MPR1.nii.gz
    oasis1             OAS1_0001_MR1/RAW/OAS1_0001_MR1_mpr-1_anon.nii.gz, converted from Analyze
    oasis3             BIDS, or OAS30001_MR_d0129/anat2/[NIFTI/]sub-OAS30001_ses-d0129_run-01_T1w.nii.gz
    kirby21            KKI2009-01-MPRAGE.nii.gz with a table of who is who, or 113-01-MPRAGE.nii.gz (person-visit)
    brats              BraTS2021_00000/BraTS2021_00000_t1.nii.gz, BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz
    fastmri            multicoil_train/file_brain_AXT2_200_2000019.nii.gz, exported from the reconstructions
    adni               002_S_0295/MP-RAGE/2006-04-18_08_20_30.0/I13722/ with a NIfTI file or DICOM in it
    lidc               LIDC-IDRI-0001/ with DICOM below it
    ldct               L004/08-21-2018-84608/1.000000-Full Dose Images-35583/ with DICOM in it
    rplhr              train/1mm/CT00000000.nii.gz
    totalsegmentator   s0000/ct.nii.gz

Named sets are found in the folder itself or up to two folders below it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from medld.cards import CONTRASTS
from medld.dataset.scanfile import ScanFile, subject_of
from medld.errors import CardError
from medld.io import guess_modality, is_label_name, split_suffix

DEPTH = 2
SPLIT = re.compile(r"(?:^|_)(train|val|test)(?:_|$)")
"""A folder of a source's own split: train, multicoil_val, multicoil_test_full."""

WHO = "subjects.csv"
"""Table in the data folder, columns scan and subject, where a source numbers scans instead of people."""

Found = re.Match[str]
ContrastOf = Callable[[Found, Path], str | None]


@dataclass(frozen=True)
class Layout:
    """How the files of a set are named.

    Args:
        globs: Patterns of their paths; none for the data folder itself.
        pattern: Of the end of a path; its groups `subject` or `scan`, `what`, `session` and `image` tell what it is.
        contrast: The contrast by the match and the path, None for what is no scan.
        example: A path as the source has it.
        dicom: Whether a match is a folder of DICOM, or of one NIfTI file in its place.
        depth: How many folders further down is looked too.
        unready: Pattern of files as the source has them that must be converted first, and how.
    """

    globs: tuple[str, ...]
    pattern: re.Pattern[str]
    contrast: ContrastOf
    example: str
    dicom: bool = False
    depth: int = DEPTH
    unready: tuple[str, str] | None = None


def _end(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:.*/)?{pattern}")


def _image(pattern: str) -> re.Pattern[str]:
    return _end(rf"{pattern}\.nii(?:\.gz)?")


def _named(names: Mapping[str, str]) -> ContrastOf:
    return lambda found, path: names.get(found["what"])


def _always(contrast: str) -> ContrastOf:
    return lambda found, path: contrast


def _by_suffix(found: Found, path: Path) -> str:
    """As BIDS has it."""
    suffix, guess = split_suffix(path)[0].rsplit("_", 1)[-1], guess_modality(path, 0.0)
    told = suffix if suffix in CONTRASTS else "CT" if guess.modality == "ct" else "unknown"
    return told if guess.contrast == "unknown" else guess.contrast


def _by_suffix_unless_label(found: Found, path: Path) -> str | None:
    is_label = is_label_name(path) or split_suffix(path)[0].endswith("mask")
    return None if is_label else _by_suffix(found, path)


_ADNI_PROCESSED = re.compile(r"grad_?warp|b1_|_n3|scaled|mask|segment|hippocamp|brain_?extract", re.IGNORECASE)
_ADNI_CONTRASTS = (
    ("FLAIR", re.compile(r"flair", re.IGNORECASE)),
    ("T2starw", re.compile(r"t2_?(\*|star)|gre(_|$)", re.IGNORECASE)),
    ("T1w", re.compile(r"mp-?_?rage|(ir-?)?f?spgr", re.IGNORECASE)),
)


def _by_description(found: Found, path: Path) -> str | None:
    """ADNI's series descriptions: originals that are surely of one structural contrast."""
    if _ADNI_PROCESSED.search(found["what"]):
        return None
    return next((contrast for contrast, words in _ADNI_CONTRASTS if words.search(found["what"])), None)


_T12 = {"T1w": "T1w", "T2w": "T2w"}
_ANATOMY = {**_T12, "FLAIR": "FLAIR", "PDw": "PDw", "T2star": "T2starw", "T2starw": "T2starw"}
_BRATS = {"t1": "T1w", "t1n": "T1w", "t1ce": "ce-T1w", "t1c": "ce-T1w", "t2": "T2w", "t2w": "T2w"}
_FASTMRI = {"AXT1": "T1w", "AXT1PRE": "T1w", "AXT1POST": "ce-T1w", "AXT2": "T2w", "AXFLAIR": "FLAIR"}

LAYOUTS: Mapping[str, Layout] = {
    "flat": Layout(("*.nii", "*.nii.gz"), _image(r"(?P<what>[^/]+)"), _by_suffix, "scan_T1w.nii.gz", depth=0),
    "bids": Layout(
        tuple(f"sub-*/{session}{kind}/*.nii*" for session in ("", "ses-*/") for kind in ("anat", "ct")),
        _image(r"(?P<subject>sub-[^/]+)/(?:ses-(?P<session>[^/]+)/)?(?:anat|ct)/(?P<what>[^/]+)"),
        _by_suffix_unless_label,
        "sub-01/anat/sub-01_T1w.nii.gz",
        depth=0,
    ),
    "dicom": Layout((), _end(r".*"), _always("unknown"), "any DICOM", dicom=True, depth=0),
    "ixi": Layout(
        ("IXI*.nii*",),
        _image(r"(?P<subject>IXI\d{3})-\w+-\d{4}-(?P<what>T1|T2|PD)"),
        _named({"T1": "T1w", "T2": "T2w", "PD": "PDw"}),
        "IXI-T1/IXI002-Guys-0828-T1.nii.gz",
    ),
    "hcp": Layout(
        ("*/unprocessed/3T/T1w_MPR*/*.nii*", "*/unprocessed/3T/T2w_SPC*/*.nii*"),
        _image(r"(?P<subject>\d{6})_3T_(?P<what>T[12]w)_(?:MPR|SPC)\d"),
        _named(_T12),
        "100307/unprocessed/3T/T1w_MPR1/100307_3T_T1w_MPR1.nii.gz",
    ),
    "oasis1": Layout(
        ("OAS1_*_anon.nii*", "OAS1_*/RAW/OAS1_*_anon.nii*"),
        _image(r"(?P<subject>OAS1_\d{4})_(?P<session>MR\d)_(?P<what>mpr)-\d_anon"),
        _named({"mpr": "T1w"}),
        "OAS1_0001_MR1/RAW/OAS1_0001_MR1_mpr-1_anon.nii.gz",
        unready=(
            "OAS1_*_anon.hdr",
            "Analyze files are there (.hdr, .img): convert them to NIfTI and check left and right",
        ),
    ),
    "oasis3": Layout(
        ("sub-OAS3*/ses-*/anat/*.nii*", "OAS3*_MR_d*/anat*/*.nii*", "OAS3*_MR_d*/anat*/NIFTI/*.nii*"),
        _image(r"sub-(?P<subject>OAS3\d{4})_sess?-(?P<session>d\d{4})_(?:[a-z]+-[^_/]+_)*(?P<what>[^_/]+)"),
        _named(_ANATOMY),
        "sub-OAS30001/ses-d0129/anat/sub-OAS30001_ses-d0129_run-01_T1w.nii.gz",
    ),
    "kirby21": Layout(
        ("KKI2009-*.nii*", "???-??-*.nii*"),
        _image(r"(?:(?P<scan>KKI2009-\d{2})|(?P<subject>\d{3})-(?P<session>\d{2}))-(?P<what>MPRAGE|FLAIR|T2w)"),
        _named({"MPRAGE": "T1w", "FLAIR": "FLAIR", "T2w": "T2w"}),
        "KKI2009-01-MPRAGE.nii.gz",
    ),
    "brats": Layout(
        ("BraTS*/BraTS*.nii*",),
        _image(
            r"(?P<subject>BraTS2021_\d{5}|BraTS20_\w+_\d{3}|BraTS-[A-Z]+-\d{5})(?:-(?P<session>\d{3}))?"
            r"[-_](?P<what>t1n?|t1ce?|t2w?|t2f|flair)"
        ),
        _named({**_BRATS, "t2f": "FLAIR", "flair": "FLAIR"}),
        "BraTS2021_00000/BraTS2021_00000_t1.nii.gz",
    ),
    "fastmri": Layout(
        ("file_brain_*.nii*",),
        _image(r"file_brain_(?P<what>AX\w+?)_(?P<subject>\d+_\d+)"),
        _named(_FASTMRI),
        "multicoil_train/file_brain_AXT2_200_2000019.nii.gz",
        unready=(
            "file_brain_*.h5",
            "raw data are there (.h5): reconstruct them, and write NIfTI files of their names",
        ),
    ),
    "adni": Layout(
        ("[0-9][0-9][0-9]_S_*/*/*/[IS][0-9]*",),
        _end(
            r"(?P<subject>\d{3}_S_\d{4,5})/(?P<what>[^/]+)/(?P<session>\d{4}-\d\d-\d\d_\d\d_\d\d_\d\d\.\d)"
            r"/(?P<image>[IS]\d+)"
        ),
        _by_description,
        "002_S_0295/MP-RAGE/2006-04-18_08_20_30.0/I13722/",
        dicom=True,
    ),
    "lidc": Layout(
        ("LIDC-IDRI-[0-9]*",),
        _end(r"(?P<subject>LIDC-IDRI-\d{4})"),
        _always("CT"),
        "LIDC-IDRI-0001/, as the NBIA Data Retriever makes it",
        dicom=True,
    ),
    "ldct": Layout(
        ("[CLN][0-9][0-9][0-9]/*-Full ?ose ?mages-*", "[CLN][0-9][0-9][0-9]/*/*-Full ?ose ?mages-*"),
        _end(r"(?P<subject>[CLN]\d{3})/(?:[^/]+/)?[\d.]+-Full [Dd]ose [Ii]mages-\w+"),
        _always("CT"),
        "L004/08-21-2018-84608/1.000000-Full Dose Images-35583/",
        dicom=True,
    ),
    "rplhr": Layout(
        tuple(f"{split}/1mm/*.nii*" for split in ("train", "val", "test")),
        _image(r"(?:train|val|test)/1mm/(?P<subject>[^/]+)"),
        _always("CT"),
        "train/1mm/CT00000000.nii.gz",
    ),
    "totalsegmentator": Layout(
        ("s*/ct.nii*",), _image(r"(?P<subject>s\d{4})/(?P<what>ct)"), _always("CT"), "s0000/ct.nii.gz"
    ),
}
ANYBODYS = ("flat", "bids", "dicom")
"""Layouts that say nothing of which set it is."""


def match_layout(folder: Path, name: str) -> Iterator[ScanFile]:
    """What a layout finds below a folder, in the order of paths; of DICOM the folders, whose series are not looked at.

    Raises:
        CardError: The names do not tell people apart, and there is no table that does.
    """
    layout, who = LAYOUTS[name], None
    for path, found in _matches(folder, layout):
        contrast = layout.contrast(found, path)
        if contrast is None:
            continue
        told = {key: value for key, value in found.groupdict().items() if value is not None}
        if "scan" in told:
            who = _read_who(folder, name) if who is None else who
            told["subject"] = _person(who, told["scan"])
        subject = told.get("subject") or ("" if layout.dicom else subject_of(path))
        yield ScanFile(
            path,
            _name(path, subject, contrast, told),
            subject,
            contrast,
            session=told.get("session", ""),
            split=_split_of(folder, path),
            series="" if layout.dicom else None,
        )


def recognise(folder: Path) -> str | None:
    """The first layout of a named set that finds something below a folder."""
    named = (name for name in LAYOUTS if name not in ANYBODYS)
    return next((name for name in named if next(_matches(folder, LAYOUTS[name]), None)), None)


def find_unready(folder: Path, name: str) -> str | None:
    """What to do with files of a set that lie below a folder as their source has them, and cannot be read so."""
    unready = LAYOUTS[name].unready
    return unready[1] if unready and next(folder.rglob(unready[0]), None) else None


def _matches(folder: Path, layout: Layout) -> Iterator[tuple[Path, Found]]:
    globs = ["*/" * depth + pattern for depth in range(layout.depth + 1) for pattern in layout.globs]
    paths = {path for pattern in globs for path in folder.glob(pattern)} if layout.globs else {folder}
    for path in sorted(paths):
        below = path.relative_to(folder)
        found = layout.pattern.fullmatch(below.as_posix())
        # Hidden: macOS puts a "._scan.nii.gz" that is no image beside every file on a foreign disk.
        if found and path.is_dir() == layout.dicom and not any(part.startswith(".") for part in below.parts):
            yield path, found


def _name(path: Path, subject: str, contrast: str, told: Mapping[str, str]) -> str:
    """The file's own name where that tells whose it is, or which scan."""
    if "image" in told:
        return f"{subject}_{told['image']}"
    stem = path.name if path.is_dir() else split_suffix(path)[0]
    return stem if subject in stem or "scan" in told else f"{subject}_{contrast}"


def _split_of(folder: Path, path: Path) -> str:
    """The split of a source's own, by the nearest folder that is named after one, the data folder included."""
    parts = (folder.resolve().name, *path.relative_to(folder).parts[:-1])
    found = (SPLIT.search(part) for part in reversed(parts))
    return next((match[1] for match in found if match), "")


def _read_who(folder: Path, name: str) -> dict[str, str]:
    """Scan to person."""
    path = folder / WHO
    try:
        rows = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
        return {row["scan"].strip(): row["subject"].strip() for row in rows}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CardError(
            f"The files of {name} are numbered by scan, and people were scanned more than once: a person would be on "
            f"both sides. Write {WHO} into {folder}, columns scan and subject ({LAYOUTS[name].example[:10]},113), by "
            "the table of the source."
        ) from error


def _person(who: Mapping[str, str], scan: str) -> str:
    if not who.get(scan):
        raise CardError(f"Expected a line for {scan} in {WHO}, found none. Add it, by the table of the source.")
    return who[scan]
