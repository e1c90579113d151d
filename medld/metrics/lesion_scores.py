"""Lesion scores: which lesions an output keeps, erases or invents.

Around the voxels of a lesion a ring is laid: all voxels between 1.5 voxels (the blurred face) and 2 mm more away
from it, in tissue, that belong to no lesion. In any volume x

    C(x) = mean over the lesion - mean over the ring                                   contrast
    V(x) = voxels as near as the ring that pass its mean + C(x) / 2, joined to the lesion by faces

    contrast kept = C(output) / C(truth)      size kept = V(output) / V(truth)         1: perfect
    erased        lesions that lose more than 3/4 of their contrast: no longer seen
    invented      controls that are seen all the same: (C(output) - C(truth)) / C(lesion) > 1/4
    spots         places anywhere else where the output gains more than 3/4 of a lesion's contrast

A control is a place that got no lesion, with the shape, size and sign of one that was put elsewhere, in tissue as
even as the lesion's. Measured with the same mask and ring and judged by the same bound, erased and invented are the
two errors of one observer who knows where to look. They need no run without lesions: what an output makes of healthy
tissue is in both runs and would cancel.

V is the volume at half of its own contrast, so a blur that lowers C raises V; of an erased lesion it says
nothing. Spots are looked for everywhere, whatever tissue is there, as blobs: b(x) is the difference of two
Gaussians, scaled so that a uniform ball of the matching diameter answers its contrast; diameters are doubled from the
smallest lesion's, but at least three voxels, up to the largest's: single voxels of texture answer to smaller balls. A
spot is voxels that hang together where s b(output) and s b(output - truth) both exceed 3/4 of the median
|C(truth)| at one of these diameters, for a sign s. Detail that the output lacks is so not one; detail of folded
tissue that it puts a voxel beside its place may be.

Source: our own; blobs after Lindeberg, IJCV 30 (1998) 79.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import erf, exp, pi, sqrt

import numpy as np
from scipy.ndimage import correlate1d, distance_transform_edt, find_objects, label

from medld.errors import InputError
from medld.metrics.checks import Array, check_mask, check_output
from medld.metrics.lesions import RING, Box, Spacing, face_width

CHANGED = 0.75
"""Of a lesion's contrast: losing more erases it, gaining more invents one."""
SEEN = 1 - CHANGED
LEAST_CONTRAST = 1e-3
"""Of the truth's range: below it there is no lesion to be kept."""
SMALLEST_SPOT = 3
"""Voxels of the coarsest axis across a spot."""


@dataclass(frozen=True)
class LesionScore:
    """One lesion: its number in the map, its volume in mm^3, C(truth), and what the output kept of it."""

    number: int
    volume: float
    contrast: float
    contrast_kept: float
    size_kept: float | None
    """None where it is erased."""

    @property
    def erased(self) -> bool:
        """Whether too little is left to be seen."""
        return self.contrast_kept < SEEN


def score_lesions(truth: Array, output: Array, lesions: Array, tissue: Array, spacing: Spacing) -> list[LesionScore]:
    """What the output keeps of each lesion, in the order of their numbers.

    To take the tissue's own texture out, give both volumes less the ones without lesions.

    Args:
        truth: Volume with the lesions, three axes.
        output: Shape of `truth`.
        lesions: Number of the lesion that a voxel belongs to, 0 for none; shape of `truth`.
        tissue: Where rings may lie, shape of `truth`.
        spacing: mm between voxels, per axis.

    Raises:
        InputError: If there is no lesion, a shape differs, the output is not finite, a lesion has no tissue around
            it or no contrast in the truth (E_PIXELS).
    """
    check_output(truth, output)
    check_mask(lesions, truth, "map of lesions")
    check_mask(tissue, truth, "tissue")
    least = LEAST_CONTRAST * (float(truth.max()) - float(truth.min()))
    scores = []
    for number, box in _boxes(lesions, spacing):
        here, near, ring = _around(lesions[box], number, tissue[box] & (lesions[box] == 0), spacing)
        if not ring.any():
            raise InputError(f"Expected tissue around lesion {number}, found none. Check map and mask.", "E_PIXELS")
        contrast, size = _measure(truth[box], here, near, ring)
        if abs(contrast) <= least:
            raise InputError(f"Expected a lesion {number} that the truth shows, got no contrast there.", "E_PIXELS")
        kept, kept_size = _measure(output[box], here, near, ring)
        score = LesionScore(number, float(here.sum() * np.prod(spacing)), contrast, kept / contrast, kept_size / size)
        scores.append(score if not score.erased else LesionScore(number, score.volume, contrast, kept / contrast, None))
    return scores


