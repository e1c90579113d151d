"""Outputs: an output of `medld enhance`, its record, and the scan that it was made of, as a page shows them.

Files are known by their SHA-256, which the record holds: an output that was changed, or a scan that is another one,
is refused rather than shown beside numbers that are not its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medld.errors import GridError, InputError
from medld.io import SUFFIXES, digest_of, file_sha256, has_own_record, read_sidecar, read_volume, sidecar_path
from medld.metrics import find_foreground
from medld.metrics.edges import sobel_energy
from medld.report.originals import find_scan
from medld.report.planes import cut_planes, find_window
from medld.report.scan import Edges, ScanReport
from medld.volume import Volume

__all__ = ["examine_output", "read_output", "read_record", "reimage"]

Record = Mapping[str, Any]

SAME = 1e-3
"""Relative: the record's residual and that of the files differ by rounding alone."""
QUANTILES = (0.5, 0.9, 0.99)


def examine_output(
    path: Path | str, scan: Path | str | None = None, uncertainty: Path | str | None = None
) -> ScanReport:
    """All that the page of one restoration shows.

    Args:
        path: The output: an image file, or a series folder. Its record lies beside it.
        scan: What it was made of; None looks beside the output.
        uncertainty: Image file on the output's grid, scanner units.

    Raises:
        InputError: It is no output of ours, or not as its record says; the scan named is another one.
        GridError: The uncertainty lies on another grid.
    """
    path = Path(os.path.abspath(path))
    record = read_record(path)
    output = read_output(path, record)
    source = find_scan(path, record, None if scan is None else Path(scan))
    window = find_window(output.array if source is None else source.array)
    report = ScanReport(record, window, cut_planes(output), measure_edges(output))
    if source is not None:
        report = _with_scan(report, output, source)
    return report if uncertainty is None else _with_spread(report, output, Path(uncertainty))


def read_record(path: Path) -> Record:
    """The record beside an output.

    Raises:
        InputError: There is no such output, no record of ours beside it, or only a part of one (E_NOT_IMAGE).
    """
    if not path.exists():
        raise InputError("expected an output of medld enhance, there is nothing of that name; check the path")
    if not has_own_record(path):
        name = sidecar_path(path).name
        raise InputError(
            f"expected an output of medld enhance with its record {name} beside it, found none that is its own; name "
            "the image file or series folder that was written, or put its record back"
        )
    from medld.report.contents import check_record

    record = read_sidecar(path)
    check_record(record)
    return record


def read_output(path: Path, record: Record) -> Volume:
    """The voxels of an output, scanner units.

    Raises:
        InputError: It is not as its record says, or cannot be read.
        GridError: Its header holds no usable geometry.
    """
    is_series = record["output"].get("format") == "dicom"
    if is_series != path.is_dir():
        expected = "the folder of a series" if is_series else f"an image file ({', '.join(SUFFIXES)})"
        raise InputError(f"expected {expected}, as the record says, got another kind; name what was written")
    digest = digest_of(file_sha256(file) for file in _files_in(path)) if is_series else file_sha256(path)
    if digest != record["output"].get("sha256"):
        raise InputError(
            "expected the output that the record was written with, its SHA-256 is another one: it was changed since; "
            "enhance the scan again"
        )
    if not is_series:
        return read_volume(path, force=True, allow_output=True)[0]
    from medld.io.dicom import list_series, read_series

    series = list_series(path).usable
    if len(series) != 1:
        raise InputError(f"expected one series in the folder, found {len(series)}; name the folder that was written")
    return read_series(series[0], force=True, allow_output=True)[0]


def _files_in(folder: Path) -> Iterator[Path]:
    """The files of a series, without what a system leaves in a folder that it shows."""
    return (file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def _with_scan(report: ScanReport, output: Volume, scan: Volume) -> ScanReport:
    """The report with what the scan adds."""
    from medld.acquisition import away_from_ends

    difference = reimage(output, scan, report.record) - scan.array
    inner = away_from_ends(scan.grid.shape, report.record["scan"]["restored_axes"])
    residual = float(np.sqrt(np.mean(np.square(difference[inner], dtype=np.float64))))
    recorded, notes = report.record["consistency"]["residual_rms"], report.notes
    if abs(residual - recorded) > SAME * max(residual, recorded):
        notes = (*notes, f"imaged again it differs from the scan by {residual:.4g} RMS, its record says {recorded:.4g}")
    return replace(
        report,
        before=cut_planes(scan, output.grid),
        scan_edges=measure_edges(scan),
        difference=cut_planes(scan.with_array(difference), output.grid),
        residual=residual,
        notes=notes,
    )


def reimage(output: Volume, scan: Volume, record: Record) -> np.ndarray:
    """An output imaged again as its record says that the scan was: float32, shape of the scan."""
    from medld.acquisition import Acquisition, AxisAcquisition

    axes, thickness = record["scan"]["restored_axes"], record["scan"]["slice_thickness_mm"]
    profile = record["settings"]["slice_profile"]

    def one(axis: int) -> AxisAcquisition | None:
        if axis not in axes:
            return None
        spacings = 1.0 if thickness[axis] is None else thickness[axis] / scan.grid.spacing[axis]
        return AxisAcquisition(output.grid.shape[axis], scan.grid.shape[axis], spacings, profile)

    acquisition = Acquisition((one(0), one(1), one(2)), slice_axis=axes[0])
    return np.asarray(acquisition.reimage(np.asarray(output.array, dtype=np.float32)))


def measure_edges(volume: Volume) -> Edges:
    """RMS gradients over the foreground, over everything where nothing stands out from air."""
    mask = _foreground(volume)
    energy = sobel_energy(volume.array, mask)
    i, j, k = (float(np.sqrt(e / mask.sum()) / h) for e, h in zip(energy, volume.grid.spacing, strict=True))
    return Edges((i, j, k))


def _foreground(volume: Volume) -> np.ndarray:
    try:
        return find_foreground(volume.array)
    except InputError:
        return np.ones(volume.grid.shape, dtype=bool)


def _with_spread(report: ScanReport, output: Volume, path: Path) -> ScanReport:
    """The report with a map of the uncertainty."""
    spread, _ = read_volume(path, force=True, allow_output=True)
    if not spread.grid.is_close(output.grid):
        raise GridError(
            f"expected the uncertainty on the output's {output.grid.shape} voxels, got {spread.grid.shape} or another "
            "place; name the file that medld enhance --uncertainty wrote with this output"
        )
    values = np.quantile(spread.array[_foreground(output)], QUANTILES)
    quantiles = {q: float(value) for q, value in zip(QUANTILES, values, strict=True)}
    return replace(report, spread=cut_planes(spread), spread_quantiles=quantiles)
