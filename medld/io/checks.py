"""Checks: is this a scan that can be processed, and of which modality?

Each refusal has its code, and what can be known from the header alone is refused before
anything is allocated. Checks of values make no copy of the volume.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from medld.errors import InputError
from medld.io.formats import read_sidecar, split_suffix
from medld.volume import Contrast, Modality

MIN_SLICES = 3  # along every axis; a restoration needs neighbours on both sides
MIN_PIXELS = 5  # along the two longer axes; less is no slice
MAX_DEFLATE = 1040  # bytes that one compressed byte can become: deflate's limit is 1032
MAX_LABELS = 64  # distinct whole numbers of a label map
TABLE_RANGE = 1 << 16  # whole numbers in a range up to this are counted in a table
CHUNK_VOXELS = 1 << 20  # voxels looked at together: 8 MB in float64
CT_MINIMUM = -200.0  # HU; MR magnitudes are not negative, CT has air at -1000

_LABEL_WORD = re.compile(
    r"(?<![a-z0-9])(d?seg|segmentation|(brain)?mask|label(s|maps?)?|rois?|aseg|aparc|wmparc|parc|parcellation|atlas)"
    r"(?![a-z0-9])"
)
_MR_SUFFIX = re.compile(
    r"T[12]w|FLAIR|PDw|PDT2|T2starw|inplaneT[12]|angio|MTw|SWI|swi|UNIT1|MP2RAGE|MEGRE|MESE|MTR?map|M0map"
    r"|(T1|T2|T2star|R1|R2|R2star|PD)map|bold|sbref|dwi|epi|(magnitude|phase)[12]?"
)
_CONTRASTS: dict[str, Contrast] = {"T1w": "T1w", "T2w": "T2w", "FLAIR": "FLAIR"}


@dataclass(frozen=True)
class Guess:
    """A modality and contrast, and the sentence that says where they come from."""

    modality: Modality
    contrast: Contrast
    reason: str


def check_counts(shape: Sequence[int], max_voxels: int) -> tuple[int, int, int]:
    """The three counts of the one volume that a file holds.

    Raises:
        InputError: E_NOT_IMAGE for counts below one, E_TOO_BIG, E_4D or E_TOO_FEW.
    """
    if not shape or min(shape) < 1:
        raise InputError(f"expected positive voxel counts, got {tuple(shape)}; the header is damaged", "E_NOT_IMAGE")
    i, j, k = (*shape, 1, 1)[:3]
    if i * j * k > max_voxels:
        raise InputError(
            f"expected at most {max_voxels:.3g} voxels, got {i} x {j} x {k}; crop or split the volume",
            "E_TOO_BIG",
        )
    if prod(shape[3:]) > 1:
        raise InputError(
            f"expected one volume, got {prod(shape[3:])} ({' x '.join(map(str, shape))}); "
            "split the series first, for example with fslsplit",
            "E_4D",
        )
    short, middle, _ = sorted((i, j, k))
    if short < MIN_SLICES or middle < MIN_PIXELS:
        raise InputError(
            f"expected at least {MIN_SLICES} slices of {MIN_PIXELS} pixels a side, got {i} x {j} x {k}",
            "E_TOO_FEW",
        )
    return i, j, k


def check_room(needed: int, available: int, compressed: bool) -> None:
    """Refuse a file that cannot hold the bytes which its header claims.

    Raises:
        InputError: E_TRUNC, before anything of the claimed size is allocated.
    """
    if needed > available * (MAX_DEFLATE if compressed else 1):
        raise InputError(
            f"expected {needed} bytes of image data, the file has room for fewer; "
            "it was cut or its header is damaged, copy it again",
            "E_TRUNC",
        )


def check_values(array: np.ndarray) -> float:
    """The smallest value of a usable scan.

    Raises:
        InputError: E_PIXELS, if a value is NaN or infinite, or all are the same.
    """
    # Minimum and maximum pass NaN and infinity on, so no mask of the volume's size is needed.
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("expected finite values, got NaN or infinity; set those voxels to a number", "E_PIXELS")
    if low == high:
        raise InputError(f"expected a scan, got the same value {low:g} in every voxel", "E_PIXELS")
    return low


def is_label_name(path: Path | str) -> bool:
    """Whether a file's name says label map: a word such as dseg, mask or aseg in it.

    A BIDS name is judged by its suffix alone: sub-01_desc-mask_T1w is a scan.
    """
    stem = split_suffix(path)[0]
    suffix = stem.rsplit("_", 1)[-1]
    if stem.startswith("sub-") and (_MR_SUFFIX.fullmatch(suffix) or suffix.lower() == "ct"):
        return False
    return _LABEL_WORD.search(stem.lower()) is not None


def is_label_map(array: np.ndarray) -> bool:
    """Whether an array holds whole numbers with at most `MAX_LABELS` distinct values.

    A sparse look settles nearly every scan at once; only what might be a label map is read in full.
    """
    step = max(1, array.size // (4 * TABLE_RANGE))
    sample = array.ravel(order="K")[::step]
    if not _is_whole(sample) or len(np.unique(sample)) > MAX_LABELS:
        return False
    low, high = array.min(), array.max()
    if float(high) - float(low) < TABLE_RANGE:
        return _count_in_table(array, low) <= MAX_LABELS
    seen = np.empty(0, array.dtype)
    for chunk in iterate_chunks(array):
        seen = np.union1d(seen, chunk)
        if len(seen) > MAX_LABELS or not _is_whole(chunk):
            return False
    return True


def iterate_chunks(array: np.ndarray, times: int = 1) -> Iterator[np.ndarray]:
    """Slabs of (I, J, K) along the last axis, about `times` times `CHUNK_VOXELS` each, in order; views."""
    step = times * max(1, CHUNK_VOXELS // max(1, array.shape[0] * array.shape[1]))
    for start in range(0, array.shape[2], step):
        yield array[:, :, start : start + step]


def guess_modality(path: Path | str, minimum: float) -> Guess:
    """Guess a scan's modality and contrast from its name, its sidecar or its values, in this order.

    Args:
        path: The file; only its name and the sidecar beside it are looked at.
        minimum: The smallest value, scanner units.
    """
    stem = split_suffix(path)[0]
    suffix = stem.rsplit("_", 1)[-1]
    contrast = _CONTRASTS.get(suffix, "unknown")
    if contrast == "T1w" and re.search(r"(^|_)ce-", stem):
        contrast = "ce-T1w"
    if _MR_SUFFIX.fullmatch(suffix):
        return Guess("mr", contrast, f"MR by the name's suffix {suffix}")
    if suffix.lower() == "ct":
        return Guess("ct", contrast, "CT by the name's suffix")
    if suffix.lower() == "pet":
        return Guess("unknown", contrast, "PET by the name's suffix")
    stated = read_sidecar(path).get("Modality")
    if isinstance(stated, str) and stated.upper() in ("MR", "CT", "PT"):
        known: dict[str, Modality] = {"MR": "mr", "CT": "ct"}
        return Guess(known.get(stated.upper(), "unknown"), contrast, f"{stated.upper()} by the sidecar")
    if minimum < CT_MINIMUM:
        return Guess("ct", contrast, f"CT because the smallest value {minimum:g} lies below {CT_MINIMUM:g}")
    return Guess("mr", contrast, f"MR because no value lies below {CT_MINIMUM:g}")


def _is_whole(array: np.ndarray) -> bool:
    """Whether all values are whole numbers."""
    return array.dtype.kind in "iub" or bool((array == np.rint(array)).all())


def _count_in_table(array: np.ndarray, low: np.generic) -> int:
    """How many distinct whole numbers; more than `MAX_LABELS` once that is certain or a fraction is met."""
    counts = np.zeros(TABLE_RANGE, dtype=bool)
    for chunk in iterate_chunks(array):
        if not _is_whole(chunk):
            return MAX_LABELS + 1
        index = (chunk.astype(np.int64) - int(low)).ravel(order="K")
        counts[index] = True
        if np.count_nonzero(counts) > MAX_LABELS:
            break
    return int(np.count_nonzero(counts))
