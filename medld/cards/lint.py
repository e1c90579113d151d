"""Lint: what only a look at a whole card shows.

A subject in two splits, counts that are not those of the files, one scan listed twice, a field filled for show.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from medld.cards.schema import CONTRASTS, DataCard, known, read_card
from medld.errors import CardError

PLACEHOLDER = re.compile(
    r"\b(todo|tbd|tba|tbc|fixme|xxx+|lorem ipsum|placeholder|fill (me |this )?in|n/a)\b|\?\?+|\.\.\.|^\W*$"
    r"|^(unknown|none|not known|no idea|null)$",
    re.IGNORECASE,
)


def lint_file(path: Path) -> list[str]:
    """The problems of a card's file: of its schema, of its name, of `lint_card`."""
    try:
        card = read_card(path)
    except CardError as error:
        return [str(error)]
    misnamed = [] if card.name == path.stem else [f"name: '{card.name}', the file is called {path.stem}"]
    return misnamed + lint_card(card)


def lint_card(card: DataCard) -> list[str]:
    """What is wrong with a card that fits the schema, one sentence a problem, each with its field first."""
    return [*_lint_text(card), *_lint_contrasts(card), *_lint_people(card), *_lint_files(card), *_lint_parts(card)]


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every text, number and empty collection with its field."""
    if isinstance(value, BaseModel):
        value = {name: item for name in type(value).model_fields if (item := getattr(value, name)) is not None}
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{place}.{name}".lstrip("."))
    elif isinstance(value, tuple) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{place}[{index}]")
    else:
        yield place, value


def _lint_text(card: DataCard) -> Iterator[str]:
    for place, leaf in _leaves(card):
        if leaf in ((), {}) and place != "parts":
            yield f"{place}: an empty list; fill it or give a reason, {{unknown: why}}"
        if isinstance(leaf, str) and (found := PLACEHOLDER.search(leaf)):
            yield f"{place}: placeholder text '{found.group()}'"


def _lint_contrasts(card: DataCard) -> Iterator[str]:
    named = known(card.contrasts) or ()
    used = {file.contrast for file in card.files()}
    for contrast in sorted({*named, *used} - set(CONTRASTS)):
        yield f"contrasts: '{contrast}' is not one of {', '.join(CONTRASTS)}"
    if used and used != set(named):
        odd = ", ".join(sorted(used ^ set(named)))
        yield f"contrasts: {odd} stands in the contrasts or in the files, not in both"


def _lint_people(card: DataCard) -> Iterator[str]:
    ages, sexes, subjects = known(card.ages), known(card.sexes), known(card.counts.subjects)
    if ages and ages.low > ages.high:
        yield f"ages: low {ages.low:g} is above high {ages.high:g}"
    if sexes and subjects is not None and sexes.female + sexes.male + sexes.not_given != subjects:
        yield f"sexes: {sexes.female} + {sexes.male} + {sexes.not_given} are not counts.subjects, {subjects}"


def _lint_files(card: DataCard) -> Iterator[str]:
    files = card.files()
    if bool(files) != (card.splits.rule == "listed"):
        yield f"splits.files: {len(files)} files do not go with the rule {card.splits.rule}"
    if not files:
        return
    where: dict[str, set[str]] = {}
    for split in known(card.splits.files) or {}:
        for file in card.files(split):
            where.setdefault(file.subject, set()).add(split)
    for subject, splits in where.items():
        if len(splits) > 1:
            yield f"splits.files: subject {subject} is in {' and '.join(sorted(splits))}"
    for field, values in (("sha256", [f.sha256 for f in files]), ("file", [f.file for f in files])):
        for value in (value for value, count in Counter(values).items() if count > 1):
            yield f"splits.files: {field} {value} stands there {values.count(value)} times"
    for field, stated, count in (
        ("subjects", known(card.counts.subjects), len(where)),
        ("files", known(card.counts.files), len(files)),
    ):
        if stated != count:
            yield f"counts.{field}: {stated}, the splits list {count}"


def _lint_parts(card: DataCard) -> Iterator[str]:
    names = [part.name for part in card.parts]
    used = {file.part for file in card.files() if file.part is not None}
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"parts: {name} stands there twice"
    for name in sorted(used ^ set(names)):
        yield f"parts: {name} is named by files or in the parts, not by both"
    if names and any(file.part is None for file in card.files()):
        yield "splits.files: a file without its part"
