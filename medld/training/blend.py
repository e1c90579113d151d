"""Blends: a crop with another laid over it, so that few heads make many.

A network learns the sites that it sees: their skulls, their contrasts, what lies beside what. Two crops of any two
volumes make a third that is as fine as they are and needs no labels:

    mixture    a weighted mean of the two
    surface    one on this side of a curved surface, the other beyond it
    sheet      the other only in a thin layer along such a surface, as scalp and skull lie around a brain

The share of the other is a function of a polynomial field over the crop: a sigmoid or, for a sheet, exp(-field^2).
Compare: mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019), here without labels to mix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["DEGREE", "Field", "draw_field", "legendre_field", "share_of"]

DEGREE = 3

STEEP = 40.0, 90.0
"""The largest slope of a surface's field over half a crop: of a crop of 64 voxels no two neighbours differ by more than
.7 in their share, so no edge is finer than voxels show."""

THIN = 6.0, 25.0
"""The same of a sheet, which is 2 to 9 voxels thick where it is thinnest."""

COARSE = 12
"""Points along each axis where slopes are looked at."""


@dataclass(frozen=True, eq=False)
class Field:
    """Legendre coefficients (4, 4, 4) over a crop, and whether they make a sheet."""

    coefficients: NDArray[np.float32]
    sheet: bool = False


def draw_field(rng: np.random.Generator) -> Field:
    """A mixture, a surface or a sheet, each as often."""
    kind = str(rng.choice(["mixture", "surface", "sheet"]))
    coefficients = np.zeros((DEGREE + 1,) * 3)
    if kind == "mixture":
        share = rng.uniform(0.2, 0.8)
        coefficients[0, 0, 0] = np.log(share / (1 - share))
        return Field(coefficients.astype(np.float32))
    degree = np.indices(coefficients.shape).sum(0)
    bent = rng.normal(size=coefficients.shape) * (degree <= DEGREE) / np.maximum(1.0 + degree, 2.0) ** 2
    points = legendre_field(torch.from_numpy(bent[None]), (COARSE,) * 3)[0].numpy()
    slope = np.linalg.norm(np.gradient(points, 2 / (COARSE - 1)), axis=0).max()
    low, high = STEEP if kind == "surface" else THIN
    scale = np.exp(rng.uniform(np.log(low), np.log(high))) / slope
    return Field((scale * bent).astype(np.float32), kind == "sheet")


def legendre_field(coefficients: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sums of Legendre polynomials over crops of `shape`: coefficients (B, 4, 4, 4) to fields (B, I, J, K)."""
    field = coefficients
    for size, count in zip(shape, coefficients.shape[1:], strict=True):
        basis = torch.from_numpy(legvander(np.linspace(-1, 1, size), count - 1)).to(field)
        # Each turns the first coefficient axis left into the last voxel axis.
        field = torch.tensordot(field, basis, dims=([1], [1]))
    return field


def share_of(fields: list[Field], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """The share of the other crop in each voxel, (B, *shape)."""
    coefficients = torch.from_numpy(np.stack([field.coefficients for field in fields])).to(device)
    values = legendre_field(coefficients, shape)
    sheet = torch.tensor([field.sheet for field in fields], device=device)[:, None, None, None]
    return torch.where(sheet, torch.exp(-values.square()), torch.sigmoid(values))
