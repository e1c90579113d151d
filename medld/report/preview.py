"""Preview: a PNG of what a restoration changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medld.report.colours import grey
from medld.report.planes import Plane, cut_planes, find_window, nearest
from medld.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CAPTION", "MARGIN", "save_preview"]

PANEL_PIXELS = (320, 1024)
"""Smaller planes are enlarged by whole numbers to about the first, larger ones reduced to the second."""
CAPTION = 16  # pixels above each panel
MARGIN = 4  # pixels between panels


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

    window = find_window(before.array)
    pixel = _pixel_size(after)
    rows = [
        [_draw_panel(plane, pixel, window, label) for plane in cut_planes(volume, after.grid)]
        for volume, label in ((before, "scan"), (after, "restored"))
    ]
    widths, heights = [p.width for p in rows[0]], [max(p.height for p in row) for row in rows]
    size = sum(widths) + MARGIN * (len(widths) - 1), sum(heights) + MARGIN
    sheet = Image.new("L", size)
    for panels, top in zip(rows, (0, heights[0] + MARGIN), strict=True):
        for i, panel in enumerate(panels):
            sheet.paste(panel, (sum(widths[:i]) + MARGIN * i, top))
    sheet.save(path, format="PNG")


def _draw_panel(plane: Plane, pixel: float, window: tuple[float, float], label: str) -> Image:
    """One plane on square pixels of `pixel` mm, with a caption."""
    from PIL import Image, ImageDraw

    rows, columns = (max(1, round(extent / pixel)) for extent in plane.extent)
    values = plane.values
    values = values[np.ix_(nearest(values.shape[0], rows), nearest(values.shape[1], columns))]
    picture = Image.fromarray(grey(values, window))
    panel = Image.new("L", (picture.width, picture.height + CAPTION))
    panel.paste(picture, (0, CAPTION))
    pen = ImageDraw.Draw(panel)
    pen.text((2, 2), f"{label}, {plane.name}", fill=255)
    pen.text((2, CAPTION + picture.height // 2), plane.left, fill=255, stroke_width=1, stroke_fill=0)
    return panel


def _pixel_size(fine: Volume) -> float:
    """mm of a square pixel: as small as the finest voxels, in whole enlargements."""
    enlarged, most = PANEL_PIXELS
    grid = fine.grid
    pixel = max(min(grid.spacing), max(grid.extent) / most)
    return pixel / max(1, round(enlarged * pixel / max(grid.extent)))
