"""Originals: the scan that an output was made of, found by its SHA-256.

    image file    of the name in the record, beside the output or one folder above it
    DICOM         what the output's folder is called after: study_desc-sr/ lies beside study, a folder or archive

Elsewhere it is not looked for: a folder of a hospital's archive is large.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medld.errors import InputError
from medld.geometry import Grid
from medld.io import file_sha256, read_volume
from medld.volume import Volume

__all__ = ["find_scan"]

MARK = "_desc-sr"  # what `medld enhance` adds to the name of a DICOM folder
DICOM_SUFFIXES = ("", ".zip", ".dcm", ".dicom", ".ima")
"""What else it takes off that name."""

ANOTHER = "expected the scan that the output was made of, got another one: its SHA-256 is not that in the record"


def find_scan(output: Path, record: Mapping[str, Any], named: Path | None = None) -> Volume | None:
    """The scan, scanner units; None if it is not beside the output.

    Args:
        output: The image file or series folder.
        record: Of the output.
        named: Where it is; None looks for it.

    Raises:
        InputError: What was named is not that scan, or cannot be read.
    """
    find = _find_series if record["input"].get("format") == "dicom" else _find_image
    places = _places(output, record) if named is None else [named]
    for place in places:
        found = find(place, record) if place.exists() else None
        if found is not None:
            return found
    if named is not None:
        raise InputError(f"{ANOTHER}; check --scan" if named.exists() else "--scan: there is nothing of that name")
    return None


def _places(output: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """Where a scan may be, if nobody says."""
    if record["input"].get("format") != "dicom":
        name = Path(str(record["input"].get("file", ""))).name
        yield from (folder / name for folder in (output.parent, output.parent.parent) if name)
    elif output.parent.name.endswith(MARK):
        stem = output.parent.name.removesuffix(MARK)
        yield from (output.parent.with_name(stem + suffix) for suffix in DICOM_SUFFIXES if stem)


def _find_image(path: Path, record: Mapping[str, Any]) -> Volume | None:
    if not path.is_file() or file_sha256(path) != record["input"].get("sha256"):
        return None
    return read_volume(path, force=True)[0]


def _find_series(path: Path, record: Mapping[str, Any]) -> Volume | None:
    """The one volume of that many objects and frames, on that grid and with that hash."""
    from medld.io.dicom import hash_sources, list_series, read_series

    about = record["input"]
    grid = Grid(tuple(about["grid"]["shape"]), np.array(about["grid"]["affine"]))
    found = [
        series
        for series in list_series(path).usable
        if (len(series.sources), len(series.frames)) == (about.get("instances"), about.get("frames"))
        and series.grid is not None
        and series.grid.is_close(grid)
        and hash_sources(series.sources) == about.get("sha256")
    ]
    # Echoes in one object have its hash and grid in common.
    return read_series(found[0], force=True)[0] if len(found) == 1 else None
