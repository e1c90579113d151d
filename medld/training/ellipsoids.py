"""Ellipsoids in crops, brighter or darker than their tissue: what a scan shows may lie where anatomy never has it.

A network that learns from a few dozen heads learns what heads look like, and the better it knows them the more it takes
a lesion for something else. Ellipsoids of any size, shape and direction stand for whatever may be there:

    x' = x (1 + w (factor - 1)),    w = sigmoid(4 r (1 - |A (p - centre)|))

where A turns the crop into the ellipsoid's own axes in units of its radii, of which the shortest is r voxels: no face
is thinner than a voxel, texture stays, and so does air. Compare: the lesions of `medld.metrics`, spheres and rods that
replace the tissue by one level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Ellipsoid", "draw_ellipsoids", "factors_of"]

MOST = 6
"""In one crop."""

RADII = 0.8, 8.0
"""Voxels of the fine grid; of each axis by itself, so many are long or flat."""

FACTORS = 0.3, 1.8
LEAST_CHANGE = 0.1
"""Of the logarithm of a factor: one that changes less is hardly a lesion."""

FACE = 4.0


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """`centre` (3,) in shares of a crop, `to_own` (3, 3) from voxels to the ellipsoid's axes, radii having length 1."""

    centre: NDArray[np.float32]
    to_own: NDArray[np.float32]
    factor: float

    @property
    def radius(self) -> float:
        """The shortest, in voxels."""
        return float(1 / np.linalg.norm(self.to_own, 2))


def draw_ellipsoids(rng: np.random.Generator) -> tuple[Ellipsoid, ...]:
    """One to `MOST` of them."""
    return tuple(_draw(rng) for _ in range(int(rng.integers(1, MOST + 1))))


def _draw(rng: np.random.Generator) -> Ellipsoid:
    shortest, longest = np.log(RADII)
    radii = np.exp(rng.uniform(shortest, longest, size=3))
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))  # or mirrored, which an ellipsoid does not show
    low, high = np.log(FACTORS)
    change = rng.uniform(low, -LEAST_CHANGE) if rng.random() < 0.5 else rng.uniform(LEAST_CHANGE, high)
    to_own = (turned / radii[:, None]).astype(np.float32)
    return Ellipsoid(rng.random(3).astype(np.float32), to_own, float(np.exp(change)))


def factors_of(crops: list[tuple[Ellipsoid, ...]], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """What to multiply each voxel of each crop by, (B, *shape); where ellipsoids meet, one after another."""
    result = torch.ones((len(crops), *shape), device=device)
    for rank in range(max(map(len, crops), default=0)):
        places = [index for index, crop in enumerate(crops) if len(crop) > rank]
        weights = _weights([crops[index][rank] for index in places], shape, device)
        changes = torch.tensor([crops[index][rank].factor - 1 for index in places], device=device)
        result[places] *= 1 + weights * changes[:, None, None, None]
    return result


def _weights(ellipsoids: list[Ellipsoid], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """w of one ellipsoid a crop, (B, *shape)."""
    to_own = torch.from_numpy(np.stack([one.to_own for one in ellipsoids])).to(device)
    centres = torch.from_numpy(np.stack([one.centre for one in ellipsoids])).to(device)
    rows, columns, slices = (
        to_own[:, :, axis, None] * (torch.arange(size, device=device) + 0.5 - centres[:, axis, None] * size)[:, None]
        for axis, size in enumerate(shape)
    )
    square = torch.zeros((len(ellipsoids), *shape), device=device)
    for own in range(3):
        part = rows[:, own, :, None, None] + columns[:, own, None, :, None] + slices[:, own, None, None, :]
        square.addcmul_(part, part)
    face = FACE * torch.tensor([one.radius for one in ellipsoids], device=device)
    return torch.sigmoid(face[:, None, None, None] * (1 - square.sqrt()))
