"""Table: one row a scan, protocol and method; their means by contrast, over subjects.

A gain is a method's figure less that of the method it is counted against on the same scan and protocol: B unless
said, the best method without a network, so that a gain is what the network adds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from medld.evaluation.statistics import Array, Difference, Estimate, compare_paired, estimate, words

HEADLINE = ("psnr", "ssim", "detail_share")
"""Figures that every row has; see `medld.metrics`. detail_share is along the slices."""


@dataclass(frozen=True)
class Row:
    """One scan, one protocol, one method: a line of subjects.csv."""

    protocol: str
    group: str
    """Contrast, or CT."""
    subject: str
    file: str
    sha256: str
    shape: str
    """Of the truth as compared, "180x210x152"."""
    ratio: float
    """r after the truth was cut, along the slices."""
    method: str
    how: str
    """What was done, in the program's words."""
    values: Mapping[str, float]
    """Figures by name, `HEADLINE` first; NaN where one could not be computed."""
    gain: float = 0.0
    """dB over the method that is counted against; NaN where that has no row."""
    ssim_gain: float = 0.0
    output_sha256: str = ""
    """Of the file of another tool's output."""
    traits: Mapping[str, str] = field(default_factory=dict)
    """Who and what with: `participants.TRAITS`."""

    def flat(self) -> dict[str, Any]:
        """Every column by name, in the order of subjects.csv."""
        own = {name: getattr(self, name) for name in FACTS}
        headline = {name: self.values[name] for name in HEADLINE}
        gains = {"gain": self.gain, "ssim_gain": self.ssim_gain}
        more = {name: value for name, value in self.values.items() if name not in HEADLINE}
        return {**own, **headline, **gains, **more, "output_sha256": self.output_sha256, **self.traits}


FACTS = ("protocol", "group", "subject", "file", "sha256", "shape", "ratio", "method", "how")


@dataclass(frozen=True)
class Statistic:
    """One figure of one method: its mean over subjects, and the paired difference to the method that is counted
    against, None of that itself.
    """

    value: Estimate
    difference: Difference | None = None


@dataclass(frozen=True)
class Summary:
    """One method over one group by one protocol: a line of the table; means are over subjects."""

    protocol: str
    group: str
    method: str
    scans: int
    subjects: int
    psnr: float
    ssim: float
    detail_share: float
    gain: float
    lowest_gain: float
    """Of any scan."""
    ssim_gain: float
    lowest_ssim_gain: float
    statistics: Mapping[str, Statistic] = field(default_factory=dict)
    """By figure."""
    note: str = ""
    """What so few subjects do not allow to say."""


def summarise(rows: Iterable[Row], against: str = "B", seed: int = 0) -> tuple[Summary, ...]:
    """A line for each protocol, group and method; protocols and methods in the rows' order, groups by name.

    Args:
        rows: All of them.
        against: Method from which gains and differences count.
        seed: Of the bootstrap.
    """
    rows = list(rows)
    protocols, methods = (list(dict.fromkeys(getattr(row, key) for row in rows)) for key in ("protocol", "method"))
    cells: dict[tuple[int, str, int], list[Row]] = {}
    for row in rows:
        place = protocols.index(row.protocol), row.group, methods.index(row.method)
        cells.setdefault(place, []).append(row)
    bases = {(row.protocol, row.file): row for row in rows if row.method == against}
    return tuple(_summary(cells[place], bases, against, seed) for place in sorted(cells))


def _summary(rows: Sequence[Row], bases: Mapping[tuple[str, str], Row], against: str, seed: int) -> Summary:
    """Rows of one protocol, group and method as one line."""
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    values = by_subject([(row.subject, row.values) for row in rows], columns)
    differences = by_subject([(row.subject, differ(row, bases.get((row.protocol, row.file)))) for row in rows], columns)
    statistics = {
        name: Statistic(value, None if rows[0].method == against else difference)
        for name, value, difference in zip(
            columns, estimate(values, seed), compare_paired(differences, seed), strict=True
        )
    }
    subjects = values.shape[1]
    return Summary(
        protocol=rows[0].protocol,
        group=rows[0].group,
        method=rows[0].method,
        scans=len(rows),
        subjects=subjects,
        psnr=statistics["psnr"].value.mean,
        ssim=statistics["ssim"].value.mean,
        detail_share=statistics["detail_share"].value.mean,
        gain=_mean_of(differences, columns, "psnr"),
        lowest_gain=_lowest(row.gain for row in rows),
        ssim_gain=_mean_of(differences, columns, "ssim"),
        lowest_ssim_gain=_lowest(row.ssim_gain for row in rows),
        statistics=statistics,
        note=words(subjects),
    )


