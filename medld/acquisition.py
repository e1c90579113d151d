"""How a scanner makes coarse slices, and the way back as far as it exists.

One axis of a scan is k slices over n fine voxels of the same box, at the ratio r = n / k. Slice i
sits at c_i = (i + .5) r - .5 fine voxels and weighs the tissue it crosses by a slice profile whose
FWHM is tau r voxels (tau = slice thickness / slice spacing). That is a k x (n + 2 m) matrix A with
rows that sum to one: A sees m voxels beyond each outer face, because slices do, and because a fine
grid that ends at the face would have to explain there what lies outside.

    y   = A x                                          the scan
    A^+ = A^T (A A^T + lambda e_max I)^-1              e_max the largest eigenvalue of A A^T
    B y = b + A^+ (y - A b),   b = cubic B-spline      the baseline: free, and consistent with y

Everything is a float64 numpy matrix, built once and applied along an axis of a numpy array or a torch
tensor in that array's own precision. Arrays end in the three voxel axes (..., I, J, K).

Lengths are in fine voxels unless they say mm. Source: reference design, sections 2 and 4.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, prod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import erf
from torch.nn import functional

from medld.errors import AcquisitionError

Profile = Literal["gaussian", "box", "slr"]
ProfileMap = Literal["inverse", "triangle"]
Matrix = NDArray[np.float64]

END_SLICES = 2

SAMPLES_PER_SLICE = 8
"""The profile grid resolves each slice eightfold: enough for every ratio that we restore."""

SMALLEST_LAMBDA = 1e-6
"""Keeps the inverse of a box profile finite, whose spectrum has zeros; costs 1e-6 of consistency."""

INTEGRATE_BELOW = 1.2
"""A profile narrower than this many voxels falls between voxel centres, so it is integrated instead."""

GATE_WINDOW = 9

DUST = 1e-20
"""Of a matrix's largest entry: what is smaller is lost when a row is summed, in float64 too."""


def profile_weights(offsets: NDArray[Any], fwhm: float, profile: Profile) -> Matrix:
    """Weight of a unit voxel at `offsets` (voxels) from the centre of a slice of that `fwhm` (voxels).

    A box is always integrated over the voxel: sampled, its width would jump by whole voxels.
    """
    if profile == "box":
        upper = np.clip(offsets + 0.5, -fwhm / 2, fwhm / 2)
        return np.asarray(upper - np.clip(offsets - 0.5, -fwhm / 2, fwhm / 2))
    if fwhm >= INTEGRATE_BELOW:
        return _density(offsets, fwhm, profile)
    if profile == "gaussian":
        scale = 2 * np.sqrt(np.log(2)) / fwhm
        return np.asarray(erf((offsets + 0.5) * scale) - erf((offsets - 0.5) * scale))
    inner = (np.arange(32) + 0.5) / 32 - 0.5
    return np.asarray(_density(offsets[..., None] + inner, fwhm, profile).mean(-1))


def _density(offsets: NDArray[Any], fwhm: float, profile: Profile) -> Matrix:
    """Gaussian, or an SLR pulse as a super-Gaussian of order four: flat top, steep flanks."""
    order = 2 if profile == "gaussian" else 4
    return np.asarray(np.exp(-np.log(2) * np.abs(2 * offsets / fwhm) ** order))


def spline_matrix(slices: int, positions: NDArray[Any]) -> Matrix:
    """Cubic B-spline through `slices` samples, evaluated at `positions` (slice units), shape (P, slices).

    The spline is even about the outer faces (-.5 and slices - .5), so it is level there, and constant beyond.
    """
    clamped = np.clip(positions, -0.5, slices - 0.5)
    first = np.floor(clamped).astype(int) - 1
    basis = np.zeros((len(positions), slices))
    for tap in range(4):
        distance = np.abs(clamped - (first + tap))
        near = 2 / 3 - distance**2 + distance**3 / 2
        weight = np.where(distance < 1, near, np.clip(2 - distance, 0, None) ** 3 / 6)
        index = (first + tap) % (2 * slices)
        np.add.at(basis, (np.arange(len(positions)), np.minimum(index, 2 * slices - 1 - index)), weight)
    return np.asarray(basis @ _spline_coefficients(slices))


