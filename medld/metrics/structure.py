"""Structure: SSIM over a mask and over the whole volume, and MS-SSIM, in one pass.

    l  = (2 m_x m_y + C1) / (m_x^2 + m_y^2 + C1)          c = (2 s_xy + C2) / (s_xx + s_yy + C2)
    C1 = (.01 range)^2,  C2 = (.03 range)^2               SSIM map = l c

m and s are local means and population (co)variances under a 3D Gaussian window of sigma 1.5 voxels, cut at
5 voxels (11 taps) and mirrored at the borders. From the map:

    over a mask   its mean over the mask's voxels
    whole         its mean over the voxels at least 5 from every border, where no window leaves the volume
    MS-SSIM       (prod over scales j < M of max(0, mean c_j)^w_j) max(0, mean (l c)_M)^w_M

The means of MS-SSIM are over the same inner voxels. A scale is made from the one before by averaging blocks
of 2 x 2 x 2 voxels, an odd last voxel dropped; w = .0448, .2856, .3001, .2363, .1333. Five scales need 176
voxels along every axis. A smaller volume gets as many scales as leave it 11 voxels, the weights of those
divided by their sum: compare MS-SSIM between volumes of unlike size with care.

The map and the whole are scikit-image's structural_similarity (gaussian_weights=True, sigma=1.5,
use_sample_covariance=False), the whole is MONAI's SSIMMetric too, and MS-SSIM is MONAI's
MultiScaleSSIMMetric with those weights. MONAI refuses a volume for which five scales are too many.

Source: Wang et al., IEEE TIP 13 (2004) 600, equation 13; Wang, Simoncelli & Bovik, Asilomar (2003) 1398,
equation 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import correlate1d

from medld.errors import InputError
from medld.metrics.checks import Array, slabs

SIGMA = 1.5
RADIUS = 5
"""int(3.5 * SIGMA + .5): where scikit-image cuts its Gaussian window."""
K1, K2 = 0.01, 0.03
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


@dataclass(frozen=True)
class Likeness:
    """Means of one scale's maps: SSIM over the mask, SSIM and contrast c over the inner voxels.

    Without a mask, or where every voxel is near a border, the number is None.
    """

    masked: float | None
    inner: float | None
    contrast: float | None


def likeness(truth: Array, output: Array, data_range: float, mask: Array | None = None) -> Likeness:
    """The maps' means, a slab at a time: nothing of the volume's size is kept.

    Args:
        truth: Any shape and real dtype.
        output: Shape of `truth`.
        data_range: Largest minus smallest value of the truth.
        mask: Where `masked` is taken, shape of `truth`.
    """
    sums = np.zeros(3)
    for rows, window, inner in slabs(truth.shape, RADIUS):
        # float64: the variance is a difference of squares, which float32 loses at CT's offset of -1024.
        contrast, luminance = _maps(truth[window].astype(np.float64), output[window].astype(np.float64), data_range)
        contrast, luminance = contrast[inner], luminance[inner]
        luminance *= contrast
        if mask is not None:
            sums[0] += luminance[mask[rows]].sum()
        inside = (_inside(rows, len(truth)), *(slice(RADIUS, n - RADIUS) for n in truth.shape[1:]))
        sums[1] += luminance[inside].sum()
        sums[2] += contrast[inside].sum()
    count = int(np.prod([max(n - 2 * RADIUS, 0) for n in truth.shape]))
    return Likeness(
        float(sums[0] / np.count_nonzero(mask)) if mask is not None else None,
        float(sums[1] / count) if count else None,
        float(sums[2] / count) if count else None,
    )


def scales_that_fit(shape: tuple[int, ...]) -> int:
    """How many of MS-SSIM's five scales leave 11 voxels along every axis; 0 if not even the first."""
    return sum(min(shape) >> scale > 2 * RADIUS for scale in range(len(WEIGHTS)))


def multiscale(truth: Array, output: Array, data_range: float, first: Likeness | None = None) -> float:
    """MS-SSIM, at most 1.

    Args:
        truth: Any shape and real dtype.
        output: Shape of `truth`.
        data_range: Largest minus smallest value of the truth.
        first: The finest scale's means, if they are known already.

    Raises:
        InputError: If a side is shorter than 11 voxels (E_TOO_FEW).
    """
    scales = scales_that_fit(truth.shape)
    if scales == 0:
        raise InputError(
            f"Expected at least {2 * RADIUS + 1} voxels along every axis for MS-SSIM, got {truth.shape}. "
            "Choose a larger volume.",
            "E_TOO_FEW",
        )
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    factors = []
    for scale in range(scales):
        means = first if scale == 0 and first is not None else likeness(truth, output, data_range)
        factors.append(means.inner if scale == scales - 1 else means.contrast)
        if scale < scales - 1:
            truth, output = _halved(truth), _halved(output)
    return float(np.prod(np.maximum(np.array(factors, dtype=np.float64), 0.0) ** weights))


def _maps(x: Array, y: Array, data_range: float) -> tuple[Array, Array]:
    """c and l of one slab."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    covariance = _local_mean(x * y)
    # Both variances are only needed as their sum, which saves a pass.
    squares = _local_mean(x * x + y * y)
    product = mean_x * mean_y
    mean_squares = mean_x**2 + mean_y**2
    contrast = (2 * (covariance - product) + c2) / (squares - mean_squares + c2)
    return contrast, (2 * product + c1) / (mean_squares + c1)


def _local_mean(array: Array) -> Array:
    """Gaussian-weighted local mean, mirrored at the borders."""
    offsets = np.arange(-RADIUS, RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights /= weights.sum()
    for axis in range(array.ndim):
        array = correlate1d(array, weights, axis=axis, mode="reflect")
    return array


def _inside(rows: slice, length: int) -> slice:
    """Of these rows those at least RADIUS from both ends, counted within the slab."""
    first, last = max(rows.start, RADIUS), min(rows.stop, length - RADIUS)
    return slice(first - rows.start, max(last, first) - rows.start)


def _halved(array: Array) -> Array:
    """Means over blocks of two voxels along every axis, an odd last voxel dropped."""
    array = array[tuple(slice(0, n // 2 * 2) for n in array.shape)].astype(np.float64)
    for axis in range(array.ndim):
        even = array[(slice(None),) * axis + (slice(0, None, 2),)]
        array = (even + array[(slice(None),) * axis + (slice(1, None, 2),)]) / 2
    return array
