"""Paper: tables, charts and pictures as the pages of a PDF, A4 across, without a browser.

Tables are set in one fixed-width font, so that columns are counted in characters; one that fits on a page is not cut,
a longer one has its heading on each. Every page has a number and says what it is for. No date is written into the file.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medld import __version__
from medld.report.cases import ERROR_WORDS, SIDES, Case, Column
from medld.report.charts import CHART_WIDTH, Chart, printable
from medld.report.record import RESEARCH_USE
from medld.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "TOP_LINES",
    "Block",
    "Pages",
    "draw_case",
    "draw_charts",
    "head_page",
    "open_pdf",
    "paginate",
    "set_tables",
    "set_text",
    "write_blocks",
]

PAGE = (11.69, 8.27)
"""Width and height of A4 across, inches."""
MARGIN = 0.5
FOOT = 0.3
"""Inches: from the lower edge to the foot's line."""
TITLE = 0.3
"""Inches: of a chart's title."""
HEAD, COLUMN_GAP = 0.95, 0.12
"""Inches: above the pictures of a case, and between them."""
LETTERS = 0.058
"""Inches: of a letter above a picture."""
QUIET, ALARM = "#555555", "#8e1020"
FONT = 6.8  # points
LEADING = 1.35
CHARACTERS = 188
"""In a line: DejaVu Sans Mono is .602 as wide as it is high."""
LINES = 56
TOP_LINES = 7
"""Lines that `head_page` needs."""
FEWEST = 8
"""Lines of a long table at a page's end: fewer begin on the next one."""
NARROWEST = 14
"""Characters: a column of words is not made narrower than this."""
GAP = "  "

Line = tuple[str, bool]
"""A line of text, and whether it is bold."""


@dataclass(frozen=True)
class Block:
    """Lines that stay on one page if they fit; `head` is repeated on every page that they go on to."""

    head: tuple[Line, ...] = ()
    lines: tuple[Line, ...] = ()


class Pages:
    """A file that gets pages, each with a foot.

    Args:
        file: matplotlib's.
    """

    def __init__(self, file: Any) -> None:
        self._file, self._count = file, 0

    def add(self, figures: Iterable[Figure]) -> None:
        """Pages, in their order."""
        for figure in figures:
            self._count += 1
            left, right = MARGIN / PAGE[0], 1 - MARGIN / PAGE[0]
            style: Any = {"fontsize": 7, "color": QUIET}
            figure.text(left, FOOT / PAGE[1], f"medld {__version__}; {RESEARCH_USE}", **style)
            figure.text(right, FOOT / PAGE[1], str(self._count), ha="right", **style)
            self._file.savefig(figure)


@contextmanager
def open_pdf(path: Path, title: str) -> Iterator[Pages]:
    """A file that gets pages."""
    from matplotlib.backends.backend_pdf import PdfPages

    metadata = {"Title": printable(title), "Creator": "medld", "CreationDate": None, "ModDate": None}
    with PdfPages(path, metadata=metadata) as file:
        yield Pages(file)


def set_tables(tables: Iterable[Table]) -> Iterator[Block]:
    """Tables as blocks with lines no longer than a page is wide; words that do not fit are broken."""
    for table in tables:
        rows = [[cell.shown for cell in row] for row in table.rows]
        right = [bool(table.rows) and table.rows[0][column].is_number for column in range(len(table.columns))]
        widths = _fit([[*table.columns], *rows], right)
        columns = _set_row(table.columns, widths, right) if any(table.columns) else ()
        head = ((table.title, True), *((line, True) for line in columns))
        lines = [
            (line, place in table.strong) for place, row in enumerate(rows) for line in _set_row(row, widths, right)
        ]
        yield Block(head, (*lines, *set_text(table.note).lines))


def set_text(text: str) -> Block:
    """A sentence as lines."""
    return Block(lines=tuple((line, False) for line in textwrap.wrap(text, CHARACTERS)))


