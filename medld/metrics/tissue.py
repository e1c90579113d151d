"""Tissue: whether an output keeps the brightness of dark, middling and bright tissue.

The truth's foreground falls into three classes at the two thresholds t1 < t2 that leave the least variance
inside the classes (Otsu's method; the optimum of 3-means on a line), found on a histogram of 256 bins between
the foreground's least value and its 99.5th percentile. No random start: the same truth has the same classes.

    shift(class) = (mean of the output - mean of the truth, over the class) / range of the truth

0: none. A scale or offset moves all classes, a lost contrast moves them towards each other, and so does a blur,
by as much as the classes' borders are smeared.

Source: Otsu, IEEE SMC 9 (1979) 62; Liao, Chen & Chung, JISE 17 (2001) 713 (several thresholds).
"""

from __future__ import annotations

import numpy as np

from medld.errors import InputError
from medld.metrics.checks import Array

CLASSES = ("dark", "middle", "bright")
BINS = 256
TOP_PERCENTILE = 99.5


def class_thresholds(values: Array) -> tuple[float, float]:
    """t1 and t2 of some values.

    Args:
        values: The truth's foreground, any shape.

    Raises:
        InputError: If there are fewer than three levels among them (E_PIXELS).
    """
    from skimage.filters import threshold_multiotsu  # the one use of a package that training does without

    low, high = float(values.min()), float(np.percentile(values, TOP_PERCENTILE))
    if high > low:
        counts, edges = np.histogram(np.minimum(values, high), BINS, (low, high))
        if np.count_nonzero(counts) >= len(CLASSES):
            # Each bin under the name of its upper edge: the thresholds then part the bins that Otsu's method parts.
            first, second = threshold_multiotsu(classes=len(CLASSES), hist=(counts, edges[1:]))
            return float(first), float(second)
    raise InputError(
        "Expected a truth with at least three levels of brightness in its foreground, got fewer. "
        "It looks like a mask or a label map; choose a scan.",
        "E_PIXELS",
    )


def class_shifts(truth: Array, output: Array, thresholds: tuple[float, float]) -> dict[str, float]:
    """Mean shift of each class, in the units of the values.

    Args:
        truth: Values that make up the classes, shape (N,).
        output: Values at the same voxels, shape (N,).
        thresholds: t1 and t2; a value equal to one belongs to the class above.
    """
    classes = np.digitize(truth, thresholds)
    count = np.maximum(np.bincount(classes, minlength=len(CLASSES)), 1)
    error = output.astype(np.float64) - truth
    shifts = np.bincount(classes, error, minlength=len(CLASSES)) / count
    return dict(zip(CLASSES, shifts.tolist(), strict=True))
