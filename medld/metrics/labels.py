"""Labels: whether a segmentation of the output finds what one of the truth finds.

    Dice(label) = 2 |T and O| / (|T| + |O|),   T and O the voxels that carry the label in truth and output

1: the same voxels; 0: none in common, also where one of the two lacks the label. 0 is background and not counted.

Source: Dice, Ecology 26 (1945) 297.
"""

from __future__ import annotations

import numpy as np

from medld.errors import InputError
from medld.metrics.checks import Array


def dice(truth: Array, output: Array) -> dict[int, float]:
    """Dice of every label that either map holds, in rising order.

    Args:
        truth: Label map; whole numbers, also stored as floats.
        output: Label map of the same shape.

    Raises:
        InputError: If shapes differ, a value is not a whole number or no label is there (E_PIXELS).
    """
    if truth.shape != output.shape:
        raise InputError(
            f"Expected label maps of one shape, got {truth.shape} and {output.shape}. "
            "Bring them to one grid, nearest neighbour.",
            "E_PIXELS",
        )
    of_truth, of_output = _whole(truth), _whole(output)
    volumes = [
        dict(zip(*(part.tolist() for part in np.unique(m, return_counts=True)), strict=True))
        for m in (of_truth, of_output, of_truth[of_truth == of_output])
    ]
    in_truth, in_output, in_both = volumes
    labels = sorted((in_truth.keys() | in_output.keys()) - {0})
    if not labels:
        raise InputError("Expected label maps with a label above 0, got background alone. Check them.", "E_PIXELS")
    return {k: 2 * in_both.get(k, 0) / (in_truth.get(k, 0) + in_output.get(k, 0)) for k in labels}


def _whole(labels: Array) -> Array:
    """The labels as whole numbers."""
    if labels.dtype.kind in "iub":
        return labels
    whole = np.rint(labels)
    # NaN is unequal to itself, Inf is caught by its bounds: both are no label.
    if not (np.equal(whole, labels).all() and (np.abs(whole) < 2**31).all()):
        raise InputError("Expected labels that are whole numbers, got others. Give the label maps.", "E_PIXELS")
    return whole.astype(np.int32)
