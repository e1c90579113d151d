"""What slice profile explains a scan whose header does not say: thickness and shape, from the voxels alone.

A head is about as rough along one axis as along another. So the in-plane axes stand in for the fine data that are
missing along the slices: they are imaged again as the slices were, at the slices' spacing and with each candidate
profile, and the candidate is right with which both axes have the same spectrum.

    z    = the scan with its third axis averaged at the slice spacing     less noise; as many values each way
    z_c  = C_c z                                        an in-plane axis imaged with candidate c
    d_c  = log spectrum of z_c along the slices - log spectrum of z_c along that in-plane axis, by frequency
    q_c  = (d_c - m)^T S^-1 (d_c - m)                   m, S: of heads whose profile is known

Spectra are of the discrete cosine transform, in bands up to the slices' Nyquist frequency, averaged over directions,
noise subtracted. m holds by how much heads are rougher along one anatomical axis than along others, S how much that
differs from head to head: `pipelines/profile_study.py --tune` gathers both from training scans.

exp(-q/2) weighs the candidates. Their widths are told apart, their shapes hardly: a box is nearly a Gaussian of .7
times its thickness. So the answer is the candidate with the least expected error of the transfer function over all
candidates, not the likeliest one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct

from medld.acquisition import AxisAcquisition, Matrix, Profile, profile_weights
from medld.intensity import estimate_noise, intensity_map
from medld.volume import Volume

__all__ = [
    "CANDIDATES",
    "Heads",
    "ProfileEstimate",
    "contrast_spectra",
    "decide",
    "estimate_profile",
    "load_heads",
    "slice_ratio",
]

HEADS = Path(__file__).with_name("profile.json")
BANDS = (0.04, 0.08, 0.12, 0.16, 0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50)
"""Edges of the frequency bands, cycles per slice: .5 is the slices' Nyquist frequency."""

THICKNESSES = tuple(float(t) for t in np.geomspace(0.6, 2.0, 17).round(4))
CANDIDATES: tuple[tuple[Profile, float], ...] = tuple((s, t) for s in get_args(Profile) for t in THICKNESSES)
"""Shape and thickness (in slice spacings)."""

FEWEST_SLICES = 12
LEAST_RATIO = 1.5
"""Slices less than this many pixels apart tell nothing: the pixels' own softness is of the profile's size."""
FLOOR = 0.1
"""Noise is never taken for more than nine tenths of a spectrum."""


@dataclass(frozen=True)
class Heads:
    """What heads whose profile is known look like at one `ratio` of slice spacing to pixel spacing.

    `mean` (3, bands) is m, by the world axis across the slices (right, front, head); `precision` is S^-1.
    """

    ratio: float
    mean: Matrix
    precision: Matrix


@dataclass(frozen=True)
class ProfileEstimate:
    """A slice profile and how sure it is.

    Args:
        profile: Shape.
        thickness: FWHM in slice spacings.
        low, high: 10th and 90th percentile of the thickness.
        share: Weight of the chosen shape among the three, 1 if it were certain.
    """

    profile: Profile
    thickness: float
    low: float
    high: float
    share: float


def estimate_profile(volume: Volume, axis: int, thickness: float | None = None) -> ProfileEstimate | None:
    """The slice profile of an MR scan whose slices lie along array `axis`.

    Args:
        volume: The scan, in the scanner's units.
        axis: Array axis across the slices.
        thickness: In slice spacings, where it is known: then only the shape is looked for.

    Returns:
        None where nothing can be told: CT (no statistics), few slices, slices hardly thicker than the pixels are wide.
    """
    spacing = volume.grid.spacing
    ratio = slice_ratio(volume, axis)
    extents = [n * s / spacing[axis] for n, s in zip(volume.grid.shape, spacing, strict=True)]
    if volume.modality == "ct" or ratio < LEAST_RATIO or min(extents) < FEWEST_SLICES or not np.any(volume.array):
        return None
    difference = contrast_spectra(volume, axis)
    return decide(difference, ratio, volume.grid.world_axes[axis], load_heads(), thickness=thickness)


def slice_ratio(volume: Volume, axis: int) -> float:
    """Slice spacing over pixel spacing, the geometric mean of both axes of the pixels."""
    spacing = volume.grid.spacing
    return float(spacing[axis] / np.prod([s for i, s in enumerate(spacing) if i != axis]) ** 0.5)