def _spline_coefficients(slices: int) -> Matrix:
    """From samples to coefficients: the inverse of 1/6, 4/6, 1/6, mirrored about the outer faces."""
    samples = (4 * np.eye(slices) + np.eye(slices, k=1) + np.eye(slices, k=-1)) / 6
    samples[0, 0] += 1 / 6
    samples[-1, -1] += 1 / 6
    return np.asarray(np.linalg.inv(samples))


def keys_matrix(fine: int, samples: int) -> Matrix:
    """F: Keys cubic from `fine` voxels to `samples` samples of the same box, ends clamped, shape (samples, fine)."""
    positions = (np.arange(samples) + 0.5) * fine / samples - 0.5
    first = np.floor(positions).astype(int) - 1
    matrix = np.zeros((samples, fine))
    for tap in range(4):
        d = np.abs(positions - (first + tap))
        weight = np.where(d < 1, (1.5 * d - 2.5) * d**2 + 1, ((2.5 - 0.5 * d) * d - 4) * d + 2)
        np.add.at(matrix, (np.arange(samples), np.clip(first + tap, 0, fine - 1)), np.where(d < 2, weight, 0.0))
    return matrix


def triangle_matrix(fine: int, samples: int) -> Matrix:
    """Triangles of half-width max(w, 1), w = samples / fine, from the profile grid to the target, rows normalised."""
    width = samples / fine
    centres = (np.arange(fine) + 0.5) * width - 0.5
    weights = np.clip(1 - np.abs(centres[:, None] - np.arange(samples)) / max(width, 1.0), 0, None)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def linear_matrix(fine: int, slices: int) -> Matrix:
    """Linear between slice centres, constant beyond the outer ones, shape (fine, slices)."""
    position = np.clip((np.arange(fine) + 0.5) * slices / fine - 0.5, 0, slices - 1)
    return np.asarray(np.clip(1 - np.abs(position[:, None] - np.arange(slices)), 0, None))


@lru_cache(maxsize=256)
def _inverse_keys_matrix(fine: int, samples: int) -> Matrix:
    """Kept, because a training run asks for the same hundred of them again and again."""
    inverse = np.linalg.pinv(keys_matrix(fine, samples))
    inverse.setflags(write=False)
    return np.asarray(inverse)


