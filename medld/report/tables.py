"""Tables: numbers as cells, the same for a page and for paper.

A cell that shows a number keeps it in full, as the record has it; what is shown of it is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["NOTHING", "Cell", "Table", "interval", "number", "pairs", "text"]

NOTHING = "-"
"""Where there is no number: too few subjects, or it could not be computed."""
SHORT = 28
"""Characters: names of protocols and methods; sentences and hashes are longer."""


@dataclass(frozen=True)
class Cell:
    """What is shown, and the number behind it as JSON has it; None for words."""

    shown: str
    value: float | int | str | None = None

    @property
    def is_number(self) -> bool:
        """Whether it is set to the right."""
        return self.value is not None or self.shown == NOTHING

    @property
    def is_short(self) -> bool:
        """Whether it stays in one line."""
        return len(self.shown) <= SHORT


@dataclass(frozen=True)
class Table:
    """Rows below a heading.

    Args:
        title: What it is.
        columns: Headings.
        rows: Cells, as many in each as there are columns.
        note: A sentence below it.
        strong: Places of rows that it is about.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    strong: frozenset[int] = frozenset()


def text(value: Any) -> Cell:
    """Words; a list is joined, None is nothing."""
    if value is None or value == "":
        return Cell("")
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, (list, tuple)):
        return Cell(", ".join(text(item).shown or NOTHING for item in value))
    if isinstance(value, Mapping):
        return Cell(", ".join(f"{key} {text(item).shown or NOTHING}" for key, item in value.items()))
    return Cell(f"{value:.6g}" if isinstance(value, float) else str(value))


def number(value: Any, form: str = ".4g") -> Cell:
    """A number of a record: a float, an int, "inf", "-inf", or None for none."""
    if value is None:
        return Cell(NOTHING)
    return Cell(_signed(format(float(value), form)) if not isinstance(value, int) else format(value, form), value)


def interval(found: Mapping[str, Any] | None, form: str = ".2f") -> Cell:
    """The interval of a mean: "[1.20, 3.40]"; its numbers are in the record."""
    low, high = (None, None) if found is None else (found.get("low"), found.get("high"))
    if low is None or high is None:
        return Cell(NOTHING)
    shown = ", ".join(_signed(format(float(value), form)) for value in (low, high))
    return Cell(f"[{shown}]", f"{float(low)!r} {float(high)!r}")


def _signed(shown: str) -> str:
    """Without the minus of what is rounded to zero."""
    return shown if float(shown) else shown.lstrip("+-")


def pairs(title: str, values: Mapping[str, Any] | Sequence[tuple[str, Any]], note: str = "") -> Table:
    """Names and what they stand for."""
    items = values.items() if isinstance(values, Mapping) else values
    return Table(title, ("", ""), tuple((Cell(str(key)), text(value)) for key, value in items), note)
