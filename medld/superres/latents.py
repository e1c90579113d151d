"""Latents to look at: as a value, in a file, and mixed; `codec.py` makes them and decodes them.

A file is one safetensors array with its account in the metadata: where the voxels lie, the units of the scan and the
model that it means something to. Nothing in it is code, and no header text of a scan.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from medld.errors import GridError, InputError, OutputError
from medld.geometry import Grid
from medld.intensity import IntensityMap

KEY = "latent"
PARALLEL = 1e-6
"""Radians; between latents closer than that, a line and an arc are the same to float32."""


@dataclass(frozen=True, eq=False)
class Latent:
    """What the slices of a volume did not measure.

    Args:
        values: Standardised, (C, I, J, k) float32 with the coarse axis last.
        fine: Grid of the volume.
        coarse: Grid of its thick slices.
        axis: Array axis along which they differ.
        units: The scan's, to network units and back.
        model: Hash of the autoencoder's weights.
    """

    values: NDArray[np.float32]
    fine: Grid
    coarse: Grid
    axis: int
    units: IntensityMap
    model: str

    @property
    def ratio(self) -> float:
        """Fine voxels per slice."""
        return self.fine.shape[self.axis] / self.coarse.shape[self.axis]


def mix(
    first: NDArray[np.float32], second: NDArray[np.float32], share: float, *, spherical: bool = False
) -> NDArray[np.float32]:
    """From `first` (share 0) to `second` (share 1), on a line, or on an arc that keeps the length of latents.

    On a line, the middle of two unlike latents is shorter than either, and decodes to something smoother.
    Source: Shoemake 1985 (slerp), on the whole latent as one vector.
    """
    a, b = (values.astype(np.float64) for values in (first, second))
    weights = (1 - share, share)
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    angle = float(np.arccos(np.clip((a * b).sum() / lengths, -1, 1))) if spherical and lengths > 0 else 0.0
    if PARALLEL < angle < np.pi - PARALLEL:  # there are many arcs between opposites, and a line is as good as any
        weights = (np.sin((1 - share) * angle) / np.sin(angle), np.sin(share * angle) / np.sin(angle))
    return np.asarray(weights[0] * a + weights[1] * b, dtype=np.float32)


def save_latent(path: Path, latent: Latent) -> None:
    """Write a latent, whole or not at all. Raises: OutputError."""
    account = {
        "fine": _grid_as_plain(latent.fine),
        "coarse": _grid_as_plain(latent.coarse),
        "axis": latent.axis,
        "units": asdict(latent.units),
        "model": latent.model,
    }
    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file({KEY: np.ascontiguousarray(latent.values)}, temporary, metadata={KEY: json.dumps(account)})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"the latent cannot be written to {path}: {error}; name another file with -o") from error


def load_latent(path: Path) -> Latent:
    """Read a latent. Raises: InputError."""
    try:
        with safe_open(path, framework="numpy") as file:
            account: dict[str, Any] = json.loads((file.metadata() or {})[KEY])
            values = file.get_tensor(KEY)
        fine, coarse = (_grid_of_plain(account[name]) for name in ("fine", "coarse"))
        latent = Latent(values, fine, coarse, account["axis"], IntensityMap(**account["units"]), account["model"])
        expected = [size for other, size in enumerate(coarse.shape) if other != latent.axis]
        if values.shape[1:] != (*expected, coarse.shape[latent.axis]):
            raise InputError(
                f"expected latents of the scan's grid {coarse.shape}, got {values.shape[1:]} in {path.name}"
            )
        return latent
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, GridError) as error:
        raise InputError(f"expected a file that `medld latent encode` wrote, {path.name} is none: {error}") from error


def _grid_as_plain(grid: Grid) -> dict[str, Any]:
    """JSON writes float64 so that it reads back to the bit."""
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}


def _grid_of_plain(plain: dict[str, Any]) -> Grid:
    i, j, k = plain["shape"]
    return Grid((i, j, k), np.array(plain["affine"]))
