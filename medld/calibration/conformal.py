"""Conformal: from the errors on held-out subjects to a factor that keeps a promise about the next one.

A voxel's score is S = |truth - output| / scale: by how much its scale has to be multiplied to cover the truth. For
subject k let c_k(p) be the smallest factor that covers at least a share p of its foreground voxels. The factor is

    f = the m-th smallest of the K values c_k(p),  m = ceil(q (K + 1))

Voxels of one subject are anything but independent, so nothing rests on them. What is asked for is that subjects are
exchangeable: the K of the calibration and the new one, with their scans and acquisition, could have come in any
order. Then c(p) of the new one takes any rank among the K + 1 with one probability, and with probability
m / (K + 1) >= q over subjects at least a share p of its foreground is covered; exactly that probability where no two
c_k(p) are equal. With q = 1/2, the typical subject, coverage is p on average as far as c_k(p) is as often above its
middle as below.

This says nothing about a given voxel, tissue or lesion: coverage there is measured, see `coverage`. It holds for no
other kind of scan than those.

Source: Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005), chapter 4; Dunn, Wasserman &
Ramdas, JASA 118 (2023) 2491 (two layers, subjects and their voxels).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medld.errors import CohortError, ConfigError

Array = NDArray[Any]

LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95, 0.99)
"""p for which a calibration keeps factors."""
LEVEL = 0.9
TYPICAL = 0.5
"""q: in half of the subjects, or more, the level is reached."""

ROUNDING = 1e-9


def factors_of(scores: Sequence[Array]) -> tuple[float, ...]:
    """c_k at `LEVELS` for one subject, each of its scans with the same weight.

    Args:
        scores: S of the foreground voxels of each scan, any shape, none empty.

    Raises:
        CohortError: There is no score, or one is not finite.
    """
    flat = [np.sort(np.ravel(part).astype(np.float64)) for part in scores]
    if not flat or not all(part.size and np.isfinite(part[-1]) for part in flat):
        raise CohortError("Expected finite scores of at least one voxel for each scan. Is its foreground empty?")
    values = np.concatenate(flat)
    weights = np.concatenate([np.full(part.size, 1 / (part.size * len(flat))) for part in flat])
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    index = np.minimum(np.searchsorted(reached, np.array(LEVELS) - ROUNDING), len(values) - 1)
    return tuple(values[order][index].tolist())


def find_factor(subjects: Sequence[Sequence[float]], level: float = LEVEL, share: float = TYPICAL) -> float:
    """The factor f that keeps the promise.

    Args:
        subjects: `factors_of` each held-out subject.
        level: p, one of `LEVELS`.
        share: q, between 0 and 1.

    Raises:
        ConfigError: A level that was not kept, or a share that is none.
        CohortError: Too few subjects: K >= q / (1 - q) are needed.
    """
    if level not in LEVELS or not 0 < share < 1:
        known = ", ".join(f"{one:g}" for one in LEVELS)
        raise ConfigError(f"Expected a level out of {known} and a share between 0 and 1, got {level:g} and {share:g}.")
    rank = ceil(share * (len(subjects) + 1) - ROUNDING)
    if rank > len(subjects):
        need = ceil(share / (1 - share) - ROUNDING)
        raise CohortError(f"Expected at least {need} held-out subjects, got {len(subjects)}. Add subjects.")
    return sorted(factors[LEVELS.index(level)] for factors in subjects)[rank - 1]
