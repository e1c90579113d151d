"""Header and Storage: what a file says before its voxels are read, and how a result is written back.

    Header      of an input: grid, type and scaling, size; cheap, no voxels
    Storage     for an output: format, type and scaling, NIfTI codes and units

A file's suffix names its format; what its first bytes say must agree with it. A scan's
sidecar is the JSON file of the same name (BIDS, dcm2niix), and so is the record that we
write beside an output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medld.errors import InputError
from medld.geometry import Grid

Format = Literal["nifti1", "nifti2", "nrrd", "metaimage", "dicom"]

OUTPUT_MARK = "medld"  # an output's header description begins with it
MAX_SIDECAR_BYTES = 16 * 2**20  # a sidecar is small; anything else is not one

_FORMATS: dict[str, Format] = {
    ".nii.gz": "nifti1",
    ".nii": "nifti1",
    ".nrrd": "nrrd",
    ".mha": "metaimage",
    ".mhd": "metaimage",
}
SUFFIXES = tuple(_FORMATS)


@dataclass(frozen=True, eq=False)
class Storage:
    """How a volume is written.

    Args:
        format: The input's format; the output's suffix decides what it becomes.
        dtype: Type of the stored numbers; native byte order, no 64-bit integers.
        slope: Scanner units = slope * stored + inter.
        inter: See `slope`.
        sform_code: NIfTI code, kept.
        qform_code: NIfTI code, kept.
        xyzt_units: NIfTI units byte, kept; its lower three bits are the unit of length.
        display: NIfTI cal_min and cal_max, scanner units.
        affine: The input's affine (mm), needed only where `qform` is given.
        qform: The input's qform (mm) where it differs from the affine.
        warnings: What the reader has to say about the input, sentences for the report.
        bits_stored: Of DICOM: bits of a stored number that count; None is all of its type.
        unscaled: Of DICOM: the type that holds every scanner unit of the input exactly, for other
            formats: int16, else uint16, where they are whole numbers and fit; else float32.
    """

    format: Format = "nifti1"
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    slope: float = 1.0
    inter: float = 0.0
    sform_code: int = 1
    qform_code: int = 1
    xyzt_units: int = 2
    display: tuple[float, float] = (0.0, 0.0)
    affine: np.ndarray | None = None
    qform: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    bits_stored: int | None = None
    unscaled: np.dtype[Any] | None = None

    def converted_to(self, format: Format) -> Storage:
        """The same storage in another format.

        NRRD and MetaImage have no slope, so scaled values become float32 there. DICOM's slopes are
        decimals that NIfTI's float32 would round, and may differ from slice to slice, so its values
        are stored as they are (see `unscaled`).
        """
        if format == self.format or {format, self.format} == {"nifti1", "nifti2"}:
            return self
        assert format != "dicom", "a derived series needs its source's headers"
        if self.format == "dicom":
            dtype = np.dtype(np.float32) if self.unscaled is None else self.unscaled
            return replace(self.as_float32(), format=format, dtype=dtype)
        if format.startswith("nifti") or (self.slope, self.inter) == (1.0, 0.0):
            return replace(self, format=format)
        note = f"stored as float32: {format} has no slope and intercept"
        return replace(self.as_float32(), format=format, warnings=(*self.warnings, note))

    def as_float32(self) -> Storage:
        """The same storage with plain float32 values, for maps of another unit or range."""
        plain = replace(self, dtype=np.dtype(np.float32), slope=1.0, inter=0.0, display=(0.0, 0.0))
        return replace(plain, bits_stored=None, unscaled=None)


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says before its voxels are read.

    Args:
        path: The file.
        format: As its first bytes say.
        grid: Where its voxels lie; of three axes, also for 4D files of one volume.
        dtype: Type of the stored numbers, with the file's byte order.
        n_voxels: Voxels of the one volume.
        description: The header's free text. May hold patient data: never log it.
        second_pass: Whether the header or the record beside the file says that we made it.
        named_label: Whether the file's name or the header's intent says label map.
        data_offset: Where the voxels begin, in bytes of the (uncompressed) file.
        storage: How a result is written back.
    """

    path: Path
    format: Format
    grid: Grid
    dtype: np.dtype[Any]
    n_voxels: int
    description: str
    second_pass: bool
    named_label: bool
    data_offset: int
    storage: Storage

    @property
    def slope(self) -> float:
        """Scanner units = slope * stored + inter."""
        return self.storage.slope

    @property
    def inter(self) -> float:
        """See `slope`."""
        return self.storage.inter

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader has to say, sentences for the report."""
        return self.storage.warnings

    @property
    def read_bytes(self) -> int:
        """Memory that `read_volume` needs at its peak: the stored numbers and their float32 values."""
        return self.n_voxels * (self.dtype.itemsize + 4)


def split_suffix(path: Path | str) -> tuple[str, str]:
    """Name and suffix of a file as two strings; the suffix is "" where it is none of `SUFFIXES`.

    >>> split_suffix("sub-01_T1w.nii.gz")
    ('sub-01_T1w', '.nii.gz')
    """
    name = Path(path).name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, ""


def format_of(path: Path | str) -> Format:
    """The format that a file's suffix names; "nifti1" stands for both NIfTI versions.

    Raises:
        InputError: E_NOT_IMAGE, if the suffix is none of `SUFFIXES`.
    """
    suffix = split_suffix(path)[1].lower()
    if not suffix:
        raise InputError(f"expected a file name that ends in one of {', '.join(SUFFIXES)}", "E_NOT_IMAGE")
    return _FORMATS[suffix]


def sidecar_path(path: Path | str) -> Path:
    """The JSON file that belongs to an image: scan_desc-sr.nii.gz -> scan_desc-sr.json."""
    return Path(path).with_name(split_suffix(path)[0] + ".json")


def read_sidecar(path: Path | str) -> Mapping[str, Any]:
    """The JSON object beside an image; empty where there is none or it cannot be read."""
    sidecar = sidecar_path(path)
    try:
        if sidecar.stat().st_size > MAX_SIDECAR_BYTES:
            return {}
        record = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def has_own_record(path: Path | str) -> bool:
    """Whether the JSON file beside an image is our record of having made that image.

    A record names its output: one that a caller saved beside the scan itself does not count.
    """
    record = read_sidecar(path)
    versions, output = record.get("versions"), record.get("output")
    if not (isinstance(versions, dict) and OUTPUT_MARK in versions and isinstance(output, dict)):
        return False
    return split_suffix(str(output.get("file", "")))[0] == split_suffix(path)[0]


def is_own_description(description: str) -> bool:
    """Whether a header's description is the one that our outputs carry."""
    return description == OUTPUT_MARK or description.startswith(OUTPUT_MARK + " ")
