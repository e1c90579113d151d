"""Codec: the encoder and the decoder of a model on a volume, without anything in between.

    a fine volume x      its thick slices y = A x, z = E(x): what they do not tell
    a thick scan y       z = E(B y): where restoration begins
    back                 B y + S D(z, y), projected onto y

For inspection: what latents hold, what a model makes of them, and what lies between two volumes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medld.acquisition import SMALLEST_LAMBDA, Acquisition, AxisAcquisition, along
from medld.errors import CheckpointError, ConfigError, InputError
from medld.geometry import Grid, choose_target, coarsest_first
from medld.geometry.target import MAX_RATIO, MIN_RATIO
from medld.intensity import IntensityMap, intensity_map
from medld.nn.autoencoder import fold
from medld.nn.conditions import Conditions
from medld.superres.axis import AxisPass, Dials
from medld.superres.latents import Latent, mix
from medld.superres.projection import Strength
from medld.superres.resolver import UNTILED_VOXELS
from medld.superres.work import Work
from medld.volume import Volume

WEIGHTS = "autoencoder.safetensors"


class Codec:
    """The autoencoder of a model, in float32.

    Args:
        model: Anything with `name`, `networks: Networks` and `sha256` of its weight files.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:i`.

    Raises:
        CheckpointError: The model has no autoencoder.
    """

    def __init__(self, model: Any, *, device: str = "auto") -> None:
        if model.networks.autoencoder is None:
            raise CheckpointError(
                f"Expected a model with an autoencoder, {model.name} has none. Name another with --model, or train one "
                "(configs/autoencoder/mri.yaml)."
            )
        self._device = _find_device(device)
        self._networks = model.networks.to(self._device, torch.float32)
        self._model: str = model.sha256[WEIGHTS]

    @torch.inference_mode()
    def encode(self, volume: Volume, ratio: float | None = None, axis: int | None = None) -> Latent:
        """The latent of a fine volume at `ratio` or, without one, of a thick-slice scan's baseline.

        Args:
            volume: In scanner units.
            ratio: How many times thicker the slices shall be, that the latent is beside; met as nearly as whole
                slices can.
            axis: Array axis of the slices; None takes the coarsest.

        Raises:
            ConfigError: The ratio, the axis or the modality is beyond the model.
            InputError: A scan that is fine already (E_NOTHING_TO_DO).
        """
        self._check_modality(volume)
        axis = coarsest_first(volume.grid)[0] if axis is None else axis
        fine, coarse = _grids_of_scan(volume.grid, axis) if ratio is None else _grids_of_truth(volume.grid, axis, ratio)
        latent = Latent(np.empty(0, np.float32), fine, coarse, axis, IntensityMap(1.0), self._model)
        scan = _scan_of(volume, latent)
        latent = replace(latent, units=intensity_map(scan, volume.modality))
        one = self._pass(latent, latent.units.forward(scan))
        if ratio is None:
            samples = one.known_samples()
        else:
            truth = self._tensor(latent.units.forward(np.moveaxis(volume.array, axis, -1)))
            samples = fold(along(one.axis.like("to_profile", truth), truth, -1))
        return replace(latent, values=one.encode(samples)[0].cpu().numpy())

    @torch.inference_mode()
    def decode(self, latent: Latent, scan: Volume) -> Volume:
        """The latent decoded beside its scan, on the fine grid, in scanner units; imaged again it is the scan.

        Args:
            latent: Of this model.
            scan: The thick slices, or the fine volume that the latent was made of, to be imaged again.

        Raises:
            CheckpointError: The latent is another model's.
            ConfigError: The scan lies on neither of the latent's grids.
        """
        if latent.model != self._model:
            raise CheckpointError(
                f"Expected the model that made the latent (autoencoder {latent.model[:12]}), got {self._model[:12]}. "
                "Name it with --model."
            )
        return self._decoded(latent, latent.units.forward(_scan_of(scan, latent)), scan)

    @torch.inference_mode()
    def interpolate(
        self, first: Volume, second: Volume, share: float, ratio: float, *, axis: int | None = None, spherical: bool
    ) -> Volume:
        """What lies between two fine volumes on one grid: latents, scans and units mixed, then decoded.

        Args:
            first: At share 0.
            second: At share 1.
            share: Between 0 and 1.
            ratio: As in `encode`.
            axis: As in `encode`.
            spherical: Whether latents go along an arc.

        Raises:
            ConfigError: Other grids or modalities, or what `encode` refuses.
        """
        if not 0 <= share <= 1:
            raise ConfigError(f"--at: expected a share from 0 (the first volume) to 1 (the second), got {share:g}")
        _check_alike(first, second)
        ends = [self.encode(volume, ratio, axis) for volume in (first, second)]
        slabs = [end.units.forward(_scan_of(v, end)) for end, v in zip(ends, (first, second), strict=True)]
        scale, offset = (_between([getattr(end.units, name) for end in ends], share) for name in ("scale", "offset"))
        values = mix(ends[0].values, ends[1].values, share, spherical=spherical)
        mixed = replace(ends[0], values=values, units=IntensityMap(scale, offset))
        return self._decoded(mixed, _between(slabs, share), first)

    def _decoded(self, latent: Latent, scan: Any, like: Volume) -> Volume:
        """The latent beside slices (I, J, k) in network units, as a volume."""
        one = self._pass(latent, scan)
        fine = one.completed(one.decode(self._tensor(latent.values)[0]))[0, 0].cpu().numpy()
        array = np.moveaxis(latent.units.inverse(fine), -1, latent.axis)
        return replace(like, array=array, grid=latent.fine)

    def _pass(self, latent: Latent, scan: Any) -> AxisPass:
        """The networks beside slices (I, J, k) in network units."""
        slab = self._tensor(scan)
        spacing = latent.coarse.spacing
        first, second = (spacing[other] for other in range(3) if other != latent.axis)
        one, zero = slab.new_ones(1), slab.new_zeros(1)
        conditions = Conditions(
            spacing_ratio=one * (spacing[latent.axis] / (first * second) ** 0.5),
            ratio=one * latent.ratio,
            thickness=one,
            noise=zero,
            soft=zero,
            contrast=torch.zeros(1, dtype=torch.long, device=self._device),
        )
        return AxisPass(
            networks=self._networks,
            axis=_acquisition(latent),
            slab=slab,
            conditions=conditions,
            remaining=0,
            strength=Strength(zero[0], zero[0] + SMALLEST_LAMBDA, project=True),
            dials=Dials(0.0, 1, 0, UNTILED_VOXELS if self._networks.tileable else sys.maxsize),
            dtype=torch.float32,
            work=Work(self._device, 1, lambda _: None),
        )

    def _tensor(self, array: Any) -> Tensor:
        """(..., I, J, K) as (1, 1, ..., I, J, K) on the device."""
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(self._device)[None, None]

    def _check_modality(self, volume: Volume) -> None:
        if volume.modality not in (*self._networks.modalities, "unknown"):
            known = ", ".join(self._networks.modalities).upper()
            raise ConfigError(
                f"expected a scan that the model was trained for ({known}), got {volume.modality.upper()}"
            )


def _grids_of_scan(grid: Grid, axis: int) -> tuple[Grid, Grid]:
    """Of a thick-slice scan: the grid that it would be restored to along `axis`, and its own."""
    try:
        target = choose_target(grid)
    except InputError as error:
        raise InputError(f"{error}; a fine volume needs a --ratio", error.code) from error
    if axis not in target.axes:
        raise ConfigError(f"--axis: expected one that is coarse ({', '.join(map(str, target.axes))}), got {axis}")
    return _with_length(grid, axis, target.grid.shape[axis]), grid


def _grids_of_truth(grid: Grid, axis: int, ratio: float) -> tuple[Grid, Grid]:
    """Of a fine volume: its own grid, and that of slices `ratio` times as thick, as nearly as they fill its box."""
    slices = max(round(grid.shape[axis] / ratio), 1) if ratio > 0 else 1
    reached = grid.shape[axis] / slices
    if not MIN_RATIO <= ratio <= MAX_RATIO or not MIN_RATIO <= reached <= MAX_RATIO or slices < 2:
        raise ConfigError(
            f"--ratio: expected from {MIN_RATIO:g} to {MAX_RATIO:g} and two slices at least, "
            f"got {ratio:g} for {grid.shape[axis]} voxels"
        )
    return grid, _with_length(grid, axis, slices)


def _with_length(grid: Grid, axis: int, length: int) -> Grid:
    return grid.with_shape([length if other == axis else size for other, size in enumerate(grid.shape)])


def _acquisition(latent: Latent) -> AxisAcquisition:
    return AxisAcquisition(latent.fine.shape[latent.axis], latent.coarse.shape[latent.axis])


def _scan_of(volume: Volume, latent: Latent) -> Any:
    """The slices (I, J, k) that a latent is beside, in scanner units: the volume itself, or its image."""
    array = np.moveaxis(np.asarray(volume.array, dtype=np.float32), latent.axis, -1)
    if volume.grid.is_close(latent.coarse):
        return array
    if not volume.grid.is_close(latent.fine):
        raise ConfigError(
            f"expected the scan of the latent, on a grid of {latent.coarse.shape} or {latent.fine.shape} voxels in the "
            f"same place, got one of {volume.grid.shape}"
        )
    return Acquisition((None, None, _acquisition(latent))).reimage(array)


def _check_alike(first: Volume, second: Volume) -> None:
    """Only what lies in the same place, in the same kind of units, can be mixed."""
    if not first.grid.is_close(second.grid):
        raise ConfigError(
            f"expected two volumes on one grid, got {first.grid.shape} and {second.grid.shape} voxels that do not lie "
            "in the same place; register and resample one to the other first"
        )
    if (first.modality == "ct") != (second.modality == "ct"):
        raise ConfigError(
            f"expected two volumes in one kind of units, got {first.modality.upper()} and {second.modality.upper()}"
        )


def _between(ends: Sequence[Any], share: float) -> Any:
    """Numbers or arrays on the line from the first to the second."""
    return (1 - share) * ends[0] + share * ends[1]


def _find_device(name: str) -> torch.device:
    """The device of that name. Raises: ConfigError."""
    try:
        device = torch.device(("cuda:0" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ConfigError(f"--device: expected auto, cpu, cuda or cuda:i, got {name}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device: expected one of this machine's {torch.cuda.device_count()} CUDA devices, got {name}"
        )
    return device
