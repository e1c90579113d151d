"""Charts: box plots of gains and spectra along the slices, as matplotlib figures.

Figures are made without pyplot, so that no backend is chosen and nothing of a caller's matplotlib is changed: its
settings are set aside while ours hold. The same numbers give the same bytes.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from medld.report.results import Record, against, rows_of
from medld.report.sketch_store import SketchStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

__all__ = ["CHART_WIDTH", "Chart", "chart_gains", "chart_spectra", "printable", "settings", "svg_uri"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#f0e442")
"""Told apart by those who see fewer colours too (Okabe & Ito)."""
OURS: Mapping[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.monospace": ["DejaVu Sans Mono"],
    "font.size": 8,
    "text.parse_math": False,  # a name may hold two dollar signs
    "svg.hashsalt": "medld",
    "image.composite_image": False,  # pictures stay as they are, pixel by pixel
    "axes.spines.top": False,
    "axes.spines.right": False,
}

CHART_WIDTH = 10.6  # inches: of A4 across, without its margins
ROWS_PER_CHART = 24
FEWEST_FOR_BOX = 5
"""Scans: quartiles of fewer are the scans themselves, which are drawn as points anyway."""
PANELS_ACROSS = 4
PANEL_HEIGHT = 2.4
DEEPEST = 1e-2
"""Of a spectrum, below its truth's lowest: what an interpolation has there is its rounding."""
FAINTEST = 1e-14
"""Of a spectrum, to its highest: below it is what float32 rounds."""
TINY = 1e-300
"""Power: its logarithm exists."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@contextmanager
def settings() -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever a caller has set; put back at the end."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(OURS)
        yield


@dataclass(frozen=True, eq=False)
class Chart:
    """A drawing that fits on a screen as well as on paper.

    Args:
        title: One line.
        height: Inches; it is `CHART_WIDTH` wide.
        draw: Draws it into a figure, or a part of one.
    """

    title: str
    height: float
    draw: Callable[[FigureBase], None]


def chart_gains(record: Record, methods: Sequence[str], key: str = "gain") -> Iterator[Chart]:
    """Box plots of every scan's gain, a row for each protocol, group and method.

    Args:
        record: Of the evaluation.
        methods: Whose.
        key: Column of its rows, "gain" or "ssim_gain".
    """
    rows = [row for row in _gains(record, methods, key) if row.gains]
    title = f"Gain of {'PSNR (dB)' if key == 'gain' else 'SSIM'} over {against(record)}"
    limits = _limits([value for row in rows for value in row.gains])
    for start in range(0, len(rows), ROWS_PER_CHART):
        some = rows[start : start + ROWS_PER_CHART]
        yield Chart(title, 0.6 + 0.25 * len(some), partial(_draw_boxes, rows=some, methods=methods, limits=limits))


@dataclass(frozen=True)
class _Gains:
    """A row of box plots."""

    label: str
    method: str
    gains: list[float]


def _gains(record: Record, methods: Sequence[str], key: str) -> Iterator[_Gains]:
    for protocol in record["protocols"]:
        found = {method: rows_of(record, protocol["name"], method) for method in methods}
        for group in sorted({row["group"] for rows in found.values() for row in rows}):
            for method, rows in found.items():
                known = [float(row[key]) for row in rows if row["group"] == group and row[key] is not None]
                gains = [value for value in known if math.isfinite(value)]
                several = f", {method}" if len(methods) > 1 else ""
                yield _Gains(f"{protocol['name']}, {group}{several} ({len(gains)})", method, gains)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Of all charts alike, zero within."""
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


