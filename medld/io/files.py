"""Reading and writing: one function for each, whatever the format.

A file is read in three steps, each with its refusals: the header (nothing is allocated), the
stored numbers, their values. It is written into a folder of its own beside the goal and then
moved, so an interrupted run leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from medld.errors import InputError, LabelMapError, OutputError, RestorationError
from medld.io.checks import MAX_LABELS, check_values, guess_modality, is_label_map, iterate_chunks
from medld.io.formats import Header, Storage, format_of
from medld.scratch import Scratch
from medld.volume import Volume

MAX_VOXELS = 1_000_000_000
BLOCK_CHUNKS = 16  # of an output that is written: 64 MiB in float32
_TEMPORARY = ".medld-"  # prefix of the folder in which an output is made


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return stream_sha256(stream)


def stream_sha256(stream: BinaryIO) -> str:
    """SHA-256 of what is left to read, hexadecimal."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def digest_of(hashes: Iterable[str]) -> str:
    """SHA-256 over the sorted SHA-256 of several files, hexadecimal, one a line: order and names do not matter."""
    return hashlib.sha256("".join(f"{digest}\n" for digest in sorted(hashes)).encode()).hexdigest()


def read_header(path: Path | str, *, max_voxels: int = MAX_VOXELS) -> Header:
    """Read what a file says about its volume, without its voxels.

    Args:
        path: A file whose name ends in one of `SUFFIXES`.
        max_voxels: Most voxels that are accepted.

    Raises:
        InputError: E_NOT_IMAGE, E_TRUNC, E_TOO_BIG, E_4D or E_TOO_FEW.
        GridError: E_NO_GEOM, if the affine is singular, sheared or not finite.
    """
    path = Path(path)
    is_nifti = format_of(path) == "nifti1"
    if not path.is_file():
        raise InputError("expected a file, there is none of that name", "E_NOT_IMAGE")
    try:
        header: Header = _backend(is_nifti).read_header(path, max_voxels)
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror or 'unknown reason'}", "E_NOT_IMAGE") from error
    return header


def read_volume(
    path: Path | str, *, max_voxels: int = MAX_VOXELS, force: bool = False, allow_output: bool = False
) -> tuple[Volume, Storage]:
    """Read a scan.

    Args:
        path: A file whose name ends in one of `SUFFIXES`.
        max_voxels: Most voxels that are accepted.
        force: Whether label maps are accepted.
        allow_output: Whether outputs of ours are accepted, to compare them; never to enhance them again.

    Returns:
        The volume, float32 in scanner units (slope and intercept applied in float64, then cast),
        first axis fastest in memory; and how to write a result back.

    Raises:
        InputError: As `read_header`; also E_PIXELS, E_SECOND_PASS, and E_NOT_IMAGE for label maps.
        GridError: E_NO_GEOM, if the affine is singular, sheared or not finite.
    """
    header = read_header(path, max_voxels=max_voxels)
    if header.second_pass and not allow_output:
        raise InputError("expected an acquired scan, got an output of medld; enhance the original", "E_SECOND_PASS")
    if header.named_label and not force:
        raise LabelMapError("expected a scan, the name or header says label map; if it is a scan, use --force")
    try:
        stored = _backend(header.format.startswith("nifti")).read_stored(header)
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror or 'unknown reason'}", "E_TRUNC") from error
    array = _scale(stored, header.slope, header.inter)
    minimum = check_values(array)
    if not force and is_label_map(array):
        raise LabelMapError(
            f"expected a scan, got a label map: whole numbers, at most {MAX_LABELS} distinct; "
            "if it is a scan, use --force"
        )
    guess = guess_modality(header.path, minimum)
    provenance = {"file": header.path.name, "format": header.format, "modality_from": guess.reason}
    return Volume(array, header.grid, guess.modality, guess.contrast, provenance), header.storage


