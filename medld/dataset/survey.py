"""Survey: what is in a folder of scans, and what would keep a model from learning from it.

Problems have the reason codes of `medld.errors`: what cannot be read at all has the code with which every command
refuses it; thick slices and copies, which can be read but teach nothing or flatter a validation, are E_COHORT.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medld.dataset.files import subject_of
from medld.errors import CardError, GridError, InputError
from medld.io import SUFFIXES, read_header, read_volume, split_suffix
from medld.volume import Volume

THICK = 1.8
"""An axis this much coarser than the finest is one of slices; training takes it for one too."""

NOISE_SLICES = 32
"""Slices that the noise is estimated from, evenly over the scan."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a scan: reason code and sentence."""

    code: str
    text: str


@dataclass(frozen=True)
class Scan:
    """One file. What is not known of a file that cannot be read is None.

    `name` is its path below the folder, `spacing` in mm, `bytes` those of the file, `noise` a standard deviation: a
    fraction of the scan's 99.9th percentile, for CT in HU; 0 where none stands out from texture.
    """

    name: str
    subject: str
    bytes: int
    modality: str | None = None
    contrast: str | None = None
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    noise: float | None = None
    problems: tuple[Problem, ...] = ()


def survey(folder: Path) -> Iterator[Scan]:
    """Every scan file below a folder in the order of paths, one in memory at a time; hidden folders are left out.

    Raises:
        CardError: There is no such folder, or no such file in it.
    """
    files = folder.rglob("*") if folder.is_dir() else ()
    names = {path.relative_to(folder): path for path in files if split_suffix(path)[1] and path.is_file()}
    visible = sorted(name for name in names if not any(part.startswith(".") for part in name.parts))
    if not visible:
        raise CardError(f"Expected scans ({', '.join(SUFFIXES)}) below {folder}, found none. Check the path.")
    seen: dict[str, str] = {}
    for name in visible:
        yield _look(names[name], name.as_posix(), seen)


def _look(path: Path, name: str, seen: dict[str, str]) -> Scan:
    """A file's facts; `seen` maps hashes of voxels to the names that had them first."""
    subject, size = subject_of(path), path.stat().st_size
    try:
        volume, _ = read_volume(path)
    except (InputError, GridError) as error:
        return Scan(name, subject, size, *_from_header(path), problems=(Problem(error.code, str(error)),))
    spacing = volume.grid.spacing
    return Scan(
        name,
        subject,
        size,
        volume.modality,
        volume.contrast,
        volume.grid.shape,
        spacing,
        estimate_scan_noise(volume),
        (*_thick(spacing), *_copy(volume, name, seen)),
    )


def _from_header(path: Path) -> tuple[None, None, tuple[int, int, int] | None, tuple[float, float, float] | None]:
    """Shape and spacing of a file whose voxels are refused, where its header can be read."""
    try:
        grid = read_header(path).grid
    except (InputError, GridError):
        return None, None, None, None
    return None, None, grid.shape, grid.spacing


def _thick(spacing: tuple[float, float, float]) -> Iterator[Problem]:
    thick = [axis for axis in range(3) if spacing[axis] >= THICK * min(spacing)]
    if thick:
        fine = ", ".join(str(axis) for axis in range(3) if axis not in thick)
        yield Problem(
            "E_COHORT",
            f"thick slices: {max(spacing):.4g} mm beside {min(spacing):.4g} mm; no truth along them, "
            f"use axes [{fine}] alone or leave it out",
        )


def _copy(volume: Volume, name: str, seen: dict[str, str]) -> Iterator[Problem]:
    digest = hashlib.sha256(str(volume.grid.shape).encode())
    digest.update(volume.array.ravel(order="K").data)  # a view: the array is contiguous
    first = seen.setdefault(digest.hexdigest(), name)
    if first != name:
        yield Problem("E_COHORT", f"the same voxels as {first}; keep one of them")


def estimate_scan_noise(volume: Volume) -> float:
    """Noise of a scan: a fraction of its 99.9th percentile; for CT in HU. Slices lie along its coarsest axis."""
    import torch

    from medld.intensity import CT_RANGE, estimate_noise, intensity_map

    axis = 2 - int(np.argmax(volume.grid.spacing[::-1]))
    array = np.moveaxis(volume.array, axis, 2)
    chosen = np.unique(np.linspace(0, array.shape[2] - 1, NOISE_SLICES).round().astype(int))
    units = intensity_map(volume.array, volume.modality).forward(array[..., chosen])
    noise = estimate_noise(torch.from_numpy(np.ascontiguousarray(units, dtype=np.float32))[None, None])
    return float(noise) * (CT_RANGE if volume.modality == "ct" else 1.0)
