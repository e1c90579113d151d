"""The record of a run as JSON.

A record holds plain values only: lengths in mm, times in seconds, memory in GiB, intensities in the
scanner's units. It names files but not folders, since a path may hold a patient's name.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import traceback
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from medld import __version__
from medld.geometry import Grid
from medld.io import file_sha256

__all__ = [
    "RESEARCH_USE",
    "describe_file",
    "describe_grid",
    "describe_trace",
    "describe_versions",
    "measure_peak_gib",
    "write_json",
]

RESEARCH_USE = "research use, not for diagnosis"

GIB = 2**30


def describe_grid(grid: Grid) -> dict[str, Any]:
    """A grid as plain values: shape, spacing in mm, nearest orientation letters and affine (RAS+)."""
    return {
        "shape": list(grid.shape),
        "spacing_mm": [round(s, 6) for s in grid.spacing],
        "orientation": grid.orientation,
        "affine": grid.affine.tolist(),
    }


def describe_file(path: Path) -> dict[str, str]:
    """A file's name and the sha256 of its bytes."""
    return {"file": path.name, "sha256": file_sha256(path)}


def describe_trace(error: BaseException) -> str:
    """Where an unexpected error came from, without its message: that may quote a header."""
    lines = []
    cause: BaseException | None = error
    while cause is not None:
        lines.append(f"{type(cause).__name__} at\n" + "".join(traceback.format_tb(cause.__traceback__)))
        cause = cause.__cause__ or cause.__context__
    return "caused by ".join(lines).rstrip()


def describe_versions() -> dict[str, str]:
    """Versions of what the values of an output depend on."""
    own = {"medld": __version__, "python": platform.python_version()}
    return own | {package: metadata.version(package) for package in ("torch", "numpy", "scipy")}


def measure_peak_gib() -> float | None:
    """Largest resident memory of this process so far (GiB); None where the system does not tell."""
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / GIB
    status = Path("/proc/self/status")
    if status.is_file():  # Linux's rusage still has what the process was forked from, as large as that may have been
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024 / GIB
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / GIB if sys.platform == "darwin" else peak * 1024 / GIB  # bytes there, KiB here


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, readable by any JSON parser: numbers that are not finite become null."""
    text = json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
