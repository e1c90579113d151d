"""Evaluation report: report.html and report.pdf of an evaluation, out of its results.json and its sketches.

Every number on them is one of results.json; the pictures and spectra are those of the sketches. The same record and
sketches give the same bytes: no clock is read and no path of a machine is named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medld.report.cases import ERROR_WORDS, find_cases
from medld.report.charts import FEWEST_FOR_BOX, Chart, chart_gains, chart_spectra, settings, svg_uri
from medld.report.page import render
from medld.report.paper import (
    TOP_LINES,
    Block,
    draw_case,
    draw_charts,
    head_page,
    open_pdf,
    set_tables,
    set_text,
    write_blocks,
)
from medld.report.results import (
    against,
    describe_run,
    list_scans,
    main_tables,
    more_tables,
    skipped_table,
    subgroup_table,
)
from medld.report.sketch_store import SketchStore

__all__ = ["HTML", "PAGES", "PDF", "EvaluationReport", "render_evaluation_report", "write_evaluation_report"]

HTML, PDF = "report.html", "report.pdf"
PAGES = (HTML, PDF)
"""Names of the files that `write_evaluation_report` writes."""

PLAIN = "cubic"
"""Drawn among the spectra if it is there: what everybody has."""


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """What an evaluation found.

    Args:
        record: What results.json holds: plain values, None for NaN, "inf" and "-inf".
        leading: Methods that the report is about, models and other tools: box plots show their gains, pictures their
            best, median and worst case. Without any, box plots show all methods, and pictures the method that gains
            count from.
        sketches: Pictures and spectra of the scans; what has none is left out.
    """

    record: Mapping[str, Any]
    leading: tuple[str, ...] = ()
    sketches: SketchStore = field(default_factory=SketchStore)

    @property
    def boxed(self) -> tuple[str, ...]:
        """Methods whose gains are drawn."""
        base = against(self.record)
        return tuple(m for m in self.leading or self.record["methods"] if m != base)

    @property
    def pictured(self) -> tuple[str, ...]:
        """Methods whose cases are shown."""
        return self.leading or (against(self.record),)

    @property
    def lined(self) -> tuple[str, ...]:
        """Methods whose spectra are drawn."""
        plain = (PLAIN,) if PLAIN in self.record["methods"] else ()
        return tuple(dict.fromkeys((*plain, against(self.record), *self.leading)))

    @property
    def subtitle(self) -> str:
        """What was compared, in a sentence."""
        record = self.record
        scans = len({row["file"] for row in record["subjects"]})
        subjects = len({row["subject"] for row in record["subjects"]})
        names = ", ".join(f"{model['method']} ({model['name']})" for model in record["models"]) or "none"
        counts = ((scans, "scan"), (len(record["protocols"]), "protocol"), (len(record["methods"]), "method"))
        found, protocols, methods = (_count(number, noun) for number, noun in counts)
        people = _count(subjects, "subject")
        return f"{found} of {people}, {protocols}, {methods}; models: {names}; medld {record['medld']}"


TITLE = "Evaluation"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def write_evaluation_report(out: Path, data: EvaluationReport) -> None:
    """Write report.html and report.pdf, each whole or not at all; older ones are replaced.

    Args:
        out: A folder.
        data: What to show.
    """
    _write(out / HTML, lambda path: path.write_bytes(render_evaluation_report(data)))
    _write(out / PDF, lambda path: _print(path, data))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Under a temporary name, then moved: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def render_evaluation_report(data: EvaluationReport) -> bytes:
    """The page as UTF-8 HTML; the same input gives the same bytes."""
    record = data.record
    with settings():
        gains, spectra = ([(chart.title, svg_uri(chart)) for chart in some] for some in (_gains(data), _spectra(data)))
    return render(
        "evaluation.html",
        TITLE,
        data.subtitle,
        sentences=list(record["warnings"]),
        results=list(main_tables(record, data.leading)),
        fewest=FEWEST_FOR_BOX,
        gains=gains,
        spectra=spectra,
        errors=ERROR_WORDS,
        cases=list(find_cases(record, data.pictured, data.sketches)),
        subgroups=subgroup_table(record, data.leading),
        more=list(more_tables(record)),
        skipped=skipped_table(record),
        described=[*describe_run(record), list_scans(record)],
    )


def _gains(data: EvaluationReport) -> Iterator[Chart]:
    yield from chart_gains(data.record, data.boxed)
    yield from chart_gains(data.record, data.boxed, "ssim_gain")


def _spectra(data: EvaluationReport) -> Iterator[Chart]:
    yield from chart_spectra(data.record, data.lined, data.sketches)


def _print(path: Path, data: EvaluationReport) -> None:
    record = data.record
    with settings(), open_pdf(path, TITLE) as pages:
        first, *others = write_blocks(_first_blocks(data), TOP_LINES)
        head_page(first, TITLE, data.subtitle)
        pages.add([first, *others])
        pages.add(draw_charts(_gains(data)))
        pages.add(draw_charts(_spectra(data)))
        pages.add(draw_case(case) for case in find_cases(record, data.pictured, data.sketches))
        pages.add(write_blocks(_last_blocks(data)))


def _first_blocks(data: EvaluationReport) -> Iterator[Block]:
    if data.record["warnings"]:
        lines = [line for warning in data.record["warnings"] for line in set_text(warning).lines]
        yield Block((("Warnings", True),), tuple(lines))
    yield from set_tables(main_tables(data.record, data.leading))


def _last_blocks(data: EvaluationReport) -> Iterator[Block]:
    record = data.record
    tables = [subgroup_table(record, data.leading), *more_tables(record), skipped_table(record)]
    tables += [*describe_run(record), list_scans(record)]
    yield from set_tables(table for table in tables if table.rows)
