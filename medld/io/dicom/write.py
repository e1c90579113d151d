"""A derived series: classic CT or MR images that an archive files beside the original.

A slice begins as a copy of the source image nearest to it; then what the result says anew is
set. Nothing of a header reaches a file's name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from medld.errors import GridError, OutputError, RestorationError
from medld.geometry import Grid
from medld.io.dicom.classic import classic_header
from medld.io.dicom.copying import encodings_of, put
from medld.io.dicom.derivation import Derivation
from medld.io.dicom.privacy import quiet
from medld.io.dicom.series import Series
from medld.io.dicom.stored import Padding, PixelFormat, nearest_index
from medld.io.dicom.tags import place_slice, tag_series
from medld.io.dicom.uids import derive_instance_uid, derive_series_uid
from medld.io.formats import Storage
from medld.scratch import Scratch
from medld.volume import Volume

__all__ = ["Derivation", "write_series"]

MAX_TURN = 1e-3  # |cosine| by which an axis of the result may differ from the source's


@quiet()
def write_series(folder: Path, volume: Volume, series: Series, storage: Storage, derivation: Derivation) -> np.ndarray:
    """Write a result as a series of classic images, IM-0001.dcm, IM-0002.dcm, ...

    Args:
        folder: There already, and empty; the caller moves it to its place when it is whole.
        volume: Scanner units, on the source's axes: i along a row, j along a column, k from slice to slice.
        series: What the volume was made of.
        storage: How the source is stored; values are rounded and clipped to what its pixels hold.
        derivation: What was done.

    Returns:
        (I, J, K), float32: the values as a reader of the series will see them.

    Raises:
        RestorationError: E_NUMERIC, if a value is not finite.
        GridError: If the volume's axes are not the source's.
        InputError: E_NOT_IMAGE, if the source is no CT or MR image; E_TOO_BIG, if the disk has no room for what is
            returned; what reading padding raises.
        OutputError: If the folder is missing, not empty or cannot be written to.
    """
    if not (np.isfinite(volume.array.min()) and np.isfinite(volume.array.max())):
        raise RestorationError("the result holds values that are not finite; nothing was written")
    _check_axes(volume.grid, series)
    try:
        if any(folder.iterdir()):
            raise OutputError("the folder for the series is not empty; name another or empty it")
        return _write_slices(folder, volume, series, storage, derivation)
    except OSError as error:
        raise OutputError(f"the output cannot be written: {error.strerror or 'unknown reason'}") from error


def _check_axes(grid: Grid, series: Series) -> None:
    """Refuse a result whose axes are in another order or direction than the source's."""
    assert series.grid is not None
    cosines = (grid.direction * series.grid.direction).sum(axis=0)
    if (cosines < 1 - MAX_TURN).any():
        raise GridError("expected the axes of the source series, got others; keep their order and direction")


def _write_slices(folder: Path, volume: Volume, series: Series, storage: Storage, derivation: Derivation) -> np.ndarray:
    """Write every slice and return what a reader will see."""
    assert series.grid is not None
    grid, pixels = volume.grid, PixelFormat.of(storage)
    uid = derive_series_uid(series, grid, derivation.model_sha256, derivation.settings, kind="image")
    rows, columns, slices = (nearest_index(grid, series.grid, axis) for axis in range(3))
    padding = Padding(series, pixels)
    common = _common(series, uid, derivation)
    seen = Scratch(folder).empty(grid.shape, order="F")
    digits = max(4, len(str(grid.shape[2])))
    base, base_index = Dataset(), -1
    for k, index in enumerate(slices):
        if index != base_index:
            base, base_index = classic_header(series.frames[index]), index
            base.update(common)
            pixels.tag(base, padding.value(index))
        stored = pixels.quantise(volume.array[:, :, k])
        mask = padding.mask(index)
        if mask is not None:
            stored[mask[np.ix_(rows, columns)]] = padding.value(index)
        seen[:, :, k] = pixels.scale(stored)
        header = Dataset(base, parent_encoding=encodings_of(base))
        put(header, "InstanceNumber", k + 1)
        put(header, "SOPInstanceUID", derive_instance_uid(uid, k + 1))
        place_slice(header, grid, series, k)
        _save(folder / f"IM-{k + 1:0{digits}d}.dcm", header, stored)
    return seen


def _common(series: Series, uid: str, derivation: Derivation) -> Dataset:
    """The elements that are the same in every slice, without those that are the source's."""
    header = classic_header(series.frames[0])
    before = dict(header.items())
    tag_series(header, series, uid, derivation)
    common = Dataset()
    for tag, element in header.items():
        if tag not in before or element is not before[tag]:
            common[tag] = element
    return common


def _save(path: Path, header: Dataset, stored: np.ndarray) -> None:
    """Write one image, Explicit VR Little Endian, with a preamble of zeros."""
    content = stored.T.tobytes()
    header[Tag("PixelData")] = DataElement(Tag("PixelData"), "OW", content + b"\0" * (len(content) % 2))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta = meta
    header.set_original_encoding(False, True, encodings_of(header))
    header.save_as(path, enforce_file_format=True)
