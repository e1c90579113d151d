"""Results: what results.json holds, as tables; and which scans are the best, the median and the worst.

The record is read as plain values, so that it can come from a file as well as from a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medld.report.tables import Cell, Table, interval, number, pairs, text

__all__ = [
    "Record",
    "Rows",
    "against",
    "choose_cases",
    "describe_run",
    "file_name",
    "list_scans",
    "main_tables",
    "more_tables",
    "rows_of",
    "skipped_table",
    "subgroup_table",
]

Record = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]

MAIN_FIGURES = ("psnr", "ssim", "detail_share")
CASES = ("best", "median", "worst")

MAIN_COLUMNS = (
    *("group", "method", "scans", "subjects"),
    *("PSNR dB", "sd", "95 % interval", "gain dB", "95 % interval", "lowest", "p"),
    *("SSIM", "95 % interval", "SSIM gain", "95 % interval", "detail"),
)
SUBGROUP_COLUMNS = (
    *("protocol", "group", "factor", "level", "method", "subjects"),
    *("PSNR dB", "gain dB", "95 % interval", "to others", "95 % interval", "warning"),
)


def against(record: Record) -> str:
    """The method that gains count from."""
    return str(record["settings"]["against"])


def rows_of(record: Record, protocol: str, method: str) -> Rows:
    """Lines of subjects.csv of one protocol and method."""
    return [row for row in record["subjects"] if (row["protocol"], row["method"]) == (protocol, method)]


def main_tables(record: Record, leading: Sequence[str] = ()) -> Iterator[Table]:
    """Means over subjects with their intervals, the gain of each method, and p of the gain: one for each protocol.

    Args:
        record: Of the evaluation.
        leading: Methods that the report is about.
    """
    base, names = against(record), list(dict.fromkeys(line["protocol"] for line in record["summary"]))
    for name in names:
        lines = [line for line in record["summary"] if line["protocol"] == name]
        strong = frozenset(place for place, line in enumerate(lines) if line["method"] in leading)
        rows = tuple(_main_row(line, base) for line in lines)
        yield Table(name, MAIN_COLUMNS, rows, _main_note(record) if name == names[-1] else "", strong)


def _main_note(record: Record) -> str:
    said = " ".join(_definition(record, name) for name in ("mean", "interval", "p"))
    return (
        f"Gains count from {against(record)} on the same scan; lowest is that of any scan. {said} detail: power above "
        "the scan's own Nyquist frequency, over the truth's."
    )


def _main_row(line: Mapping[str, Any], base: str) -> tuple[Cell, ...]:
    psnr, ssim = _statistic(line, "psnr"), _statistic(line, "ssim")
    is_base = line["method"] == base
    return (
        *(text(line[key]) for key in ("group", "method")),
        *(number(line[key], "d") for key in ("scans", "subjects")),
        number(line["psnr"], ".2f"),
        number(psnr["value"].get("sd"), ".2f"),
        interval(psnr["value"]),
        number(line["gain"], "+.2f"),
        interval(None if is_base else psnr["difference"], "+.2f"),
        number(line["lowest_gain"], "+.2f"),
        number((psnr["difference"] or {}).get("p"), ".2g"),
        number(line["ssim"], ".4f"),
        interval(ssim["value"], ".4f"),
        number(line["ssim_gain"], "+.4f"),
        interval(None if is_base else ssim["difference"], "+.4f"),
        number(line["detail_share"], ".2f"),
    )


def _statistic(line: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A figure's mean and difference; without any where a record has none."""
    found: Mapping[str, Any] = line.get("statistics", {}).get(name, {"value": {}, "difference": None})
    return found


def _definition(record: Record, name: str) -> str:
    said = str(record.get("definitions", {}).get(name, ""))
    return f"{name}: {said}." if said else ""


def more_tables(record: Record) -> Iterator[Table]:
    """The figures beyond the headline: for each protocol and group a table with a column for every method."""
    named = {metric["name"]: metric for metric in record.get("metrics", ())}
    cells: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for line in record["summary"]:
        cells.setdefault((line["protocol"], line["group"]), {})[line["method"]] = line.get("statistics", {})
    for (protocol, group), found in cells.items():
        figures = [name for name in dict.fromkeys(n for s in found.values() for n in s) if name not in MAIN_FIGURES]
        if not figures:
            continue
        rows = []
        for figure in figures:
            about = _about(figure, named)
            means = (number(statistics.get(figure, {}).get("value", {}).get("mean")) for statistics in found.values())
            rows.append((text(figure), text(about.get("unit")), text(about.get("better")), *means))
        yield Table(f"Further figures: {protocol}, {group}", ("figure", "unit", "better", *found), tuple(rows))


