"""Bytes of a NIfTI file, plain or gzip, with cut and misnamed files told apart."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medld.errors import InputError
from medld.io.formats import split_suffix

HEADER_BYTES = 540  # of NIfTI-2, the longer one
SHORT_HEADER_BYTES = 348  # of NIfTI-1
GZIP_MAGIC = b"\x1f\x8b"
READ_BYTES = 1 << 24  # asked for at a time
MAX_TRAILING_BYTES = 1 << 26  # bytes after the voxels that are read to reach the checksum
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)


def read_prefix(path: Path) -> bytes:
    """The first (uncompressed) bytes of a file, as far as they can be had."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(2)
    if not start:
        raise InputError("expected a NIfTI file, got an empty one", "E_NOT_IMAGE")
    if (start == GZIP_MAGIC[: len(start)]) != is_gzip_name(path):
        wrong, right = (".nii.gz", ".nii") if is_gzip_name(path) else (".nii", ".nii.gz")
        hint = "" if is_gzip_name(path) and size < HEADER_BYTES else f"; if it is NIfTI, rename it to {right}"
        raise InputError(f"the name ends in {wrong}, the content is something else{hint}", "E_NOT_IMAGE")
    block = b""
    try:
        with opened(path) as stream:
            while len(block) < HEADER_BYTES and (more := stream.read1(HEADER_BYTES - len(block))):
                block += more
    except DAMAGE as error:
        # A header that came through still says what the file claims to be, and how large.
        if len(block) < SHORT_HEADER_BYTES:
            raise InputError("the compressed stream is cut or damaged; copy the file again", "E_TRUNC") from error
    return block


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file's uncompressed bytes as a stream."""
    with path.open("rb") as file:
        if is_gzip_name(path):
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                yield stream
        else:
            yield file


def read_into(stream: Any, target: memoryview) -> int:
    """Fill `target`; the number of bytes that came."""
    got = 0
    while got < len(target) and (more := stream.readinto(target[got : got + READ_BYTES])):
        got += more
    return got


def drain(stream: Any) -> None:
    """Read what follows the voxels, so that a gzip checksum is verified."""
    left = MAX_TRAILING_BYTES
    while left > 0 and (chunk := stream.read(1 << 16)):
        left -= len(chunk)


def is_gzip_name(path: Path) -> bool:
    """Whether the name says gzip."""
    return split_suffix(path)[1].lower().endswith(".gz")