def write_volume(
    path: Path | str, volume: Volume, storage: Storage, *, description: str, scratch: Scratch | None = None
) -> np.ndarray:
    """Write a volume, whole or not at all; an existing file is replaced.

    Args:
        path: Its suffix decides the format.
        volume: Values in scanner units.
        storage: Type, scaling and codes; values are rounded and clipped to what the type holds.
        description: Free text for the header; begin it with `OUTPUT_MARK`. At most 79 characters are kept.
        scratch: Where the returned array lies; None holds one too large for memory in the file's folder.

    Returns:
        (I, J, K), float32: the values as a reader of the file will see them.

    Raises:
        InputError: E_TOO_BIG, if the disk has no room for the returned array.
        RestorationError: E_NUMERIC, if a value is not finite.
        OutputError: If the folder is missing or cannot be written to.
    """
    path = Path(path)
    storage = storage.converted_to(format_of(path))
    # As in `check_values`: a minimum and a maximum need no mask.
    if not (np.isfinite(volume.array.min()) and np.isfinite(volume.array.max())):
        raise RestorationError("the result holds values that are not finite; nothing was written")
    if not path.parent.is_dir():
        raise OutputError("the output's folder does not exist; create it first")
    seen = (scratch or Scratch(path.parent)).empty(volume.grid.shape, order="F")
    try:
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=path.parent))
        try:
            _write_into(folder / path.name, volume, storage, seen, description)
            _publish(folder, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"the output cannot be written: {error.strerror or 'unknown reason'}") from error
    return seen


def _write_into(path: Path, volume: Volume, storage: Storage, seen: np.ndarray, description: str) -> None:
    """Write one file and fill `seen` with what its reader will see."""
    slabs = _stored_slabs(volume.array, storage, seen)
    if storage.format.startswith("nifti"):
        from medld.io import nifti

        nifti.write_file(path, volume, storage, slabs, description)
    else:
        from medld.io import itk

        stored = np.empty(volume.grid.shape, dtype=storage.dtype, order="F")
        for target, slab in zip(iterate_chunks(stored), slabs, strict=True):
            target[...] = slab
        itk.write_file(path, volume, stored, description)


def _stored_slabs(array: np.ndarray, storage: Storage, seen: np.ndarray) -> Iterator[np.ndarray]:
    """The numbers to store, slab by slab along the last axis; fills `seen` on the way."""
    # A slab of an array whose last axis lies densest touches all of it: it is read in a few blocks, not in every slab.
    for block, seen_block in zip(*(iterate_chunks(a, BLOCK_CHUNKS) for a in (array, seen)), strict=True):
        block = np.asanyarray(block, order="F")
        for values, target in zip(iterate_chunks(block), iterate_chunks(seen_block), strict=True):
            stored = _quantise(values, storage)
            target[...] = _scale(stored, storage.slope, storage.inter)
            yield stored


def _quantise(values: np.ndarray, storage: Storage) -> np.ndarray:
    """Scanner units to stored numbers, rounded and clipped to what the type holds."""
    dtype, plain = storage.dtype, (storage.slope, storage.inter) == (1.0, 0.0)
    if dtype.kind == "f" and plain:
        return values.astype(dtype, order="F")
    # float32 holds every 16-bit number; beyond that its steps are larger than one.
    work = np.float32 if plain and dtype.itemsize <= 2 else np.float64
    result = values.astype(work, order="F")
    if not plain:
        result = (result - storage.inter) / storage.slope
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        np.rint(result, out=result)
        np.clip(result, info.min, info.max, out=result)
    return result.astype(dtype)


def _scale(stored: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """Stored numbers to float32 scanner units; the arithmetic is float64, a slab at a time."""
    # What overflows becomes infinite and is refused as such.
    with np.errstate(over="ignore", invalid="ignore"):
        if (slope, inter) == (1.0, 0.0):
            return stored.astype(np.float32, copy=False)
        result = np.empty(stored.shape, dtype=np.float32, order="F")
        for source, target in zip(iterate_chunks(stored), iterate_chunks(result), strict=True):
            target[...] = source.astype(np.float64) * slope + inter
    return result


def _publish(folder: Path, path: Path) -> None:
    """Move all files of `folder` beside it, the one called like `path` last."""
    parts = sorted(folder.iterdir(), key=lambda part: part.name == path.name)
    for part in parts[:-1]:
        goal = path.parent / part.name
        if goal.exists() and not path.exists():
            raise OutputError(f"{goal.name}, the data file of {path.name}, exists already; move it away")
    for part in parts:
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path.parent / part.name)


def _backend(is_nifti: bool) -> Any:
    """The module that knows the format; loaded when first needed, since each brings a large library."""
    if is_nifti:
        from medld.io import nifti

        return nifti
    from medld.io import itk

    return itk
