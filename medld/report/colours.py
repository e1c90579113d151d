"""Colours: values as pixels of 8 bits, and pixels as a PNG that a page holds inside itself.

    grey         between two values, black to white
    diverging    around zero: blue below, white at it, red above
    sequential   from zero: white, orange, dark red

Colours of maps are bright near zero, so that a printed page needs little ink where nothing differs.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Pixels", "diverging", "grey", "png_uri", "sequential"]

Pixels = NDArray[np.uint8]
"""(rows, columns) grey, or (rows, columns, 3) red, green, blue."""

BLUE, WHITE, RED = (33, 82, 160), (255, 255, 255), (178, 24, 43)
ORANGE, DARK_RED = (246, 153, 63), (103, 0, 13)

TINY = 1e-12
"""Of a window or limit: below it there is nothing to draw."""
STEPS = 48
"""Colours on either side of zero: more are not told apart, and a file of few is half as large."""
COLOUR_CODE = (1 << 16, 1 << 8, 1)
"""Red, green and blue as one number."""
PALETTE = 256
"""Colours of a PNG with a byte a pixel."""


def grey(values: NDArray[np.generic], window: tuple[float, float]) -> Pixels:
    """Values between `window` as black to white; what is not finite is black."""
    low, high = window
    unit = np.clip((np.nan_to_num(values, nan=low).astype(np.float32) - low) / max(high - low, TINY), 0, 1)
    return np.asarray(np.round(unit * 255), dtype=np.uint8)


def diverging(values: NDArray[np.generic], limit: float) -> Pixels:
    """Values from -limit to limit as blue, white and red."""
    unit = np.clip(np.nan_to_num(values).astype(np.float64) / max(limit, TINY), -1, 1)
    return _mixed(unit, ((-1.0, BLUE), (0.0, WHITE), (1.0, RED)))


def sequential(values: NDArray[np.generic], limit: float) -> Pixels:
    """Values from 0 to limit as white, orange and dark red."""
    unit = np.clip(np.nan_to_num(values).astype(np.float64) / max(limit, TINY), 0, 1)
    return _mixed(unit, ((0.0, WHITE), (0.5, ORANGE), (1.0, DARK_RED)))


def _mixed(unit: NDArray[np.float64], stops: tuple[tuple[float, tuple[int, int, int]], ...]) -> Pixels:
    """Straight lines between colours, in steps."""
    unit = np.round(unit * STEPS) / STEPS
    places = [place for place, _ in stops]
    channels = [np.interp(unit, places, [colour[channel] for _, colour in stops]) for channel in range(3)]
    return np.asarray(np.round(np.stack(channels, axis=-1)), dtype=np.uint8)


def png_uri(pixels: Pixels) -> str:
    """Pixels as a PNG in a data URI."""
    stream = io.BytesIO()
    _image(pixels).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _image(pixels: Pixels) -> Image:
    """A picture; of few colours with a byte a pixel."""
    from PIL import Image

    if pixels.ndim == 2:
        return Image.fromarray(pixels)
    codes, places = np.unique(pixels.astype(np.int64) @ np.array(COLOUR_CODE), return_inverse=True)
    if len(codes) > PALETTE:
        return Image.fromarray(pixels)
    picture = Image.fromarray(places.reshape(pixels.shape[:2]).astype(np.uint8))
    picture.putpalette([int(code) >> shift & 255 for code in codes for shift in (16, 8, 0)])
    return picture
