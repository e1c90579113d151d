"""Participants: who a scan is of and what it was made with, as far as a table or a sidecar says.

    participants.tsv or .csv     BIDS' columns (participant_id, age, sex, group, ...) or ours (file, subject, ...);
                                 a row with a file name speaks of that scan, any other of all scans of the subject
    scan.json beside a scan      Manufacturer, MagneticFieldStrength, where the table does not say

Ages become bands, field strengths their nominal value, vendors the maker's name, so that a group is not one scanner
or one birthday. What is not told stays empty: nothing is guessed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medld.errors import ConfigError
from medld.io import read_sidecar, split_suffix

NAMES = ("participants.tsv", "participants.csv")
TRAITS = ("sex", "age_band", "participant_group", "vendor", "field_strength")

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "file": ("file", "filename", "scan"),
    "subject": ("participant_id", "subject", "subject_id"),
    "sex": ("sex", "gender"),
    "age": ("age", "age_years"),
    "participant_group": ("group", "diagnosis", "cohort"),
    "vendor": ("vendor", "manufacturer", "scanner_vendor"),
    "field_strength": ("field_strength_t", "field_strength", "magneticfieldstrength", "fieldstrength"),
}
"""What a column may be called, in lower case; the first that is there counts."""

AGE_BANDS = (18, 40, 65)
"""Years at which a new band begins."""

FIELD_STRENGTHS = (0.064, 0.35, 0.55, 1.0, 1.5, 3.0, 4.7, 7.0)
FIELD_TOLERANCE = 0.07
"""Relative; scanners of 3 T say 2.89 or 2.9."""

VENDORS = ("Siemens", "Philips", "GE", "Canon", "Toshiba", "Hitachi", "United Imaging", "Hyperfine", "Esaote")
NOT_GIVEN = ("", "n/a", "na", "nan", "none", "unknown", "?")


@dataclass(frozen=True)
class Participants:
    """A table by file name and by subject; both map to what its columns say, normalised."""

    by_file: Mapping[str, Mapping[str, str]]
    by_subject: Mapping[str, Mapping[str, str]]

    def traits(self, path: Path, subject: str) -> dict[str, str]:
        """Each of `TRAITS` of one scan; "" where neither table nor sidecar says it."""
        row = self.by_file.get(path.name) or self.by_subject.get(bare(subject)) or {}
        beside = read_sidecar(path)
        told = {
            "vendor": vendor_of(str(beside.get("Manufacturer", ""))),
            "field_strength": field_of(str(beside.get("MagneticFieldStrength", ""))),
        }
        return {trait: row.get(trait, "") or told.get(trait, "") for trait in TRAITS}


def find_participants(folder: Path) -> Path | None:
    """The participants table in a folder, if there is one."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def read_participants(path: Path | None) -> Participants:
    """The table at `path`; an empty one for None.

    Raises:
        ConfigError: The file cannot be read, or has no column that names scans or subjects.
    """
    if path is None:
        return Participants({}, {})
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Expected a participants table at {path}, got: {error}. Check --participants.") from error
    rows = csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ",")
    columns = _columns(rows.fieldnames or ())
    if "file" not in columns and "subject" not in columns:
        raise ConfigError(
            f"Expected a column participant_id, subject or file in {path.name}, got {', '.join(rows.fieldnames or ())}."
        )
    by_file: dict[str, dict[str, str]] = {}
    by_subject: dict[str, dict[str, str]] = {}
    for row in rows:
        cells = {name: (row[column] or "").strip() for name, column in columns.items()}
        traits = _normalised(cells)
        if cells.get("file"):
            by_file[PurePosixPath(cells["file"]).name] = traits
        elif cells.get("subject"):
            by_subject[bare(cells["subject"])] = traits
    return Participants(by_file, by_subject)


def bare(subject: str) -> str:
    """A subject without BIDS' prefix."""
    return split_suffix(subject)[0].removeprefix("sub-")


def _columns(names: Sequence[str]) -> dict[str, str]:
    """What is meant by each known column, to its name in the table."""
    there = {name.strip().lower(): name for name in names}
    found = {meant: next((there[a] for a in aliases if a in there), None) for meant, aliases in COLUMNS.items()}
    return {meant: name for meant, name in found.items() if name is not None}


def _normalised(cells: Mapping[str, str]) -> dict[str, str]:
    cell = {name: "" if text.lower() in NOT_GIVEN else text for name, text in cells.items()}
    return {
        "sex": sex_of(cell.get("sex", "")),
        "age_band": age_band(cell.get("age", "")),
        "participant_group": cell.get("participant_group", ""),
        "vendor": vendor_of(cell.get("vendor", "")),
        "field_strength": field_of(cell.get("field_strength", "")),
    }


def sex_of(text: str) -> str:
    """F, M, or what the table says."""
    return {"female": "F", "f": "F", "male": "M", "m": "M"}.get(text.lower(), text)


def age_band(text: str) -> str:
    """A band of years such as 18-39; BIDS' 89+ counts as 89.

    >>> [age_band(age) for age in ("7", "18", "39.5", "89+", "")]
    ['0-17', '18-39', '18-39', '65+', '']
    """
    number = _number(text)
    if number is None:
        return ""
    bounds = (0, *AGE_BANDS)
    low = max(bound for bound in bounds if bound <= number)
    above = [bound for bound in bounds if bound > number]
    return f"{low}-{above[0] - 1}" if above else f"{low}+"


def vendor_of(text: str) -> str:
    """The maker in a scanner's name, "" where none of the known ones is in it."""
    return next((name for name in VENDORS if re.search(rf"\b{name}\b", text, re.IGNORECASE)), "")


def field_of(text: str) -> str:
    """A field strength as its nominal value, "3 T"; "" where no number is given."""
    number = _number(text)
    if number is None:
        return ""
    nominal = min(FIELD_STRENGTHS, key=lambda value: abs(value - number))
    return f"{nominal if abs(nominal - number) <= FIELD_TOLERANCE * nominal else number:g} T"


def _number(text: str) -> float | None:
    """The first number in a text, 0 and above."""
    found = re.match(r"\s*(\d+(?:\.\d+)?)", text)
    return float(found.group(1)) if found else None
