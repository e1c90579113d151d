"""A thick-slice scan of a made-up head, and a tiny model that answers something."""

from __future__ import annotations

import numpy as np
import pytest
from fine_scans import make_head
from tiny_model import ONE_STEP, save_tiny_model

from medld.acquisition import AxisAcquisition, along
from medld.checkpoint import load_model
from medld.geometry import Grid, choose_target
from medld.nn.networks import Networks
from medld.superres import Request
from medld.volume import Volume

SHAPE = (100, 64, 64)
RATIO = 4


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """The start of every adaptation."""
    return load_model(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", ONE_STEP)).networks


@pytest.fixture(scope="session")
def truth() -> np.ndarray:
    """What the scan is of."""
    return make_head(3, SHAPE).astype(np.float32)


@pytest.fixture(scope="session")
def scan(truth: np.ndarray) -> Volume:
    """Sixteen slices across the last axis, each four pixels thick."""
    array = along(AxisAcquisition(SHAPE[2], SHAPE[2] // RATIO).inner_matrix, truth, -1)
    return Volume(array, Grid(array.shape, np.diag([1.0, 1.0, RATIO, 1.0])), "mr", "T1w")


@pytest.fixture(scope="session")
def request_for_scan(scan: Volume) -> Request:
    """Slices as thin as the pixels are wide."""
    return Request(choose_target(scan.grid))