def _about(figure: str, named: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The metric that a figure is of: "resolution_i" is one of "resolution"."""
    names = [name for name in named if figure == name or figure.startswith(f"{name}_")]
    return named[max(names, key=len)] if names else {}


def subgroup_table(record: Record, leading: Sequence[str]) -> Table:
    """Means by sex, age, vendor, ... of the methods that the report is about, and of the one that gains count from."""
    base = against(record)
    shown = [line for line in record["subgroups"] if line["method"] in (base, *leading)]
    note = (
        f"to others: of the gain, for {base} of PSNR, to all other levels of the factor. Differences are looked at, "
        "not tested: some interval leaves out zero by chance, and groups may differ by their scanners alone."
    )
    return Table("Subgroups", SUBGROUP_COLUMNS, tuple(_subgroup_row(line, base) for line in shown), note)


def _subgroup_row(line: Mapping[str, Any], base: str) -> tuple[Cell, ...]:
    is_base = line["method"] == base
    gain, other = line["values"]["gain"], line["difference"].get("psnr" if is_base else "gain")
    return (
        *(text(line[key]) for key in ("protocol", "group", "factor", "level", "method")),
        number(line["subjects"], "d"),
        number(line["values"]["psnr"]["mean"], ".2f"),
        number(gain["mean"], "+.2f"),
        interval(None if is_base else gain, "+.2f"),
        number(None if other is None else other["mean"], "+.2f"),
        interval(other, "+.2f"),
        text(line["note"]),
    )


def skipped_table(record: Record) -> Table:
    """What was left out, and why."""
    keys = ("protocol", "file", "method", "metric", "code", "reason")
    rows = tuple(
        tuple(text(file_name(one["file"]) if key == "file" else one.get(key)) for key in keys)
        for one in record["skipped"]
    )
    return Table("Left out", keys, rows)


def list_scans(record: Record) -> Table:
    """The scans, each once, with their hashes."""
    seen = {(row["file"], row["sha256"]): row for row in record["subjects"]}
    rows = ((file_name(row["file"]), row["group"], row["subject"], row["sha256"]) for row in seen.values())
    return Table("Scans", ("file", "group", "subject", "SHA-256"), tuple(tuple(map(text, row)) for row in rows))


def file_name(name: str) -> str:
    """Of a scan's name below its folder the last part: folders may be called after patients."""
    return name.rpartition("/")[2]


def describe_run(record: Record) -> Iterator[Table]:
    """Settings, versions, models and protocols."""
    versions = {"medld": record["medld"], **record["versions"]}
    machine = {key: record[key] for key in ("device", "precision") if key in record}
    yield pairs("Versions", {**versions, **machine})
    models = [(f"{model['method']} ({model['name']})", model["sha256"]) for model in record["models"]]
    yield pairs("Models and the SHA-256 of their files", models or [("none", "methods without a network alone")])
    yield pairs("Settings", {key: value for key, value in record["settings"].items() if value not in (None, "")})
    yield Table(
        "Protocols",
        ("name", "what it does"),
        tuple((text(one["name"]), text(_told(one))) for one in record["protocols"]),
    )
    yield pairs("Definitions", record.get("definitions", {}))
    keys = ("name", "unit", "better", "meaning")
    metrics = tuple(tuple(text(one.get(key)) for key in keys) for one in record.get("metrics", ()))
    yield Table("Figures", keys, metrics)


def _told(protocol: Mapping[str, Any]) -> str:
    """A protocol's settings that say something."""
    said = {key: value for key, value in protocol.items() if key != "name" and value is not None}
    return "; ".join(f"{key} {text(value).shown}" for key, value in said.items())


def choose_cases(rows: Rows, key: str = "gain") -> list[tuple[str, Mapping[str, Any]]]:
    """The best, the median and the worst row, each once; of two, the one in the middle is the worse.

    Args:
        rows: Of one protocol and method.
        key: By which figure; rows without it do not take part. Equal ones go by the file's name.

    Returns:
        What each is ("best", or "best and median" where one scan is both), and the row.
    """
    known = [row for row in rows if row.get(key) is not None and not math.isnan(float(row[key]))]
    known.sort(key=lambda row: (float(row[key]), row["file"]))
    if not known:
        return []
    if len(known) == 1:
        return [("the only scan", known[0])]
    names: dict[int, list[str]] = {}
    for name, place in zip(CASES, (len(known) - 1, (len(known) - 1) // 2, 0), strict=True):
        names.setdefault(place, []).append(name)
    return [(" and ".join(words), known[place]) for place, words in names.items()]
