"""Pixels: the stored numbers of frames, read slice by slice into a volume.

    native        read straight from the file, here; as many bytes as the header says, no more
    compressed    fragments gathered here, decoded in a child process (`medld.io.dicom.worker`)

A large series is read by several threads, each with its own part of the slices: most of the time
goes into memory that is touched for the first time, and into decoding. An object of many frames is
read frame by frame. Values are what was stored: nothing is inverted (MONOCHROME1), clipped or
replaced (padding); bits above Bits Stored mean nothing and are dropped.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import inf, isfinite, prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from pydicom import Dataset

from medld.errors import InputError
from medld.io.dicom.codecs import Layout
from medld.io.dicom.codestream import check_syntax
from medld.io.dicom.element import BIG_ENDIAN, EXPLICIT, IMPLICIT, NATIVE, iterate_encapsulated, iterate_native
from medld.io.dicom.files import open_source
from medld.io.dicom.privacy import quiet
from medld.io.dicom.series import Frame, Source
from medld.io.dicom.worker import Decoder
from medld.io.files import MAX_VOXELS

__all__ = ["Pixels", "layout_of", "read_frames", "read_pixels"]

EXACT = 2**24  # float32 holds every whole number up to it
MAX_THREADS = 4  # more wait for the same memory
THREAD_VOXELS = 1 << 23  # a thread's part is at least as large, else it costs more than it saves


@dataclass(eq=False)
class Pixels:
    """A volume read from frames, and what became known on the way.

    Args:
        array: (I, J, K), first axis fastest in memory.
        low: The smallest value.
        high: The largest value.
        layouts: How the numbers were stored; several if the objects differ.
    """

    array: np.ndarray
    low: float = inf
    high: float = -inf
    layouts: set[Layout] = field(default_factory=set)


def read_frames(
    frames: Sequence[Frame], *, shape: tuple[int, int, int], dtype: DTypeLike, max_voxels: int = MAX_VOXELS
) -> np.ndarray:
    """Read frames as the slices of a volume.

    Args:
        frames: One for each slice, in the order of the last axis.
        shape: (I, J, K): columns, rows, slices.
        dtype: float32 for scanner units (each frame's slope and intercept applied in float64, then
            cast); an integer type, which must hold them, for the stored numbers.
        max_voxels: Most voxels that are accepted.

    Returns:
        (I, J, K), first axis fastest in memory.

    Raises:
        InputError: E_TOO_BIG, E_TRUNC; E_CODEC for pixels that cannot be decoded; E_NOT_IMAGE for
            colour; E_PIXELS for a bit layout or scaling without a meaning; E_MIXED for other sizes.
    """
    return read_pixels(frames, shape=shape, dtype=dtype, max_voxels=max_voxels).array


@quiet()
def read_pixels(
    frames: Sequence[Frame], *, shape: tuple[int, int, int], dtype: DTypeLike, max_voxels: int = MAX_VOXELS
) -> Pixels:
    """As `read_frames`, with the range of the values and the layouts, which cost nothing here."""
    assert len(frames) == shape[2], (len(frames), shape)
    if prod(shape) > max_voxels:
        size = " x ".join(map(str, shape))
        raise InputError(f"expected at most {max_voxels:.3g} voxels, got {size}; crop or split the series", "E_TOO_BIG")
    pixels = Pixels(np.empty(shape, dtype=dtype, order="F"))
    parts = _split(frames, min(MAX_THREADS, os.cpu_count() or 1, prod(shape) // THREAD_VOXELS))
    stop = threading.Event()

    def read(part: Sequence[int]) -> Pixels:
        own = Pixels(pixels.array)
        try:
            _read_part(frames, part, own, stop)
        except BaseException:
            stop.set()  # nobody will see what the others read
            raise
        return own

    with ThreadPoolExecutor(len(parts)) as pool:
        jobs = [pool.submit(read, part) for part in parts]
        try:
            done = [job.result() for job in jobs]
        except BaseException:
            stop.set()
            raise
    pixels.low, pixels.high = min(part.low for part in done), max(part.high for part in done)
    pixels.layouts.update(*(part.layouts for part in done))
    return pixels


def _split(frames: Sequence[Frame], count: int) -> list[list[int]]:
    """The places of the frames in at most so many parts of about one size, no object in two of them."""
    places: dict[Source, list[int]] = {}
    for k, frame in enumerate(frames):
        places.setdefault(frame.source, []).append(k)
    parts: list[list[int]] = [[] for _ in range(max(1, min(count, len(places))))]
    read = 0
    for found in places.values():
        parts[read * len(parts) // len(frames)] += found
        read += len(found)
    return [part for part in parts if part]


def _read_part(frames: Sequence[Frame], part: Sequence[int], pixels: Pixels, stop: threading.Event) -> None:
    """Read some of the frames into their slices."""
    with contextlib.closing(_iterate_stored(frames, part, pixels.array.shape)) as slices:
        for k, layout, stored in slices:
            if stop.is_set():
                return
            with _named(k, frames):
                _put(stored, frames[k], k, pixels)
            pixels.layouts.add(layout)


def layout_of(head: Dataset) -> Layout:
    """How a header says that its stored numbers lie.

    Raises:
        InputError: E_NOT_IMAGE for colour or a header without the numbers; E_PIXELS for bits that
            are not 8, 16 or 32, or whose place in the word is ambiguous.
    """
    rows, columns = _number(head, "Rows"), _number(head, "Columns")
    allocated = _number(head, "BitsAllocated")
    stored = _number(head, "BitsStored", allocated)
    if _number(head, "SamplesPerPixel", 1) != 1:
        raise InputError("expected one number a pixel, got colours", "E_NOT_IMAGE")
    if min(rows, columns) < 1:
        raise InputError(f"expected rows and columns, got {rows} x {columns}; the header is damaged", "E_NOT_IMAGE")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise InputError(f"expected 8, 16 or 32 bits a pixel, got {stored} of {allocated}", "E_PIXELS")
    # PS3.5 8.1.1: once any place was allowed; readers disagree about what is elsewhere.
    if _number(head, "HighBit", stored - 1) != stored - 1:
        raise InputError("expected the stored bits at the lower end of a pixel's word; convert the scan", "E_PIXELS")
    return Layout(rows, columns, allocated, stored, _number(head, "PixelRepresentation", 0) == 1)


def _iterate_stored(
    frames: Sequence[Frame], part: Sequence[int], shape: tuple[int, ...]
) -> Generator[tuple[int, Layout, np.ndarray], None, None]:
    """Place, layout and stored numbers (rows, columns) of each frame of a part.

    A compressed frame is decoded while the one before it is put away and the next is read.
    """
    decoder: Decoder | None = None
    sent: tuple[int, Layout] | None = None
    with contextlib.ExitStack() as stack:
        data_of_frames = stack.enter_context(contextlib.closing(_iterate_data(frames, part, shape)))
        for k, layout, data in data_of_frames:
            done = _receive(decoder, sent, frames)
            sent = None
            if not isinstance(data, np.ndarray):
                decoder = decoder or stack.enter_context(Decoder(shape[0] * shape[1]))
                with _named(k, frames):
                    decoder.send(data, _syntax(frames[k].head), layout)
                sent = (k, layout)
            yield from done
            if isinstance(data, np.ndarray):
                yield k, layout, data
        yield from _receive(decoder, sent, frames)


def _receive(
    decoder: Decoder | None, sent: tuple[int, Layout] | None, frames: Sequence[Frame]
) -> list[tuple[int, Layout, np.ndarray]]:
    """The frame that the decoder is at, or nothing."""
    if decoder is None or sent is None:
        return []
    with _named(sent[0], frames):
        return [(*sent, decoder.receive())]


def _iterate_data(
    frames: Sequence[Frame], part: Sequence[int], shape: tuple[int, ...]
) -> Generator[tuple[int, Layout, np.ndarray | bytes], None, None]:
    """Place of each frame, its layout, and its stored numbers or its compressed bytes; object by object."""
    places: dict[Source, dict[int, int]] = {}
    for k in part:
        places.setdefault(frames[k].source, {})[frames[k].index] = k
    for source, by_index in places.items():
        first = next(iter(by_index.values()))
        with _named(first if len(by_index) == 1 else None, frames), open_source(source) as stream:
            head = frames[first].head
            layout, syntax = layout_of(head), _syntax(head)
            if (layout.columns, layout.rows) != shape[:2]:
                raise InputError("expected slices of one size", "E_MIXED")
            reader = iterate_native if syntax in NATIVE else iterate_encapsulated
            count = max(1, _number(head, "NumberOfFrames", 1))
            for index, data in reader(stream, layout, syntax, count, frozenset(by_index)):
                yield by_index[index], layout, data


def _put(stored: np.ndarray, frame: Frame, k: int, pixels: Pixels) -> None:
    """Stored numbers, or their scanner units where the volume is float, into slice k."""
    target = pixels.array[:, :, k].T
    ends = np.array([stored.min(), stored.max()])  # in the cache, and half as wide as the volume's values
    if target.dtype.kind == "f":
        slope, inter = frame.slope, frame.inter
        if not (isfinite(slope) and isfinite(inter) and slope != 0):
            raise InputError(f"expected a slope and intercept, got {slope:g} and {inter:g}", "E_PIXELS")
        _scale_into(target, stored, slope, inter)
        ends = _scale_into(np.empty(2, target.dtype), ends, slope, inter)
    else:
        target[...] = stored
    pixels.low = min(pixels.low, float(ends.min()))
    pixels.high = max(pixels.high, float(ends.max()))


def _scale_into(target: np.ndarray, stored: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """Scanner units in place; float64 arithmetic wherever float32 would not give the same."""
    if slope == 1 and inter == round(inter) and abs(inter) + 2.0 ** (8 * stored.dtype.itemsize) <= EXACT:
        np.add(stored, np.float32(inter), out=target, dtype=np.float32, casting="unsafe")
        return target
    # What overflows becomes infinite and is refused as such.
    with np.errstate(over="ignore", invalid="ignore"):
        target[...] = stored.astype(np.float64) * slope + inter
    return target


def _syntax(head: Dataset) -> str:
    """Transfer Syntax UID; by the encoding that was met where the file meta information is missing.

    Raises:
        InputError: E_CODEC, if it is none that can be read.
    """
    syntax = str(getattr(head, "file_meta", Dataset()).get("TransferSyntaxUID", ""))
    if not syntax:
        implicit, little = head.original_encoding
        syntax = BIG_ENDIAN if little is False else IMPLICIT if implicit else EXPLICIT
    if syntax not in NATIVE:
        check_syntax(syntax)
    return syntax


def _number(head: Dataset, keyword: str, default: int | None = None) -> int:
    """A whole number of a header; the default where it is absent or empty."""
    try:
        value: Any = head.get(keyword)
        if value is None and default is not None:
            return default
        return int(value)
    except Exception as error:  # pydicom raises errors of many kinds where a value is not what its kind allows
        raise InputError(f"expected a whole number as {keyword}; the header is damaged", "E_NOT_IMAGE") from error


@contextlib.contextmanager
def _named(k: int | None, frames: Sequence[Frame]) -> Iterator[None]:
    """Say which slice an error is about, and give those of a damaged file or archive a code."""
    try:
        yield
    except InputError as error:
        if k is None:
            raise
        raise InputError(f"slice {k + 1} of {len(frames)}: {error}", error.code) from error
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError("a file cannot be read to its end; copy it again", "E_TRUNC") from error
