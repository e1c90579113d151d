"""Held-out volumes, imaged through thick slices and restored: the gain over B that a run reports."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medld.acquisition import AxisAcquisition, along
from medld.dataset import Fine
from medld.geometry import Grid, choose_target
from medld.intensity import CT_AIR, CT_RANGE
from medld.metrics import psnr
from medld.nn.networks import Networks
from medld.superres import Request, SuperResolver
from medld.volume import Volume

Row = dict[str, float | str]


@dataclass(frozen=True)
class Trained:
    """Networks in the shape that `SuperResolver` takes a model in."""

    networks: Networks


class Validator:
    """The same scans for several models; B, which does not depend on one, is restored once.

    Args:
        volumes: Held-out volumes; slices run along the last axis.
        ratios: Fine over acquired voxels along it.
        device: As `SuperResolver` takes it.
        crop: Voxels of the centre that is cut out along each axis; None takes whole volumes.
    """

    def __init__(self, volumes: Sequence[Fine], ratios: Iterable[float], device: str, crop: int | None = None) -> None:
        self.cases = [(ratio, centre(fine, crop)) for ratio in ratios for fine in volumes]
        self.device = device
        self._taken: list[float] = []
        self._expected: float | None = None
        self._baselines: dict[int, float] = {}

    def measure(self, networks: Networks) -> list[Row]:
        """Foreground dB of B and gain over it, of each ratio and volume."""
        began = time.monotonic()
        rows = self._rows(networks, range(len(self.cases)))
        self._taken.append(time.monotonic() - began)
        return rows

    def expect_seconds(self, networks: Networks) -> float:
        """How long a validation takes: the longest so far, or, before the first, one case scaled to all of them."""
        if self._taken:
            return max(self._taken)
        if self._expected is None:
            voxels = [fine.array.size / ratio for ratio, fine in self.cases]
            probe = int(np.argmax(voxels))  # a small one would scale up what every case costs whatever its size
            began = time.monotonic()
            self._rows(networks, [probe])
            self._expected = (time.monotonic() - began) * sum(voxels) / voxels[probe]
        return self._expected

    def _rows(self, networks: Networks, cases: Iterable[int]) -> list[Row]:
        plain, trained = (SuperResolver(model, device=self.device) for model in (None, Trained(networks)))
        rows: list[Row] = []
        for index in cases:
            ratio, fine = self.cases[index]
            truth, scan = imaged(fine, ratio)
            request = Request(choose_target(scan.grid, spacing=truth.grid.spacing), consistency="exact")
            if index not in self._baselines:
                self._baselines[index] = psnr(truth.array, plain.restore(scan, request).volume.array)
            baseline, score = self._baselines[index], psnr(truth.array, trained.restore(scan, request).volume.array)
            rows.append({"volume": fine.name, "ratio": ratio, "baseline": baseline, "gain": score - baseline})
        return rows


def validate(networks: Networks, volumes: Sequence[Fine], ratios: Iterable[float], device: str) -> list[Row]:
    """Gain over B in foreground dB of each volume and ratio, slices along its last axis."""
    return Validator(volumes, ratios, device).measure(networks)


def mean_gain(rows: Iterable[Row]) -> float:
    """Mean gain over B, dB."""
    return float(np.mean([row["gain"] for row in rows]))


def centre(fine: Fine, crop: int | None) -> Fine:
    """The middle of a volume, at most `crop` voxels along each axis; all of it for None."""
    if crop is None:
        return fine
    starts = [max(0, (size - crop) // 2) for size in fine.array.shape]
    return replace(fine, array=fine.array[tuple(slice(start, start + crop) for start in starts)])


def imaged(fine: Fine, ratio: float) -> tuple[Volume, Volume]:
    """Truth, cut to whole slices, and its scan at `ratio`, slices along the last axis."""
    slices = int(fine.array.shape[2] / ratio)
    length = round(slices * ratio)
    array = _scanner_units(fine.array[..., :length], fine.modality)
    grid = Grid(array.shape, np.diag([*fine.spacing, 1.0]))
    scan = along(AxisAcquisition(length, slices).inner_matrix, array, -1)
    truth = Volume(array, grid, modality=fine.modality, contrast=fine.contrast)  # type: ignore[arg-type]
    return truth, Volume(scan, grid.with_shape(scan.shape), modality=fine.modality, contrast=fine.contrast)  # type: ignore[arg-type]


def _scanner_units(array: NDArray[np.uint8], modality: str) -> NDArray[np.float32]:
    """MR keeps its 8 bits as units; CT is in HU again."""
    values = array.astype(np.float32)
    return values * np.float32(CT_RANGE / 255) + np.float32(CT_AIR) if modality == "ct" else values
