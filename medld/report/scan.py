"""Scan report: the QC page of one restored scan, out of its record, its voxels and those of the scan.

Nothing on it names a patient: a file that was made of DICOM is called by hashes, as its record does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medld.report.cases import Column, draw, largest
from medld.report.colours import diverging, grey, sequential
from medld.report.page import render
from medld.report.planes import Planes
from medld.report.tables import Cell, Table, number, pairs, text

__all__ = ["Edges", "ScanReport", "render_scan_report"]

OWN_NAME = re.compile(r"series-(\d+-)?[0-9a-f]{12}_desc-sr[A-Za-z0-9_+-]*(\.[A-Za-z.]+)?")
"""What `medld enhance` calls an output of DICOM; another name is a person's choice and may be a patient's."""


@dataclass(frozen=True)
class Edges:
    """How steep a volume is: RMS of its gradient along each array axis, scanner units per mm, over the foreground."""

    per_axis: tuple[float, float, float]

    def across(self, axes: Sequence[int]) -> float | None:
        """Along `axes` over that along the others, None where there are no others."""
        others = [axis for axis in range(3) if axis not in axes]
        if not others or not axes:
            return None
        mean = sum(self.per_axis[axis] for axis in others) / len(others)
        return sum(self.per_axis[axis] for axis in axes) / len(axes) / mean if mean > 0 else None


@dataclass(frozen=True, eq=False)
class ScanReport:
    """What a page shows of one restoration.

    Args:
        record: Content of its sidecar.
        window: Values that are drawn black and white, scanner units.
        after: Planes of the output.
        edges: Of the output.
        before: Planes of the scan, None if it is not there.
        scan_edges: Of the scan.
        difference: Planes of the output imaged again less the scan, on the scan's grid.
        residual: RMS of that difference as measured from the files, ends left out; scanner units.
        spread: Planes of the uncertainty, None if there is none.
        spread_quantiles: Quantile to uncertainty over the foreground, scanner units.
        notes: What was noticed when the page was made, sentences.
    """

    record: Mapping[str, Any]
    window: tuple[float, float]
    after: Planes
    edges: Edges
    before: Planes | None = None
    scan_edges: Edges | None = None
    difference: Planes | None = None
    residual: float | None = None
    spread: Planes | None = None
    spread_quantiles: Mapping[float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What the output is called."""
        name = str(self.record["output"].get("file", ""))
        if self.record["input"].get("format") == "dicom" and not OWN_NAME.fullmatch(name):
            return f"series {self.record['input'].get('series', '')}"
        return name


def render_scan_report(data: ScanReport) -> bytes:
    """The page as UTF-8 HTML; the same input gives the same bytes."""
    record = data.record
    model = record["model"]["name"] if record["model"] else "no model"
    return render(
        "scan.html",
        data.title,
        f"{record['method']}; {model}; medld {record['versions']['medld']}",
        sentences=[*record["warnings"], *data.notes],
        columns=list(_columns(data)),
        has_scan=data.before is not None,
        tables=list(_tables(data)),
    )


def _columns(data: ScanReport) -> Iterator[Column]:
    if data.before is not None:
        yield draw("scan", data.before, lambda values: grey(values, data.window))
    yield draw("restored", data.after, lambda values: grey(values, data.window))
    if data.difference is not None:
        limit = largest([data.difference])
        title = f"restored, imaged again, less scan: ±{limit:.3g}"
        yield draw(title, data.difference, lambda values: diverging(values, limit))
    if data.spread is not None:
        most = largest([data.spread])
        yield draw(f"uncertainty: 0 to {most:.3g}", data.spread, lambda values: sequential(values, most))


def _tables(data: ScanReport) -> Iterator[Table]:
    record = data.record
    yield _geometry(record)
    yield _scan(record)
    yield _consistency(data)
    yield _sharpness(data)
    if data.spread_quantiles:
        rows = tuple((Cell(f"{100 * q:g} %"), number(value)) for q, value in data.spread_quantiles.items())
        note = "Share of the foreground's voxels whose uncertainty is at most that, in the scan's units."
        yield Table("Uncertainty", ("share", "at most"), rows, note)
    yield _model(record)
    yield _files(data)
    yield pairs("Settings", {key: value for key, value in record["settings"].items() if value is not None})
    machine = {key: record[key] for key in ("device", "precision") if key in record}
    yield pairs("Versions and machine", {**record["versions"], **machine})
    timings = {f"{key} (s)": round(value, 3) for key, value in record.get("timings_s", {}).items()}
    memory = {f"memory, {key} (GiB)": value for key, value in record.get("memory_gib", {}).items()}
    yield pairs("Time and memory", {**timings, **memory})


