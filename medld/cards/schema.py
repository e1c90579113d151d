"""The schema of a card, and its strict reader.

Every field is filled, or says why it is not:

    vendors: [Philips, GE]
    ages: {unknown: the source gives no ages}           nobody told us
    field_strengths_t: {none: a CT scanner has none}    there is nothing to tell

What is missing, misspelt or of the wrong kind is refused with the field's name; `lint.py` looks further.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Discriminator, Field, StringConstraints, Tag, ValidationError, field_validator, model_validator

from medld.config import Schema, read_config
from medld.errors import CardError, ConfigError

FOLDER = Path(__file__).parents[1] / "data_cards"

CONTRASTS = ("T1w", "T2w", "FLAIR", "ce-T1w", "PDw", "T2starw", "angio", "dwi", "bold", "CT")
"""What a card may call a contrast: the BIDS suffix, `ce-` before it where a contrast agent was given."""

LEAST_REASON = 10
"""Characters of a reason; less says nothing."""

Split = Literal["train", "val", "test"]
Layout = Literal[
    "flat",
    "bids",
    "dicom",
    "convert",
    "ixi",
    "hcp",
    "oasis1",
    "oasis3",
    "kirby21",
    "brats",
    "fastmri",
    "adni",
    "lidc",
    "ldct",
    "rplhr",
    "totalsegmentator",
]
"""How files are found below the data folder; see `medld.dataset.layouts`. `convert`: none of these finds them."""

T = TypeVar("T")
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=LEAST_REASON)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Absent(Schema):
    """Why a field is not filled: nobody told us (`unknown`), or there is nothing to tell (`none`)."""

    unknown: Reason | None = None
    none: Reason | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_reason(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or len(value) != 1 or None in value.values():
            raise ValueError("expected a value or a reason, {unknown: the source does not say}; quote commas in it")
        return value

    def __str__(self) -> str:
        return f"unknown ({self.unknown})" if self.unknown else f"none ({self.none})"


def _tag(value: Any) -> str:
    """Which of the two forms of a field was written; an empty one is an absence without its reason."""
    if isinstance(value, Mapping):
        return "absent" if set(value) & {"unknown", "none"} else "filled"
    blank = value is None or (isinstance(value, str) and value.strip().lower() in {"", "unknown", "none"})
    return "absent" if blank or isinstance(value, Absent) else "filled"


Known = Annotated[Annotated[T, Tag("filled")] | Annotated[Absent, Tag("absent")], Discriminator(_tag)]
Lines = Known[tuple[Text, ...]]


class Ages(Schema):
    """Youngest and oldest subject, years."""

    low: float = Field(ge=0, le=120)
    high: float = Field(ge=0, le=120)


class Sexes(Schema):
    """Subjects of each sex as the source has them."""

    female: int = Field(ge=0)
    male: int = Field(ge=0)
    not_given: int = Field(0, ge=0)


class Counts(Schema):
    """How much there is."""

    subjects: Known[int]
    files: Known[int]


class Part(Schema):
    """One of the sources that a card gathers, under the name by which files refer to it."""

    name: Text
    origin: Url
    version: Known[Text]
    licence: Known[Text]
    attribution: Known[Text]
    notes: Lines


class CardFile(Schema):
    """One scan: its path below the data folder, whose it is, and the SHA-256 of the file.

    `weight` is how often it is drawn compared with others, `axes` the array axes along which it may be degraded
    (not across thick slices); a config's sources narrow and scale both.
    """

    file: Text
    subject: Text
    contrast: Text
    sha256: Sha256
    part: str | None = None
    weight: float = Field(1.0, gt=0)
    axes: tuple[int, ...] = (0, 1, 2)

    @field_validator("file")
    @classmethod
    def _stays_below(cls, file: str) -> str:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\\" in file:
            raise ValueError("expected a path below the data folder, with /")
        return file

    @field_validator("axes")
    @classmethod
    def _array_axes(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        if not axes or len(set(axes)) < len(axes) or not set(axes) <= {0, 1, 2}:
            raise ValueError("expected one to three different array axes out of 0, 1, 2")
        return axes


class Splits(Schema):
    """Who is in which split, always by subject.

    `listed`: as `files` says. `by-subject-hash`: `split_of` says, so that everybody who has the data has the same
    split. `source`: the data set brings its own.
    """

    rule: Literal["listed", "by-subject-hash", "source"]
    why: Text
    files: Known[dict[Split, tuple[CardFile, ...]]]


class Use(Schema):
    """Considerations for use."""

    good_for: Lines
    not_good_for: Lines
    ethics: Lines


class DataCard(Schema):
    """Everything that is to be known about a data set before a model learns from it."""

    name: Text
    title: Text
    origin: tuple[Url, ...]
    version: Known[Text]
    licence: Known[Text]
    access: Known[Text]
    citation: Lines
    attribution: Known[Text]
    modality: Literal["mr", "ct"]
    body_parts: Lines
    contrasts: Lines
    vendors: Lines
    field_strengths_t: Known[tuple[float, ...]]
    ages: Known[Ages]
    sexes: Known[Sexes]
    counts: Counts
    spacing_mm: Lines
    units: Known[Text]
    known_defects: Lines
    preprocessing: Lines
    parts: tuple[Part, ...] = ()
    layout: Known[Layout]
    splits: Splits
    decisions: Lines
    use: Use

    def files(self, split: Split | None = None) -> tuple[CardFile, ...]:
        """The listed files of a split, or of all; none where the card lists no files."""
        listed = known(self.splits.files) or {}
        return tuple(file for name, files in listed.items() if split in (None, name) for file in files)


def known(value: T | Absent) -> T | None:
    """The value of a field, None where it is absent."""
    return None if isinstance(value, Absent) else value


def split_of(subject: str) -> Split:
    """The split of a subject by the rule `by-subject-hash`: a tenth val, a tenth test, the rest train.

    >>> [split_of(subject) for subject in ("IXI002", "IXI012", "IXI013")]
    ['train', 'val', 'train']
    """
    tenth = int(hashlib.sha256(subject.encode()).hexdigest(), 16) % 10
    return "val" if tenth == 0 else "test" if tenth == 1 else "train"


def list_cards() -> tuple[str, ...]:
    """Names of the cards that ship with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def card_path(name_or_path: str | Path) -> Path:
    """The file of a shipped card, or the YAML file of that path.

    Raises:
        CardError: There is no such card.
    """
    if str(name_or_path) in list_cards():
        return FOLDER / f"{name_or_path}.yaml"
    if str(name_or_path).endswith((".yaml", ".yml")):
        return Path(name_or_path)
    raise CardError(f"Expected a .yaml file or one of the cards {', '.join(list_cards())}, got '{name_or_path}'.")


def read_card(name_or_path: str | Path) -> DataCard:
    """The card of that name or path.

    Raises:
        CardError: There is none, or it does not fit the schema; the message names file and fields.
    """
    path = card_path(name_or_path)
    try:
        return read_config(path, DataCard)
    except ConfigError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise CardError(str(error)) from error
        lines = [f"{_field(item['loc'])}: {item['msg']}" for item in error.__cause__.errors()]
        raise CardError(f"{path} is no data card. {'; '.join(lines)}.") from error


def _field(place: Iterable[str | int]) -> str:
    """`splits.files.train[3].sha256`."""
    parts = (part for part in place if part not in ("filled", "absent", "[key]"))
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
