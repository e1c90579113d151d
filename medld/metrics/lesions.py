"""Lesions: spheres and rods put into a volume, so that one can see whether a restoration keeps them.

A lesion is all points within half a diameter of a line of some length: a rod with round ends, of length 0 a
sphere. w is the fraction of a voxel that it fills, from 6 x 6 x 6 points inside the voxel. It takes the place of
the tissue that was there:

    x' = x + w (level - x),    level = mean of x over its ring + contrast

so it is uniform inside, brighter or darker than its surroundings by `contrast`, and its faces are antialiased:
imaged by thick slices the volume behaves as tissue would, without the steps of whole voxels. The ring is all
voxels whose centres lie more than 1.5 voxels (the blurred face) and at most 2 mm more outside of it; scores
measure against the same. Lengths are in mm, positions in voxels; directions are along the array axes, in mm.

Source: our own phantom, after the signal-known-exactly tasks of Barrett & Myers, Foundations of Image Science
(2004), chapter 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import pi

import numpy as np
from scipy.ndimage import uniform_filter

from medld.errors import InputError
from medld.metrics.checks import Array, check_mask

Spacing = tuple[float, float, float]
Box = tuple[slice, ...]

SUBVOXELS = 6
"""Points per voxel and axis: the volume of a 2 mm sphere in 1 mm voxels comes out to some percent."""

FACE = 1.5
"""Voxels (of the coarsest axis) between a lesion and its ring: half-filled ones lie there."""
RING = 2.0
"""mm."""

DIAMETERS = (2.0, 3.0, 4.0, 6.0, 8.0)
ROD_LENGTH = 2.0
"""Length of a planned rod between the centres of its ends, in diameters."""
CLEARANCE = 2.0
"""mm of other tissue between a planned lesion's ring and the next lesion."""
IN_TISSUE = 0.9
"""Of a planned lesion with its ring."""
EVEN = 0.15
"""Of a planned lesion's contrast: what its place may have itself, so that without the lesion nothing is seen."""
TRIES = 2000
"""Places tried for each planned lesion."""


@dataclass(frozen=True)
class Lesion:
    """A sphere, or with a `length` a rod, brighter (`contrast` > 0) or darker than the tissue around it.

    Raises:
        InputError: If a size is not positive, or contrast or direction is zero (E_PIXELS).
    """

    centre: tuple[float, float, float]
    """Voxels, fractions allowed."""
    diameter: float
    """mm."""
    contrast: float
    """In the volume's units."""
    length: float = 0.0
    """mm between the centres of a rod's round ends."""
    direction: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """Of a rod; any length but zero."""

    def __post_init__(self) -> None:
        sized = 0 < self.diameter < np.inf and 0 <= self.length < np.inf
        if not (sized and self.contrast and np.isfinite(self.contrast) and np.linalg.norm(self.direction) > 0):
            raise InputError(
                f"Expected a lesion with a diameter above 0 mm, a contrast and a direction, got {self}.", "E_PIXELS"
            )

    @property
    def volume(self) -> float:
        """mm^3."""
        return pi * self.diameter**2 * (self.diameter / 6 + self.length / 4)

    @property
    def reach(self) -> float:
        """mm from the centre to its farthest point."""
        return (self.diameter + self.length) / 2

    def distance(self, i: Array, j: Array, k: Array) -> Array:
        """mm from the lesion's surface, negative inside, of points at these mm from its centre."""
        u, v, w = np.asarray(self.direction) / np.linalg.norm(self.direction)
        along = np.clip(i * u + j * v + k * w, -self.length / 2, self.length / 2)
        square = (i - along * u) ** 2 + (j - along * v) ** 2 + (k - along * w) ** 2
        return np.asarray(np.sqrt(square) - self.diameter / 2)


def face_width(spacing: Spacing) -> float:
    """mm between a lesion and its ring."""
    return FACE * max(spacing)


