"""NIfTI: single files of version 1 and 2, plain or gzip, by nibabel's headers and our own byte handling.

nibabel parses the header; the bytes are read here, because a refusal must come before
anything is allocated and must tell a cut file from one that never was an image.

    position    the sform if its code is set, else the qform, else the spacing alone
    scaling     scl_slope 0 or not finite means none (NIfTI-1 standard, "scl_slope")
    extensions  and free text of the input are not carried over: they may name the patient
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from medld.errors import GridError, InputError
from medld.geometry import Grid
from medld.io.checks import check_counts, check_room, is_label_name
from medld.io.deflate import GzipWriter
from medld.io.formats import Header, Storage, has_own_record, is_own_description
from medld.io.stream import DAMAGE, drain, is_gzip_name, opened, read_into, read_prefix
from medld.volume import Volume

FORM_TOLERANCE_MM = 0.05  # sform and qform agree within this; float32 quaternions do to about 1e-3
GZIP_LEVEL = 1  # as nibabel; on a restored head level 6 takes three times as long to save 3 %
LABEL_INTENT = 1002  # NIFTI_INTENT_LABEL
UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown, m, mm, micrometre
_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def read_header(path: Path, max_voxels: int) -> Header:
    """Read and check a NIfTI header; no voxels.

    Raises:
        InputError: E_NOT_IMAGE, E_TRUNC, E_TOO_BIG, E_4D or E_TOO_FEW.
        GridError: E_NO_GEOM.
    """
    raw = _parse(read_prefix(path))
    dtype = _stored_dtype(raw)
    shape = check_counts(_raw_shape(raw), max_voxels)
    offset = _data_offset(raw)
    n_voxels = int(np.prod(shape, dtype=np.int64))
    check_room(offset + n_voxels * dtype.itemsize, path.stat().st_size, is_gzip_name(path))
    storage = _storage(raw, shape, dtype)
    assert storage.affine is not None
    description = _text(raw["descrip"])
    return Header(
        path=path,
        format=storage.format,
        grid=Grid(shape, storage.affine),
        dtype=dtype,
        n_voxels=n_voxels,
        description=description,
        second_pass=is_own_description(description) or has_own_record(path),
        named_label=is_label_name(path) or int(raw["intent_code"]) == LABEL_INTENT,
        data_offset=offset,
        storage=storage,
    )


def read_stored(header: Header) -> np.ndarray:
    """The stored numbers, (I, J, K), first axis fastest, unscaled.

    Raises:
        InputError: E_TRUNC, if the file ends early or its checksum fails.
    """
    raw = np.empty(header.n_voxels, dtype=header.dtype)
    try:
        with opened(header.path) as stream:
            stream.seek(header.data_offset)
            got = read_into(stream, raw.view(np.uint8).data)
            if got == raw.nbytes:
                drain(stream)
    except DAMAGE as error:
        raise InputError("the compressed stream is cut or damaged; copy the file again", "E_TRUNC") from error
    if got < raw.nbytes:
        raise InputError(f"expected {raw.nbytes} bytes of voxels, got {got}; copy the file again", "E_TRUNC")
    return raw.reshape(header.grid.shape, order="F")


def write_file(path: Path, volume: Volume, storage: Storage, slabs: Iterator[np.ndarray], description: str) -> None:
    """Write a header and slabs of stored numbers (I, J, k), in order along the last axis."""
    header = _build_header(volume.grid, storage, description)
    with path.open("wb") as file:
        if is_gzip_name(path):
            with GzipWriter(file, GZIP_LEVEL) as stream:
                _write_stream(stream, header, slabs)
        else:
            _write_stream(file, header, slabs)


def _write_stream(stream: Any, header: Nifti1Header, slabs: Iterator[np.ndarray]) -> None:
    """Header, the four bytes that say "no extension", voxels."""
    stream.write(header.binaryblock)
    stream.write(b"\0\0\0\0")
    for slab in slabs:
        stream.write(slab.ravel(order="F").data.cast("B"))


def _build_header(grid: Grid, storage: Storage, description: str) -> Nifti1Header:
    """A fresh header; nothing of the input's but what `Storage` carries."""
    header = Nifti2Header() if storage.format == "nifti2" else Nifti1Header()
    unit = _unit_mm(storage.xyzt_units)
    header.set_data_dtype(storage.dtype)
    header.set_data_shape(grid.shape)
    header.set_qform(_in_unit(_output_qform(grid, storage), unit), storage.qform_code)
    header.set_sform(_in_unit(grid.affine, unit), storage.sform_code)
    header["pixdim"][1:4] = np.array(grid.spacing) / unit
    header["xyzt_units"] = storage.xyzt_units
    header["scl_slope"], header["scl_inter"] = storage.slope, storage.inter
    header["cal_min"], header["cal_max"] = storage.display
    header["descrip"] = description.encode("ascii", "replace")[:79]
    header["vox_offset"] = header.single_vox_offset
    return header


def _output_qform(grid: Grid, storage: Storage) -> np.ndarray:
    """The qform that belongs to the output: the input's, moved as the affine was."""
    if storage.qform is None or storage.affine is None:
        return grid.affine
    return np.asarray(storage.qform @ np.linalg.solve(storage.affine, grid.affine))


def _in_unit(affine: np.ndarray, unit: float) -> np.ndarray:
    """An affine in mm in a file's own unit of length."""
    return np.asarray(np.diag([1 / unit] * 3 + [1.0]) @ affine)


