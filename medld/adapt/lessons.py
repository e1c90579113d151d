"""What a scan teaches, drawn as training samples are, but imaged as the scan itself was.

    in-plane       its pixels along an in-plane axis, from slices as thick and as far apart as its own. Across the
                   slices it is taken restored, so that crops look as a volume does and not as a stack of thick slices:
                   those are another world, and a network tuned in it loses in this one (method.md 2.7)
    through-plane  its own slices from slices twice as far apart, in pixels up to twice as wide
    steady         nothing new: the restoration from slices like its own, so that the answer to the scan stays

None changes contrast or intensity. Every draw is a pure function of (seed, step).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from medld.acquisition import AxisAcquisition
from medld.adapt.settings import AdaptConfig
from medld.dataset import Fine
from medld.intensity import TISSUE, IntensityMap
from medld.nn.conditions import CONTRASTS
from medld.training.draw import CT_CURVE, LEAST_TISSUE, TRIES, Draw, Item
from medld.volume import Volume

UNCHANGED = CT_CURVE
"""The contrast curve that is none."""

COARSER = 2
"""How many times farther apart than its own the slices are that the scan's own slices are restored from."""

WIDEST_PIXELS = 2.0
FEWEST_SLICES = 4
SMALLEST_CROP = 32


@dataclass(frozen=True)
class Lesson:
    """One kind of crop: of which volume, along which of its axes, and how it is imaged and with what noise.

    It is zoomed out up to `widest` times, along all axes or, not to blur `slices`, in-plane alone.
    """

    volume: int
    axes: tuple[int, ...]
    acquisition: AxisAcquisition
    widest: float
    slices: bool
    noise: float


class Lessons:
    """Draws batches from the teaching part of a scan.

    Args:
        scan: That part, in scanner units; slices across `axis`.
        restored: The same, restored along `axis`.
        units: Of the whole scan.
        acquisition: How the scan sampled `restored` along `axis`.
        noise: Deviation of the scan's noise, network units.
        config: Sizes and shares.
    """

    def __init__(
        self,
        scan: Volume,
        restored: Volume,
        axis: int,
        units: IntensityMap,
        acquisition: AxisAcquisition,
        noise: float,
        config: AdaptConfig,
    ) -> None:
        self.axis, self.config = axis, config
        self.contrast = CONTRASTS.index(scan.contrast)
        self.volumes = [_fine(volume, units) for volume in (restored, scan)]
        across = tuple(a for a in range(3) if a != axis)
        sides = [scan.grid.shape[a] for a in across]
        self.in_plane = min(config.in_plane, *sides, restored.grid.shape[axis]) // 4 * 4
        depth = scan.grid.shape[axis]
        again = _sized(acquisition, acquisition.fine, config.slices)
        across_slices = _sized(acquisition, int(min(sides) / config.zoom_out), config.slices)
        coarser = _sized(AxisAcquisition(COARSER, 1), depth, config.slices)
        self._lessons: tuple[Lesson, ...] = ()
        if again and across_slices and coarser and self.in_plane >= SMALLEST_CROP:
            self._lessons = (
                Lesson(1, (axis,), coarser, WIDEST_PIXELS, True, 0.0),
                Lesson(0, (axis,), again, 1.0, False, noise),
                Lesson(0, across, across_slices, config.zoom_out, False, noise),
            )

    @property
    def too_small(self) -> str | None:
        """Why nothing can be taught, in a sentence."""
        if self._lessons:
            return None
        return f"expected room for {FEWEST_SLICES} slices each way and {SMALLEST_CROP} pixels, got less"

    def draw(self, seed: int, step: int, progress: float) -> Draw:
        """The batch of `step`."""
        rng = np.random.default_rng((seed, step))
        shares = (self.config.through_plane, self.config.through_plane + self.config.steady)
        lesson = self._lessons[int(np.searchsorted(shares, rng.random(), side="right"))]
        items = tuple(self._item(rng, lesson) for _ in range(self.config.batch))
        return Draw(lesson.acquisition, items, int(rng.integers(2**62)))

    def _item(self, rng: np.random.Generator, lesson: Lesson) -> Item:
        coarse = int(rng.choice(lesson.axes))
        first, second = (int(a) for a in rng.permutation([a for a in range(3) if a != coarse]))
        axes = (first, second, coarse)
        array = self.volumes[lesson.volume].array.transpose(axes)
        padded = lesson.acquisition.fine + 2 * lesson.acquisition.margin
        size = (self.in_plane, self.in_plane, padded)
        widest = min(lesson.widest, *(array.shape[a] / size[a] for a in range(2 if lesson.slices else 3)))
        out = float(max(1.0, widest) ** rng.random())
        zoom = (out, out, 1.0 if lesson.slices else out)
        softer = self.config.told_soft and self.axis != coarse
        flips = rng.random(3) < 0.5
        return Item(
            volume=lesson.volume,
            axes=axes,
            flips=(bool(flips[0]), bool(flips[1]), bool(flips[2])),
            zoom=zoom,
            centre=_place(rng, array, size, zoom),
            blur=(0.0, 0.0),
            curve=UNCHANGED,
            contrast=self.contrast,
            noise=lesson.noise,
            rician=False,
            stretched=(softer and first == self.axis, softer and second == self.axis),
        )


def _fine(volume: Volume, units: IntensityMap) -> Fine:
    """As the training takes volumes, but not rounded to 8 bits."""
    array = 255 * np.clip(units.forward(np.asarray(volume.array, dtype=np.float32)), 0, None)
    modality = "ct" if volume.modality == "ct" else "mr"
    return Fine("scan", array, volume.grid.spacing, volume.contrast, modality=modality)


def _sized(like: AxisAcquisition, room: int, most: int) -> AxisAcquisition | None:
    """As many slices as fit into `room` voxels with their reach, an even number, imaged as `like`; None for too few."""
    ratio, reach = like.ratio, 2 * ceil(like.ratio * max(1.0, like.thickness))
    slices = min(most, int((room - reach) / ratio)) // 2 * 2
    if slices < FEWEST_SLICES:
        return None
    return AxisAcquisition(max(slices, round(ratio * slices)), slices, like.thickness, like.profile)


def _place(
    rng: np.random.Generator, array: NDArray[np.float32], size: tuple[int, int, int], zoom: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Centre of a crop with enough tissue, or with the most of a few; on whole voxels where nothing is resampled."""
    best, centre = -1.0, (0.0, 0.0, 0.0)
    for _ in range(TRIES):
        extent = [z * n for z, n in zip(zoom, size, strict=True)]
        start = [rng.uniform(0, max(0.0, whole - e)) for whole, e in zip(array.shape, extent, strict=True)]
        start = [float(round(s)) if z == 1 else s for s, z in zip(start, zoom, strict=True)]
        window = tuple(slice(int(s), int(s + e), 4) for s, e in zip(start, extent, strict=True))
        share = float((array[window] > 255 * TISSUE).mean())
        if share > best:
            best = share
            i, j, k = (s + z * (n - 1) / 2 for s, z, n in zip(start, zoom, size, strict=True))
            centre = (i, j, k)
        if share >= LEAST_TISSUE:
            break
    return centre
