"""Fixtures that several tests share: seeded numbers, small awkward grids, the data folder."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from medld.geometry import Grid
from medld.volume import Volume

SEED = 20240229


def pytest_configure() -> None:
    """A shell lets what it runs in the background ignore Ctrl-C, and so would all that tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `data` where the scans are not there."""
    reason = missing_data()
    if reason is None:
        return
    for item in items:
        if item.get_closest_marker("data"):
            item.add_marker(pytest.mark.skip(reason=reason))


def missing_data() -> str | None:
    """Why tests on real scans cannot run, or None."""
    folder = os.environ.get("MEDLD_DATA")
    if not folder:
        return "needs real scans: set MEDLD_DATA to their folder"
    return None if Path(folder).is_dir() else "MEDLD_DATA names no folder"


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(SEED)


@pytest.fixture
def data() -> Path:
    """The folder with real scans (train/, val/, thick/); skips without it."""
    reason = missing_data()
    if reason is not None:
        pytest.skip(reason)
    return Path(os.environ["MEDLD_DATA"])


def rotation(rng: np.random.Generator) -> np.ndarray:
    """A random rotation, (3, 3)."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


@pytest.fixture
def oblique(rng: np.random.Generator) -> Grid:
    """An oblique, anisotropic, odd-sized grid: 7 slices of 11 x 8 pixels, 3.3 mm apart."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(rng) * (0.7, 0.9, 3.3)
    affine[:3, 3] = (-31.25, 12.5, 87.125)
    return Grid((11, 8, 7), affine)


@pytest.fixture
def left_handed() -> Grid:
    """Radiological storage order, 4 mm slices."""
    return Grid((9, 10, 6), np.array([[-1.0, 0, 0, 40], [0, 1, 0, -50], [0, 0, 4, -20], [0, 0, 0, 1]]))


@pytest.fixture
def scan(oblique: Grid, rng: np.random.Generator) -> Volume:
    """Whole numbers as a scanner stores them, on the oblique grid."""
    return Volume(rng.integers(0, 1000, oblique.shape).astype(np.float32), oblique, "mr")