@dataclass(frozen=True)
class AxisAcquisition:
    """One axis of a scan: `slices` slices over `fine` voxels, of `thickness` slice spacings (FWHM).

    Raises:
        AcquisitionError: Fewer fine voxels than slices, no slice, or a thickness that is not positive.
    """

    fine: int
    slices: int
    thickness: float = 1.0
    profile: Profile = "gaussian"

    def __post_init__(self) -> None:
        if not 1 <= self.slices <= self.fine:
            raise AcquisitionError(
                f"Expected between 1 and {self.fine} slices (the fine voxels along the axis), got {self.slices}. "
                "Choose a finer target spacing."
            )
        if not (np.isfinite(self.thickness) and self.thickness > 0):
            raise AcquisitionError(
                f"Expected a positive slice thickness, got {self.thickness} slice spacings. Give --slice-thickness."
            )

    @property
    def ratio(self) -> float:
        """r = n / k."""
        return self.fine / self.slices

    @property
    def margin(self) -> int:
        """m: fine voxels beyond each outer face that the first and last slice can reach."""
        return ceil(self.ratio * max(1.0, self.thickness))

    def on_profile_grid(self) -> AxisAcquisition:
        """The same slices over eight samples each, the grid on which networks answer."""
        return AxisAcquisition(SAMPLES_PER_SLICE * self.slices, self.slices, self.thickness, self.profile)

    @cached_property
    def matrix(self) -> Matrix:
        """A, shape (slices, fine + 2 margin), rows sum to one."""
        centres = (np.arange(self.slices) + 0.5) * self.ratio - 0.5
        voxels = np.arange(-self.margin, self.fine + self.margin)
        weights = profile_weights(voxels - centres[:, None], self.thickness * self.ratio, self.profile)
        return np.asarray(weights / weights.sum(1, keepdims=True))

    @cached_property
    def inner_matrix(self) -> Matrix:
        """The slices over the fine voxels alone, shape (slices, fine), rows sum to one.

        How a volume beyond whose faces nothing is known is imaged; restorations use `matrix`.
        """
        inside = self.matrix[:, self.margin : self.margin + self.fine]
        return np.asarray(inside / inside.sum(1, keepdims=True))

    @cached_property
    def edge_matrix(self) -> Matrix:
        """The slices over voxels that go on beyond the faces as they end, shape (slices, fine), rows sum to one."""
        before, inside, after = np.split(self.matrix, [self.margin, self.margin + self.fine], axis=1)
        folded = inside.copy()
        folded[:, 0] += before.sum(1)
        folded[:, -1] += after.sum(1)
        return np.asarray(folded)

    @cached_property
    def eigen(self) -> tuple[Matrix, Matrix]:
        """Eigenvalues (slices,) and eigenvectors (slices, slices) of A A^T."""
        values, vectors = np.linalg.eigh(self.matrix @ self.matrix.T)
        return np.maximum(values, 0.0), vectors

    @cached_property
    def spline(self) -> Matrix:
        """The cubic B-spline of the slices on the padded fine grid, shape (fine + 2 margin, slices)."""
        voxels = np.arange(-self.margin, self.fine + self.margin)
        return spline_matrix(self.slices, (voxels + 0.5) / self.ratio - 0.5)

    @cached_property
    def _tensors(self) -> dict[tuple[str, Any, Any], Any]:
        return {}

    def like(self, name: str, array: Any) -> Any:
        """The matrix `name` as whatever `array` is: numpy or torch, in its precision and on its device.

        Tensors are kept: a copy to a GPU waits for everything that the GPU has queued.
        """
        if isinstance(array, np.ndarray):
            return np.asarray(self._named(name), dtype=array.dtype)
        key = (name, array.dtype, array.device)
        if key not in self._tensors:
            self._tensors[key] = array.new_tensor(np.ascontiguousarray(self._named(name)))
        return self._tensors[key]

    def kept_tensors(self) -> list[Any]:
        """What `like` keeps, for those who hand tensors from one stream to another."""
        return list(self._tensors.values())

    def _named(self, name: str) -> Matrix:
        matrices = {
            "apply": lambda: self.matrix,
            "adjoint": lambda: self.matrix.T,
            "reimage": lambda: self.edge_matrix,
            "spline": lambda: self.spline,
            "eigenvalues": lambda: self.eigen[0],
            "to_eigen": lambda: self.eigen[1].T,
            "from_eigen": lambda: self.eigen[1],
            "to_target_inverse": lambda: self.profile_to_target("inverse"),
            "to_target_triangle": lambda: self.profile_to_target("triangle"),
            "to_profile": self.target_to_profile,
        }
        return _without_dust(np.asarray(matrices[name]()))

    def pseudo_inverse(self, damping: float = SMALLEST_LAMBDA) -> Matrix:
        """A^+, shape (fine + 2 margin, slices); `damping` is lambda in parts of the largest eigenvalue."""
        values, vectors = self.eigen
        return np.asarray(self.matrix.T @ (vectors / (values + damping * values[-1])) @ vectors.T)

    def baseline_matrix(self, damping: float = SMALLEST_LAMBDA) -> Matrix:
        """B as one matrix, shape (fine + 2 margin, slices)."""
        missing = np.eye(self.slices) - self.matrix @ self.spline
        return np.asarray(self.spline + self.pseudo_inverse(damping) @ missing)

    def profile_to_target(self, kind: ProfileMap = "inverse") -> Matrix:
        """S, shape (fine, 8 slices): `inverse` is the pseudo-inverse of F (S F = I), `triangle` a local mean."""
        samples = SAMPLES_PER_SLICE * self.slices
        if kind == "triangle":
            return triangle_matrix(self.fine, samples)
        return _inverse_keys_matrix(self.fine, samples)

    def target_to_profile(self) -> Matrix:
        """F, shape (8 slices, fine)."""
        return keys_matrix(self.fine, SAMPLES_PER_SLICE * self.slices)