def lesion_weights(shape: tuple[int, ...], spacing: Spacing, lesion: Lesion) -> tuple[Box, Array]:
    """Where a lesion lies and how much of each voxel there it fills.

    Args:
        shape: Of the volume, three axes.
        spacing: mm between voxels, per axis.
        lesion: What to draw; parts outside the volume are cut off.

    Returns:
        The box around it as slices, and w in it, 0 to 1, float64.

    Raises:
        InputError: If it lies outside altogether, or is too small to fill part of a voxel (E_PIXELS).
    """
    half = float(np.linalg.norm(spacing)) / 2
    box, distance = _distances(shape, spacing, lesion, half)
    weights = (distance < 0).astype(np.float64)
    cut = np.nonzero(np.abs(distance) <= half)  # only where the surface passes are points needed
    inner = (np.arange(SUBVOXELS) + 0.5) / SUBVOXELS - 0.5
    points = []
    for index, s, mm, centre, axis in zip(cut, box, spacing, lesion.centre, range(3), strict=True):
        shifts = inner.reshape([-1 if a == axis else 1 for a in range(3)])
        points.append((index[:, None, None, None] + s.start + shifts - centre) * mm)
    weights[cut] = (lesion.distance(*points) <= 0).mean((1, 2, 3))
    if not weights.any():
        raise InputError(
            f"Expected a lesion that fills part of a voxel of {spacing} mm, got {lesion.diameter:g} mm at "
            f"{lesion.centre}. Choose a larger one.",
            "E_PIXELS",
        )
    return box, weights


def insert_lesions(array: Array, lesions: Sequence[Lesion], spacing: Spacing) -> Array:
    """`array` with the lesions in it, as float32 or finer; the input is left alone.

    Args:
        array: Three axes, any real dtype.
        lesions: Put in one after the other.
        spacing: mm between voxels, per axis.

    Raises:
        InputError: If one lies outside, is too small or has nothing around it (E_PIXELS).
    """
    result = array.astype(np.result_type(array.dtype, np.float32))
    for lesion in lesions:
        level = _level_around(result, lesion, spacing) + lesion.contrast
        box, weights = lesion_weights(array.shape, spacing, lesion)
        result[box] += weights * (level - result[box])
    return result


def lesion_map(shape: tuple[int, ...], spacing: Spacing, lesions: Sequence[Lesion]) -> Array:
    """Which lesion a voxel belongs to, int16: the number of the lesion that fills half of it (from 1), 0 for none.

    A lesion that fills half of no voxel keeps the one that it fills most.

    Args:
        shape: Of the volume, three axes.
        spacing: mm between voxels, per axis.
        lesions: At most 32767; where two meet the later one counts.

    Raises:
        InputError: If one lies outside, or is too small to fill part of a voxel (E_PIXELS).
    """
    result = np.zeros(shape, dtype=np.int16)
    for number, lesion in enumerate(lesions, start=1):
        box, weights = lesion_weights(shape, spacing, lesion)
        result[box][weights >= min(0.5, float(weights.max()))] = number
    return result


def plan_lesions(
    array: Array,
    foreground: Array,
    spacing: Spacing,
    *,
    contrast: float = 0.3,
    diameters: Sequence[float] = DIAMETERS,
    copies: int = 1,
    seed: int | Sequence[int] = 0,
) -> tuple[Lesion, ...]:
    """Bright and dark spheres and rods of every diameter at random places in tissue, clear of each other.

    Args:
        array: The volume that they are for, three axes.
        foreground: Its tissue, shape of `array`; holes of a voxel or two are closed.
        spacing: mm between voxels, per axis.
        contrast: In parts of the foreground's range, .5th to 99.5th percentile; a dark lesion that would fall
            below the volume's least value gets as much as there is.
        diameters: mm.
        copies: How many of each kind.
        seed: A number or several; the same ones give the same places.

    Returns:
        4 * copies lesions per diameter, the largest first.

    Raises:
        InputError: If the foreground is empty, or too small for them (E_PIXELS).
    """
    check_mask(foreground, array, "foreground")
    rng = np.random.default_rng(seed)
    low, high = np.percentile(array[foreground], [0.5, 99.5])
    step = contrast * float(high - low)
    # Most of a window of five voxels: noise leaves holes in the foreground of a CT that are tissue all the same.
    tissue = uniform_filter(foreground.astype(np.float32), 5) > 0.5
    places = np.flatnonzero(tissue)
    lesions: list[Lesion] = []
    for diameter, length, signed, _ in product(
        sorted(diameters, reverse=True), (ROD_LENGTH, 0.0), (step, -step), range(copies)
    ):
        u, v, w = rng.standard_normal(3).tolist()
        wish = Lesion((0.0, 0.0, 0.0), diameter, signed, length * diameter, (u, v, w))
        placed = _place(wish, lesions, array, tissue, places, spacing, rng)
        room = _level_around(array, placed, spacing) - float(array.min())
        lesions.append(replace(placed, contrast=max(signed, -room)) if room > 0 else placed)
    return tuple(lesions)


