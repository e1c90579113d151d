"""Source: a model folder, and what may be said about it because its files say so."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from medld.calibration.schema import FILE as CALIBRATION
from medld.checkpoint import CARD, PARTS, SHIPPED, Model, find_model, load_model
from medld.errors import CheckpointError
from medld.scope import DOMAIN

FIGURES = ("results.json", "validation.json", "validation.csv")
"""What `medld evaluate` and a training leave: the first of them that lies in the model folder is quoted."""
GROUPS = ("protocol", "group", "contrast", "ratio", "method")
"""Columns that tell rows of different kinds apart; rows of one kind are averaged, since names may be a patient's."""
NAMES = ("scan", "volume", "file", "subject", "sha256", "file_sha256")
"""Columns that name a scan, be it by a number."""

OUR_LICENCE = "Apache-2.0"
README = "README.md"


@dataclass(frozen=True)
class Source:
    """A model that loads, and its folder; `figures` are rows of a table, empty where none lie beside the model."""

    folder: Path
    model: Model
    shipped: bool
    figures: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """The name in `model.json`, else the folder's."""
        return str(self.model.card.get("name") or self.folder.name)

    @property
    def licence(self) -> str | None:
        """SPDX identifier of the weights' licence; None if nothing states one."""
        stated = self.model.card.get("licence") or self.model.card.get("license")
        return str(stated) if stated else (OUR_LICENCE if self.shipped else None)

    @property
    def authors(self) -> str:
        """Who trained it."""
        stated = self.model.card.get("authors")
        return str(stated) if stated else ("The medld developers" if self.shipped else f"not stated in {CARD}")

    @property
    def training(self) -> Mapping[str, Any]:
        """How it was trained, as `model.json` has it."""
        stated = self.model.card.get("training")
        return stated if isinstance(stated, dict) else {}

    @property
    def companions(self) -> tuple[str, ...]:
        """Names of what was measured of these weights and lies beside them: calibration, and scope."""
        return tuple(name for name in (CALIBRATION, DOMAIN) if (self.folder / name).is_file())

    @property
    def own_card(self) -> Path | None:
        """The card that a shipped model brings along."""
        path = self.folder / README
        return path if self.shipped and path.is_file() else None

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Those of the card, relative to the folder."""
        found = self.folder.rglob("*.png") if self.own_card else ()
        return tuple(sorted(path.relative_to(self.folder) for path in found))

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the weight files."""
        return tuple(f"{part}.safetensors" for part in PARTS if getattr(self.model.networks, part) is not None)


def read_source(name_or_dir: str | Path) -> Source:
    """A shipped model by name, or a model folder by path; its weights are checked against their hashes.

    Raises:
        CheckpointError: No such model, or its files are missing, damaged or do not fit each other.
    """
    folder = find_model(name_or_dir)
    return Source(folder, load_model(name_or_dir), folder.parent == SHIPPED, read_figures(folder))


def describe_volumes(names: Iterable[str]) -> str:
    """Volumes counted by subject and by the suffix of their BIDS names, without the names.

    >>> describe_volumes(["sub-01_T1w", "sub-01_ce-gad_T1w", "sub-02_FLAIR"])
    '3 volumes of 2 subjects: 2 T1w, 1 FLAIR'
    """
    names = list(names)
    suffixes = Counter(name.rpartition("_")[2] if "_" in name else "without a suffix" for name in names)
    subjects = len({name.partition("_")[0] for name in names})
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())
    return f"{_count(len(names), 'volume')} of {_count(subjects, 'subject')}: {kinds}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def read_figures(folder: Path) -> tuple[Mapping[str, Any], ...]:
    """Means of the figures that lie in a folder, a row for each kind (`GROUPS`); empty if there are none.

    Raises:
        CheckpointError: A file of figures is damaged.
    """
    path = next((folder / name for name in FIGURES if (folder / name).is_file()), None)
    if path is None:
        return ()
    try:
        return _average(_read_rows(path))
    except (ValueError, csv.Error) as error:
        raise CheckpointError(
            f"Expected rows of figures in {path}, got: {error}. Repair or remove the file."
        ) from error


def _read_rows(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return list(csv.DictReader(text.splitlines()))
    content = json.loads(text)
    rows = content.get("summary") if isinstance(content, dict) else content
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise ValueError("neither a list of rows nor a summary of them")
    return rows


def _average(rows: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    kinds: dict[tuple[tuple[str, Any], ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(tuple((key, row[key]) for key in GROUPS if key in row), []).append(row)
    table: list[Mapping[str, Any]] = []
    for kind, same in kinds.items():
        columns = [
            key for key in same[0] if key not in (*GROUPS, *NAMES) and all(_is_number(row.get(key)) for row in same)
        ]
        means = {key: fmean(float(row[key]) for row in same) for key in columns}
        table.append({**dict(kind), "scans": len(same), **means})
    return tuple(table)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)
