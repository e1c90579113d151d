"""A scan brought onto a finer grid of the same box, for those who compare restorations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medld.geometry import Grid, choose_target
from medld.superres.resolver import SuperResolver
from medld.superres.values import Request
from medld.volume import Volume


def restore_onto(engine: SuperResolver, like: Request) -> Callable[[Volume, Grid], NDArray[np.float32]]:
    """A function of a scan and a grid: its posterior mean there, with the memory and the consistency of `like`."""

    def restore(coarse: Volume, grid: Grid) -> NDArray[np.float32]:
        target = choose_target(coarse.grid, spacing=grid.spacing)
        asked = Request(target, memory_gib=like.memory_gib, consistency=like.consistency)
        return np.asarray(engine.restore(coarse, asked).volume.array)

    return restore