@dataclass(frozen=True)
class Acquisition:
    """A scan's three array axes: an `AxisAcquisition` where it is coarse, None where it is left alone.

    "Padded" arrays are fine arrays with each coarse axis' margin on both sides. `slice_axis` (0, 1 or 2) is the
    one that the noise gate's windows do not cross; the caller knows it, the order of storage does not tell.
    """

    axes: tuple[AxisAcquisition | None, AxisAcquisition | None, AxisAcquisition | None]
    slice_axis: int = 2

    @property
    def _coarse(self) -> list[tuple[int, AxisAcquisition]]:
        return [(index - 3, axis) for index, axis in enumerate(self.axes) if axis is not None]

    def apply(self, padded: Any) -> Any:
        """A: padded fine array (..., I, J, K) to slices."""
        return self.through("apply", padded)

    def reimage(self, fine: Any) -> Any:
        """A of a fine array that goes on as it ends: what a scan of it would have been."""
        return self.through("reimage", fine)

    def adjoint(self, slices: Any) -> Any:
        """A^T: slices to a padded fine array."""
        return self.through("adjoint", slices)

    def spline(self, slices: Any) -> Any:
        """b: the cubic B-spline of the slices on the padded fine grid."""
        return self.through("spline", slices)

    def through(self, name: str, array: Any) -> Any:
        """The matrix of that name of every coarse axis, see `AxisAcquisition.like`, applied along it."""
        for index, axis in self._coarse:
            array = along(axis.like(name, array), array, index)
        return array

    def pseudo_inverse(self, slices: Any, damping: Any = SMALLEST_LAMBDA) -> Any:
        """A^+; eigenvalues of all axes are multiplied before `damping` (a number, or one per batch item) is added."""
        return self.adjoint(self.solve(slices, damping))

    def solve(self, slices: Any, damping: Any = SMALLEST_LAMBDA) -> Any:
        """(A A^T + lambda e_max I)^-1 of slices, as slices: A^T of it is A^+."""
        spectrum = self.through("to_eigen", slices) / self._damped_eigenvalues(slices, damping)
        return self.through("from_eigen", spectrum)

    def _damped_eigenvalues(self, like: Any, damping: Any) -> Any:
        """Product of the axes' eigenvalues, broadcast against `like`, plus damping times the largest."""
        total: Any = 1.0
        for index, axis in self._coarse:
            values = axis.like("eigenvalues", like)
            total = total * values.reshape([-1 if i == index else 1 for i in (-3, -2, -1)])
        return total + damping * prod(float(axis.eigen[0][-1]) for _, axis in self._coarse)

    def baseline(self, slices: Any, damping: Any = SMALLEST_LAMBDA) -> Any:
        """B: the spline made consistent with the slices, on the padded fine grid."""
        spline = self.spline(slices)
        return spline + self.pseudo_inverse(slices - self.apply(spline), damping)

    def project(self, padded: Any, slices: Any, noise: Any = 0.0, damping: Any = SMALLEST_LAMBDA) -> Any:
        """`padded` corrected by A^+ w r, r = slices - A padded: exact without `noise`, else gated by it.

        w = max(0, 1 - noise^2 / mean(r^2)) in 9 x 9 in-plane windows, so that what `noise` (its standard
        deviation, in the array's units) explains is not copied into the result.
        """
        residual = slices - self.apply(padded)
        return padded + self.pseudo_inverse(self.gated(residual, noise), damping)

    def gated(self, residual: Any, noise: Any) -> Any:
        """w r of `project`."""
        power = residual * residual
        for index in (axis - 3 for axis in range(3) if axis != self.slice_axis):
            power = along(_box_mean_like(power.shape[index], power), power, index)
        return (1 - noise * noise / (power + 1e-12)).clip(0, 1) * residual

    def crop(self, padded: Any) -> Any:
        """The fine array without its margins."""
        window = (..., *(slice(a.margin, -a.margin) if a else slice(None) for a in self.axes))
        return padded[window]

    def pad(self, fine: Any) -> Any:
        """The fine array with margins of zeros: where networks say nothing, their correction is zero."""
        widths = [(axis.margin, axis.margin) if axis else (0, 0) for axis in self.axes]
        if isinstance(fine, np.ndarray):
            return np.pad(fine, [(0, 0)] * (fine.ndim - 3) + widths)
        return functional.pad(fine, [width for pair in reversed(widths) for width in pair])


