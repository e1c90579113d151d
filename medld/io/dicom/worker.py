"""Decoder: compressed frames decoded in a process of their own, which may crash, hang or swell.

The child gets code streams through a pipe and gives pixels back: it opens no file, knows no
header, has no environment but the paths of its libraries, and is limited in memory and time. It
imports numpy and imagecodecs only. What comes back is exactly as many bytes as the header
says, or one byte that names a reason: nothing else that a child sends is believed.

    request     64 bytes of syntax, 5 numbers of the layout, the length; then the code stream
    answer      one byte of `_ANSWERS`; then the pixels if it is 0
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from medld.errors import InputError
from medld.io.dicom.codecs import Layout, decode_frame

__all__ = ["Decoder"]

SECONDS = 20.0  # for one frame, and as much again for each `SECONDS_PIXELS` of it
SECONDS_PIXELS = 8_000_000  # JPEG 2000, the slowest, was measured at 0.1 microseconds a pixel
MEMORY_BASE = 512 * 2**20  # address space beyond what the child has after its imports
MEMORY_PIXEL = 24  # and so many bytes a pixel: JPEG 2000 works on several copies in 32-bit numbers
_REQUEST = struct.Struct("<64s5IQ")
_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from medld.io.dicom.worker import serve; serve(*map(float, sys.argv[2:]))"
)
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")
_ANSWERS: dict[int, tuple[str, str]] = {
    1: ("E_CODEC", "the compressed pixels are damaged, or contradict the header; convert the scan again"),
    2: ("E_TRUNC", "the compressed pixels end early; copy the file again"),
    3: ("E_TOO_BIG", "the decoder asked for more memory than a frame of this size can need"),
}
_CRASHED = ("E_CODEC", "the decoder crashed on the compressed pixels; copy the file again")
_LATE = ("E_CODEC", "the decoder did not end in time; copy the file again")


class Decoder:
    """A child process that decodes frames; a context manager.

    Send and receive alternate, so that the next frame is decoded while this one is put away.

    Args:
        pixels: Rows x columns of the largest frame to come; sets the limits of memory and time.
        seconds: Most seconds for one frame; None goes by the frame's size.
        memory: Most bytes of address space beyond the idle child's; None goes by the frame's size.
    """

    def __init__(self, pixels: int, *, seconds: float | None = None, memory: int | None = None) -> None:
        self.seconds = seconds or SECONDS * (1 + pixels / SECONDS_PIXELS)
        memory = memory or MEMORY_BASE + MEMORY_PIXEL * pixels
        root = str(Path(__file__).resolve().parents[3])
        paths = json.dumps([root, *(path for path in sys.path if path)])
        self.process = subprocess.Popen(
            [sys.executable, "-s", "-c", _BOOT, paths, str(memory), str(self.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # codecs print what they please
            env=_environment(),
            start_new_session=True,  # Ctrl-C is the parent's to answer: the frame at hand may still be wanted
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to, self._from = self.process.stdin, self.process.stdout
        self._due: Layout | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, whatever it is at."""
        self.process.kill()
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.wait()

    def send(self, data: bytes, syntax: str, layout: Layout) -> None:
        """Hand a frame over.

        Raises:
            InputError: E_CODEC, if the child has died.
        """
        assert self._due is None, "receive first"
        self._due = layout
        numbers = (layout.rows, layout.columns, layout.bits_allocated, layout.bits_stored, int(layout.signed))
        with self._watched():
            self._to.write(_REQUEST.pack(syntax.encode("ascii", "replace")[:64], *numbers, len(data)))
            self._to.write(data)
            self._to.flush()

    def receive(self) -> np.ndarray:
        """The frame that was sent last, (rows, columns) stored numbers.

        Raises:
            InputError: E_CODEC, E_TRUNC or E_TOO_BIG.
        """
        assert self._due is not None, "send first"
        layout, self._due = self._due, None
        pixels = np.empty((layout.rows, layout.columns), layout.dtype)
        with self._watched():
            answer = self._from.read(1)
            if answer == b"\0":
                _read_into(self._from, pixels)
                return pixels
            if not answer:
                raise EOFError
        code, reason = _ANSWERS.get(answer[0], _CRASHED)
        raise InputError(reason, code)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Kill the child after `seconds`; its end, for this or another cause, is an `InputError`."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(self.seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, EOFError) as error:
            code, reason = _LATE if late.is_set() else _CRASHED
            raise InputError(reason, code) from error
        finally:
            timer.cancel()


def serve(memory: float, seconds: float) -> None:
    """The child: decode frames from standard input to standard output until it closes."""
    import imagecodecs

    source, target = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(2, 1)  # what a codec prints must not be taken for pixels
    for name in ("dicomrle_decode", "jpeg8_decode", "jpegsof3_decode", "jpegls_decode", "jpeg2k_decode"):
        getattr(imagecodecs, name)  # loads its library, before the limits
    _limit_process(int(memory))
    while request := source.read(_REQUEST.size):
        syntax, rows, columns, allocated, stored, signed, length = _REQUEST.unpack(request)
        layout = Layout(rows, columns, allocated, stored, bool(signed))
        _limit_seconds(seconds)
        answer, pixels = _answer(source.read(length), syntax.rstrip(b"\0").decode("ascii"), layout)
        target.write(bytes([answer]))
        if pixels is not None:
            target.write(pixels.data)
        target.flush()


def _answer(data: bytes, syntax: str, layout: Layout) -> tuple[int, Any]:
    """One frame decoded, or the number of the reason why not."""
    try:
        return 0, decode_frame(data, syntax, layout)
    except MemoryError:
        return 3, None
    except InputError as error:
        return next((n for n, (code, _) in _ANSWERS.items() if code == error.code), 1), None


def _limit_process(memory: int) -> None:
    """No more address space than `memory` bytes beyond today's, no files written, no core dump."""
    if sys.platform == "win32":
        return
    import resource

    for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(kind, (most, most))
    with contextlib.suppress(OSError, ValueError):  # no /proc, or a lower limit than ours: that one holds
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _limit_seconds(seconds: float) -> None:
    """No more processor time than `seconds` from now: a child that hangs must not outlive a killed parent."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _read_into(pipe: IO[bytes], array: np.ndarray) -> None:
    """Fill an array from a pipe."""
    view = array.reshape(-1).view(np.uint8).data
    while view:
        got = pipe.readinto(view)  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        view = view[got:]


def _environment() -> dict[str, str]:
    """What the child needs to find its libraries; threads of a matrix library would only take address space."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
