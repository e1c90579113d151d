"""The lines of a CSV file that grows while a long command runs, and is whole at any time."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


class CsvLines:
    """What is in a file, or nothing; `keep` writes it anew.

    Args:
        path: The file; its folder is made.
        fields: Its columns.
    """

    def __init__(self, path: Path, fields: Sequence[str]) -> None:
        self.path, self.fields = path, fields
        self.lines: list[dict[str, str]] = []
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as stream:
                self.lines = list(csv.DictReader(stream))

    def keep(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """These and no others."""
        self.lines = [{name: str(line.get(name, "")) for name in self.fields} for line in lines]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, self.fields, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.lines)
        os.replace(temporary, self.path)