def away_from_ends(shape: Sequence[int], coarse: Collection[int]) -> tuple[slice, ...]:
    """Where a residual counts: without two slices at each end of the `coarse` axes, for these hold what lies beyond."""
    return tuple(
        slice(END_SLICES, -END_SLICES) if axis in coarse and size > 3 * END_SLICES else slice(None)
        for axis, size in enumerate(shape)
    )


def damping_for(noise: Any) -> Any:
    """lambda for that noise (array, network units); at 1e-6 wide or box profiles would amplify it thirtyfold."""
    return (100.0 * noise * noise).clip(SMALLEST_LAMBDA, None)


def box_mean_matrix(size: int, window: int) -> Matrix:
    """Mean over a centred window that shrinks at the ends, shape (size, size)."""
    index = np.arange(size)
    inside = (np.abs(index[:, None] - index) <= window // 2).astype(np.float64)
    return np.asarray(inside / inside.sum(1, keepdims=True))


def _box_mean_like(size: int, array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return box_mean_matrix(size, GATE_WINDOW).astype(array.dtype)
    return _box_mean_tensor(size, array.dtype, array.device)


@lru_cache(maxsize=32)
def _box_mean_tensor(size: int, dtype: Any, device: Any) -> Any:
    # Kept for the whole process: made in a restoration's inference mode, training could not go back through it.
    with torch.inference_mode(False):
        return torch.tensor(box_mean_matrix(size, GATE_WINDOW), dtype=dtype, device=device)


def _without_dust(matrix: Matrix) -> Matrix:
    """`matrix` with zeros for the far tails of profiles and splines, which float32 would hold as subnormal numbers.

    Those are slow: with 172 of them in it, a matrix of 48 x 200 took 90 to 145 ms for 192 x 192 rows, now 4.
    """
    return np.where(np.abs(matrix) < DUST * np.abs(matrix).max(), 0.0, matrix)


def along(matrix: Any, array: Any, axis: int) -> Any:
    """`matrix` (P, N) times `array` along its `axis` (-1, -2 or -3, of length N).

    A numpy matrix is brought to the array's kind and precision; a tensor is taken as it is.
    """
    if isinstance(matrix, np.ndarray):
        matrix = matrix.astype(array.dtype) if isinstance(array, np.ndarray) else array.new_tensor(matrix)
    if axis == -1:
        return array @ matrix.T
    if axis == -2:
        return matrix @ array
    assert axis == -3, "voxel axes are counted from the end"
    *lead, rows, columns, slices = array.shape
    flat = array.reshape(*lead, rows, columns * slices)
    return (matrix @ flat).reshape(*lead, matrix.shape[0], columns, slices)
