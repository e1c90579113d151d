"""Simulate: a truth imaged as a protocol says.

Truth of n voxels along an axis, ratio r:

    k = floor(n / r) slices;  the truth is cut to its first round(k r) voxels;  r := that / k
    slice i sits at (i + .5) r - .5 and weighs the voxels by its profile
    rows normalised to one: nothing lies beyond the truth's faces;  float32;  then noise, if any

A Gaussian or SLR profile is sampled at the voxels' centres, a box is integrated over them. The `sinc` is a row of
cosines: the discrete Fourier transform of the n voxels cut to its k lowest frequencies and read where the slices
are, so that outer faces stay; it wraps around at them, as phase encoding does. What it makes negative is seen as
magnitude, except in CT, which has no k-space.

Source: reference design, section 6.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from medld.acquisition import AxisAcquisition, along
from medld.errors import InputError
from medld.evaluation.phantom import Phantom, put_lesions
from medld.evaluation.protocol import ProtocolConfig
from medld.volume import Volume

FEWEST_SLICES = 3
"""What `medld enhance` accepts."""

SCALE_PERCENTILE = 99.9
"""Noise is told in the unit that the networks see: this percentile of the scan's non-zero voxels."""


@dataclass(frozen=True, eq=False)
class Simulated:
    """The cut truth, the scan, the standard deviation of the noise in it (scanner units, 0 if none), and the lesions
    that the protocol has put into the truth, if any.
    """

    truth: Volume
    scan: Volume
    noise: float
    phantom: Phantom | None = None


def simulate(truth: Volume, protocol: ProtocolConfig, key: str = "") -> tuple[Volume, Volume]:
    """Cut `truth` to whole slices and image it as `protocol` says.

    Args:
        truth: Fine volume, any real dtype.
        protocol: Axes, ratio, profile and noise.
        key: Names the scan. Its noise and lesions hang on this and the protocol's seeds, not on the scans before it.

    Returns:
        The cut truth and the scan, float32, in the truth's units; the outer faces of their boxes agree.

    Raises:
        InputError: If fewer than three slices fit (E_TOO_FEW), the protocol's mm ask for a ratio that cannot be
            restored (E_NOTHING_TO_DO), or there is no room for its lesions (E_PIXELS).
    """
    made = image(truth, protocol, key)
    return made.truth, made.scan


def image(truth: Volume, protocol: ProtocolConfig, key: str = "") -> Simulated:
    """As `simulate`, with the noise that was added."""
    fine, coarse = _counts(truth, protocol)
    i, j, k = fine
    cut = truth.cropped((0, 0, 0), (i, j, k))
    cut = Volume(cut.array.astype(np.float32, order="C"), cut.grid, truth.modality, truth.contrast)
    phantom = None
    if protocol.lesions is not None:
        cut, phantom = put_lesions(cut, protocol.lesions, key)
    grid = cut.grid.with_shape(coarse)
    slices = cut.array.astype(np.float64)
    for axis in protocol.coarse_axes:
        slices = along(protocol_matrix(protocol, fine[axis], coarse[axis], grid.spacing[axis]), slices, axis - 3)
    is_magnitude = truth.modality != "ct"
    if protocol.profile == "sinc" and is_magnitude:
        slices = np.abs(slices)
    deviation = 0.0
    if protocol.noise:
        deviation = protocol.noise * float(np.percentile(slices[slices != 0], SCALE_PERCENTILE))
        slices = add_noise(slices, deviation, protocol.seed, key, rician=is_magnitude)
    scan = Volume(slices.astype(np.float32), grid, truth.modality, truth.contrast)
    return Simulated(cut, scan, deviation, phantom)


def _counts(truth: Volume, protocol: ProtocolConfig) -> tuple[list[int], list[int]]:
    """Voxels of the cut truth and of the scan, per array axis."""
    fine, coarse = list(truth.grid.shape), list(truth.grid.shape)
    for axis in protocol.coarse_axes:
        ratio = protocol.ratio_on(truth.grid.spacing[axis])
        coarse[axis] = int(fine[axis] // ratio)
        fine[axis] = round(coarse[axis] * ratio)
    if min(coarse) < FEWEST_SLICES:
        raise InputError(
            f"Expected at least {FEWEST_SLICES} slices by {protocol.name}, got {min(coarse)} from "
            f"{truth.grid.shape} voxels. Choose a larger volume or a smaller ratio.",
            "E_TOO_FEW",
        )
    return fine, coarse


def protocol_matrix(protocol: ProtocolConfig, fine: int, slices: int, slice_spacing: float) -> np.ndarray:
    """How the protocol's slices, `slice_spacing` mm apart, weigh `fine` voxels: (slices, fine), rows sum to one."""
    if protocol.profile == "sinc":
        return sinc_matrix(fine, slices)
    return AxisAcquisition(fine, slices, protocol.thickness_in(slice_spacing), protocol.profile).inner_matrix


def sinc_matrix(fine: int, slices: int) -> np.ndarray:
    """The lowest frequencies of `fine` voxels at the places of `slices` slices: (slices, fine), rows sum to one.

        1/n (1 + 2 sum over 0 < f < k/2 of cos(2 pi f (c_i - j) / n)),  and cos(pi k (c_i - j) / n) / n for even k

    for slice i at c_i = (i + .5) n / k - .5 and voxel j: the frequency k/2 has half of its weight at either end.
    """
    distance = (np.arange(slices)[:, None] + 0.5) * fine / slices - 0.5 - np.arange(fine)
    phase = 2 * np.pi * distance / fine
    total = np.ones((slices, fine))
    for frequency in range(1, (slices + 1) // 2):
        total += 2 * np.cos(frequency * phase)
    if slices % 2 == 0:
        total += np.cos(slices / 2 * phase)
    return total / fine


def add_noise(slices: np.ndarray, deviation: float, seed: int, key: str, *, rician: bool) -> np.ndarray:
    """`slices` with noise of a `deviation`: of a magnitude (`rician`), or on values that may be negative."""
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    real = slices + deviation * rng.standard_normal(slices.shape)
    return np.hypot(real, deviation * rng.standard_normal(slices.shape)) if rician else real
