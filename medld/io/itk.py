"""NRRD and MetaImage (.mha, .mhd) by SimpleITK.

ITK's world is LPS+, ours RAS+: the first two rows of the affine change sign. The reader is
told which format to expect, so that no other of ITK's parsers ever sees the file, and a
small look at the text header comes first: it tells a cut file from no image at all, and
finds a detached data file that is missing or lies elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from medld.errors import GridError, InputError, OutputError
from medld.geometry import Grid
from medld.io.checks import check_counts, check_room, is_label_name
from medld.io.formats import (
    OUTPUT_MARK,
    Format,
    Header,
    Storage,
    format_of,
    has_own_record,
    is_own_description,
)
from medld.volume import Volume

MAX_HEADER_BYTES = 1 << 16  # of the text part
LPS = np.diag([-1.0, -1.0, 1.0])
_READERS = {"nrrd": "NrrdImageIO", "metaimage": "MetaImageIO"}
_DTYPES: dict[int, str] = {
    sitk.sitkUInt8: "u1",
    sitk.sitkInt8: "i1",
    sitk.sitkUInt16: "u2",
    sitk.sitkInt16: "i2",
    sitk.sitkUInt32: "u4",
    sitk.sitkInt32: "i4",
    sitk.sitkUInt64: "u8",
    sitk.sitkInt64: "i8",
    sitk.sitkFloat32: "f4",
    sitk.sitkFloat64: "f8",
}


def read_header(path: Path, max_voxels: int) -> Header:
    """Read and check an NRRD or MetaImage header; no voxels.

    Raises:
        InputError: E_NOT_IMAGE, E_TRUNC, E_TOO_BIG, E_4D or E_TOO_FEW.
        GridError: E_NO_GEOM.
    """
    format = format_of(path)
    fields, end = _read_text(path, format)
    reader = _reader(path, format)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError("the header is damaged; convert the scan again", "E_NOT_IMAGE") from error
    if reader.GetNumberOfComponents() != 1 or reader.GetPixelIDValue() not in _DTYPES:
        raise InputError("expected one real number a voxel, got colours, vectors or complex numbers", "E_NOT_IMAGE")
    dtype = np.dtype(_DTYPES[reader.GetPixelIDValue()])
    shape = check_counts(reader.GetSize(), max_voxels)
    n_voxels = int(np.prod(shape, dtype=np.int64))
    _check_data(path, fields, end, n_voxels * dtype.itemsize)
    marks = [key for key in reader.GetMetaDataKeys() if key == OUTPUT_MARK]
    description = reader.GetMetaData(marks[0]) if marks else ""
    return Header(
        path=path,
        format=format,
        grid=Grid(shape, _affine(reader, fields)),
        dtype=dtype,
        n_voxels=n_voxels,
        description=description,
        second_pass=is_own_description(description) or has_own_record(path),
        named_label=is_label_name(path),
        data_offset=end,
        storage=_storage(format, dtype),
    )


def read_stored(header: Header) -> np.ndarray:
    """The stored numbers, (I, J, K), first axis fastest.

    Raises:
        InputError: E_TRUNC, if the file ends early or its stream is damaged.
    """
    reader = _reader(header.path, header.format)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError("the image data are cut or damaged; copy the file again", "E_TRUNC") from error
    array = sitk.GetArrayFromImage(image)
    return np.asarray(array.reshape(array.shape[-3:]).T)


def write_file(path: Path, volume: Volume, stored: np.ndarray, description: str) -> None:
    """Write stored numbers (I, J, K) uncompressed."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored.T))
    affine = volume.grid.affine
    image.SetSpacing(volume.grid.spacing)
    image.SetOrigin((LPS @ affine[:3, 3]).tolist())
    image.SetDirection((LPS @ volume.grid.direction).ravel().tolist())
    image.SetMetaData(OUTPUT_MARK, description)
    try:
        sitk.WriteImage(image, str(path), False)
    except RuntimeError as error:
        raise OutputError("the image could not be written; is the disk full?") from error


def _reader(path: Path, format: Format) -> Any:
    """A reader bound to one format."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(_READERS[format])
    return reader


def _affine(reader: Any, fields: dict[str, str]) -> np.ndarray:
    """Voxel index -> world mm, RAS+."""
    stated = {"space directions", "spacings", "elementspacing", "elementsize"}
    if stated.isdisjoint(fields):
        raise GridError("the header states no spacing; convert the scan again")
    n = reader.GetDimension()
    direction = np.array(reader.GetDirection()).reshape(n, n)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = LPS @ (direction * np.array(reader.GetSpacing()[:3]))
    affine[:3, 3] = LPS @ np.array(reader.GetOrigin()[:3])
    return affine


def _storage(format: Format, dtype: np.dtype[Any]) -> Storage:
    """How a result is written back."""
    if dtype.itemsize == 8 and dtype.kind in "iu":
        kept = np.dtype(np.int32 if dtype.kind == "i" else np.uint32)
        return Storage(format=format, dtype=kept, warnings=(f"64-bit integers are written as {kept}",))
    return Storage(format=format, dtype=dtype)


def _read_text(path: Path, format: Format) -> tuple[dict[str, str], int]:
    """Fields of the text header (keys in lower case) and where it ends, bytes."""
    with path.open("rb") as file:
        block = file.read(MAX_HEADER_BYTES)
    if not block:
        raise InputError("expected an image, got an empty file", "E_NOT_IMAGE")
    if format == "nrrd":
        if not block.startswith(b"NRRD000"):
            raise InputError("the name ends in .nrrd, the content is something else", "E_NOT_IMAGE")
        ending = re.search(rb"\r?\n\r?\n", block)
        text, separator = block[: ending.start() if ending else len(block)], ":"
    else:
        ending = re.search(rb"^ElementDataFile[ \t]*[=:][^\n]*(\n|\Z)", block, re.MULTILINE)
        if not ending or b"NDims" not in block[: ending.end()]:
            raise InputError("expected a MetaImage header, the content is something else", "E_NOT_IMAGE")
        text, separator = block[: ending.end()], "="
    lines = (line.split(separator, 1) for line in text.decode("latin-1").splitlines() if separator in line)
    fields = {key.strip().lower(): value.strip() for key, value in lines}
    return fields, ending.end() if ending else len(block)


def _check_data(path: Path, fields: dict[str, str], end: int, needed: int) -> None:
    """Refuse data that are elsewhere, missing or too short."""
    name = fields.get("elementdatafile", fields.get("data file", fields.get("datafile", "LOCAL")))
    compressed = fields.get("compresseddata", "").lower() in ("true", "1")
    compressed = compressed or fields.get("encoding", "raw").lower() in ("gzip", "gz", "bzip2", "bz2")
    if name.upper() == "LOCAL":
        available = path.stat().st_size - end
    else:
        data = path.parent / name
        if Path(name).name != name:
            raise InputError("expected the data file beside its header, got a path or a list", "E_NOT_IMAGE")
        if not data.is_file():
            raise InputError("the data file that the header names is missing; copy it beside the header", "E_TRUNC")
        available = data.stat().st_size
    if compressed and fields.get("compresseddatasize", "").isdigit():
        check_room(int(fields["compresseddatasize"]), available, compressed=False)
    check_room(needed, available, compressed)
