"""Reading: a `Series` that makes a volume -> `Volume` in scanner units, and how a result is stored.

values      slope * stored + intercept of each slice (PS3.3 C.11.1), float32; nothing is clipped,
            inverted or replaced, padding stays
storage     the stored numbers' type, bits and scaling, for a derived series
"""

from __future__ import annotations

import numpy as np

from medld.errors import InputError, LabelMapError
from medld.io.checks import MAX_LABELS, check_counts, check_values, is_label_map, iterate_chunks
from medld.io.dicom.codecs import Layout
from medld.io.dicom.pixels import Pixels, read_pixels
from medld.io.dicom.privacy import hash_uid, quiet
from medld.io.dicom.series import Series
from medld.io.files import MAX_VOXELS
from medld.io.formats import Storage
from medld.volume import Volume

__all__ = ["read_series"]

CT_MAXIMUM = 3071.0  # HU: 12 bits from -1024; above it is metal, or an extended scale
HEADROOM = 1 / 8  # of the range, left free on a side where a result may exceed its source
_UNSCALED = (np.int16, np.uint16)


def read_series(
    series: Series, *, max_voxels: int = MAX_VOXELS, force: bool = False, allow_output: bool = False
) -> tuple[Volume, Storage]:
    """Read a series.

    Args:
        series: One of `Catalogue.usable`.
        max_voxels: Most voxels that are accepted.
        force: Whether label maps are accepted.
        allow_output: Whether outputs of ours are accepted, to compare them; never to enhance them again.

    Returns:
        The volume, float32 in scanner units (HU for CT), first axis fastest in memory; and how a
        result is written back. Neither holds patient data.

    Raises:
        InputError: The series's own refusal; E_TOO_BIG, E_TOO_FEW, E_SECOND_PASS, E_TRUNC,
            E_CODEC, E_PIXELS, and E_NOT_IMAGE for colour and label maps.
    """
    if series.refusal is not None or series.grid is None:
        assert series.refusal is not None, "a series without a grid has a refusal"
        raise InputError(series.refusal.reason, series.refusal.code)
    if series.second_pass and not allow_output:
        raise InputError("expected an acquired scan, got an output of medld; enhance the original", "E_SECOND_PASS")
    check_counts(series.grid.shape, max_voxels)
    with quiet():
        pixels = read_pixels(series.frames, shape=series.grid.shape, dtype=np.float32, max_voxels=max_voxels)
        check_values(np.array([pixels.low, pixels.high]))
        if not force and is_label_map(pixels.array):
            raise LabelMapError(
                f"expected a scan, got a label map: whole numbers, at most {MAX_LABELS} distinct; "
                "if it is a scan, use --force"
            )
        storage = _storage(series, pixels)
    provenance = {
        "file": f"series-{hash_uid(series.uid)}",
        "format": "dicom",
        "modality_from": "Modality (0008,0060)",
        "slices": series.grid.shape[2],
    }
    return Volume(pixels.array, series.grid, series.modality, series.contrast, provenance), storage


def _storage(series: Series, pixels: Pixels) -> Storage:
    """How a result is stored in a derived series, and what the reader has to say."""
    layouts, low, high = pixels.layouts, pixels.low, pixels.high
    warnings = list(series.warnings)
    if series.modality == "ct" and high > CT_MAXIMUM:
        warnings.append(f"W_RANGE: values up to {high:g} HU, above {CT_MAXIMUM:g}: metal, or an extended scale")
    scalings = {(frame.slope, frame.inter) for frame in series.frames}
    if len(layouts) == len(scalings) == 1:
        (layout,), ((slope, inter),) = layouts, scalings
    else:
        layout, slope, inter = _one_scaling(layouts, low, high)
        warnings.append(f"the slices are scaled differently; a derived series gets one slope, {slope:.6g}, for all")
    return Storage(
        format="dicom",
        dtype=layout.dtype,
        slope=slope,
        inter=inter,
        warnings=tuple(warnings),
        bits_stored=layout.bits_stored,
        unscaled=_unscaled_dtype(pixels, scalings),
    )


def _one_scaling(layouts: set[Layout], low: float, high: float) -> tuple[Layout, float, float]:
    """All bits of a word, and the smallest slope with which they hold a range (scanner units) and its headroom."""
    first = next(iter(layouts))
    bits = max(layout.bits_allocated for layout in layouts)
    layout = Layout(first.rows, first.columns, bits, bits, any(layout.signed for layout in layouts))
    info = np.iinfo(layout.dtype)
    margin = HEADROOM * (high - low)
    # What is never negative, a magnitude, does not become so; and its zero stays exact.
    bottom = low - margin if low < 0 else max(low - margin, 0.0)
    slope = (high + margin - bottom) / (float(info.max) - float(info.min))
    return layout, slope, bottom - slope * float(info.min)


def _unscaled_dtype(pixels: Pixels, scalings: set[tuple[float, float]]) -> np.dtype[np.generic]:
    """The first of int16, uint16, float32 that holds every value exactly."""
    fitting = (dtype for dtype in _UNSCALED if np.iinfo(dtype).min <= pixels.low and pixels.high <= np.iinfo(dtype).max)
    dtype = next(fitting, None)
    if dtype is None:
        return np.dtype(np.float32)
    # Whole slopes need no look at the values; with others, a chunk nearly always settles it.
    whole = all(slope == round(slope) and inter == round(inter) for slope, inter in scalings)
    whole = whole or all(bool((chunk == np.rint(chunk)).all()) for chunk in iterate_chunks(pixels.array))
    return np.dtype(dtype if whole else np.float32)
