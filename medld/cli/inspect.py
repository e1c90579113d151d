"""`medld inspect`: what there is at a path, and what of it can be restored."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medld.cli.table import columns

if TYPE_CHECKING:
    from medld.batch.survey import Entry, Survey

HEAD = ("no.", "series", "kind", "voxels", "spacing mm", "slices mm", "axes", "state", "name", "description")

EPILOG = """\
examples:
  medld inspect study/                 every series below a folder; also .zip archives and single files
  medld inspect study/ --json          the same for a program
  medld inspect scan.nii.gz            an image file, by its header

"no." is what --series of medld enhance and medld convert takes. Pixels are not read: a damaged file
may still be refused when it is. Descriptions are those of the scanner and may name the patient.
Exit code 0 if something can be restored, else 2."""


def add_parser(commands: Any) -> None:
    """Arguments and their help."""
    parser = commands.add_parser("inspect", help="which series there are, and what of them is usable", epilog=EPILOG)
    parser.set_defaults(command="inspect")
    parser.add_argument("path", metavar="PATH", type=Path, help="DICOM file, folder or .zip, or image file")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the command; returns the exit code."""
    from medld.batch.survey import survey

    found = survey(options.path)
    if options.json:
        say(json.dumps(_as_record(found), indent=2, ensure_ascii=False))
    else:
        for line in _describe(found):
            say(line)
    return 0 if found.usable else 2


def _describe(found: Survey) -> Iterator[str]:
    """A table, then reasons and warnings, then what was skipped."""
    if found.entries:
        yield from columns([HEAD, *(_row(entry) for entry in found.entries)])
    for entry in found.entries:
        if entry.code:
            yield f"{entry.name}: {entry.code}: {entry.reason}"
        for warning in entry.warnings:
            yield f"{entry.name}: warning: {warning}"
    for code, count in found.skipped.items():
        yield f"{count} {'file' if count == 1 else 'files'} skipped: {code}"
    yield f"{len(found.usable)} usable of {len(found.entries)}"


def _row(entry: Entry) -> tuple[str, ...]:
    """One volume in a line."""
    shape, spacing, axes = "-", "-", "-"
    if entry.grid is not None:
        shape, spacing = " x ".join(map(str, entry.grid.shape)), " x ".join(f"{s:.2f}" for s in entry.grid.spacing)
        axes = entry.grid.orientation
    elif entry.frames is not None:
        shape = f"{entry.frames} images" if entry.frames > 1 else "1 image"
    kind = entry.modality.upper() if entry.modality != "unknown" else "-"
    return (
        _number(entry.number),
        _number(entry.series_number),
        kind if entry.contrast == "unknown" else f"{kind} {entry.contrast}",
        shape,
        spacing,
        "-" if entry.slice_thickness is None else f"{entry.slice_thickness:g}",
        axes,
        entry.code or "usable",
        entry.name,
        ", ".join(text for text in (entry.description, entry.note) if text),
    )


def _number(value: int | None) -> str:
    """A number, or a dash."""
    return "-" if value is None else str(value)


def _as_record(found: Survey) -> dict[str, Any]:
    """The survey as plain JSON values."""
    return {"series": [_as_plain(entry) for entry in found.entries], "skipped": dict(found.skipped)}


def _as_plain(entry: Entry) -> dict[str, Any]:
    """One volume as plain JSON values; lengths in mm."""
    grid = entry.grid
    return {
        "number": entry.number,
        "name": entry.name,
        "format": entry.format,
        "series_number": entry.series_number,
        "description": entry.description,
        "note": entry.note,
        "modality": entry.modality,
        "contrast": entry.contrast,
        "frames": entry.frames,
        "shape": list(grid.shape) if grid else None,
        "spacing_mm": [round(s, 6) for s in grid.spacing] if grid else None,
        "slice_thickness_mm": entry.slice_thickness,
        "orientation": grid.orientation if grid else None,
        "affine": grid.affine.tolist() if grid else None,
        "usable": not entry.code,
        "code": entry.code,
        "reason": entry.reason,
        "warnings": list(entry.warnings),
    }
