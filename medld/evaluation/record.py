"""Record: results.json and subjects.csv, out of the head of an evaluation and its entries alone.

Nothing in them depends on the clock, on paths of a machine, or on how the work was cut into runs and shards: the same
scans, settings and machine give the same bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import medld
from medld.checkpoint import Model
from medld.errors import InputError, OutputError
from medld.evaluation.calibrated import hash_of
from medld.evaluation.journal import Entry, in_order
from medld.evaluation.methods import BASELINES
from medld.evaluation.protocol import ProtocolConfig
from medld.evaluation.statistics import CONFIDENCE, DRAWS, FEWEST_FOR_INTERVAL, FEWEST_FOR_TEST
from medld.evaluation.subgroups import find_subgroups, format_subgroups, format_warnings
from medld.evaluation.table import HEADLINE, Summary, format_csv, format_more, format_notes, format_table, summarise
from medld.metrics import METRICS, Metric
from medld.report import PAGES, EvaluationReport, SketchStore, write_evaluation_report

PACKAGES = ("numpy", "scipy", "torch", "nibabel")
RESULTS, SUBJECTS = "results.json", "subjects.csv"

DEFINITIONS = {
    "mask": "foreground: truth above 5 % of its 99.5th percentile",
    "data_range": "largest minus smallest value of the truth; outputs are clipped to it",
    "crop": "the truth is cut to whole slices, so that the outer faces of scan and truth agree",
    "lesions": "put into the truth where a protocol says so; kept and seen from a quarter of their contrast on",
    "mean": "over subjects, of the means over each one's scans",
    "interval": f"bootstrap of subjects, BCa, {DRAWS} draws, {CONFIDENCE:.0%}; from {FEWEST_FOR_INTERVAL} subjects on",
    "p": f"Wilcoxon signed-rank, paired by subject, two-sided, uncorrected; from {FEWEST_FOR_TEST} subjects on",
}


def make_head(
    settings: Mapping[str, Any],
    protocols: Sequence[ProtocolConfig],
    models: Mapping[str, Model],
    methods: Sequence[str],
    metrics: Sequence[Metric],
    machine: Mapping[str, str],
    scans: Sequence[str],
) -> dict[str, Any]:
    """What the figures rest on. `machine` is device and precision; `scans` the names of all scans of all shards."""
    named = [{"method": column, "name": m.name, "sha256": dict(m.sha256), **hash_of(m)} for column, m in models.items()]
    first = {key: named[0][key] for key in ("name", "sha256")} if named else None
    return {
        "medld": medld.__version__,
        "versions": {package: version(package) for package in PACKAGES},
        "model": first,
        "models": named,
        **machine,
        "settings": dict(settings),
        "protocols": [protocol.model_dump() for protocol in protocols],
        "methods": list(methods),
        "metrics": [_described(metric) for metric in dict.fromkeys((*(METRICS[name] for name in HEADLINE), *metrics))],
        "definitions": DEFINITIONS,
        "scans": list(scans),
    }


def _described(metric: Metric) -> dict[str, str]:
    return {"name": metric.name, "unit": metric.unit, "better": metric.better, "meaning": metric.meaning}


def conclude(
    out: Path,
    head: Mapping[str, Any],
    entries: Mapping[tuple[str, str], Entry],
    sketches: SketchStore | None,
    report: Callable[[str], None],
) -> tuple[Summary, ...]:
    """Write results.json, subjects.csv, report.html and report.pdf, and report the tables.

    Args:
        out: Gets the files; created if missing.
        head: What the figures rest on.
        entries: Of all scans by all protocols.
        sketches: What the pages show of the scans; None writes no pages, and removes those of an earlier run.
        report: Gets the tables.

    Raises:
        InputError: There is not one row.
    """
    settings = head["settings"]
    found = in_order(entries, [protocol["name"] for protocol in head["protocols"]], head["scans"])
    order = {method: place for place, method in enumerate(head["methods"])}
    rows = [row for entry in found for row in sorted(entry.rows, key=lambda row: order[row.method])]
    skipped = [dict(one) for entry in found for one in entry.skipped]
    if not rows:
        reason = skipped[0]["reason"] if skipped else "there was none"
        raise InputError(f"Expected a fine volume, all files were skipped: {reason}")
    against, seed = settings["against"], settings["seed"]
    summaries = summarise(rows, against, seed)
    subgroups = find_subgroups(rows, against, seed)
    warnings = [*format_notes(summaries), *format_warnings(subgroups)]
    record = {
        **{key: value for key, value in head.items() if key != "scans"},
        "summary": [asdict(summary) for summary in summaries],
        "subgroups": [asdict(subgroup) for subgroup in subgroups],
        "warnings": warnings,
        "subjects": [row.flat() for row in rows],
        "skipped": skipped,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / SUBJECTS, format_csv(rows))
    text = json.dumps(strict(record), indent=1, allow_nan=False) + "\n"
    write_text(out / RESULTS, text)
    _write_pages(out, json.loads(text), sketches)
    shown = [s for s in subgroups if s.method == against or s.method not in BASELINES]
    lines = [*format_table(summaries), *format_more(summaries), *format_subgroups(shown, against), *warnings]
    for line in lines:
        report(line)
    return summaries


def _write_pages(out: Path, record: Mapping[str, Any], sketches: SketchStore | None) -> None:
    """The pages of a record; without sketches none, not even those of earlier results."""
    if sketches is None:
        for name in PAGES:
            (out / name).unlink(missing_ok=True)
        return
    leading = tuple(method for method in record["methods"] if method not in BASELINES)
    write_evaluation_report(out, EvaluationReport(record, leading, sketches))


def strict(value: Any) -> Any:
    """`value` as JSON knows it: null for NaN, "inf" and "-inf" for what a perfect or hopeless output has."""
    if isinstance(value, dict):
        return {key: strict(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def check_free(out: Path, *, overwrite: bool) -> None:
    """Raises: OutputError, if `out` holds results that are not to be replaced."""
    if (out / RESULTS).exists() and not overwrite:
        raise OutputError(f"{out} holds the results of an earlier run. Choose another folder or remove them.")


def write_text(path: Path, text: str) -> None:
    """`text` under a temporary name, then moved: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
