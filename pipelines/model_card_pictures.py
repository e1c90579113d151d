"""The failure gallery of model_card.py: where a model is wrong, in the scans on which it gains least.

Of each scan one or two places, blocks of 8 voxels along each axis that are foreground:

    lost     where its squared error exceeds that of B most
    wrong    where its squared error is the largest

A row shows the coronal cut (array axes 0 and 2, slices run up) through the block: scan, B, model, truth, and the error
of the model, blue too dark, red too bright. The block is framed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medld.checkpoint import Model
from medld.evaluation import load_protocol
from medld.evaluation.methods import request_for
from medld.evaluation.simulate import image
from medld.io import read_volume
from medld.metrics import find_foreground
from medld.report.colours import diverging, grey
from medld.report.planes import find_window, nearest
from medld.superres import SuperResolver

Array = NDArray[np.float32]

BLOCK = 8
"""Voxels along each edge."""
CROP = 88
"""Voxels of a picture's edge around the block."""
ZOOM = 2
CAPTION, MARGIN = 18, 4
ERROR_SHARE = 0.25
"""End of the colours of errors, in parts of the window."""
GREYS = 64
"""Of a picture: more are not told apart, and the file would be larger."""


@dataclass(frozen=True)
class Picture:
    """A row of panels in the file `file`: of which scan, and what it shows."""

    file: str
    scan: str
    words: str


def draw_failures(
    cases: Sequence[Mapping[str, Any]], scans: Path, model: Model, protocol: str, out: Path
) -> list[Picture]:
    """Restore the scan of each case (rows of subjects.csv) and draw its worst places into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.png"):
        old.unlink()
    pictures = []
    resolvers = (SuperResolver(None), SuperResolver(model))
    for case in cases:
        config = load_protocol(protocol)
        made = image(read_volume(scans / case["file"])[0], config, key=case["file"])
        request = request_for(made, config)
        base, output = (one.restore(made.scan, request).volume.array for one in resolvers)
        truth = made.truth.array
        slices = np.ix_(*(nearest(n, m) for n, m in zip(made.scan.array.shape, truth.shape, strict=True)))
        volumes = {"scan": made.scan.array[slices], "B": base, "medld": output, "truth": truth}
        for kind, place in find_places(truth, base, output).items():
            file = f"{case['group']}_{kind}.png"
            draw(volumes, place).save(out / file, optimize=True)
            pictures.append(Picture(file, Path(case["file"]).name, describe(case, kind, place, volumes)))
    return pictures


def find_places(truth: Array, base: Array, output: Array) -> dict[str, tuple[int, int, int]]:
    """First voxels of the block where most is lost against `base` and, if another, of that with the largest error."""
    inside = block_sums(find_foreground(truth)) == BLOCK**3
    error, base_error = (block_sums((array - truth) ** 2) for array in (output, base))
    lost, wrong = (find_largest(np.where(inside, sums, -np.inf)) for sums in (error - base_error, error))
    return {"lost": lost} if lost == wrong else {"lost": lost, "wrong": wrong}


def block_sums(array: NDArray[Any]) -> NDArray[np.float64]:
    """Sums over whole blocks."""
    counts = [n // BLOCK for n in array.shape]
    whole = array[tuple(slice(0, n * BLOCK) for n in counts)].astype(np.float64)
    i, j, k = counts
    return np.asarray(whole.reshape(i, BLOCK, j, BLOCK, k, BLOCK).sum((1, 3, 5)))


def find_largest(sums: NDArray[np.float64]) -> tuple[int, int, int]:
    """The first voxels of the block with the largest sum."""
    i, j, k = (int(place) * BLOCK for place in np.unravel_index(np.argmax(sums), sums.shape))
    return i, j, k


def describe(case: Mapping[str, Any], kind: str, place: tuple[int, int, int], volumes: Mapping[str, Array]) -> str:
    """What a picture shows, with the errors in its block in percent of the truth's range."""
    block = tuple(slice(start, start + BLOCK) for start in place)
    truth = volumes["truth"]
    rms = {
        name: 100 * float(np.sqrt(np.mean((volumes[name][block] - truth[block]) ** 2)) / np.ptp(truth))
        for name in ("B", "medld")
    }
    lost = "most is lost against B" if rms["medld"] > rms["B"] else "least is gained on B; nowhere is B better"
    words = {"lost": lost, "wrong": "the error is largest"}[kind]
    return (
        f"{case['group']}, lowest gain of a scan ({case['gain']:+.2f} dB), where {words}: RMS error in the frame "
        f"{rms['medld']:.1f} % of the range, of B {rms['B']:.1f} %"
    )


def draw(volumes: Mapping[str, Array], place: tuple[int, int, int]) -> Image.Image:
    """One row of panels, 64 greys and the colours of errors."""
    truth = volumes["truth"]
    low, high = find_window(truth)
    cuts = {name: cut(array, place) for name, array in volumes.items()}
    step = 256 // GREYS
    panels = {name: np.stack([grey(one, (low, high)) // step * step] * 3, axis=-1) for name, one in cuts.items()}
    panels["error"] = diverging(cuts["medld"] - cuts["truth"], ERROR_SHARE * (high - low))
    height, width = (ZOOM * n for n in cuts["truth"].shape)
    sheet = Image.new("RGB", (len(panels) * (width + MARGIN) - MARGIN, height + CAPTION))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    row, column = frame(truth.shape, place)
    for count, (name, pixels) in enumerate(panels.items()):
        left = count * (width + MARGIN)
        panel = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(panel, (left, CAPTION))
        title = f"error, ±{100 * ERROR_SHARE:.0f} % of the window" if name == "error" else name
        pen.text((left + 3, 2), title, fill="white", font=font)
        corner = left + ZOOM * column, CAPTION + ZOOM * row
        pen.rectangle((*corner, *(start + ZOOM * BLOCK - 1 for start in corner)), outline=(255, 200, 0))
    return sheet.quantize(256, dither=Image.Dither.NONE)


def window(length: int, start: int) -> slice:
    """At most `CROP` voxels of an axis with a block in their middle."""
    size = min(CROP, length)
    first = min(max(start + BLOCK // 2 - size // 2, 0), length - size)
    return slice(first, first + size)


def cut(array: Array, place: tuple[int, int, int]) -> Array:
    """The part of the coronal cut around a block: rows run down along the slices, columns along the first axis."""
    i, j, k = place
    plane = array[window(array.shape[0], i), j + BLOCK // 2, window(array.shape[2], k)]
    return np.ascontiguousarray(plane.T[::-1])


def frame(shape: tuple[int, ...], place: tuple[int, int, int]) -> tuple[int, int]:
    """Row and column of a block's corner in its cut."""
    columns, rows = window(shape[0], place[0]), window(shape[2], place[2])
    return rows.stop - (place[2] + BLOCK), place[0] - columns.start