def score_controls(
    truth: Array,
    output: Array,
    lesions: Array,
    controls: Array,
    tissue: Array,
    spacing: Spacing,
    contrasts: Mapping[int, float],
) -> list[float]:
    """What the output adds at each control, in parts of its lesion's contrast: 0 nothing, 1 a lesion as strong.

    Args:
        truth: Volume with the lesions, three axes.
        output: Shape of `truth`.
        lesions: Number of the lesion that a voxel belongs to, 0 for none; shape of `truth`.
        controls: The same for places that got none, each under the number of the lesion that it matches.
        tissue: Where rings may lie, shape of `truth`.
        spacing: mm between voxels, per axis.
        contrasts: C(truth) of the lesions by number; signed.

    Raises:
        InputError: If there is no control, a shape differs, the output is not finite, or a control has no tissue
            around it or no lesion that it matches (E_PIXELS).
    """
    check_output(truth, output)
    check_mask(controls, truth, "map of controls")
    check_mask(tissue, truth, "tissue")
    added = []
    for number, box in _boxes(controls, spacing):
        here, near, ring = _around(controls[box], number, tissue[box] & (lesions[box] == 0), spacing)
        if not (ring.any() and contrasts.get(number)):
            raise InputError(
                f"Expected tissue around control {number}, and a lesion of that number, found none. Check the maps.",
                "E_PIXELS",
            )
        gained = _measure(output[box], here, near, ring)[0] - _measure(truth[box], here, near, ring)[0]
        added.append(gained / contrasts[number])
    return added


def count_spots(truth: Array, output: Array, lesions: Array, tissue: Array, spacing: Spacing, contrast: float) -> int:
    """Blobs of the lesions' sizes that the output has, the truth lacks, and no lesion is near.

    Args:
        truth: Volume with the lesions, three axes.
        output: Shape of `truth`.
        lesions: Number of the lesion that a voxel belongs to, 0 for none; shape of `truth`.
        tissue: Where blobs are looked for, shape of `truth`.
        spacing: mm between voxels, per axis.
        contrast: The lesions' usual one, above 0.

    Raises:
        InputError: If a shape differs, a value is not finite or there is no lesion (E_PIXELS).
    """
    check_output(truth, output)
    check_mask(lesions, truth, "map of lesions")
    check_mask(tissue, truth, "tissue")
    away = tissue.copy()
    for number, box in _boxes(lesions, spacing):
        distance = distance_transform_edt(lesions[box] != number, sampling=spacing)
        away[box] &= distance > face_width(spacing) + RING
    diameters, least = _octaves(lesions, spacing), CHANGED * contrast
    # One volume after the other: masks of its blobs are an eighth of a volume, responses would be four of them.
    own = list(_blobs(output, spacing, diameters, least))
    bright, dark = np.zeros(truth.shape, dtype=bool), np.zeros(truth.shape, dtype=bool)
    for (is_bright, is_dark), (gains, loses) in zip(
        own, _blobs(output - truth, spacing, diameters, least), strict=True
    ):
        bright |= is_bright & gains
        dark |= is_dark & loses
    touching = np.ones((3, 3, 3))
    return sum(int(label(places & away, touching)[1]) for places in (bright, dark))


def summarise_lesions(scores: Sequence[LesionScore], diameters: Sequence[float] = ()) -> dict[str, float]:
    """Mean "contrast" kept, and the median "size" kept by those not erased (left out if all are).

    The median, because one lesion that joins with a fold of tissue is many times its size. Of `diameters` (mm, by
    number - 1) also the mean contrast kept by those of each, as "contrast_2mm".
    """
    summary = {"contrast": float(np.mean([score.contrast_kept for score in scores]))}
    sizes = [score.size_kept for score in scores if score.size_kept is not None]
    summary |= {"size": float(np.median(sizes))} if sizes else {}
    for diameter in sorted(set(diameters)):
        kept = [score.contrast_kept for score in scores if diameters[score.number - 1] == diameter]
        summary |= {f"contrast_{diameter:g}mm": float(np.mean(kept))} if kept else {}
    return summary


