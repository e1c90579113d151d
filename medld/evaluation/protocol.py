"""Protocol: how a fine volume (the truth) becomes a coarse scan.

Truth of n voxels along an axis, ratio r:

    k = floor(n / r) slices;  the truth is cut to its first round(k r) voxels;  r := that / k
    slice i sits at (i + .5) r - .5 and weighs the voxels by a Gaussian of FWHM r, sampled at their centres
    rows normalised to one: nothing lies beyond the truth's faces;  float32;  then noise, if any

along the last array axis (`through-plane`) or along all three (`isotropic`). In-plane nothing changes.

Source: reference design, section 6.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from medld.acquisition import AxisAcquisition, along
from medld.config import Schema, read_config
from medld.errors import ConfigError, InputError
from medld.volume import Volume

FOLDER = Path(__file__).parents[1] / "protocols"

FEWEST_SLICES = 3
"""What `medld enhance` accepts."""

SCALE_PERCENTILE = 99.9
"""Noise is told in the unit that the networks see: this percentile of the scan's non-zero voxels."""


class ProtocolConfig(Schema):
    """How a truth becomes a scan. A shipped one never changes once figures rest on it: add another."""

    name: str = Field(min_length=1)
    axes: Literal["through-plane", "isotropic"]
    ratio: float = Field(ge=1.2, le=8)
    noise: float = Field(0.0, ge=0, lt=1)
    """Standard deviation, as a fraction of the scan's 99.9th percentile; Rician, for CT Gaussian."""
    seed: int = Field(0, ge=0)

    @property
    def consistency(self) -> Literal["exact", "auto"]:
        """The projection that a fair comparison asks for: a noisy scan must not be reproduced exactly."""
        return "auto" if self.noise else "exact"


def list_protocols() -> tuple[str, ...]:
    """Names of the protocols that ship with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_protocol(name: str) -> ProtocolConfig:
    """The shipped protocol of that name, or the one in a YAML file.

    Raises:
        ConfigError: If there is no such protocol, or the file does not fit the schema.
    """
    if name in list_protocols():
        return read_config(FOLDER / f"{name}.yaml", ProtocolConfig)
    if name.endswith((".yaml", ".yml")):
        return read_config(Path(name), ProtocolConfig)
    raise ConfigError(f"Expected a protocol out of {', '.join(list_protocols())}, or a .yaml file, got '{name}'.")


def simulate(truth: Volume, protocol: ProtocolConfig, key: str = "") -> tuple[Volume, Volume]:
    """Cut `truth` to whole slices and image it as `protocol` says.

    Args:
        truth: Fine volume, any real dtype.
        protocol: Axes, ratio and noise.
        key: Names the scan. Its noise hangs on this and the protocol's seed, not on the scans before it.

    Returns:
        The cut truth and the scan, float32, in the truth's units; the outer faces of their boxes agree.

    Raises:
        InputError: If fewer than three slices fit (E_TOO_FEW).
    """
    axes = (0, 1, 2) if protocol.axes == "isotropic" else (2,)
    fine, coarse = list(truth.grid.shape), list(truth.grid.shape)
    for axis in axes:
        coarse[axis] = int(fine[axis] // protocol.ratio)
        fine[axis] = round(coarse[axis] * protocol.ratio)
    if min(coarse) < FEWEST_SLICES:
        raise InputError(
            f"Expected at least {FEWEST_SLICES} slices by {protocol.name}, got {min(coarse)} from "
            f"{truth.grid.shape} voxels. Choose a larger volume or a smaller ratio.",
            "E_TOO_FEW",
        )
    i, j, k = fine
    array = truth.array[:i, :j, :k].astype(np.float32, order="C")
    cut = Volume(array, truth.grid.cropped((0, 0, 0), (i, j, k)), truth.modality, truth.contrast)
    slices = array.astype(np.float64)
    for axis in axes:
        slices = along(slice_matrix(fine[axis], coarse[axis]), slices, axis - 3)
    if protocol.noise:
        slices = add_noise(slices, protocol, key, rician=truth.modality != "ct")
    scan = Volume(slices.astype(np.float32), cut.grid.with_shape(coarse), truth.modality, truth.contrast)
    return cut, scan


def slice_matrix(fine: int, slices: int) -> np.ndarray:
    """The protocol's slices over `fine` voxels, shape (slices, fine), rows sum to one.

    Unlike the matrix that a restoration uses it has no margin: beyond the truth's faces nothing is known.
    """
    axis = AxisAcquisition(fine, slices)
    inside = axis.matrix[:, axis.margin : axis.margin + fine]
    return np.asarray(inside / inside.sum(1, keepdims=True))


def add_noise(slices: np.ndarray, protocol: ProtocolConfig, key: str, *, rician: bool) -> np.ndarray:
    """`slices` with the protocol's noise: of a magnitude (`rician`), or on values that may be negative."""
    rng = np.random.default_rng([protocol.seed, zlib.crc32(key.encode())])
    deviation = protocol.noise * float(np.percentile(slices[slices != 0], SCALE_PERCENTILE))
    real = slices + deviation * rng.standard_normal(slices.shape)
    return np.hypot(real, deviation * rng.standard_normal(slices.shape)) if rician else real
