"""Whole held-out volumes, imaged through thick slices and restored: the gain over B that a run reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medld.acquisition import AxisAcquisition, along
from medld.dataset import Fine
from medld.geometry import Grid, choose_target
from medld.metrics import psnr
from medld.nn.networks import Networks
from medld.superres import Request, SuperResolver
from medld.volume import Volume


@dataclass(frozen=True)
class Trained:
    """Networks in the shape that `SuperResolver` takes a model in."""

    networks: Networks


def validate(
    networks: Networks, volumes: Sequence[Fine], ratios: Iterable[float], device: str
) -> list[dict[str, float | str]]:
    """Gain over B in foreground dB of each volume and ratio, slices along its last axis."""
    restorers = [SuperResolver(model, device=device) for model in (None, Trained(networks))]
    rows: list[dict[str, float | str]] = []
    for ratio in ratios:
        for fine in volumes:
            truth, scan = imaged(fine, ratio)
            target = choose_target(scan.grid, spacing=truth.grid.spacing)
            request = Request(target, consistency="exact")
            scores = [psnr(truth.array, r.restore(scan, request).volume.array) for r in restorers]
            rows.append({"volume": fine.name, "ratio": ratio, "baseline": scores[0], "gain": scores[1] - scores[0]})
    return rows


def imaged(fine: Fine, ratio: float) -> tuple[Volume, Volume]:
    """Truth, cut to whole slices, and its scan at `ratio`, slices along the last axis."""
    slices = int(fine.array.shape[2] / ratio)
    length = round(slices * ratio)
    array = fine.array[..., :length].astype(np.float32)
    grid = Grid(array.shape, np.diag([*fine.spacing, 1.0]))
    acquisition = AxisAcquisition(length, slices)
    inside = acquisition.matrix[:, acquisition.margin : -acquisition.margin]
    scan = along(inside / inside.sum(1, keepdims=True), array, -1)
    truth = Volume(array, grid, modality="mr", contrast=fine.contrast)  # type: ignore[arg-type]
    return truth, Volume(scan, grid.with_shape(scan.shape), modality="mr", contrast=fine.contrast)  # type: ignore[arg-type]
