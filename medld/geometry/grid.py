"""Grid: where voxels lie, that is a shape and an affine.

Conventions:
    affine      (4, 4) float64, voxel index -> world mm, RAS+. Index 0 is the *centre* of the
                first voxel, so the box of a grid begins at index -0.5 (its outer face).
    spacing     mm between voxel centres, per array axis
    direction   (3, 3), unit columns: where each array axis points in the world

Nothing here needs voxels: a target grid exists before its values do. Oblique and left-handed
affines are ordinary; sheared and singular ones are refused, since "spacing" and "slice" mean
nothing in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from medld.errors import GridError

__all__ = ["Grid", "format_mm"]

SHEAR_TOLERANCE = 2e-3  # |cosine| between two array axes, 0.1 degrees: headers rounded to 4 digits pass
MIN_SPACING = 1e-4  # mm; below it an axis has no length
CLOSE_MM = 1e-3  # float32 headers move a corner 300 mm away by less than this


@dataclass(frozen=True, eq=False)
class Grid:
    """A box of voxels in the world.

    Args:
        shape: Voxels per array axis (I, J, K).
        affine: (4, 4), voxel index -> world mm, RAS+. Kept as a read-only float64 copy.

    Raises:
        GridError: If the affine is not finite, singular or sheared (`SHEAR_TOLERANCE`),
            or the shape is not three positive whole numbers.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GridError(f"expected three positive voxel counts, got {shape}")
        affine = np.array(self.affine, dtype=np.float64)
        _check_affine(affine)
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each array axis (mm)."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def direction(self) -> np.ndarray:
        """Unit vectors of the array axes in the world, as columns, (3, 3)."""
        return np.asarray(self.affine[:3, :3] / np.array(self.spacing))

    @property
    def extent(self) -> tuple[float, float, float]:
        """Distance between the outer faces along each array axis (mm)."""
        i, j, k = (n * s for n, s in zip(self.shape, self.spacing, strict=True))
        return i, j, k

    @property
    def is_left_handed(self) -> bool:
        """Whether the array axes form a left-handed system, as in radiological storage order."""
        return bool(np.linalg.det(self.affine[:3, :3]) < 0)

    @property
    def orientation(self) -> str:
        """Where the array axes point, nearest letters: "RAS" grows to the right, the front, the head."""
        names = (("L", "R"), ("P", "A"), ("I", "S"))
        return "".join(names[w][int(self.direction[w, a] > 0)] for a, w in enumerate(self.world_axes))

    @property
    def world_axes(self) -> tuple[int, int, int]:
        """Nearest world axis (0 right, 1 front, 2 head) of each array axis, each used once."""
        size = np.abs(self.direction)
        best = max(permutations(range(3)), key=lambda p: float(sum(size[w, a] for a, w in enumerate(p))))
        return best[0], best[1], best[2]

    def resampled(self, spacing: Sequence[float]) -> Grid:
        """The grid that fills the same box with a spacing as near `spacing` (mm) as it can.

        The outer faces stay and so the first voxel's centre moves: keeping the centre
        instead shifts an upsampled volume by up to half a thick slice.

        Args:
            spacing: Wanted mm per array axis; the spacing of the result differs from it as far
                as whole voxels demand, n = round(extent / spacing).

        Raises:
            GridError: If a spacing is not positive and finite.
        """
        wanted = np.array(spacing, dtype=np.float64)
        if wanted.shape != (3,) or not np.isfinite(wanted).all() or (wanted <= 0).any():
            raise GridError(f"expected three positive spacings in mm, got {tuple(spacing)}")
        counts = np.maximum(np.round(np.array(self.extent) / wanted), 1)
        return self.with_shape(tuple(int(n) for n in counts))

    def with_shape(self, shape: Sequence[int]) -> Grid:
        """The grid that fills the same box with this many voxels."""
        scale = np.array(self.shape) / np.array(shape)
        affine = self.affine.copy()
        affine[:3, :3] *= scale
        affine[:3, 3] += self.affine[:3, :3] @ ((scale - 1) / 2)
        return Grid(_triple(shape), affine)

    def permuted(self, axes: Sequence[int]) -> Grid:
        """The same voxels with the array axes in the order `axes`."""
        assert sorted(axes) == [0, 1, 2], axes
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, list(axes)]
        return Grid(_triple([self.shape[a] for a in axes]), affine)

    def flipped(self, axis: int) -> Grid:
        """The same voxels with one array axis counted from its other end."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, axis] * (self.shape[axis] - 1)
        affine[:3, axis] *= -1
        return Grid(self.shape, affine)

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> Grid:
        """The part that begins at voxel `start` and is `shape` voxels large; it may reach outside."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ np.array(start, dtype=np.float64)
        return Grid(_triple(shape), affine)

    def corners(self) -> np.ndarray:
        """World positions (mm) of the eight corners of the box, outer faces included, (8, 3)."""
        index = np.array(list(product(*((-0.5, n - 0.5) for n in self.shape))))
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3])

    def is_close(self, other: Grid, tolerance_mm: float = CLOSE_MM) -> bool:
        """Whether both have the same shape and no corner lies further apart than the tolerance (mm)."""
        if self.shape != other.shape:
            return False
        return bool(np.linalg.norm(self.corners() - other.corners(), axis=1).max() <= tolerance_mm)


def _check_affine(affine: np.ndarray) -> None:
    """Refuse an affine in which spacing and slices mean nothing."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or (affine[3] != (0, 0, 0, 1)).any():
        raise GridError("expected a finite (4, 4) affine; the header holds none, repair it or convert the scan again")
    columns = affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    if (spacing < MIN_SPACING).any():
        raise GridError(f"the affine is singular: spacings of {format_mm(spacing)}; repair the header")
    cosines = np.abs(columns.T @ columns / np.outer(spacing, spacing) - np.eye(3))
    if cosines.max() > SHEAR_TOLERANCE:
        angle = np.degrees(np.arccos(min(cosines.max(), 1.0)))
        raise GridError(
            f"the affine is sheared: expected axes at 90 degrees (cosine below {SHEAR_TOLERANCE:g}), "
            f"got {angle:.2f}; resample the scan to a straight grid first"
        )


def _triple(values: Sequence[int]) -> tuple[int, int, int]:
    """Three whole numbers as a tuple of known length."""
    i, j, k = (int(v) for v in values)
    return i, j, k


def format_mm(spacing: Sequence[float] | np.ndarray) -> str:
    """A spacing for a message, "1 x 1 x 4 mm"."""
    return " x ".join(f"{s:.4g}" for s in spacing) + " mm"