def _place(
    lesion: Lesion,
    others: Sequence[Lesion],
    array: Array,
    tissue: Array,
    places: Array,
    spacing: Spacing,
    rng: np.random.Generator,
) -> Lesion:
    """The lesion at the first of many random places that is in even tissue and clear of `others`."""
    margin = face_width(spacing) + RING
    for place in rng.choice(places, TRIES) if len(places) else ():
        i, j, k = (np.array(np.unravel_index(place, tissue.shape)) + rng.uniform(-0.5, 0.5, 3)).tolist()
        placed = replace(lesion, centre=(i, j, k))
        if (
            all(_gap(placed, other, spacing) > margin + CLEARANCE for other in others)
            and _share_in(tissue, placed, spacing, margin) >= IN_TISSUE
            and abs(_own_contrast(array, placed, spacing)) <= EVEN * abs(lesion.contrast)
        ):
            return placed
    raise InputError(
        f"Expected tissue with room for the lesions, found none for number {len(others) + 1} of "
        f"{lesion.diameter:g} mm. Plan fewer or smaller ones.",
        "E_PIXELS",
    )


def _gap(one: Lesion, other: Lesion, spacing: Spacing) -> float:
    """mm between two lesions at least."""
    between = (np.array(one.centre) - other.centre) * spacing
    return float(np.linalg.norm(between)) - one.reach - other.reach


def _share_in(tissue: Array, lesion: Lesion, spacing: Spacing, margin: float) -> float:
    """How much of a lesion with `margin` mm around it lies in tissue."""
    box, distance = _distances(tissue.shape, spacing, lesion, margin)
    whole = replace(lesion, diameter=lesion.diameter + 2 * margin).volume
    return float(np.count_nonzero(tissue[box] & (distance <= margin)) * np.prod(spacing)) / whole


def _own_contrast(array: Array, lesion: Lesion, spacing: Spacing) -> float:
    """Mean of what is there already, over the lesion's place, less the mean around it."""
    box, weights = lesion_weights(array.shape, spacing, lesion)
    return float(np.average(array[box], weights=weights)) - _level_around(array, lesion, spacing)


def _level_around(array: Array, lesion: Lesion, spacing: Spacing) -> float:
    """Mean over the lesion's ring."""
    face = face_width(spacing)
    box, distance = _distances(array.shape, spacing, lesion, face + RING)
    ring = (distance > face) & (distance <= face + RING)
    if not ring.any():
        raise InputError(f"Expected tissue around a lesion at {lesion.centre}, found none.", "E_PIXELS")
    return float(np.mean(array[box][ring], dtype=np.float64))


def _distances(shape: tuple[int, ...], spacing: Spacing, lesion: Lesion, spare: float) -> tuple[Box, Array]:
    """The box of voxels within `spare` mm of a lesion, and their distances from its surface."""
    box, offsets = [], []
    for n, mm, centre in zip(shape, spacing, lesion.centre, strict=True):
        reach = (lesion.reach + spare) / mm
        first, stop = max(int(np.floor(centre - reach)), 0), min(int(np.ceil(centre + reach)) + 1, n)
        if first >= stop:
            raise InputError(f"Expected a lesion inside {shape} voxels, got one at {lesion.centre}.", "E_PIXELS")
        box.append(slice(first, stop))
        offsets.append((np.arange(first, stop) - centre) * mm)
    i, j, k = np.meshgrid(*offsets, indexing="ij", sparse=True)
    return tuple(box), lesion.distance(i, j, k)
