"""Convert: what was read, untouched, in another format, so that anybody can compare the reader with another tool.

Voxels in scanner units and affine are those that `medld enhance` works on: nothing is resampled,
clipped or turned. A scan stays a scan, so it gets no mark of an output; an output of ours keeps its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medld import __version__
from medld.batch.inputs import DicomSeries, ImageFile, Input
from medld.batch.names import image_suffix
from medld.batch.search import discreet, holds_dicom, is_archive, is_dicom, read_catalogue, walk
from medld.batch.settings import label
from medld.batch.staging import staged
from medld.errors import ConfigError, InputError, OutputError
from medld.io import OUTPUT_MARK, SUFFIXES, Storage, has_own_record, write_volume
from medld.io.checks import iterate_chunks
from medld.io.formats import format_of
from medld.volume import Volume

__all__ = ["Converted", "convert"]

EXACT = 2**24  # whole numbers up to this are exact in float32


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote.

    Args:
        label: What was read, for a person at the terminal.
        volume: The voxels.
        dtype: Type of the stored numbers.
        warnings: Sentences on the scan.
    """

    label: str
    volume: Volume
    dtype: str
    warnings: tuple[str, ...]


def convert(
    path: Path, output: Path, *, series: str | None = None, overwrite: bool = False, force: bool = False
) -> Converted:
    """Write a scan as an image file: int16 if all values are whole and fit, else float32.

    Args:
        path: A DICOM file, folder or .zip archive, or an image file.
        output: Its suffix decides the format.
        series: Which volume of DICOM: number, UID or pattern of the description; None takes the only one.
        overwrite: Replace an output that exists; an input is never replaced.
        force: Take label maps for scans.

    Raises:
        ConfigError: If the options do not fit the input.
        InputError: If it cannot be read, or is not one volume; the code says why.
        GridError: If its header holds no usable geometry.
        OutputError: If the output must not or cannot be written.
    """
    if not image_suffix(output):
        raise ConfigError(f"-o: expected a file that ends in {', '.join(SUFFIXES)}, got {output}")
    item = _find(path, series)
    _check_target(output, item, overwrite)
    with discreet():
        volume, storage = item.load(force=force, allow_output=True)
        own = item.examine().second_pass
    lost = _lost(volume, storage)
    storage = _fit(volume, storage.converted_to(format_of(output)))
    try:
        with staged([output]) as where:
            mark = f"{OUTPUT_MARK} {__version__} converted" if own else ""
            seen = write_volume(where[output], volume, storage, description=mark)
            assert np.array_equal(seen, volume.array), "the type was chosen to hold every value"
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror}; make room, or name another file") from error
    found = item.series.warnings if item.series is not None else ()
    warnings = tuple(dict.fromkeys((*found, *storage.warnings, *lost)))
    return Converted(label(item.path, item.part), volume, str(storage.dtype), warnings)


def _find(path: Path, wanted: str | None) -> Input:
    """The one volume that is meant."""
    if not path.exists():
        raise InputError("expected a file or folder, there is none of that name; check the path", "E_NOT_IMAGE")
    if path.is_dir():
        if not holds_dicom(list(walk(path))):
            raise InputError("expected DICOM in the folder, there is none; name an image file", "E_NOT_IMAGE")
    elif not (is_archive(path) or is_dicom(path)):
        if wanted is not None:
            raise ConfigError("--series chooses from DICOM, got an image file; leave it out")
        return ImageFile(path, True)
    from medld.io.dicom import choose_series

    catalogue = read_catalogue(path)
    with discreet():
        chosen = choose_series(catalogue, wanted)
    if len(chosen) > 1:
        numbers = ", ".join(str(series.number) for series in chosen)
        raise InputError(f"expected one volume, --series takes numbers {numbers}; name one of them", "E_SEVERAL")
    return DicomSeries(path, not path.is_dir(), chosen[0])


def _check_target(output: Path, item: Input, overwrite: bool) -> None:
    """Refuse an output that would replace what must stay."""
    if os.path.realpath(output) in {os.path.realpath(file) for file in item.files}:
        raise OutputError(f"{output} is the input, or its sidecar, and is never replaced; name another file with -o")
    if output.is_dir():
        raise OutputError(f"{output} is a folder; name another file with -o")
    if os.path.lexists(output) and not overwrite:
        raise OutputError(f"{output} exists; add --overwrite to replace it, or name another file with -o")
    if has_own_record(output):
        raise OutputError(f"{output} is by the record beside it an output of medld; name another file with -o")


def _fit(volume: Volume, storage: Storage) -> Storage:
    """The storage that holds the voxels as they are."""
    dtype = np.dtype(np.int16 if _are_int16(list(iterate_chunks(volume.array))) else np.float32)
    return replace(storage, dtype=dtype, slope=1.0, inter=0.0)


def _are_int16(chunks: Sequence[np.ndarray]) -> bool:
    """Whether all values are whole and fit."""
    info = np.iinfo(np.int16)
    return all(c.min() >= info.min and c.max() <= info.max and bool((c == np.rint(c)).all()) for c in chunks)


def _lost(volume: Volume, storage: Storage) -> tuple[str, ...]:
    """A warning if numbers were stored more finely than medld reads them."""
    dtype = storage.dtype
    whole = dtype.kind in "iu" and (dtype.itemsize <= 2 or max(-volume.array.min(), volume.array.max()) < EXACT)
    if whole or dtype.itemsize < 4 or dtype == np.float32:
        return ()
    return (f"stored as {dtype}, read as float32: more than 7 digits are rounded",)
