"""Subgroups: the same table by sex, age band, group, vendor, field strength, contrast and ratio.

A model that does well on average may do worse for some. Within each protocol and contrast (the factor contrast:
within each protocol), every level of a factor has its own line, and the difference of its mean to that of all other
levels of the factor, with a bootstrap interval. What is not given is a line without a difference.

A factor with one level is left out. Differences are looked at, not tested: with seven factors some interval will
leave out zero by chance, and what differs between two groups may be their scanners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medld.evaluation.participants import TRAITS
from medld.evaluation.statistics import (
    FEWEST_FOR_INTERVAL,
    Difference,
    Estimate,
    compare_groups,
    estimate,
)
from medld.evaluation.table import Row, by_subject, differ, format_interval

COLUMNS = ("psnr", "ssim", "gain", "ssim_gain")
"""What subgroups are told apart by; gains are a method's own, so a scan that is hard for all methods counts less."""

ALL = "all"
NOT_GIVEN = "not given"


def _trait(name: str) -> Callable[[Row], str]:
    return lambda row: row.traits.get(name, "")


def ratio_level(row: Row) -> str:
    """The ratio in halves, "3.5x"."""
    return f"{round(2 * row.ratio) / 2:g}x"


FACTORS: Mapping[str, Callable[[Row], str]] = {
    **{name: _trait(name) for name in TRAITS},
    "contrast": lambda row: row.group,
    "ratio": ratio_level,
}


@dataclass(frozen=True)
class Subgroup:
    """One method on one level of a factor; `difference` is to the other levels, by column, empty where not given."""

    protocol: str
    group: str
    factor: str
    level: str
    method: str
    scans: int
    subjects: int
    values: Mapping[str, Estimate]
    difference: Mapping[str, Difference] = field(default_factory=dict)
    note: str = ""


def find_subgroups(rows: Iterable[Row], against: str = "B", seed: int = 0) -> tuple[Subgroup, ...]:
    """All subgroups of all factors that have at least two levels, in the order of rows and `FACTORS`."""
    rows = list(rows)
    bases = {(row.protocol, row.file): row for row in rows if row.method == against}
    found: list[Subgroup] = []
    for factor, level_of in FACTORS.items():
        cells: dict[tuple[str, str, str], list[Row]] = {}
        for row in rows:
            group = ALL if factor == "contrast" else row.group
            cells.setdefault((row.protocol, group, row.method), []).append(row)
        for (_, group, _), same in cells.items():
            levels: dict[str, list[Row]] = {}
            for row in same:
                levels.setdefault(level_of(row), []).append(row)
            if len([level for level in levels if level]) > 1:
                found += [_subgroup(levels, level, factor, group, bases, seed) for level in sorted(levels)]
    return tuple(found)


def _subgroup(
    levels: Mapping[str, Sequence[Row]],
    level: str,
    factor: str,
    group: str,
    bases: Mapping[tuple[str, str], Row],
    seed: int,
) -> Subgroup:
    own = levels[level]
    others = [row for other, rows in levels.items() if other not in ("", level) for row in rows]
    inside, outside = _figures(own, bases), _figures(others, bases)
    differences = compare_groups(inside, outside, seed) if level else []
    return Subgroup(
        protocol=own[0].protocol,
        group=group,
        factor=factor,
        level=level or NOT_GIVEN,
        method=own[0].method,
        scans=len(own),
        subjects=inside.shape[1],
        values=dict(zip(COLUMNS, estimate(inside, seed), strict=True)),
        difference=dict(zip(COLUMNS, differences, strict=False)),
        note=_words(inside.shape[1], outside.shape[1]) if level else "",
    )


def _figures(rows: Sequence[Row], bases: Mapping[tuple[str, str], Row]) -> np.ndarray:
    figures = []
    for row in rows:
        gains = differ(row, bases.get((row.protocol, row.file)))
        own = {"psnr": row.values["psnr"], "ssim": row.values["ssim"]}
        figures.append((row.subject, {**own, "gain": gains["psnr"], "ssim_gain": gains["ssim"]}))
    return by_subject(figures, COLUMNS)


def _words(inside: int, outside: int) -> str:
    """Why a group says nothing, "" where it does."""
    if min(inside, outside) >= FEWEST_FOR_INTERVAL:
        return ""
    few, name = (inside, "") if inside < FEWEST_FOR_INTERVAL else (outside, "in the other groups ")
    return f"{few} subject{'' if few == 1 else 's'} {name}(fewer than {FEWEST_FOR_INTERVAL}): too small to say anything"


def format_warnings(subgroups: Iterable[Subgroup]) -> tuple[str, ...]:
    """The groups that are too small, a line each."""
    return tuple(dict.fromkeys(f"{s.group}, {s.factor} {s.level}: {s.note}" for s in subgroups if s.note))


def format_subgroups(subgroups: Sequence[Subgroup], against: str = "B") -> tuple[str, ...]:
    """The subgroups as lines of text; of the method that is counted against, PSNR is compared, of others the gain."""
    if not subgroups:
        return ()
    protocol, group, factor, level, method = (
        max(len(key), *(len(getattr(s, key)) for s in subgroups))
        for key in ("protocol", "group", "factor", "level", "method")
    )
    lines = [
        f"{'protocol':<{protocol}}  {'group':<{group}}  {'factor':<{factor}}  {'level':<{level}}  {'method':<{method}} "
        f"{'subjects':>8} {'PSNR dB':>8} {'gain dB':>8} {'95 % interval':>16} {'to others':>10} {'95 % interval':>16}"
    ]
    for s in subgroups:
        gain, other = s.values["gain"], s.difference.get("psnr" if s.method == against else "gain")
        own = "" if s.method == against else format_interval(gain)
        to_others = ("", "") if other is None else (format(other.mean, "+.2f"), format_interval(other))
        lines.append(
            f"{s.protocol:<{protocol}}  {s.group:<{group}}  {s.factor:<{factor}}  {s.level:<{level}}  "
            f"{s.method:<{method}} {s.subjects:>8} {s.values['psnr'].mean:>8.2f} {gain.mean:>+8.2f} {own:>16} "
            f"{to_others[0]:>10} {to_others[1]:>16}"
        )
    return tuple(lines)