def _around(numbers: Array, number: int, tissue: Array, spacing: Spacing) -> tuple[Array, Array, Array]:
    """Masks of one lesion or control: itself, itself with all that is near, and its ring in `tissue`."""
    here = numbers == number
    distance = distance_transform_edt(~here, sampling=spacing)
    near = distance <= face_width(spacing) + RING
    return here, near, near & (distance > face_width(spacing)) & tissue


def _measure(array: Array, here: Array, near: Array, ring: Array) -> tuple[float, int]:
    """C and V of one lesion, V in voxels."""
    around = float(np.mean(array[ring], dtype=np.float64))
    contrast = float(np.mean(array[here], dtype=np.float64)) - around
    beyond = (array - around) * np.sign(contrast) > abs(contrast) / 2
    parts, _ = label(beyond & near)
    joined = np.unique(parts[here & beyond])
    return contrast, int(np.isin(parts, joined[joined > 0]).sum())


def _boxes(lesions: Array, spacing: Spacing) -> Iterator[tuple[int, Box]]:
    """Number and box of each lesion with its ring."""
    spare = [int(np.ceil((face_width(spacing) + RING) / mm)) for mm in spacing]
    for number, box in enumerate(find_objects(lesions.astype(np.int32, copy=False)), start=1):
        if box is not None:
            yield number, tuple(slice(max(s.start - n, 0), s.stop + n) for s, n in zip(box, spare, strict=True))


def _octaves(lesions: Array, spacing: Spacing) -> list[float]:
    """Diameter of a ball as large as the smallest lesion, or of three voxels, and its doubles up to the largest."""
    volumes = np.bincount(lesions[lesions > 0].astype(np.int64))
    diameters = np.cbrt(6 / pi * np.prod(spacing) * volumes[volumes > 0])
    least = max(float(diameters.min()), SMALLEST_SPOT * max(spacing))
    steps = max(int(np.log2(diameters.max() / least) + 1e-9), 0)
    return [least * 2**step for step in range(steps + 1)]


def _blobs(array: Array, spacing: Spacing, diameters: list[float], least: float) -> Iterator[tuple[Array, Array]]:
    """Where balls of each diameter in turn answer more than `least`, and where less than -`least`.

    Gaussians of standard deviation R / sqrt(6) and twice that: their mean in octaves is Lindeberg's R / sqrt(3).
    """
    sigma, smooth = 0.0, array.astype(np.float32, copy=False)
    for radius in np.array(diameters) / 2:
        narrow, wide = radius / sqrt(6), 2 * radius / sqrt(6)
        smooth = _blurred(smooth, sqrt(max(narrow**2 - sigma**2, 0.0)), spacing)
        wider = _blurred(smooth, sqrt(wide**2 - narrow**2), spacing)
        smooth -= wider
        smooth /= _inside_ball(radius / narrow) - _inside_ball(radius / wide)
        yield smooth > least, smooth < -least
        sigma, smooth = wide, wider


def _blurred(array: Array, sigma: float, spacing: Spacing) -> Array:
    """A Gaussian of `sigma` mm, cut at four of them, mirrored at the borders."""
    for axis, mm in enumerate(spacing):
        offsets = np.arange(-int(4 * sigma / mm + 0.5), int(4 * sigma / mm + 0.5) + 1) * mm
        weights = np.exp(-0.5 * (offsets / max(sigma, 1e-9)) ** 2)
        array = correlate1d(array, weights / weights.sum(), axis=axis, mode="reflect")
    return array


def _inside_ball(radius: float) -> float:
    """Weight of a unit Gaussian within `radius` of its centre, in three dimensions."""
    return erf(radius / sqrt(2)) - sqrt(2 / pi) * radius * exp(-(radius**2) / 2)
