"""Apply: the calibrated half-width of one restoration, and the mask of voxels to trust.

    half-width    h = f s      factor of the scan's bin, scale of its voxels; see `conformal` for what it promises
    interval      [output - h, output + h]
    trusted       h is at most a quarter of the local contrast, and the agreement with B reaches the bin's limit

Local contrast is the range of the output, smoothed by one voxel, over 15 voxels along each axis: the tissues that are
near. Where h is at most a quarter of it, the whole interval is half of it, and one tissue cannot be taken for the
other; where nothing near differs, nothing is trusted to differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from medld.calibration.conformal import LEVEL, find_factor
from medld.calibration.evidence import MOST_NOISE, Evidence
from medld.calibration.rings import agreement
from medld.calibration.scale import scale_map
from medld.calibration.schema import BinConfig, ModeConfig, SubjectConfig

Array = NDArray[Any]

NEIGHBOURHOOD = 15
"""Voxels along each axis."""
NEAR = 1.2
"""A ratio so many times beyond those of the calibration is not like them any more."""
LARGEST_SHARE = 0.25
"""Half-width in parts of the local contrast."""


@dataclass(frozen=True, eq=False)
class HalfWidth:
    """`array` in the scan's units (float32, shape of the output), the factor it was made with, the bin and what a
    reader has to know."""

    array: Array
    factor: float
    bin: BinConfig
    warnings: tuple[str, ...] = ()


def half_width(
    evidence: Evidence, mode: ModeConfig, contrast: str, *, level: float = LEVEL, left_out: str = ""
) -> HalfWidth:
    """The calibrated half-width of a restoration.

    Args:
        evidence: The restoration.
        mode: The calibration of outputs of its kind.
        contrast: Of the scan.
        level: Share of the foreground that is to be covered, one of `conformal.LEVELS`.
        left_out: SHA-256 of a scan's file, whose subject is to have no part in the factor.

    Raises:
        ConfigError: A level that was not kept, or nobody but the subject left out.
        InputError: Samples are missing (E_PIXELS).
    """
    found = find_bin(mode, len(evidence.coarse_axes), evidence.ratio, contrast)
    found = found.without(left_out) if left_out else found
    factor = find_factor([subject.factors for subject in found.subjects], level)
    array = scale_map(evidence, mode.scale) * np.float32(factor)
    return HalfWidth(array, factor, found, tuple(_warn(found, evidence, contrast)))


def _warn(found: BinConfig, evidence: Evidence, contrast: str) -> Iterator[str]:
    """What makes a scan unlike those that were calibrated."""
    if found.contrast != contrast:
        on = f"on {found.contrast}" if found.contrast else "on several contrasts together"
        yield f"the half-width was calibrated {on}: on a scan of contrast {contrast} it can be far too narrow"
    (low, high), ratio, axes = found.ratios, evidence.ratio, len(evidence.coarse_axes)
    if axes != found.axes or not low / NEAR <= ratio <= high * NEAR:
        yield (
            f"the half-width was calibrated at {_times(low, high, found.axes)}, this scan is restored by "
            f"{_times(ratio, ratio, axes)}: it can be too narrow or too wide"
        )
    if evidence.noise_percent >= MOST_NOISE:
        yield f"the half-width knows noise of up to {MOST_NOISE:g} %, this scan has more: it can be too narrow"


def _times(low: float, high: float, axes: int) -> str:
    """Ratios in words."""
    span = f"{low:.3g}x" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}x"
    return f"{span} along {axes} {'axis' if axes == 1 else 'axes'}"


def find_bin(mode: ModeConfig, axes: int, ratio: float, contrast: str) -> BinConfig:
    """The bin of a scan, or the nearest: first by the number of coarse axes, then by ratio; of those one of its own
    contrast, else of all contrasts, else the one with the most subjects."""

    def distance(one: BinConfig) -> float:
        # Bins are open above, so a ratio on an edge is nearer to the bin that it begins.
        return max(log(one.low / ratio), log(ratio / one.high) + 1e-9, 0.0)

    def order(one: BinConfig) -> tuple[Any, ...]:
        return -abs(one.axes - axes), -distance(one), one.contrast == contrast, one.contrast is None, len(one.subjects)

    return max(mode.bins, key=order)


def agreement_limit(subjects: Sequence[SubjectConfig]) -> float:
    """What the agreement of a voxel with B has to reach.

    Half of the held-out subjects, and with that probability or more the next one, have a truth that reaches it in all
    but a twentieth of the foreground: the m-th largest of their limits, m = ceil((K + 1) / 2).
    """
    limits = sorted((subject.agreement for subject in subjects), reverse=True)
    return limits[ceil((len(limits) + 1) / 2) - 1]


@dataclass(frozen=True, eq=False)
class Trust:
    """Bool, shape of the output: voxels to trust, and those whose structure the scan does not show."""

    trusted: Array
    disagreeing: Array


def find_trust(evidence: Evidence, found: HalfWidth) -> Trust:
    """Voxels to trust; see the top of this file.

    Raises:
        InputError: A side is too short for the patches of the agreement (E_TOO_FEW).
    """
    agrees = agreement(evidence.output, evidence.baseline, evidence.acquisition.slice_axis)
    disagreeing = agrees < agreement_limit(found.bin.subjects)
    narrow = found.array <= LARGEST_SHARE * local_contrast(evidence.output)
    return Trust(narrow & ~disagreeing, disagreeing)


def local_contrast(output: Array) -> Array:
    """Range of the smoothed output around each voxel, float32."""
    smooth = gaussian_filter(output.astype(np.float32, copy=False), 1.0, mode="nearest")
    return np.asarray(maximum_filter(smooth, NEIGHBOURHOOD) - minimum_filter(smooth, NEIGHBOURHOOD))
