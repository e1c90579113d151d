"""Stored numbers of a result: the source's pixel format, one slope, padding where the source has it.

stored = round((value - inter) / slope), clipped to what Bits Stored and Pixel Representation hold
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage

from medld.geometry import Grid
from medld.io.dicom.copying import format_ds, put
from medld.io.dicom.headers import value_of
from medld.io.dicom.pixels import layout_of, read_frames
from medld.io.dicom.series import Frame, Series
from medld.io.formats import Storage

__all__ = ["Padding", "PixelFormat", "nearest_index"]

CHUNK = 32  # slices
TIE = 1e-6  # voxels; half way between two slices the lower one is the nearest, on every machine
SAME_SCALING = 1e-9  # relative


@dataclass(frozen=True)
class PixelFormat:
    """How numbers are stored, and what they mean.

    Args:
        allocated: Bits Allocated.
        stored: Bits Stored.
        signed: Whether Pixel Representation is 1.
        slope: Scanner units = slope * stored + inter; exactly what a Decimal String of 16 characters says.
        inter: See `slope`.
    """

    allocated: int
    stored: int
    signed: bool
    slope: float
    inter: float

    @classmethod
    def of(cls, storage: Storage) -> PixelFormat:
        """How `read_series` says that a result is stored."""
        assert storage.dtype.kind in "iu", storage.dtype
        allocated = storage.dtype.itemsize * 8
        slope, inter = float(format_ds(storage.slope)), float(format_ds(storage.inter))
        return cls(allocated, storage.bits_stored or allocated, storage.dtype.kind == "i", slope, inter)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Little-endian type of the stored numbers."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.allocated // 8}")

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest number that can be stored."""
        if self.signed:
            return -(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1
        return 0, 2**self.stored - 1

    def quantise(self, values: np.ndarray) -> np.ndarray:
        """Scanner units -> the numbers to store."""
        result = (values.astype(np.float64) - self.inter) / self.slope
        np.rint(result, out=result)
        np.clip(result, *self.limits, out=result)
        return result.astype(self.dtype)

    def scale(self, stored: np.ndarray) -> np.ndarray:
        """Stored numbers -> scanner units, float32, as a reader computes them."""
        return (stored.astype(np.float64) * self.slope + self.inter).astype(np.float32)

    def tag(self, header: Dataset, padding: int | None) -> None:
        """Set the elements that say how the pixels are stored, PS3.3 C.7.6.3; the padding value with them."""
        put(header, "SamplesPerPixel", 1)
        if header.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
            put(header, "PhotometricInterpretation", "MONOCHROME2")
        put(header, "BitsAllocated", self.allocated)
        put(header, "BitsStored", self.stored)
        put(header, "HighBit", self.stored - 1)
        put(header, "PixelRepresentation", int(self.signed))
        if padding is not None:
            header.add_new(Tag("PixelPaddingValue"), "SS" if self.signed else "US", padding)
        # The classic MR module knows no scaling; some vendors have it there all the same.
        is_ct = header["SOPClassUID"].value == CTImageStorage
        if is_ct or "RescaleSlope" in header or (self.slope, self.inter) != (1.0, 0.0):
            put(header, "RescaleSlope", format_ds(self.slope))
            put(header, "RescaleIntercept", format_ds(self.inter))
            if not header.get("RescaleType") and not is_ct:
                put(header, "RescaleType", "US")


class Padding:
    """Where the source's pixels are no measurements but padding, which a result must repeat.

    Args:
        series: The source.
        pixels: The result's format. Padding is looked for only in slices whose scaling is the
            result's, since elsewhere the number would mean another value.
    """

    def __init__(self, series: Series, pixels: PixelFormat) -> None:
        self._ranges = [_padding_range(frame, pixels) for frame in series.frames]
        self._frames = series.frames
        self._pixels = pixels
        self._masks: dict[int, np.ndarray | None] = {}

    def value(self, index: int) -> int | None:
        """Pixel Padding Value of a source slice, as a stored number; None if it has none."""
        found = self._ranges[index]
        return None if found is None else found[0]

    def mask(self, index: int) -> np.ndarray | None:
        """(I, J): where source slice `index` is padding; None if nowhere."""
        if self._ranges[index] is None:
            return None
        if index not in self._masks:
            self._masks = self._read(range(index, min(index + CHUNK, len(self._frames))))
        return self._masks[index]

    def _read(self, places: range) -> dict[int, np.ndarray | None]:
        """Masks of a run of source slices; they are read together, since compressed ones need a process."""
        layout = layout_of(self._frames[places.start].head)
        frames = self._frames[places.start : places.stop]
        shape = (layout.columns, layout.rows, len(frames))
        stored = read_frames(frames, shape=shape, dtype=self._pixels.dtype)
        masks: dict[int, np.ndarray | None] = {}
        for place, numbers in zip(places, np.moveaxis(stored, 2, 0), strict=True):
            limits = self._ranges[place]
            inside = None if limits is None else (numbers >= min(limits)) & (numbers <= max(limits))
            masks[place] = inside if inside is not None and inside.any() else None
        return masks


def nearest_index(result: Grid, source: Grid, axis: int) -> np.ndarray:
    """Nearest source index of each result index along an axis that both share, within the source."""
    count = result.shape[axis]
    index = np.zeros((4, count))
    index[axis], index[3] = np.arange(count), 1.0
    place = (np.linalg.inv(source.affine) @ result.affine @ index)[axis]
    return np.asarray(np.clip(np.floor(place + 0.5 - TIE), 0, source.shape[axis] - 1).astype(int))


def _padding_range(frame: Frame, pixels: PixelFormat) -> tuple[int, int] | None:
    """Pixel Padding Value and Range Limit (0028,0120 and 0121) as numbers that `pixels` can store."""
    scaling = (pixels.slope, pixels.inter)
    first = _stored_number(value_of(frame.head, "PixelPaddingValue"), pixels)
    if first is None or not np.allclose((frame.slope, frame.inter), scaling, rtol=SAME_SCALING, atol=0):
        return None
    last = _stored_number(value_of(frame.head, "PixelPaddingRangeLimit"), pixels)
    return first, first if last is None else last


def _stored_number(value: Any, pixels: PixelFormat) -> int | None:
    """A number of ambiguous sign as the pixels have it, None if they cannot hold it."""
    if not isinstance(value, int):
        return None
    number = int(value)
    half = 2 ** (pixels.allocated - 1)
    if pixels.signed and number >= half:
        number -= 2 * half
    if not pixels.signed and number < 0:
        number += 2 * half
    low, high = pixels.limits
    return number if low <= number <= high else None
