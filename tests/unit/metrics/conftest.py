"""A head to measure on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter


@pytest.fixture(scope="session")
def head() -> np.ndarray:
    """A textured ellipsoid in empty air, 48 x 46 x 44 voxels, 0 to about 1500, float32. Not to be written to."""
    shape = (48, 46, 44)
    i, j, k = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij", sparse=True)
    texture = gaussian_filter(np.random.default_rng(7).standard_normal(shape), 1.0)
    array = np.where(i**2 + j**2 + k**2 < 1, 600 + 800 * texture, 0).clip(0).astype(np.float32)
    array.setflags(write=False)
    return array
