"""Report: what a run leaves for people to read, and its record for programs.

    record          a run's account as JSON
    planes          cuts through a volume, as they are looked at
    colours         values as pixels
    preview         a PNG of what a restoration changed
    sketch          what a report shows of one scan of an evaluation; sketch_store keeps it on disk
    evaluation      report.html and report.pdf of an evaluation
    scan            the QC page of one restored scan
    outputs         what that page shows, out of the files; originals finds the scan

    tables          numbers as cells, the same for a page and for paper; results makes them of results.json
    charts, cases   box plots and spectra; the best, the median and the worst case
    page, paper     HTML and PDF

Importing this package is cheap: matplotlib, Jinja2 and torch are imported with their first use.
"""

from __future__ import annotations

from medld.report.evaluation import PAGES, EvaluationReport, render_evaluation_report, write_evaluation_report
from medld.report.outputs import examine_output
from medld.report.preview import save_preview
from medld.report.record import (
    RESEARCH_USE,
    describe_file,
    describe_grid,
    describe_trace,
    describe_versions,
    measure_peak_gib,
    write_json,
)
from medld.report.scan import ScanReport, render_scan_report
from medld.report.sketch import Sketch, Sketcher
from medld.report.sketch_store import SketchStore

__all__ = [
    "PAGES",
    "RESEARCH_USE",
    "EvaluationReport",
    "ScanReport",
    "Sketch",
    "SketchStore",
    "Sketcher",
    "describe_file",
    "describe_grid",
    "describe_trace",
    "describe_versions",
    "examine_output",
    "measure_peak_gib",
    "render_evaluation_report",
    "render_scan_report",
    "save_preview",
    "write_evaluation_report",
    "write_json",
]
