"""Gzip of several threads: any reader takes it, the threads leave no trace, and an error leaves no thread."""

from __future__ import annotations

import gzip
import io
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medld.io.deflate import BLOCK_BYTES, HEADER, GzipWriter

SIZES = (0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 12_345)


def image(size: int, rng: np.random.Generator) -> bytes:
    """Bytes that compress about as those of a scan do: a slow wave and a little noise, 16 bits."""
    n = np.arange((size + 1) // 2)
    return (900 * np.sin(n / 500) + rng.normal(0, 5, n.size)).astype("<i2").tobytes()[:size]


def compressed(data: bytes, threads: int | None = None, pieces: int = 1) -> bytes:
    """What a writer makes of `data`, handed over in so many pieces."""
    file = io.BytesIO()
    step = -(-len(data) // pieces) or 1
    with GzipWriter(file, 1, threads) as stream:
        for start in range(0, len(data), step):
            stream.write(memoryview(data)[start : start + step])
    return file.getvalue()


def write_all(stream: GzipWriter, *parts: Any) -> None:
    """One after the other."""
    for part in parts:
        stream.write(part)


@pytest.mark.parametrize("size", SIZES)
def test_readers_get_back_what_was_written(size: int, rng: np.random.Generator, tmp_path: Path) -> None:
    data = image(size, rng)
    written = compressed(data)
    assert gzip.decompress(written) == data
    path = tmp_path / "x.gz"
    path.write_bytes(written)
    assert subprocess.run(["gzip", "-dc", path], capture_output=True, check=True).stdout == data


@pytest.mark.parametrize("size", SIZES)
def test_bytes_depend_on_neither_threads_nor_pieces(size: int, rng: np.random.Generator) -> None:
    data = image(size, rng)
    first = compressed(data, threads=1)
    assert compressed(data, threads=5) == first
    assert compressed(data, threads=2, pieces=7) == first


def test_nothing_of_the_machine_or_the_moment_is_told(rng: np.random.Generator) -> None:
    written = compressed(image(1000, rng))
    assert written.startswith(HEADER)
    assert HEADER[3:8] == bytes(5)  # no flag (so no name and no comment) and no time


def test_blocks_cost_next_to_nothing(rng: np.random.Generator) -> None:
    data = image(6 * BLOCK_BYTES, rng)
    assert len(compressed(data)) < 1.001 * len(gzip.compress(data, 1))


def test_an_error_ends_the_threads_and_leaves_no_whole_stream(rng: np.random.Generator) -> None:
    file, before = io.BytesIO(), threading.active_count()
    data = image(3 * BLOCK_BYTES, rng)
    with pytest.raises(TypeError), GzipWriter(file, 1) as stream:
        write_all(stream, data, None)
    assert threading.active_count() == before
    with pytest.raises(EOFError):
        gzip.decompress(file.getvalue())
