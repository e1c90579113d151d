"""Decoder: a child that may crash, hang or swell, and a parent that goes on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from dicom_factory import RLE, encode

from medld.errors import InputError
from medld.io.dicom import codestream as cs
from medld.io.dicom.codecs import Layout
from medld.io.dicom.worker import Decoder

OF = Layout(40, 50, 16, 16, False)
PIXELS = OF.rows * OF.columns

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def values(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2**16, (OF.rows, OF.columns), dtype=np.uint16)


@pytest.fixture
def data(values: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpegls_encode(values))


def code_of(decoder: Decoder, data: bytes, syntax: str = cs.JPEG_LS, of: Layout = OF) -> str:
    """The code with which a frame ends."""
    try:
        decoder.send(data, syntax, of)
        decoder.receive()
    except InputError as error:
        return error.code
    raise AssertionError("a frame that should not be read was")


def test_frames_come_back_in_turn_whatever_their_syntax_and_layout(values: np.ndarray, data: bytes) -> None:
    eight = Layout(OF.rows, OF.columns, 8, 8, False)
    small = (values >> 8).astype(np.uint8)
    with Decoder(PIXELS) as decoder:
        for _ in range(3):
            decoder.send(data, cs.JPEG_LS, OF)
            np.testing.assert_array_equal(decoder.receive(), values)
            decoder.send(bytes(imagecodecs.jpeg2k_encode(small, codecformat="j2k")), cs.J2K, eight)
            np.testing.assert_array_equal(decoder.receive(), small)


def test_a_damaged_frame_is_refused_and_the_next_one_decoded(values: np.ndarray, data: bytes) -> None:
    with Decoder(PIXELS) as decoder:
        assert code_of(decoder, data[: len(data) // 2]) == "E_TRUNC"
        assert code_of(decoder, b"") == "E_TRUNC"
        assert code_of(decoder, b"no code stream") == "E_CODEC"
        assert code_of(decoder, data, of=Layout(OF.columns, OF.rows, 16, 16, False)) == "E_CODEC"
        decoder.send(data, cs.JPEG_LS, OF)
        np.testing.assert_array_equal(decoder.receive(), values)


@pytest.mark.parametrize("end", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_of_the_child_is_an_error_of_the_frame(end: signal.Signals, data: bytes) -> None:
    with Decoder(PIXELS) as decoder:
        decoder.send(data, cs.JPEG_LS, OF)
        decoder.receive()
        os.kill(decoder.process.pid, end)
        decoder.process.wait()
        assert code_of(decoder, data) == "E_CODEC"


def test_a_child_that_hangs_is_ended_in_time(data: bytes) -> None:
    with Decoder(PIXELS, seconds=0.3) as decoder:
        os.kill(decoder.process.pid, signal.SIGSTOP)
        begin = time.monotonic()
        # More than a pipe holds, so that sending hangs as well.
        assert code_of(decoder, data + bytes(2**20)) == "E_CODEC"
        assert time.monotonic() - begin < 10
        assert decoder.process.wait() == -signal.SIGKILL


@linux
def test_a_frame_that_needs_more_memory_than_allowed_is_too_big() -> None:
    of = Layout(4000, 4000, 16, 16, False)
    bomb = bytes(imagecodecs.jpeg2k_encode(np.zeros((of.rows, of.columns), np.uint16), codecformat="j2k"))
    assert len(bomb) < of.frame_bytes / 1000
    with Decoder(of.rows * of.columns) as decoder:
        decoder.send(bomb, cs.J2K, of)
        assert not decoder.receive().any()
    with Decoder(of.rows * of.columns, memory=16 * 2**20) as decoder:
        assert code_of(decoder, encode(np.zeros((of.rows, of.columns), np.uint16), RLE, 16), cs.RLE, of) == "E_TOO_BIG"
        # Within a codec the limit may be met where only a failure is reported.
        assert code_of(decoder, bomb, cs.J2K, of) in ("E_TOO_BIG", "E_CODEC")


def test_a_bomb_ends_before_its_pixels_are_allocated() -> None:
    of = Layout(60000, 60000, 16, 16, False)
    lengths = np.array([2, 64, 70] + [0] * 13, "<u4").tobytes() + b"\x81\x00" * 2200
    tiny = bytes(imagecodecs.jpeg2k_encode(np.zeros((8, 8), np.uint16), codecformat="j2k"))
    huge = tiny[:8] + np.array([60000, 60000], ">u4").tobytes() + tiny[16:]
    with Decoder(PIXELS) as decoder:  # the limit of a small frame
        assert code_of(decoder, huge, cs.J2K, Layout(8, 8, 16, 16, False)) == "E_CODEC"
        decoder.send(lengths, cs.RLE, of)
        answer = decoder._from.read(1)
        assert answer == b"\2"  # E_TRUNC; this test has no 7 GB for the pixels that `receive` expects


def test_closing_ends_the_child() -> None:
    with Decoder(PIXELS) as decoder:
        process = decoder.process
        assert process.poll() is None
    assert process.returncode is not None
    decoder.close()


def test_a_child_starts_with_numpy_and_nothing_heavy() -> None:
    script = "import sys, medld.io.dicom.worker, imagecodecs; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    loaded = set(run.stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"torch", "pydicom", "highdicom", "nibabel", "SimpleITK", "scipy", "monai", "pydantic"}


@linux
def test_a_child_knows_no_secrets_and_may_write_no_files(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLD_SITE_KEY", "a hospital's secret")
    with Decoder(PIXELS) as decoder:
        decoder.send(data, cs.JPEG_LS, OF)
        decoder.receive()
        process = Path(f"/proc/{decoder.process.pid}")
        assert b"secret" not in (process / "environ").read_bytes()
        limits = (process / "limits").read_text()
        (file_size,) = (line.split() for line in limits.splitlines() if line.startswith("Max file size"))
        assert file_size[3:5] == ["0", "0"]


@linux
def test_a_child_does_not_outlive_a_killed_parent() -> None:
    script = (
        "import os, signal; from medld.io.dicom.worker import Decoder; "
        "print(Decoder(100).process.pid, flush=True); input()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        ended, _, _ = select.select([child], [], [], 30)
        os.close(child)
        assert ended
