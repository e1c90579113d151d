"""Warm: a GPU's kernels are loaded with the weights, not with the first scan.

CUDA loads a kernel when it is first used, which takes longer than restoring a head with it. A small made-up scan that
is restored while the program starts uses the same ones; what it gives is thrown away.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from medld.batch.scope import check_scope
from medld.batch.settings import EnhanceSettings
from medld.checkpoint import Model
from medld.errors import MedldError
from medld.geometry import Grid, choose_target
from medld.superres import Request, SuperResolver
from medld.volume import Volume

__all__ = ["warm_up"]

SHAPE = (64, 64, 16)
"""Voxels, 1 x 1 x 4 mm: enough for the scope check to hold slices out."""
MOST_STEPS = 2
"""Of the sampler: further ones use the same kernels."""


def warm_up(model: Model, resolver: SuperResolver, settings: EnhanceSettings) -> None:
    """Restore a small made-up scan as the settings say, the scope check included.

    Args:
        model: The model.
        resolver: Holds it, on the device to warm up.
        settings: The options; the mode decides which networks run.
    """
    scan = _phantom(model.networks.modalities[0])
    request = Request(
        choose_target(scan.grid, spacing=(1.0, 1.0, 1.0)),
        mode=settings.mode,  # type: ignore[arg-type]  # checked by EnhanceSettings
        realism=settings.realism,
        steps=None if settings.steps is None else min(settings.steps, MOST_STEPS),
        samples=min(settings.samples, 2),
    )
    # What goes wrong here does so again with a scan, and is told there.
    with suppress(MedldError, RuntimeError):
        check_scope(scan, request, model, resolver, force=True)
        resolver.restore(scan, request)


def _phantom(modality: str) -> Volume:
    """A textured block in air; its values are of no consequence."""
    array = np.random.default_rng(0).normal(600, 100, SHAPE).astype(np.float32)
    array[:4] = array[-4:] = 0
    return Volume(array, Grid(SHAPE, np.diag([1.0, 1.0, 4.0, 1.0])), modality)  # type: ignore[arg-type]  # a Modality