def _storage(raw: Nifti1Header, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Storage:
    """How a result is written back, and where the voxels lie."""
    warnings: list[str] = []
    affine, qform = _position(raw, shape, warnings)
    slope, inter = _scaling(raw, warnings)
    kept = np.dtype(dtype.newbyteorder("="))
    if kept.itemsize == 8 and kept.kind in "iu":
        kept = np.dtype(np.int32 if kept.kind == "i" else np.uint32)
        warnings.append(f"64-bit integers are written as {kept}")
    display = np.nan_to_num([float(raw["cal_min"]), float(raw["cal_max"])], posinf=0, neginf=0)
    return Storage(
        format="nifti2" if isinstance(raw, Nifti2Header) else "nifti1",
        dtype=kept,
        slope=slope,
        inter=inter,
        sform_code=max(int(raw["sform_code"]), 0),
        qform_code=max(int(raw["qform_code"]), 0),
        xyzt_units=int(raw["xyzt_units"]),
        display=(float(display[0]), float(display[1])),
        affine=affine,
        qform=qform,
        warnings=tuple(warnings),
    )


def _position(
    raw: Nifti1Header, shape: tuple[int, int, int], warnings: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The affine (mm), and the qform (mm) where it is set and says something else."""
    unit = np.diag([_unit_mm(int(raw["xyzt_units"]))] * 3 + [1.0])
    if int(raw["sform_code"]) <= 0:
        if int(raw["qform_code"]) > 0:
            return unit @ _qform(raw), None
        warnings.append("the header states spacings but no position: orientation and left and right are assumed")
        return unit @ np.asarray(raw.get_base_affine(), dtype=np.float64), None
    affine = unit @ np.asarray(raw.get_sform(), dtype=np.float64)
    if int(raw["qform_code"]) <= 0:
        return affine, None
    try:
        qform = unit @ _qform(raw)
        if Grid(shape, affine).is_close(Grid(shape, qform), FORM_TOLERANCE_MM):
            return affine, None
    except GridError:
        Grid(shape, affine)  # a broken sform is the file's defect, a broken qform is only worth a warning
        warnings.append("the qform is unusable and was replaced by the sform")
        return affine, None
    warnings.append("sform and qform differ: the sform was used, both are kept")
    return affine, qform


def _qform(raw: Nifti1Header) -> np.ndarray:
    """The qform as an affine, in the file's unit."""
    try:
        return np.asarray(raw.get_qform(), dtype=np.float64)
    except Exception as error:  # nibabel raises its own, ValueError or LinAlgError, by defect
        raise GridError("the qform's quaternion or spacing is invalid; repair the header") from error


def _scaling(raw: Nifti1Header, warnings: list[str]) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or not finite means that there is no scaling."""
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(inter):
        warnings.append("the intercept is not finite and was taken as 0")
        inter = 0.0
    return slope, inter


def _unit_mm(xyzt_units: int) -> float:
    """Length of a header's unit in mm; undefined codes count as mm."""
    return UNIT_MM.get(xyzt_units & 7, 1.0)


def _stored_dtype(raw: Nifti1Header) -> np.dtype[Any]:
    """Type of the stored numbers, with byte order."""
    try:
        dtype: np.dtype[Any] = np.dtype(raw.get_data_dtype())
    except Exception as error:  # nibabel raises its own error for codes it does not know
        raise InputError("expected one number a voxel, got an unknown data type", "E_NOT_IMAGE") from error
    if dtype.names is not None:
        raise InputError("expected one number a voxel, got colours; convert the file to grey values", "E_NOT_IMAGE")
    if f"{dtype.kind}{dtype.itemsize}" not in _DTYPES:
        raise InputError(f"expected integers or floats of up to 64 bits, got {dtype}; convert the file", "E_NOT_IMAGE")
    return dtype


def _raw_shape(raw: Nifti1Header) -> list[int]:
    """The counts as they stand in the header."""
    dim = [int(n) for n in raw["dim"]]
    if not 1 <= dim[0] <= 7:
        raise InputError(f"expected 1 to 7 axes, got {dim[0]}; the header is damaged", "E_NOT_IMAGE")
    return dim[1 : dim[0] + 1]


def _data_offset(raw: Nifti1Header) -> int:
    """Where the voxels begin, bytes."""
    offset = float(raw["vox_offset"])
    if not (np.isfinite(offset) and 0 <= offset < 2**53):
        raise InputError("the header's data offset is invalid; convert the scan again", "E_NOT_IMAGE")
    return max(int(offset), int(raw.single_vox_offset))


def _parse(block: bytes) -> Nifti1Header:
    """The header in a file's first bytes, of either version and byte order."""
    order = "<" if block[:4] in (b"\x5c\x01\0\0", b"\x1c\x02\0\0") else ">"
    size = int(np.frombuffer(block[:4].ljust(4, b"\0"), order + "i4")[0])
    if size not in (348, 540):
        raise InputError("expected a NIfTI header, got something else (text, another format?)", "E_NOT_IMAGE")
    if len(block) < size:
        raise InputError(f"expected a header of {size} bytes, got {len(block)}; copy the file again", "E_TRUNC")
    magic = block[344:348] if size == 348 else block[4:8]
    if magic[:3] not in (b"n+1", b"n+2"):
        raise InputError("expected a single NIfTI file, got Analyze or a header without its data", "E_NOT_IMAGE")
    if size == 348:
        return Nifti1Header(block[:size], endianness=order, check=False)
    return Nifti2Header(block[:size], endianness=order, check=False)


def _text(field: Any) -> str:
    """A header's text field."""
    return bytes(field.tobytes()).split(b"\0", 1)[0].decode("latin-1").strip()
