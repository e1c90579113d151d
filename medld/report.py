"""The record of a run as JSON, and a picture of what it changed.

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
from typing import TYPE_CHECKING, Any

import numpy as np

from medld import __version__
from medld.geometry import Grid
from medld.io import file_sha256
from medld.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "RESEARCH_USE",
    "describe_file",
    "describe_grid",
    "describe_trace",
    "describe_versions",
    "measure_peak_gib",
    "save_preview",
    "write_json",
]

RESEARCH_USE = "research use, not for diagnosis"

GIB = 2**30

WINDOW_PERCENTILES = (0.5, 99.5)
"""Of the scan: one bright vessel must not darken the picture."""
PANEL_PIXELS = (320, 1024)
"""Smaller planes are enlarged by whole numbers to about the first, larger ones reduced to the second."""
PLANES = (("axial", 2, "R"), ("coronal", 1, "R"), ("sagittal", 0, "A"))
"""Name, world axis across the plane, letter of its left edge (radiological: the patient's right is left)."""
CAPTION = 16  # pixels above each panel
MARGIN = 4  # pixels between panels


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
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / GIB if sys.platform == "darwin" else peak * 1024 / GIB  # bytes there, KiB here


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, readable by any JSON parser: numbers that are not finite become null."""
    text = json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def save_preview(path: Path, before: Volume, after: Volume) -> None:
    """Save a PNG of the middle axial, coronal and sagittal planes, the scan above its restoration.

    Both rows show the same places with the same window. The scan is drawn with nearest
    neighbours, so that its slices are seen as thick as they are.

    Args:
        path: PNG file to write.
        before: The scan.
        after: The restoration; it fills the same box.
    """
    from PIL import Image

    low, high = (float(v) for v in np.percentile(before.array, WINDOW_PERCENTILES))
    before, after = _to_ras(before), _to_ras(after)
    rows = [
        [_draw_panel(volume, after, plane, (low, high), label) for plane in range(len(PLANES))]
        for volume, label in ((before, "scan"), (after, "restored"))
    ]
    widths, heights = [p.width for p in rows[0]], [max(p.height for p in row) for row in rows]
    size = sum(widths) + MARGIN * (len(widths) - 1), sum(heights) + MARGIN
    sheet = Image.new("L", size)
    for panels, top in zip(rows, (0, heights[0] + MARGIN), strict=True):
        for i, panel in enumerate(panels):
            sheet.paste(panel, (sum(widths[:i]) + MARGIN * i, top))
    sheet.save(path, format="PNG")


def _to_ras(volume: Volume) -> Volume:
    """The same voxels with array axes that grow to the right, the front and the head, nearest directions."""
    world = volume.grid.world_axes
    volume = volume.permuted((world.index(0), world.index(1), world.index(2)))
    for axis in range(3):
        if volume.grid.direction[axis, axis] < 0:
            volume = volume.flipped(axis)
    return volume


def _draw_panel(volume: Volume, fine: Volume, plane: int, window: tuple[float, float], label: str) -> Image:
    """One plane through the middle of the box, on the pixels of `fine`, with a caption."""
    from PIL import Image, ImageDraw

    name, across, left = PLANES[plane]
    i, j = (axis for axis in range(3) if axis != across)
    shape = _panel_shape(fine.grid)
    # The middle voxel of the fine grid, and the voxel of this volume that holds its centre.
    middle = (fine.grid.shape[across] // 2 + 0.5) / fine.grid.shape[across]
    values = np.take(volume.array, int(middle * volume.grid.shape[across]), axis=across)
    values = values[np.ix_(_nearest(values.shape[0], shape[i]), _nearest(values.shape[1], shape[j]))]
    low, high = window
    grey = np.clip((values.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1) * 255
    # Rows run down from head or front, columns from the patient's right or front.
    picture = Image.fromarray(np.round(grey).astype(np.uint8).T[::-1, ::-1].copy())
    panel = Image.new("L", (picture.width, picture.height + CAPTION))
    panel.paste(picture, (0, CAPTION))
    pen = ImageDraw.Draw(panel)
    pen.text((2, 2), f"{label}, {name}", fill=255)
    pen.text((2, CAPTION + picture.height // 2), left, fill=255, stroke_width=1, stroke_fill=0)
    return panel


def _panel_shape(grid: Grid) -> tuple[int, int, int]:
    """Pixels per axis of the pictures: square pixels as small as the finest voxels, in whole enlargements."""
    enlarged, most = PANEL_PIXELS
    pixel = max(min(grid.spacing), max(grid.extent) / most)
    pixel /= max(1, round(enlarged * pixel / max(grid.extent)))
    i, j, k = (max(1, round(extent / pixel)) for extent in grid.extent)
    return i, j, k


def _nearest(voxels: int, pixels: int) -> np.ndarray:
    """Index of the voxel under the centre of each pixel, both covering the same length."""
    return ((np.arange(pixels) + 0.5) / pixels * voxels).astype(int)


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