def _geometry(record: Mapping[str, Any]) -> Table:
    scan, output = record["input"]["grid"], record["output"]["grid"]
    extents = [[n * s for n, s in zip(grid["shape"], grid["spacing_mm"], strict=True)] for grid in (scan, output)]
    rows = [
        (Cell("voxels"), *(text(grid["shape"]) for grid in (scan, output))),
        (Cell("spacing, mm"), *(text(grid["spacing_mm"]) for grid in (scan, output))),
        (Cell("box, mm"), *(text([round(float(e), 3) for e in extent]) for extent in extents)),
        (Cell("array axes point to"), *(text(grid["orientation"]) for grid in (scan, output))),
    ]
    rows += [
        (Cell(f"affine, row {row}"), *(text([float(v) for v in grid["affine"][row]]) for grid in (scan, output)))
        for row in range(3)
    ]
    note = " ".join(f"{sentence}." for sentence in record["output"].get("notes", ()))
    return Table("Geometry", ("", "scan", "restored"), tuple(rows), note)


def _scan(record: Mapping[str, Any]) -> Table:
    scan = record["scan"]
    names = {
        "modality": "modality",
        "modality_from": "modality known from",
        "contrast": "contrast",
        "restored_axes": "array axes restored",
        "slice_thickness_mm": "slice thickness, mm, per axis",
        "slice_thickness_from": "thickness known from",
    }
    note = "Where no thickness is stated it is taken for the slice spacing."
    return pairs("The scan", [(words, scan[key]) for key, words in names.items() if key in scan], note)


def _consistency(data: ScanReport) -> Table:
    found = data.record["consistency"]
    relative = found["residual_relative_to_range"]
    rows = [
        (Cell("RMS"), number(found["residual_rms"])),
        (Cell("largest"), number(found["residual_largest"])),
        (Cell("noise of the scan, standard deviation"), number(found["noise"])),
        (Cell("RMS over noise"), number(found["residual_relative_to_noise"], ".3g")),
        (Cell("RMS over the scan's range"), number(relative, ".3g")),
    ]
    if data.residual is not None:
        rows.append((Cell("RMS, measured again from the files"), number(data.residual)))
    note = (
        "The restored volume imaged again as the scanner did, less the scan; the two outermost slices at each end are "
        "left out; scanner units. An RMS near the noise says that nothing which the scan shows was changed; it says "
        "nothing about detail that the scan does not show. Noise 0: none stands out from texture."
    )
    return Table("Agreement with the scan, and its noise", ("", "value"), tuple(rows), note)


def _sharpness(data: ScanReport) -> Table:
    axes = data.record["scan"]["restored_axes"]
    columns = [f"along axis {axis}{', restored' if axis in axes else ''}" for axis in range(3)]
    rows = []
    for name, edges in (("scan", data.scan_edges), ("restored", data.edges)):
        if edges is not None:
            rows.append((Cell(name), *(number(value) for value in edges.per_axis), number(edges.across(axes), ".3f")))
    note = (
        "RMS gradient over the foreground, scanner units per mm. Last column: along the restored axes over along the "
        "others; tissue without a direction has 1. Noise and ringing count as sharpness."
    )
    return Table("Sharpness", ("", *columns, "restored over others"), tuple(rows), note)


def _model(record: Mapping[str, Any]) -> Table:
    model = record["model"]
    if not model:
        return pairs("Model", [("none", record["method"])])
    hashes = [(f"{file}, SHA-256", sha256) for file, sha256 in model["sha256"].items()]
    return pairs("Model", [("name", model["name"]), ("method", record["method"]), *hashes])


def _files(data: ScanReport) -> Table:
    """Names and hashes of scan and output, without their grids; of DICOM no name that a person gave."""
    rows = []
    for side in ("input", "output"):
        for key, value in data.record[side].items():
            if key in ("grid", "notes"):
                continue
            shown = data.title if (side, key) == ("output", "file") else value
            rows.append((f"{'scan' if side == 'input' else 'restored'}, {key}", shown))
    return pairs("Files", rows)
