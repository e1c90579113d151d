"""What tuning was worth: the validation of start and tuned, side by side, as a table and a card."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from medld.training.cohort import Cohort
from medld.training.loop import Result
from medld.training.validation import Row

TABLE, README = "validation.csv", "README.md"

LEAST_GAIN = 0.02
"""Mean dB below which a difference is noise of the choice among checkpoints, and tuning has not helped."""


@dataclass(frozen=True)
class Table:
    """Rows of one scan at one ratio: foreground dB of B, gains over it of start and tuned; `better` is the verdict.

    Scans are told by number and hash of their file, not by name: the table travels with the model.
    """

    rows: tuple[dict[str, str | float], ...]
    better: bool

    @classmethod
    def of(cls, result: Result, scans: Cohort) -> Table:
        """The table of a run that started from a model; where no tuned weights were better, it shows the last ones."""
        tuned = result.validation if result.best_step > 0 else result.last
        rows = [_row(before, after, scans) for before, after in zip(result.start, tuned, strict=False)]
        table = cls(tuple(rows), False)
        before, after = table.gains
        return replace(table, better=result.best_step > 0 and after - before >= LEAST_GAIN)

    @property
    def gains(self) -> tuple[float, float]:
        """Mean gain over B of start and of tuned, dB."""
        count = max(1, len(self.rows))
        before, after = (sum(float(row[key]) for row in self.rows) / count for key in ("start_gain", "tuned_gain"))
        return before, after

    def csv(self) -> str:
        """One line a scan and ratio."""
        stream = io.StringIO()
        names = ["scan", "file_sha256", "contrast", "ratio", "baseline_db", "start_gain", "tuned_gain"]
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in self.rows)
        return stream.getvalue()

    def lines(self) -> list[str]:
        """Means by ratio, and the verdict."""
        lines = [f"{'ratio':>7}{'scans':>7}{'B, dB':>9}{'start':>9}{'tuned':>9}   gain over B, foreground dB"]
        for ratio in sorted({float(row["ratio"]) for row in self.rows}):
            rows = [row for row in self.rows if row["ratio"] == ratio]
            means = [
                sum(float(row[key]) for row in rows) / len(rows) for key in ("baseline_db", "start_gain", "tuned_gain")
            ]
            lines.append(f"{ratio:>6g}x{len(rows):>7}{means[0]:>9.2f}{means[1]:>+9.2f}{means[2]:>+9.2f}")
        return [*lines, self.verdict]

    @property
    def verdict(self) -> str:
        """Which of the two the folder holds, and why."""
        if not self.rows:
            return "Not validated: the model is not called better than the one it started from, whose weights it holds."
        before, after = self.gains
        if self.better:
            return f"Tuned is better: {after:+.2f} dB over B on average, the start {before:+.2f}. The folder holds it."
        return f"Tuned is not better: {after:+.2f} dB over B, the start {before:+.2f}. The folder holds the start."


def _row(before: Row, after: Row, scans: Cohort) -> dict[str, str | float]:
    assert (before["volume"], before["ratio"]) == (after["volume"], after["ratio"]), "the same scans in the same order"
    number = next(n for n, member in enumerate(scans.validation, 1) if member.fine.name == before["volume"])
    member = scans.validation[number - 1]
    return {
        "scan": str(number),
        "file_sha256": member.sha256,
        "contrast": member.fine.contrast,
        "ratio": float(before["ratio"]),
        "baseline_db": float(before["baseline"]),
        "start_gain": float(before["gain"]),
        "tuned_gain": float(after["gain"]),
    }


def format_card(card: Mapping[str, Any], table: Table) -> str:
    """A model card in Markdown: what it is, what it was tuned on, what it is worth, what it is not for."""
    training, cohort = card["training"], card["training"]["cohort"]
    start = training["start"]
    hashes = "\n".join(f"- `{name}` sha256 `{value}`" for name, value in card["sha256"].items())
    contrasts = ", ".join(cohort["contrasts"])
    spacing = " to ".join(" x ".join(f"{s:g}" for s in corner) for corner in cohort["spacing_mm"])
    return f"""# {card["name"]}

Super-resolution of MRI for medld {card["versions"]["medld"]}: `medld enhance scan.nii.gz --model THIS_FOLDER`.
Research use, not for diagnosis.

## Origin

Started from `{start["name"]}`, tuned for {training["steps"]} steps on {training["device"]}; the weights here are
those after {training["steps_kept"]} steps.

{hashes}

## Cohort

{cohort["training_scans"]} scans of {cohort["training_subjects"]} subjects to learn from,
{cohort["validation_scans"]} of {cohort["validation_subjects"]} other subjects to judge by. Contrasts: {contrasts}.
Voxels {spacing} mm. Hash of all files: `{cohort["files_sha256"]}`.

## Validation

Slices simulated from the validation scans (Gaussian profile, thickness = spacing, no noise), foreground dB.

```
{chr(10).join(table.lines())}
```

`validation.csv` has each scan.

## Limits

Judged on few scans of the same cohort: nothing is known of other scanners, ages or diseases. Networks can be wrong
where slices say little; look at the scan beside the result.
"""
