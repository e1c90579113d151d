"""A scan cut in two across its longer in-plane axis: one part teaches, the other is held out through-plane.

Nothing that teaches comes from the part that judges, in-plane or through-plane, so what is judged is what carries over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medld.intensity import TISSUE, intensity_map
from medld.volume import Volume

JUDGING_SHARE = 1 / 3
"""Of the tissue."""

FEWEST_SLICES = 12
SMALLEST_SIDE = 48
"""Pixels of either part, along the axis that is cut."""


@dataclass(frozen=True)
class Cut:
    """The first `place` pixels along array axis `along` teach, the others judge; slices lie across `axis`."""

    axis: int
    along: int
    place: int

    def teaching(self, volume: Volume) -> Volume:
        """The part of the scan, or of a restoration of it, that teaches."""
        return self._part(volume, 0, self.place)

    def judging(self, volume: Volume) -> Volume:
        """The part that judges."""
        return self._part(volume, self.place, volume.grid.shape[self.along] - self.place)

    def _part(self, volume: Volume, first: int, count: int) -> Volume:
        start, shape = [0, 0, 0], list(volume.grid.shape)
        start[self.along], shape[self.along] = first, count
        return volume.cropped((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))


def cut(scan: Volume, axis: int) -> Cut | str:
    """Where to cut a scan whose slices lie across array `axis`; for one that is too small, a sentence that says so."""
    shape = scan.grid.shape
    across = [a for a in range(3) if a != axis]
    along = max(across, key=lambda a: shape[a])
    if shape[axis] < FEWEST_SLICES:
        return f"expected at least {FEWEST_SLICES} slices to hold some out of, got {shape[axis]}"
    if shape[along] < 2 * SMALLEST_SIDE or min(shape[a] for a in across) < SMALLEST_SIDE:
        sides = " x ".join(str(shape[a]) for a in across)
        return f"expected at least {2 * SMALLEST_SIDE} x {SMALLEST_SIDE} pixels to hold some out of, got {sides}"
    units = intensity_map(scan.array, scan.modality)
    tissue = np.abs(units.forward(np.asarray(scan.array, dtype=np.float32))) > TISSUE
    share = tissue.sum(axis=tuple(a for a in range(3) if a != along)).cumsum()
    place = int(np.searchsorted(share, (1 - JUDGING_SHARE) * share[-1]))
    return Cut(axis, along, min(max(place, SMALLEST_SIDE), shape[along] - SMALLEST_SIDE))
