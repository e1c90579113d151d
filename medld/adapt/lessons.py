"""What a scan teaches, drawn as training samples are, but imaged as the scan itself was.

Its pixels along an in-plane axis, from slices as thick and as far apart as its own. Across the slices it is taken
restored, so that crops look as a volume does and not as a stack of thick slices: those are another world, and a network
tuned in it loses in this one (method.md 2.7). None changes contrast or intensity. Every draw is a pure function of
(seed, step).
"""

from __future__ import annotations

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

FEWEST_SLICES = 4
SMALLEST_CROP = 32


class Lessons:
    """Draws batches from the teaching part of a scan.

    Args:
        restored: That part, restored along `axis`, in scanner units.
        axis: Across the slices.
        units: Of the whole scan.
        acquisition: How the scan sampled `restored` along `axis`.
        noise: Deviation of the scan's noise, network units.
        config: Sizes.
    """

    def __init__(
        self,
        restored: Volume,
        axis: int,
        units: IntensityMap,
        acquisition: AxisAcquisition,
        noise: float,
        config: AdaptConfig,
    ) -> None:
        self.axis, self.noise, self.batch = axis, noise, config.batch
        self.contrast = CONTRASTS.index(restored.contrast)
        self.volumes = [_fine(restored, units)]
        self.across = tuple(a for a in range(3) if a != axis)
        shape = restored.grid.shape
        self.in_plane = min(config.in_plane, *shape) // 4 * 4
        self.acquisition = _sized(acquisition, min(shape[a] for a in self.across), config.slices)

    @property
    def too_small(self) -> str | None:
        """Why nothing can be taught, in a sentence."""
        if self.acquisition is not None and self.in_plane >= SMALLEST_CROP:
            return None
        return f"expected room for {FEWEST_SLICES} slices in-plane and for {SMALLEST_CROP} pixels, got less"

    def draw(self, seed: int, step: int, progress: float) -> Draw:
        """The batch of `step`."""
        assert self.acquisition is not None, "not too small"
        rng = np.random.default_rng((seed, step))
        items = tuple(self._item(rng, self.acquisition) for _ in range(self.batch))
        return Draw(self.acquisition, items, int(rng.integers(2**62)))

    def _item(self, rng: np.random.Generator, acquisition: AxisAcquisition) -> Item:
        coarse = int(rng.choice(self.across))
        first, second = (int(a) for a in rng.permutation([a for a in range(3) if a != coarse]))
        axes = (first, second, coarse)
        size = (self.in_plane, self.in_plane, acquisition.fine + 2 * acquisition.margin)
        flips = rng.random(3) < 0.5
        return Item(
            volume=0,
            axes=axes,
            flips=(bool(flips[0]), bool(flips[1]), bool(flips[2])),
            zoom=(1.0, 1.0, 1.0),
            centre=_place(rng, self.volumes[0].array.transpose(axes), size),
            blur=(0.0, 0.0),
            curve=UNCHANGED,
            contrast=self.contrast,
            noise=self.noise,
            rician=False,
            stretched=(first == self.axis, second == self.axis),
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
    rng: np.random.Generator, array: NDArray[np.float32], size: tuple[int, int, int]
) -> tuple[float, float, float]:
    """Centre of a crop with enough tissue, or with the most of a few, on whole voxels: nothing is resampled."""
    best, centre = -1.0, (0.0, 0.0, 0.0)
    for _ in range(TRIES):
        start = [int(rng.integers(max(1, whole - n + 1))) for whole, n in zip(array.shape, size, strict=True)]
        window = tuple(slice(s, s + n, 4) for s, n in zip(start, size, strict=True))
        share = float((array[window] > 255 * TISSUE).mean())
        if share > best:
            best = share
            i, j, k = (s + (n - 1) / 2 for s, n in zip(start, size, strict=True))
            centre = (i, j, k)
        if share >= LEAST_TISSUE:
            break
    return centre
