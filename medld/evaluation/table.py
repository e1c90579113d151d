"""Table: one row a scan, protocol and method; their means by contrast.

A gain is a method's figure less that of B on the same scan and protocol. B is the best method without a
network, so a gain is what the network adds. CT is a group of its own, for its foreground is another one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from statistics import fmean

METHODS = ("cubic", "B", "medld")


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
    """r after the truth was cut."""
    method: str
    how: str
    """What the program says it did."""
    psnr: float
    ssim: float
    detail_share: float
    """Power above the scan's Nyquist frequency along the last axis, over the truth's."""
    gain: float
    """dB over B."""
    ssim_gain: float


@dataclass(frozen=True)
class Summary:
    """Means of one method over one group by one protocol: a line of the table."""

    protocol: str
    group: str
    method: str
    scans: int
    psnr: float
    ssim: float
    detail_share: float
    gain: float
    lowest_gain: float
    ssim_gain: float
    lowest_ssim_gain: float


def summarise(rows: Iterable[Row]) -> tuple[Summary, ...]:
    """Means over the rows of each protocol, group and method, in the rows' order of protocols."""
    rows = list(rows)
    protocols = list(dict.fromkeys(row.protocol for row in rows))

    def place(row: Row) -> tuple[int, str, int]:
        return protocols.index(row.protocol), row.group, METHODS.index(row.method)

    return tuple(_mean(list(same)) for _, same in groupby(sorted(rows, key=place), key=place))


def _mean(rows: Sequence[Row]) -> Summary:
    """Rows of one protocol, group and method as one line."""
    return Summary(
        protocol=rows[0].protocol,
        group=rows[0].group,
        method=rows[0].method,
        scans=len(rows),
        psnr=fmean(row.psnr for row in rows),
        ssim=fmean(row.ssim for row in rows),
        detail_share=fmean(row.detail_share for row in rows),
        gain=fmean(row.gain for row in rows),
        lowest_gain=min(row.gain for row in rows),
        ssim_gain=fmean(row.ssim_gain for row in rows),
        lowest_ssim_gain=min(row.ssim_gain for row in rows),
    )


def format_table(summaries: Sequence[Summary]) -> tuple[str, ...]:
    """The table as lines of text; gains are over B, a cubic's are negative."""
    first = max(len("protocol"), *(len(s.protocol) for s in summaries))
    head = f"{'protocol':<{first}}  {'group':<7} {'scans':>5}  {'method':<6} {'PSNR dB':>8} {'SSIM':>7}"
    lines = [f"{head} {'gain dB':>8} {'lowest':>7} {'SSIM gain':>10} {'detail':>7}"]
    for s in summaries:
        lines.append(
            f"{s.protocol:<{first}}  {s.group:<7} {s.scans:>5}  {s.method:<6} {s.psnr:>8.2f} {s.ssim:>7.4f} "
            f"{s.gain:>+8.2f} {s.lowest_gain:>+7.2f} {s.ssim_gain:>+10.4f} {s.detail_share:>7.2f}"
        )
    return tuple(lines)


def format_csv(rows: Iterable[Row]) -> str:
    """The rows with a heading, floats in full so that the file says what was computed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()
