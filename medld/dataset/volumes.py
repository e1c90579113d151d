"""Fine volumes as 8-bit arrays, and how a scan becomes one.

MR: 255 is the 99.9th percentile of the non-zero voxels; rounding leaves 59 dB, far below the noise of any scan.
CT: 0 is -1024 HU and 255 is 1024 HU, as networks see it (`medld.intensity`); steps of 8 HU.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medld.dataset.scanfile import ScanFile, told_contrast
from medld.dataset.studies import hash_study, read_study
from medld.errors import CardError, GridError, InputError
from medld.io import file_sha256, read_volume
from medld.volume import Modality, Volume

PERCENTILE = 99.9


@dataclass(frozen=True, eq=False)
class Fine:
    """A fine volume: 8-bit array (I, J, K), `spacing` in mm per axis, and how it may be used.

    `weight` is its share among all volumes, `axes` the array axes along which it may be degraded.
    """

    name: str
    array: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    contrast: str = "unknown"
    weight: float = 1.0
    axes: tuple[int, ...] = (0, 1, 2)
    modality: str = "mr"


def to_bytes(array: NDArray[Any], modality: str = "mr") -> NDArray[np.uint8]:
    """Scanner units to 8 bits.

    MR: 255 at the 99.9th percentile of the non-zero voxels; negative values become 0. CT ("ct"): the networks' range,
    -1024 to 1024 HU.
    """
    if modality == "ct":
        from medld.intensity import CT_AIR, CT_RANGE  # loads torch, which packs of MR do without

        return np.clip(np.round((array - CT_AIR) / CT_RANGE * 255), 0, 255).astype(np.uint8)
    tissue = array[array > 0]
    top = float(np.percentile(tissue, PERCENTILE)) if tissue.size else 1.0
    return np.clip(np.round(array / top * 255), 0, 255).astype(np.uint8)


def read_scan(scan: ScanFile) -> Volume:
    """Read a scan, a file or a DICOM series, its hash checked first where one is known.

    Its modality and contrast are those that the card or the names tell, else those of the reader.

    Raises:
        CardError: The file is not the one that its card means.
        InputError, GridError: It cannot be read, with the code of the reason; the message names it.
    """
    if scan.sha256 is not None and file_sha256(scan.path) != scan.sha256:
        raise CardError(f"{scan.label} is damaged or another file: its hash differs from the card's. Get it again.")
    try:
        volume = read_study(scan) if scan.series is not None else read_volume(scan.path)[0]
    except (InputError, GridError) as error:
        raise type(error)(f"{scan.label}: {error}", error.code) from error
    modalities: dict[str | None, Modality] = {"mr": "mr", "ct": "ct"}
    contrast = told_contrast(scan.contrast)
    return Volume(
        volume.array,
        volume.grid,
        modalities.get(scan.modality, volume.modality),
        volume.contrast if contrast == "unknown" else contrast,
        volume.provenance,
    )


def hash_scan(scan: ScanFile) -> str:
    """SHA-256 of a scan's file; of a DICOM series that of the hashes of its files, wherever they lie."""
    return file_sha256(scan.path) if scan.series is None else hash_study(scan)


def read_fine(scan: ScanFile) -> Fine:
    """Read a scan as a fine volume.

    Raises: as `read_scan`.
    """
    volume = read_scan(scan)
    modality = "ct" if volume.modality == "ct" else "mr"
    array = to_bytes(volume.array, modality)
    return Fine(scan.name, array, volume.grid.spacing, volume.contrast, scan.weight, scan.axes, modality)


def content_of(fine: Fine) -> str:
    """A hash of what a volume holds, the same however its axes are turned or its values are scaled.

    It is that of the sizes and of how often each of the 256 values occurs: a DICOM series and the NIfTI file
    converted from it have the same, two scans practically never.
    """
    counts = np.bincount(fine.array.ravel(order="K"), minlength=256)
    return hashlib.sha256(f"{sorted(fine.array.shape)} {counts.tolist()}".encode()).hexdigest()
