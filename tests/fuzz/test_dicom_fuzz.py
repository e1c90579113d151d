"""Mutated DICOM: refused by `MedldError`, or read exactly where and what its files say."""

from __future__ import annotations

import io
import os
import resource
import signal
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from dicom_factory import (
    BIG_ENDIAN,
    DEFLATED,
    IMPLICIT,
    J2K,
    JPEG_LOSSLESS,
    JPEG_LS,
    RLE,
    leaks,
    make_enhanced,
    make_series,
    unvalidated,
)
from dicom_mutation import KINDS, SCALE, Mutation, apply
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filereader import read_partial

from medld.cli import main
from medld.errors import MedldError
from medld.io.dicom import list_series, read_series

EXAMPLES = int(os.environ.get("MEDLD_FUZZ_EXAMPLES", "20000"))
SMOKE_EXAMPLES = 100
SECONDS = 5  # longest that one example may compute
SECONDS_OF_CLOCK = 60  # and longest that it may take on a busy machine, its processes included
MILLIMETRES = 0.1  # farthest that a slice may lie from where its file says
MILLIMETRES_AT_THE_EDGE = 0.3  # position, row and column may each be rounded
MAX_MEMORY = 2**30  # bytes by which the whole run may grow
MAX_VOXELS = 2_000_000
SLICES, SHAPE = 5, (9, 8)

# Each compressed file costs a process; most of the reader is tried without.
PLAIN = ("mr", "wide", "ct implicit", "big endian", "deflated", "enhanced", "zip")
PACKED = ("rle", "j2k", "jpeg-ls", "jpeg")


@cache
def seed_files(name: str) -> tuple[bytes, ...]:
    """The files of a small sound series."""
    options: dict[str, dict[str, Any]] = {
        "wide": {"pixel_spacing": (30.0, 32.0), "orientation": "sagittal", "spacing": 2.5},
        "ct implicit": {"modality": "CT", "slope": 0.5, "syntax": IMPLICIT, "orientation": "oblique"},
        "big endian": {"syntax": BIG_ENDIAN},
        "deflated": {"syntax": DEFLATED},
        "rle": {"syntax": RLE},
        "j2k": {"syntax": J2K},
        "jpeg-ls": {"syntax": JPEG_LS, "modality": "CT", "inter": 0.0},
        "jpeg": {"syntax": JPEG_LOSSLESS},
    }
    with tempfile.TemporaryDirectory() as folder:
        if name == "enhanced":
            path = make_enhanced(
                Path(folder) / "e.dcm",
                slices=SLICES,
                shape=SHAPE,
                echo_times=(3.0, 9.0),
                slopes=[1 + k / 4 for k in range(2 * SLICES)],
            )
            return (path.read_bytes(),)
        paths = make_series(Path(folder), slices=SLICES, shape=SHAPE, **options.get(name, {}))
        if name == "zip":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in paths:
                    archive.write(path, path.name)
            return (packed.getvalue(),)
        return tuple(path.read_bytes() for path in paths)


def mutations() -> st.SearchStrategy[list[Mutation]]:
    """One to three changes."""
    one = st.builds(
        Mutation,
        kind=st.sampled_from(KINDS),
        file=st.integers(0, SLICES),
        other=st.integers(0, SLICES),
        place=st.integers(0, SCALE),
        value=st.integers(0, 300),
    )
    return st.lists(one, min_size=1, max_size=3)


class HangError(BaseException):
    """Something takes too long. No `Exception`: the reader catches those where a header is damaged."""


@contextmanager
def time_limit() -> Iterator[None]:
    """Fail where something hangs, by the time of the processor and, for what waits, by the clock."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = [(name, signal.signal(name, stop)) for name in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_OF_CLOCK)
    try:
        yield
    except HangError:
        pytest.fail(f"took longer than {SECONDS} s", pytrace=False)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for name, handler in before:
            signal.signal(name, handler)


# --- an independent look at what was accepted -------------------------------------------------


def open_dataset(source: Any) -> Dataset:
    """The object up to and with its pixels, by pydicom alone; what a file holds after them belongs to no one."""
    passed = False

    def stop(tag: Any, vr: str | None, length: int) -> bool:
        nonlocal passed
        if passed:
            return True
        passed = tag == 0x7FE00010
        return False

    if source.member is None:
        raw = source.path.read_bytes()
    else:
        with zipfile.ZipFile(source.path) as archive:
            raw = archive.read(source.member)
    return read_partial(io.BytesIO(raw), stop, force=True)


def is_whole(source: Any) -> bool:
    """Whether pydicom can open the object: no deflated stream that is damaged behind its pixels, or not announced."""
    try:
        return "Columns" in open_dataset(source)
    except zlib.error:
        return False


def find(dataset: Dataset, index: int, macro: str, keyword: str, default: Any) -> Any:
    """An attribute of one frame: its own group, the shared one, or the object's."""
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        return dataset.get(keyword, default)
    for groups in (dataset.PerFrameFunctionalGroupsSequence[index], dataset.SharedFunctionalGroupsSequence[0]):
        items = groups.get(macro) or []
        if len(items) and keyword in items[0]:
            return items[0][keyword].value
    return default


