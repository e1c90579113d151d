"""UIDs of what we write: made from what went in, so that a retry writes the same objects again.

2.25.N    N is the whole number that the first 128 bits of a SHA-256 are, PS3.5 B.2
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import medld
from medld.geometry import Grid
from medld.io.dicom.series import Series

__all__ = ["derive_instance_uid", "derive_series_uid", "hash_to_uid"]

MAX_UID = 64  # characters, PS3.5 9.1


def hash_to_uid(*parts: Any) -> str:
    """A UID that only these parts have: plain values, lists and mappings of them; at most 44 characters.

    >>> hash_to_uid("a", 1) == hash_to_uid("a", 1) != hash_to_uid("a1")
    True
    """
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=True)
    uid = f"2.25.{int.from_bytes(hashlib.sha256(text.encode('ascii')).digest()[:16], 'big')}"
    assert len(uid) <= MAX_UID, uid
    return uid


def derive_series_uid(
    series: Series, grid: Grid, model_sha256: Mapping[str, str], settings: Mapping[str, Any], *, kind: str
) -> str:
    """Series Instance UID of what a model makes of a series.

    Args:
        series: The source; its frames count, since one DICOM series may hold several volumes.
        grid: Where the result's voxels lie.
        model_sha256: File of the model -> SHA-256.
        settings: How the model was used.
        kind: What the result is, "image" or a kind of map.
    """
    frames = sorted((str(frame.head.get("SOPInstanceUID", "")), frame.index) for frame in series.frames)
    # Another version may make other voxels of the same job, which must not pass for these.
    return hash_to_uid(
        medld.__version__,
        kind,
        series.uid,
        frames,
        list(grid.shape),
        _numbers(grid.affine),
        dict(model_sha256),
        dict(settings),
    )


def derive_instance_uid(series_uid: str, number: int) -> str:
    """SOP Instance UID of the instance with this Instance Number in a series that we write."""
    return hash_to_uid("instance", series_uid, number)


def _numbers(array: np.ndarray) -> Sequence[str]:
    """Numbers as text without loss; -0 is 0."""
    return [repr(float(value) + 0.0) for value in array.ravel()]
