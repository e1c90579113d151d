"""Fine scans: small made-up heads, as arrays, volumes and files, to simulate thick slices of."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

from medld.geometry import Grid
from medld.volume import Modality, Volume

SPACING = (0.9, 0.9, 1.0)


def make_head(seed: int = 0, shape: tuple[int, int, int] = (24, 26, 32)) -> np.ndarray:
    """A textured ellipsoid in empty air, 0 to about 1500."""
    rng = np.random.default_rng(seed)
    i, j, k = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    texture = gaussian_filter(rng.standard_normal(shape), 1.2)
    return np.where(i**2 + j**2 + k**2 < 1, 600 + 900 * texture, 0).clip(0)


def make_volume(array: np.ndarray, modality: Modality = "mr") -> Volume:
    """An array as a T1w volume."""
    return Volume(array.astype(np.float32), Grid(array.shape, np.diag([*SPACING, 1.0])), modality, "T1w")


def save_scan(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """An array as a NIfTI file; `affine` in mm."""
    image = nibabel.Nifti1Image(array, np.diag([*SPACING, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def save_cohort(folder: Path, subjects: int, contrast: str = "T1w") -> Path:
    """One head a subject, sub-01 and on."""
    for number in range(1, subjects + 1):
        save_scan(folder / f"sub-{number:02}_{contrast}.nii.gz", make_head(number).astype(np.int16))
    return folder
