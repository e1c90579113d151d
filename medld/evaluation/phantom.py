"""Phantom: lesions in a truth before it is imaged, and as many places that get none.

Every shape is planned twice by the rules of `medld.metrics.plan_lesions`: of each pair the first is put in, the
second is its control. Where they lie hangs on the protocol's seed and the scan's name alone, so that every method,
machine and part of an evaluation meets the same ones.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from medld.evaluation.protocol import LesionsConfig
from medld.metrics import Lesion, find_foreground, insert_lesions, lesion_map, plan_lesions
from medld.volume import Volume


@dataclass(frozen=True, eq=False)
class Phantom:
    """What was put where: `lesions` are numbered from 1 in `lesion_map`, each one's control alike in `control_map`."""

    lesions: tuple[Lesion, ...]
    lesion_map: np.ndarray
    control_map: np.ndarray

    @property
    def diameters(self) -> tuple[float, ...]:
        """mm, by number - 1."""
        return tuple(lesion.diameter for lesion in self.lesions)


def put_lesions(truth: Volume, config: LesionsConfig, key: str) -> tuple[Volume, Phantom]:
    """`truth` with lesions in it, float32, and where they are.

    Args:
        truth: Fine volume.
        config: How many of which size and contrast.
        key: Names the scan.

    Raises:
        InputError: The truth has no foreground, or no room for them (E_PIXELS).
    """
    spacing, shape = truth.grid.spacing, truth.grid.shape
    planned = plan_lesions(
        truth.array,
        find_foreground(truth.array),
        spacing,
        contrast=config.contrast,
        diameters=config.diameters_mm,
        copies=2 * config.copies,
        seed=(config.seed, zlib.crc32(key.encode())),
    )
    lesions, controls = planned[0::2], planned[1::2]
    array = insert_lesions(truth.array, lesions, spacing).astype(np.float32, copy=False)
    maps = (lesion_map(shape, spacing, places) for places in (lesions, controls))
    return replace(truth, array=array), Phantom(lesions, *maps)