def _draw_boxes(
    figure: FigureBase, rows: Sequence[_Gains], methods: Sequence[str], limits: tuple[float, float]
) -> None:
    axes = figure.subplots()
    for place, row in enumerate(rows):
        colour = _colour(methods, row.method)
        if len(row.gains) >= FEWEST_FOR_BOX:
            axes.boxplot(
                [row.gains],
                positions=[place],
                widths=0.6,
                orientation="horizontal",
                showfliers=False,
                boxprops={"color": colour},
                whiskerprops={"color": colour},
                capprops={"color": colour},
                medianprops={"color": colour, "linewidth": 2},
            )
        places = [place] * len(row.gains)
        axes.plot(row.gains, places, "o", color=colour, markersize=3.5, alpha=0.7, markeredgewidth=0)
    axes.set_yticks(range(len(rows)), [printable(row.label) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(*limits)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def chart_spectra(record: Record, methods: Sequence[str], sketches: SketchStore) -> Iterator[Chart]:
    """Power along the slices, a chart for each protocol with a panel for each group; protocols without are left out.

    Args:
        record: Of the evaluation.
        methods: Beside the truth.
        sketches: Hold the spectra.
    """
    for protocol in record["protocols"]:
        panels = _mean_spectra(record, protocol["name"], methods, sketches)
        if panels:
            height = 0.5 + PANEL_HEIGHT * -(-len(panels) // PANELS_ACROSS)
            yield Chart(f"Spectra, {protocol['name']}", height, partial(_draw_panels, panels=panels, methods=methods))


def _mean_spectra(
    record: Record, protocol: str, methods: Sequence[str], sketches: SketchStore
) -> dict[str, tuple[float, dict[str | None, np.ndarray]]]:
    """By group: the scans' own Nyquist frequency in parts of the truth's, and geometric means of the spectra."""
    files = {(row["group"], row["file"]): None for row in record["subjects"] if row["protocol"] == protocol}
    ratios: dict[str, list[float]] = {}
    logs: dict[str, dict[str | None, list[np.ndarray]]] = {}
    for group, file in sorted(files):
        sketch = sketches.find(protocol, file)
        if sketch is None or sketch.truth_spectrum is None or not sketch.truth_spectrum.sum() > 0:
            continue
        whole = sketch.truth_spectrum.sum()
        ratios.setdefault(group, []).append(sketch.ratio)
        found: dict[str | None, np.ndarray] = {None: sketch.truth_spectrum}
        found |= {method: sketch.spectra[method] for method in methods if method in sketch.spectra}
        for method, spectrum in found.items():
            floor = np.maximum(spectrum / whole, TINY)
            logs.setdefault(group, {}).setdefault(method, []).append(np.log(floor))
    return {
        group: (
            1 / float(np.mean(ratios[group])),
            {method: np.exp(np.mean(spectra, axis=0)) for method, spectra in found.items()},
        )
        for group, found in logs.items()
    }


def _draw_panels(
    figure: FigureBase, panels: Mapping[str, tuple[float, Mapping[str | None, np.ndarray]]], methods: Sequence[str]
) -> None:
    down = -(-len(panels) // PANELS_ACROSS)
    grid = figure.subplots(down, PANELS_ACROSS, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (group, (own, lines)) in zip(grid.flat, panels.items(), strict=False):
        _draw_lines(axes, lines, methods)
        axes.axvline(own, color="#888888", linewidth=0.8, linestyle=":")
        axes.set_title(printable(group), fontsize=8)
        axes.set_xlabel("frequency / truth's Nyquist; dotted: the scan's", fontsize=7)
    grid.flat[0].legend(frameon=False, fontsize=7)
    figure.supylabel("power / whole power of the truth", fontsize=7)


def _draw_lines(axes: Axes, lines: Mapping[str | None, np.ndarray], methods: Sequence[str]) -> None:
    truth = lines[None]
    middle = (np.arange(len(truth)) + 0.5) / len(truth)
    axes.plot(middle, truth, color="black", linewidth=2, label="truth")
    for method in methods:
        if method in lines:
            axes.plot(middle, lines[method], color=_colour(methods, method), linewidth=1.3, label=printable(method))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: "10" + str(round(math.log10(value))).translate(RAISED))
    highest = max(float(line.max()) for line in lines.values())
    axes.set_ylim(max(float(truth.min()) * DEEPEST, highest * FAINTEST), 2 * highest)
    axes.set_xlim(0, 1)
    axes.grid(color="#eeeeee", linewidth=0.6)


def _colour(methods: Sequence[str], method: str) -> str:
    return COLOURS[list(methods).index(method) % len(COLOURS)]


def svg_uri(chart: Chart) -> str:
    """A chart as an SVG in a data URI."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(CHART_WIDTH, chart.height), layout="constrained")
    chart.draw(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def printable(text: str) -> str:
    """A text of the characters that matplotlib's own font can draw; others become "?"."""
    known = _characters()
    return "".join(character if ord(character) in known else "?" for character in text)


@lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    """What both DejaVu Sans and DejaVu Sans Mono have, without control characters."""
    from matplotlib import font_manager

    found: list[Any] = []
    for family in ("DejaVu Sans", "DejaVu Sans Mono"):
        font = font_manager.get_font(font_manager.findfont(family, fallback_to_default=False))
        found.append({code for code in font.get_charmap() if code >= 0x20 and not 0x7F <= code < 0xA0})
    return frozenset(found[0] & found[1])
