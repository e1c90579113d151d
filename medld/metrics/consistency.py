"""Consistency: whether an output says what the scan says.

A images a fine volume as the scan y was taken. It comes as arrays that it was applied to already.

    residual      RMS of A x - y, also over the scan's noise and over its range (max - min)
                  0: the output imaged again is the scan; with noise about 1 over the noise is right, for an
                  output that is free of it
    disagreement  RMS over samples of A (x_i - mean) / RMS over samples of (x_i - mean)
                  0: samples differ only where the scan says nothing (in A's null space). Differences that are
                  white noise give sqrt(sum of squared weights of a slice), .41 for a Gaussian profile at 4x
                  its numerator is told over the scan's noise and range too
    spread        RMS over samples of N (x_i - mean) / range of x,   N = 1 - A^+ A, what A does not see
                  how much the samples leave open where nothing was measured

A is linear, so A (x_i - mean) = A x_i - mean of A x_j.

Source: reference design, sections 2 and 6; null-space test: Schwab, Antholzer & Haltmeier, Inverse Problems 35
(2019) 025008.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medld.errors import InputError
from medld.metrics.checks import Array, check_finite


def consistency_residual(reimaged: Array, scan: Array, noise: float | None = None) -> dict[str, float]:
    """RMS of `reimaged` - `scan`: "rms", "relative_to_range" and, if `noise` is above 0, "relative_to_noise".

    Args:
        reimaged: The output imaged again, shape of `scan`, its units.
        scan: What the output was made from, any real dtype.
        noise: Standard deviation of its noise in the same units.

    Raises:
        InputError: If shapes differ, a value is not finite or the scan is constant (E_PIXELS).
    """
    if reimaged.shape != scan.shape:
        raise InputError(
            f"Expected the output imaged again on the scan's {scan.shape} voxels, got {reimaged.shape}.", "E_PIXELS"
        )
    check_finite(reimaged, "image of the output")
    data_range = float(np.max(scan)) - float(np.min(scan))
    if not (np.isfinite(data_range) and data_range > 0):
        raise InputError(f"Expected a scan with finite values that differ, got a range of {data_range:g}.", "E_PIXELS")
    rms = float(np.sqrt(np.mean(np.square(np.subtract(reimaged, scan, dtype=np.float64)))))
    relative = {"rms": rms, "relative_to_range": rms / data_range}
    return relative | ({"relative_to_noise": rms / noise} if noise else {})


def disagreement(samples: Sequence[Array], reimaged: Sequence[Array]) -> float:
    """How much of the samples' difference the scan could have settled; 0: none of it.

    Args:
        samples: At least two outputs for one scan, of one shape.
        reimaged: Each of them imaged again, of one shape.

    Raises:
        InputError: If there are fewer than two, numbers or shapes differ, a value is not finite or the samples
            are all the same (E_PIXELS).
    """
    if len(samples) < 2 or len(samples) != len(reimaged):
        raise InputError(
            f"Expected at least two samples, each with its image, got {len(samples)} and {len(reimaged)}. "
            "Ask for more samples.",
            "E_PIXELS",
        )
    spread = samples_spread(samples)
    if not spread > 0:
        raise InputError("Expected samples that differ, got the same one each time. Draw other seeds.", "E_PIXELS")
    return samples_spread(reimaged) / spread


def samples_spread(arrays: Sequence[Array]) -> float:
    """RMS over all arrays and voxels of what they differ from their mean by.

    Raises:
        InputError: If shapes differ or a value is not finite (E_PIXELS).
    """
    mean = np.zeros(arrays[0].shape)
    for array in arrays:
        if array.shape != mean.shape:
            raise InputError(f"Expected samples of one shape, got {mean.shape} and {array.shape}.", "E_PIXELS")
        check_finite(array, "sample")
        mean += array
    mean /= len(arrays)
    return float(np.sqrt(np.mean([np.mean(np.square(array - mean)) for array in arrays])))