def _mean_of(matrix: Array, columns: Sequence[str], name: str) -> float:
    row = matrix[columns.index(name)]
    kept = row[~np.isnan(row)]
    return fmean(kept) if kept.size else float("nan")


def _lowest(gains: Iterable[float]) -> float:
    return min((gain for gain in gains if not np.isnan(gain)), default=float("nan"))


def differ(row: Row, base: Row | None) -> dict[str, float]:
    """Each figure of a row less that of the same scan's `base`; NaN without one, and between two infinities."""
    if base is None:
        return dict.fromkeys(row.values, float("nan"))
    return {name: value - base.values.get(name, float("nan")) for name, value in row.values.items()}


def by_subject(figures: Sequence[tuple[str, Mapping[str, float]]], columns: Sequence[str]) -> Array:
    """Means over each subject's scans, shape (columns, subjects), subjects by name; NaN where none has the figure."""
    found: dict[str, list[Mapping[str, float]]] = {}
    for subject, values in figures:
        found.setdefault(subject, []).append(values)
    result = np.full((len(columns), len(found)), np.nan)
    for place, subject in enumerate(sorted(found)):
        for line, name in enumerate(columns):
            kept = [value for values in found[subject] if not np.isnan(value := values.get(name, float("nan")))]
            if kept:
                result[line, place] = fmean(kept)
    return result


def format_table(summaries: Sequence[Summary]) -> tuple[str, ...]:
    """The table as lines of text: means over subjects, the gain's 95 % interval, p of the gain."""
    first, last = (max(len(key), *(len(getattr(s, key)) for s in summaries)) for key in ("protocol", "method"))
    head = f"{'protocol':<{first}}  {'group':<7} {'scans':>5}  {'method':<{last}} {'PSNR dB':>8} {'sd':>5} {'SSIM':>7}"
    lines = [f"{head} {'gain dB':>8} {'95 % interval':>16} {'lowest':>7} {'p':>6} {'SSIM gain':>10} {'detail':>7}"]
    for s in summaries:
        statistic = s.statistics.get("psnr") or Statistic(Estimate(s.subjects, s.psnr))
        sd, difference = statistic.value.sd, statistic.difference or Difference(s.gain)
        lines.append(
            f"{s.protocol:<{first}}  {s.group:<7} {s.scans:>5}  {s.method:<{last}} {s.psnr:>8.2f} "
            f"{_or_none(sd, '.2f'):>5} {s.ssim:>7.4f} {s.gain:>+8.2f} {format_interval(difference):>16} "
            f"{s.lowest_gain:>+7.2f} {_or_none(difference.p, '.2g'):>6} {s.ssim_gain:>+10.4f} {s.detail_share:>7.2f}"
        )
    return tuple(lines)


def format_notes(summaries: Sequence[Summary]) -> tuple[str, ...]:
    """What the table's groups are too small for, a line each."""
    return tuple(dict.fromkeys(f"{s.group}: {s.note}" for s in summaries if s.note))


def format_more(summaries: Sequence[Summary]) -> tuple[str, ...]:
    """The figures beyond the headline: a line each for every protocol and group, a column for every method."""
    cells: dict[tuple[str, str], dict[str, Summary]] = {}
    for s in summaries:
        cells.setdefault((s.protocol, s.group), {})[s.method] = s
    names = list(dict.fromkeys(name for s in summaries for name in s.statistics if name not in HEADLINE))
    if not names:
        return ()
    methods = list(dict.fromkeys(s.method for s in summaries))
    first, wide = (
        max(len("protocol"), *(len(s.protocol) for s in summaries)),
        max(len(name) for name in (*names, "figure")),
    )
    head = f"{'protocol':<{first}}  {'group':<7} {'figure':<{wide}}"
    lines = [head + "".join(f" {method:>13}" for method in methods)]
    for (protocol, group), found in cells.items():
        for name in names:
            there = [found[m].statistics.get(name) if m in found else None for m in methods]
            numbers = "".join(f" {'' if one is None else format(one.value.mean, '.4g'):>13}" for one in there)
            lines.append(f"{protocol:<{first}}  {group:<7} {name:<{wide}}{numbers}")
    return tuple(lines)


def format_interval(found: Estimate | Difference) -> str:
    """ "[+3.04, +3.90]", or "" where there is none."""
    return "" if found.low is None or found.high is None else f"[{found.low:+.2f}, {found.high:+.2f}]"


def _or_none(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)


def format_csv(rows: Iterable[Row]) -> str:
    """The rows with a heading, floats in full so that the file says what was computed; NaN as an empty cell."""
    lines = [row.flat() for row in rows]
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({name: "" if value != value else value for name, value in line.items()} for line in lines)
    return text.getvalue()