def stored_numbers(dataset: Dataset, index: int) -> np.ndarray | None:
    """One frame, (rows, columns), of uncompressed pixels; None for others."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_encapsulated:
        return None
    count, bits, stored = dataset.Rows * dataset.Columns, dataset.BitsAllocated, dataset.BitsStored
    order = "<" if dataset.original_encoding[1] else ">"
    offset = index * count * bits // 8
    raw = np.frombuffer(dataset.PixelData, f"{order}u{bits // 8}", count, offset).astype(np.int64)
    raw &= (1 << stored) - 1
    if dataset.PixelRepresentation == 1:
        raw = np.where(raw >= 1 << (stored - 1), raw - (1 << stored), raw)
    return raw.reshape(dataset.Rows, dataset.Columns)


def assert_placed(affine_lps: np.ndarray, dataset: Dataset, index: int, k: int) -> None:
    """Three corners of a slice lie where its own tags put them, the first one, which is its position, exactly."""
    position = np.array(find(dataset, index, "PlanePositionSequence", "ImagePositionPatient", None), dtype=float)
    cosines = np.array(find(dataset, index, "PlaneOrientationSequence", "ImageOrientationPatient", None), dtype=float)
    between = np.array(find(dataset, index, "PixelMeasuresSequence", "PixelSpacing", None), dtype=float)
    for i, j in ((0, 0), (dataset.Columns - 1, 0), (0, dataset.Rows - 1)):
        expected = position + i * between[1] * cosines[:3] + j * between[0] * cosines[3:]
        ours = affine_lps[:3] @ (i, j, k, 1)
        allowed = MILLIMETRES if (i, j) == (0, 0) else MILLIMETRES_AT_THE_EDGE
        assert np.linalg.norm(ours - expected) <= allowed + 1e-6 * np.abs(expected).max()


def assert_exact(series: Any, volume: Any) -> None:
    """Every slice lies where its file says and holds its file's numbers; all are of one scan."""
    frames = series.frames
    assert volume.array.shape[2] == len(frames)
    assert len({(frame.source, frame.index) for frame in frames}) == len(frames)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.grid.affine
    scans = set()
    for k, frame in enumerate(frames):
        if not is_whole(frame.source):
            continue
        dataset = open_dataset(frame.source)
        scans.add(tuple(str(dataset.get(name)) for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")))
        assert_placed(affine, dataset, frame.index, k)
        stored = stored_numbers(dataset, frame.index)
        if stored is not None:
            macro = "PixelValueTransformationSequence"
            slope = float(find(dataset, frame.index, macro, "RescaleSlope", 1) or 1)
            inter = float(find(dataset, frame.index, macro, "RescaleIntercept", 0) or 0)
            expected = (stored * slope + inter).astype(np.float32)
            np.testing.assert_allclose(volume.array[:, :, k].T, expected, rtol=1e-6, atol=1e-6)
    assert len(scans) <= 1


# --- one example -------------------------------------------------------------------------------


def write_files(folder: Path, name: str, files: Sequence[bytes]) -> Path:
    """The mutated files in a folder; the archive alone."""
    folder.mkdir()
    for index, raw in enumerate(files):
        (folder / (f"{index}.zip" if name == "zip" else f"{index}.dcm")).write_bytes(raw)
    return folder / "0.zip" if name == "zip" and files else folder


def read_all(path: Path) -> int:
    """List, read and check every volume; the number accepted."""
    accepted = 0
    for series in list_series(path, max_voxels=MAX_VOXELS).series:
        if series.refusal is None:
            with suppress(MedldError):
                volume, _ = read_series(series, max_voxels=MAX_VOXELS)
                with unvalidated():
                    assert_exact(series, volume)
                accepted += 1
    return accepted


def try_example(name: str, plan: Sequence[Mutation], capsys: pytest.CaptureFixture[str]) -> None:
    """The promises for one mutated series."""
    files = list(seed_files(name))
    for mutation in plan:
        files = apply(mutation, files)
    with tempfile.TemporaryDirectory() as folder, time_limit():
        path = write_files(Path(folder) / "in", name, files)
        (Path(folder) / "out").mkdir()
        before = set(Path(folder).rglob("*"))
        with suppress(MedldError):
            read_all(path)
        assert set(Path(folder).rglob("*")) == before
        goal = Path(folder) / "out" / "x.nii"
        code = main(["convert", str(path), "-o", str(goal), "--series", "1"])
        printed = capsys.readouterr()
        assert code in (0, 2), printed.err
        assert "E_INTERNAL" not in printed.err
        assert leaks(printed.out + printed.err) == []
        added = set(Path(folder).rglob("*")) - before
        assert added == ({goal} if code == 0 else set())


CALM = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
}


def peak_memory() -> int:
    """Bytes, of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_seeds_are_sound() -> None:
    """Without a mutation every seed is read and agrees with the check."""
    for name in PLAIN + PACKED:
        with tempfile.TemporaryDirectory() as folder:
            path = write_files(Path(folder) / "in", name, seed_files(name))
            assert read_all(path) == (2 if name == "enhanced" else 1), name


@settings(max_examples=SMOKE_EXAMPLES, derandomize=True, **CALM)
@given(name=st.sampled_from(PLAIN), plan=mutations())
def test_mutated_series_is_refused_or_exact_smoke(
    name: str, plan: list[Mutation], capsys: pytest.CaptureFixture[str]
) -> None:
    try_example(name, plan, capsys)


@pytest.mark.slow
@settings(max_examples=max(EXAMPLES * 9 // 10, 1), **CALM)
@given(name=st.sampled_from(PLAIN), plan=mutations())
def test_mutated_series_is_refused_or_exact(
    name: str, plan: list[Mutation], capsys: pytest.CaptureFixture[str]
) -> None:
    try_example(name, plan, capsys)
    assert peak_memory() < BASE_MEMORY + MAX_MEMORY


@pytest.mark.slow
@settings(max_examples=max(EXAMPLES // 10, 1), **CALM)
@given(name=st.sampled_from(PACKED), plan=mutations())
def test_mutated_compressed_series_is_refused_or_exact(
    name: str, plan: list[Mutation], capsys: pytest.CaptureFixture[str]
) -> None:
    try_example(name, plan, capsys)
    assert peak_memory() < BASE_MEMORY + MAX_MEMORY


BASE_MEMORY = peak_memory()