def decide(
    difference: Matrix,
    ratio: float,
    world_axis: int,
    known: Sequence[Heads],
    *,
    shapes: Sequence[Profile] = get_args(Profile),
    thickness: float | None = None,
) -> ProfileEstimate:
    """The candidate of some `shapes` with the least expected error, of what `contrast_spectra` saw.

    Args:
        difference: d_c, (candidates, bands).
        ratio: Slice spacing over pixel spacing.
        world_axis: 0 (right), 1 (front) or 2 (head): the anatomical axis across the slices.
        known: Statistics of heads; those of the nearest ratio are taken.
        shapes: What may be answered; all shapes stay possible in what is expected.
        thickness: In slice spacings, where it is known.
    """
    possible = np.ones(len(CANDIDATES), dtype=bool)
    if thickness is not None:
        stated = thickness
        nearest = min(THICKNESSES, key=lambda t: abs(np.log(t / stated)))
        possible = np.array([t == nearest for _, t in CANDIDATES])
    heads = min(known, key=lambda entry: abs(np.log(entry.ratio / ratio)))
    off = difference - heads.mean[world_axis]
    misfit = np.einsum("cb,bd,cd->c", off, heads.precision, off)
    weights = np.exp(-0.5 * (misfit - misfit[possible].min())) * possible
    weights = weights / weights.sum()
    expected = _transfer_errors() @ weights
    allowed = [i for i, (shape, _) in enumerate(CANDIDATES) if possible[i] and shape in shapes]
    chosen = min(allowed, key=lambda i: expected[i])
    profile, thickness = CANDIDATES[chosen]
    by_shape = weights.reshape(-1, len(THICKNESSES))
    cumulated = np.cumsum(by_shape.sum(0))
    low, high = (THICKNESSES[int(np.searchsorted(cumulated, q))] for q in (0.1, 0.9))
    share = float(by_shape[chosen // len(THICKNESSES)].sum())
    return ProfileEstimate(profile, thickness, low, high, share)


def contrast_spectra(volume: Volume, axis: int) -> Matrix:
    """d_c of every candidate, mean of the two in-plane axes, shape (candidates, bands); see the module."""
    units = intensity_map(volume.array, volume.modality)
    array = np.ascontiguousarray(np.moveaxis(units.forward(np.asarray(volume.array, dtype=np.float32)), axis, 2))
    noise = float(estimate_noise(torch.from_numpy(array)[None, None])[0])
    spacing = volume.grid.spacing
    first, second = (spacing[axis] / s for i, s in enumerate(spacing) if i != axis)
    both = [_contrast(array, (first, second), noise), _contrast(array.swapaxes(0, 1), (second, first), noise)]
    return np.mean(both, axis=0)  # type: ignore[no-any-return]


def _contrast(array: NDArray[np.float32], ratios: tuple[float, float], noise: float) -> Matrix:
    """d_c of every candidate on the first axis of (I, J, K), slices along the last; `ratios` in pixels of I and J."""
    average = _imaging(array.shape[1], ratios[1], "gaussian", 1.0)
    z = np.einsum("ijk,pj->kip", array, average.astype(np.float32), optimize=True)
    slices, pixels, count = z.shape
    quiet = noise**2 * float((average**2).sum(1).mean())
    along_slices = np.tensordot(_cosines(slices).astype(np.float32), z, (1, 0))
    # Second moments over the first axis, one matrix a frequency: what a candidate makes of them costs no pass over z.
    moments = (along_slices @ along_slices.swapaxes(1, 2)).astype(np.float64) / count
    banded, total = np.tensordot(_bands(slices), moments, (1, 0)), moments.mean(0)
    rows = []
    for profile, thickness in CANDIDATES:
        imaging = _imaging(pixels, ratios[0], profile, thickness)
        spectrum = _cosines(len(imaging)) @ imaging
        gram = imaging.T @ imaging / len(imaging)
        across = _bands(len(imaging)) @ ((spectrum @ total) * spectrum).sum(1)
        across_noise = quiet * (_bands(len(imaging)) @ (spectrum**2).sum(1))
        over = (banded * gram).sum((1, 2))
        over_noise = quiet * float(np.trace(gram))
        rows.append(np.log(_less(over, over_noise)) - np.log(_less(across, across_noise)))
    return np.array(rows)


def _less(power: Matrix, noise: Any) -> Matrix:
    """A spectrum without its noise."""
    return np.asarray(np.maximum(np.maximum(power - noise, FLOOR * power), 1e-30))


@lru_cache(maxsize=256)
def _imaging(pixels: int, ratio: float, profile: Profile, thickness: float) -> Matrix:
    """Slices of `ratio` pixels over a row of pixels, whole slices only, shape (slices, pixels), rows sum to one."""
    slices = int(pixels / ratio + 1e-6)
    axis = AxisAcquisition(min(pixels, max(slices, round(slices * ratio))), slices, thickness, profile)
    return np.asarray(np.pad(axis.inner_matrix, ((0, 0), (0, pixels - axis.fine))))


@lru_cache(maxsize=32)
def _cosines(size: int) -> Matrix:
    """The orthonormal discrete cosine transform as a matrix: even about the outer faces, so ends do not leak."""
    return np.asarray(dct(np.eye(size), axis=0, norm="ortho"))


@lru_cache(maxsize=32)
def _bands(size: int) -> Matrix:
    """Mean over the frequencies of each band, shape (bands, size); a band without any takes the nearest one."""
    frequency = np.arange(size) / (2 * size)
    rows = []
    for low, high in pairwise(BANDS):
        inside = (frequency > low) & (frequency <= high)
        if not inside.any():
            inside[max(1, int(np.argmin(np.abs(frequency - (low + high) / 2))))] = True
        rows.append(inside / inside.sum())
    return np.array(rows)


@lru_cache(maxsize=1)
def _transfer_errors() -> Matrix:
    """Squared difference of the transfer functions of any two candidates, weighted as anatomy is (1 / f^2)."""
    frequency = np.linspace(0.05, 1.0, 40)
    offsets = np.arange(-320, 321) / 80  # slice spacings
    transfers = []
    for profile, thickness in CANDIDATES:
        weights = profile_weights(np.arange(-320.0, 321.0), thickness * 80, profile)
        transfers.append(np.cos(2 * np.pi * frequency[:, None] * offsets) @ (weights / weights.sum()) / frequency)
    difference = np.array(transfers)[:, None] - np.array(transfers)
    return np.asarray((difference**2).sum(2))


@lru_cache(maxsize=1)
def load_heads() -> tuple[Heads, ...]:
    """The shipped statistics of heads, one entry a ratio."""
    return tuple(_parse(entry) for entry in json.loads(HEADS.read_text(encoding="utf-8"))["heads"])


def _parse(entry: Mapping[str, Any]) -> Heads:
    return Heads(float(entry["ratio"]), np.array(entry["mean"]), np.array(entry["precision"]))
