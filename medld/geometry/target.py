"""Target: which grid a scan is brought to.

A ratio is target voxels over acquired voxels along an axis, n / k. The rules, in short: an
anisotropic scan's slice axis gets the finest in-plane spacing, a coarse isotropic scan goes
to 1 mm; a wish overrides that; nothing is done for a ratio under 1.2, and nothing over 8
(isotropic: 4) can be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from medld.errors import ConfigError, InputError
from medld.geometry.grid import Grid, format_mm

__all__ = ["Target", "choose_target", "coarsest_first", "is_isotropic"]

ANISOTROPY = 1.2  # an axis this much coarser than the finest makes a scan anisotropic
MIN_RATIO = 1.2  # finer by less is not worth a restoration; the networks know 1.2 to 8
MAX_RATIO = 8.0  # through-plane
MAX_RATIO_ISOTROPIC = 4.0  # each axis of an isotropic scan
UNTOUCHED = 0.01  # within 1 % of its spacing an axis stays as it is
COARSE_ISOTROPIC = 1.5  # mm; an isotropic scan coarser than this goes to ...
ISOTROPIC_TARGET = 1.0  # ... mm
HEADER_NOISE = 1e-4  # relative; float32 headers turn 6.0 / 5.0 into 1.2 minus a little
# What of ANISOTROPY and MIN_RATIO is asked for once header noise is forgiven.
_ANISOTROPY = ANISOTROPY * (1 - HEADER_NOISE)
_MIN_RATIO = MIN_RATIO * (1 - HEADER_NOISE)


@dataclass(frozen=True)
class Target:
    """The grid that a scan is brought to, and how.

    Args:
        grid: The target grid; it fills the same box as the scan's.
        axes: Array axes to restore, the coarsest first.
        ratios: Target over acquired voxels per array axis, 1.0 where untouched.
        notes: Sentences for the report: adjusted spacings, limits that were met.
        isotropic: Whether the scan counted as isotropic.
    """

    grid: Grid
    axes: tuple[int, ...]
    ratios: tuple[float, float, float]
    notes: tuple[str, ...]
    isotropic: bool


def choose_target(grid: Grid, *, spacing: Sequence[float] | None = None, factor: float | None = None) -> Target:
    """Choose the grid that a scan on `grid` is brought to.

    Without a wish, an anisotropic scan's slice axis (the coarsest) gets the finest in-plane
    spacing, an isotropic scan coarser than 1.5 mm goes to 1 mm, both within the largest ratio.

    Args:
        grid: The scan's own grid.
        spacing: Wanted mm: one value for every axis that is coarser than it, or three values
            in the order of the array axes.
        factor: How many times finer the slice axis is to be (isotropic scans: every axis).

    Raises:
        InputError: E_NOTHING_TO_DO, if the wish is coarser than the scan, less than 1.2 times
            finer, finer than the largest ratio allows, or the scan is fine already.
        ConfigError: If the wish itself is malformed.
    """
    if spacing is not None and factor is not None:
        raise ConfigError("expected either a spacing or a factor, got both; leave one of them out")
    isotropic = is_isotropic(grid)
    notes: list[str] = []
    if spacing is not None:
        wanted = _wanted_by_spacing(grid, spacing, notes)
    elif factor is not None:
        wanted = _wanted_by_factor(grid, factor, isotropic)
    else:
        wanted = _wanted_by_default(grid, isotropic, notes)
    _check_ratios(grid, wanted, isotropic)
    return _build_target(grid, wanted, isotropic, notes)


def is_isotropic(grid: Grid) -> bool:
    """Whether no axis is at least 1.2 times as coarse as the finest one."""
    return max(grid.spacing) < _ANISOTROPY * min(grid.spacing)


def coarsest_first(grid: Grid) -> tuple[int, int, int]:
    """Array axes from the coarsest to the finest.

    Equal spacings go by the world (head, front, right), so that a volume stored with its
    axes in another order is treated in the same order.
    """
    spacing, world = grid.spacing, grid.world_axes
    i, j, k = sorted(range(3), key=lambda axis: (-round(spacing[axis], 3), -world[axis]))
    return i, j, k


def _wanted_by_default(grid: Grid, isotropic: bool, notes: list[str]) -> list[float]:
    """Wanted spacing per axis (mm) when the caller has no wish."""
    wanted = list(grid.spacing)
    if isotropic:
        mean = float(np.prod(wanted)) ** (1 / 3)
        if mean <= COARSE_ISOTROPIC * (1 + HEADER_NOISE):
            raise InputError(
                f"expected slices at least {ANISOTROPY:g} times as far apart as pixels, or voxels coarser "
                f"than {COARSE_ISOTROPIC:g} mm; this scan has {format_mm(wanted)} and is fine already; "
                "name a finer target with --spacing",
                "E_NOTHING_TO_DO",
            )
        finest = max(ISOTROPIC_TARGET, max(wanted) / MAX_RATIO_ISOTROPIC)
        if finest > ISOTROPIC_TARGET:
            notes.append(f"target {finest:.4g} mm instead of 1 mm: {MAX_RATIO_ISOTROPIC:g} times finer is the most")
        return [finest] * 3
    axis, *others = coarsest_first(grid)
    finest = min(wanted[other] for other in others)
    limit = wanted[axis] / MAX_RATIO
    if finest < limit * (1 - HEADER_NOISE):
        notes.append(f"axis {axis}: {limit:.4g} mm instead of {finest:.4g} mm: {MAX_RATIO:g} times finer is the most")
    wanted[axis] = max(finest, limit)
    for other in others:
        if wanted[other] >= _ANISOTROPY * finest:
            notes.append(f"axis {other} stays at {wanted[other]:.4g} mm: --spacing would bring it to {finest:.4g} mm")
    return wanted


def _wanted_by_factor(grid: Grid, factor: float, isotropic: bool) -> list[float]:
    """Wanted spacing per axis (mm) when the caller names a factor."""
    if not isfinite(factor) or factor <= 0:
        raise ConfigError(f"expected a positive factor, got {factor}")
    if factor < _MIN_RATIO:
        raise InputError(
            f"expected a factor of at least {MIN_RATIO:g}, got {factor:g}; ask for more", "E_NOTHING_TO_DO"
        )
    axes = range(3) if isotropic else coarsest_first(grid)[:1]
    return [s / factor if axis in axes else s for axis, s in enumerate(grid.spacing)]


def _wanted_by_spacing(grid: Grid, spacing: Sequence[float], notes: list[str]) -> list[float]:
    """Wanted spacing per axis (mm) when the caller names one or three."""
    if len(spacing) not in (1, 3) or not all(isfinite(s) and s > 0 for s in spacing):
        raise ConfigError(f"expected one or three positive spacings in mm, got {tuple(spacing)}")
    if len(spacing) == 1:
        return _wanted_by_one_spacing(grid, spacing[0], notes)
    for axis, (have, want) in enumerate(zip(grid.spacing, spacing, strict=True)):
        if want > have * (1 + UNTOUCHED) or UNTOUCHED < have / want - 1 < _MIN_RATIO - 1:
            raise InputError(
                f"axis {axis}: expected the scan's {have:.4g} mm or a spacing at least {MIN_RATIO:g} times "
                f"finer, got {want:.4g} mm; repeat the scan's value to leave the axis alone",
                "E_NOTHING_TO_DO",
            )
    return [h if abs(h / w - 1) <= UNTOUCHED else w for h, w in zip(grid.spacing, spacing, strict=True)]


def _wanted_by_one_spacing(grid: Grid, spacing: float, notes: list[str]) -> list[float]:
    """Wanted spacing per axis (mm): `spacing` wherever the scan is coarser by a ratio worth the work."""
    wanted = list(grid.spacing)
    for axis, have in enumerate(grid.spacing):
        if have / spacing >= _MIN_RATIO:
            wanted[axis] = spacing
        elif have / spacing > 1 + UNTOUCHED:
            notes.append(f"axis {axis} stays at {have:.4g} mm: {spacing:g} mm is less than {MIN_RATIO:g} times finer")
    if wanted == list(grid.spacing):
        raise InputError(
            f"expected a spacing at least {MIN_RATIO:g} times finer than the scan's {format_mm(wanted)}, "
            f"got {spacing:g} mm; ask for a finer --spacing",
            "E_NOTHING_TO_DO",
        )
    return wanted


def _check_ratios(grid: Grid, wanted: Sequence[float], isotropic: bool) -> None:
    """Refuse what lies beyond the largest ratio, or changes nothing at all."""
    limit = MAX_RATIO_ISOTROPIC if isotropic else MAX_RATIO
    ratios = [have / want for have, want in zip(grid.spacing, wanted, strict=True)]
    if max(ratios) > limit * (1 + HEADER_NOISE):
        # Rounded up, so that the named spacing is itself accepted.
        finest = [
            np.ceil(1e4 * have / min(r, limit) - 1e-6) / 1e4 for have, r in zip(grid.spacing, ratios, strict=True)
        ]
        named = " ".join(f"{f:g}" for f in finest)
        raise InputError(
            f"expected a target at most {limit:g} times finer than the scan's {format_mm(grid.spacing)}, "
            f"got {max(ratios):.4g} times; the finest possible is --spacing {named}",
            "E_NOTHING_TO_DO",
        )
    if max(ratios) <= 1 + UNTOUCHED:
        raise InputError(
            f"the target is the scan's own {format_mm(grid.spacing)}; ask for a finer --spacing",
            "E_NOTHING_TO_DO",
        )


def _build_target(grid: Grid, wanted: Sequence[float], isotropic: bool, notes: list[str]) -> Target:
    """Put a checked wish into whole voxels."""
    touched = [axis for axis in coarsest_first(grid) if wanted[axis] != grid.spacing[axis]]
    shape = list(grid.shape)
    for axis in touched:
        # Header noise forgiven above must not carry the ratio itself over the limit.
        most = int((MAX_RATIO_ISOTROPIC if isotropic else MAX_RATIO) * grid.shape[axis])
        shape[axis] = min(round(grid.extent[axis] / wanted[axis]), most)
    target = grid.with_shape(shape)
    for axis in touched:
        if abs(target.spacing[axis] / wanted[axis] - 1) > HEADER_NOISE:
            notes.append(
                f"axis {axis}: {target.spacing[axis]:.5g} mm instead of {wanted[axis]:.5g} mm, "
                "so that whole voxels fill the same box"
            )
    axes = tuple(axis for axis in touched if shape[axis] > grid.shape[axis])
    if not axes:
        raise InputError("too few slices for one voxel more; ask for a finer --spacing", "E_NOTHING_TO_DO")
    i, j, k = (n / m for n, m in zip(shape, grid.shape, strict=True))
    return Target(target, axes, (i, j, k), tuple(notes), isotropic)