def _fit(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[int]:
    """Characters of each column; of words, the widest ones give way."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    while sum(widths) + len(GAP) * (len(widths) - 1) > CHARACTERS:
        wide = [column for column, width in enumerate(widths) if width > NARROWEST and not right[column]]
        if not wide:
            break
        widths[max(wide, key=lambda column: widths[column])] -= 1
    return widths


def _set_row(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    """A row as one line or more."""
    wrapped = [textwrap.wrap(cell, max(width, 1)) or [""] for cell, width in zip(cells, widths, strict=True)]
    for line in range(max(len(lines) for lines in wrapped)):
        parts = [lines[line] if line < len(lines) else "" for lines in wrapped]
        padded = [p.rjust(w) if r else p.ljust(w) for p, w, r in zip(parts, widths, right, strict=True)]
        yield GAP.join(padded).rstrip()


def write_blocks(blocks: Iterable[Block], leave: int = 0) -> Iterator[Figure]:
    """Pages of blocks, a line apart; on the first one so many lines at the top are left free."""
    from matplotlib.figure import Figure

    for lines in paginate([("", False)] * leave, blocks):
        figure = Figure(figsize=PAGE)
        for place, (line, bold) in enumerate(lines):
            top = 1 - (MARGIN + (place + 1) * FONT * LEADING / 72) / PAGE[1]
            weight = "bold" if bold else "normal"
            figure.text(MARGIN / PAGE[0], top, printable(line), family="monospace", fontsize=FONT, weight=weight)
        yield figure


def paginate(page: list[Line], blocks: Iterable[Block]) -> Iterator[list[Line]]:
    """Lines of each page.

    Args:
        page: What stands on the first one already.
        blocks: What follows.
    """
    for block in blocks:
        length, room = len(block.head) + len(block.lines), LINES - len(page) - 1
        if page and length > room and (length <= LINES or room < len(block.head) + FEWEST):
            yield page
            page = []
        page += [("", False), *block.head] if page else block.head
        for line in block.lines:
            if len(page) >= LINES:
                yield page
                page = [*block.head]
            page.append(line)
    if page:
        yield page


def head_page(figure: Figure, title: str, subtitle: str) -> None:
    """Write a title over a page that has `TOP_LINES` lines free."""
    left, top = MARGIN / PAGE[0], 1 - MARGIN / PAGE[1]
    figure.text(left, top, printable(title), fontsize=16, weight="bold", va="top")
    style: Any = {"fontsize": 8, "va": "top"}
    figure.text(left, top - 0.33 / PAGE[1], "\n".join(textwrap.wrap(printable(subtitle), 170)[:2]), **style)
    figure.text(left, top - 0.68 / PAGE[1], RESEARCH_USE, color=ALARM, weight="bold", **style)


def draw_charts(charts: Iterable[Chart]) -> Iterator[Figure]:
    """Charts with their titles, as many on a page as there is room for."""
    pages: list[list[Chart]] = []
    for chart in charts:
        if not pages or sum(one.height + TITLE for one in (*pages[-1], chart)) > PAGE[1] - 2 * MARGIN:
            pages.append([])
        pages[-1].append(chart)
    for page in pages:
        yield _draw_page(page)


def _draw_page(charts: Sequence[Chart]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=PAGE)
    left, width = MARGIN / PAGE[0], CHART_WIDTH / PAGE[0]
    bottom = MARGIN / PAGE[1]
    figure.set_layout_engine("constrained", rect=(left, bottom, width, 1 - 2 * bottom))
    heights = [chart.height + TITLE for chart in charts]
    rest = max(PAGE[1] - 2 * MARGIN - sum(heights), 0.01)
    parts: Any = figure.subfigures(len(charts) + 1, 1, height_ratios=[*heights, rest])
    for part, chart in zip(parts, charts, strict=False):  # the last part stays empty
        part.suptitle(printable(chart.title), fontsize=9, weight="bold")
        chart.draw(part)
    return figure


def draw_case(case: Case) -> Figure:
    """A case as one page: all pictures in one pair of axes that counts inches, for each of its own would be slow."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=PAGE)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.text(MARGIN, MARGIN, printable(case.title), fontsize=10, weight="bold", va="top")
    axes.text(MARGIN, MARGIN + 0.22, printable(case.words), fontsize=8, va="top")
    axes.text(MARGIN, MARGIN + 0.4, f"{ERROR_WORDS} {SIDES}", fontsize=6.5, va="top", color=QUIET)
    wide = (PAGE[0] - 2 * MARGIN + COLUMN_GAP) / len(case.columns) - COLUMN_GAP
    extents = [picture.extent for picture in case.columns[0].pictures]
    high = PAGE[1] - 2 * MARGIN - HEAD - 2 * COLUMN_GAP
    scale = min(wide / max(width for _, width in extents), high / sum(height for height, _ in extents))
    step = max(width for _, width in extents) * scale + COLUMN_GAP
    for place, column in enumerate(case.columns):
        _draw_column(axes, column, MARGIN + place * step, step - COLUMN_GAP, scale)
    axes.set(xlim=(0, PAGE[0]), ylim=(PAGE[1], 0), aspect="auto")
    return figure


def _draw_column(axes: Axes, column: Column, left: float, wide: float, scale: float) -> None:
    """Pictures below one another from `left`, `wide` inches, `scale` inches a mm."""
    top = MARGIN + HEAD
    title = "\n".join(textwrap.wrap(printable(column.title), max(1, int(wide / LETTERS))))
    axes.text(left, top - 0.06, title, fontsize=7, va="bottom")
    behind = {"boxstyle": "square,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0}
    for picture in column.pictures:
        height, width = (length * scale for length in picture.extent)
        colours: Any = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.pixels.ndim == 2 else {}
        axes.imshow(picture.pixels, extent=(left, left + width, top + height, top), interpolation="none", **colours)
        axes.text(left + 0.05, top + height / 2, picture.left, fontsize=7, va="center", bbox=behind)
        top += height + COLUMN_GAP
