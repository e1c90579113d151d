"""Gzip written by several threads, as one member that any reader takes.

Blocks of a fixed size are compressed side by side, each with the 32 KiB before it as its dictionary: the file is hardly
larger than one that was written in one go, and its bytes do not depend on the number of threads.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO

__all__ = ["GzipWriter"]

HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""RFC 1952, section 2.3: deflate, system unknown, no name and no time: the same result gives the same bytes."""
BLOCK_BYTES, WINDOW_BYTES = 2**20, 2**15
MOST_THREADS = 8


class GzipWriter:
    """A stream for `with` on an open binary file, which stays open.

    Args:
        file: Takes the bytes.
        level: Of compression, zlib's.
        threads: None takes one per processor, `MOST_THREADS` at most.
    """

    def __init__(self, file: BinaryIO, level: int, threads: int | None = None) -> None:
        self._file, self._level = file, level
        self._waiting, self._window = bytearray(), b""
        self._crc = self._size = 0
        threads = threads or min(MOST_THREADS, os.cpu_count() or 1)
        self._pool, self._most = ThreadPoolExecutor(threads), 2 * threads
        self._blocks: deque[Future[bytes]] = deque()
        file.write(HEADER)

    def __enter__(self) -> GzipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._pool:
            if kind is None:
                self._finish()

    def write(self, data: bytes | memoryview) -> None:
        """Take bytes; whole blocks of them go to the threads."""
        self._crc, self._size = zlib.crc32(data, self._crc), self._size + len(data)
        self._waiting += data
        start = 0
        # The last block ends the stream, so a whole one waits until there is more.
        while len(self._waiting) - start > BLOCK_BYTES:
            self._submit(bytes(self._waiting[start : start + BLOCK_BYTES]), zlib.Z_SYNC_FLUSH)
            start += BLOCK_BYTES
        del self._waiting[:start]

    def _finish(self) -> None:
        self._submit(bytes(self._waiting), zlib.Z_FINISH)
        self._drain(0)
        self._file.write(struct.pack("<LL", self._crc, self._size % 2**32))

    def _submit(self, block: bytes, ending: int) -> None:
        self._blocks.append(self._pool.submit(_deflate, block, self._window, self._level, ending))
        self._window = block[-WINDOW_BYTES:]
        self._drain(self._most)

    def _drain(self, most: int) -> None:
        """Write the first blocks until at most so many are left."""
        while len(self._blocks) > most:
            self._file.write(self._blocks.popleft().result())


def _deflate(block: bytes, window: bytes, level: int, ending: int) -> bytes:
    """A block as raw deflate."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=window)
    return stream.compress(block) + stream.flush(ending)
