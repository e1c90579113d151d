"""Volumes and a config so small that a run takes a second on one core."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medld.config import DataConfig, TrainConfig, parse_config
from medld.dataset import Fine, load

NETWORK = {"channels": [8, 8, 8], "blocks": [1, 1, 1], "embedding": 8}
AUTOENCODER = {"width": 8, "encoder_blocks": 1, "decoder_blocks": 1, "embedding": 8}
DATA = {"in_plane": 16, "slices": 4}
MODELS: dict[str, dict[str, Any]] = {
    "one-step": {"one_step": NETWORK},
    "autoencoder": {"one_step": None, "autoencoder": AUTOENCODER},
    "joint": {"one_step": None, "autoencoder": AUTOENCODER, "denoiser": NETWORK},
}


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two textured heads as NIfTI, one of them of unequal spacing."""
    folder = tmp_path_factory.mktemp("scans")
    rng = np.random.default_rng(0)
    for name, spacing in (("sub-a_T1w", (1.0, 1.0, 1.0)), ("sub-b_T2w", (0.8, 0.8, 1.2))):
        texture = gaussian_filter(rng.standard_normal((40, 44, 48)), 1.2)
        head = (500 + 900 * texture).clip(1)
        head[:4], head[-4:] = 0, 0
        nib.save(nib.Nifti1Image(head.astype(np.float32), np.diag([*spacing, 1.0])), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def volumes(scans: Path) -> list[Fine]:
    """Those heads as 8-bit volumes."""
    return load([scans])


@pytest.fixture
def data_config() -> Callable[..., DataConfig]:
    """Small crops, with some settings."""

    def data_config(**settings: Any) -> DataConfig:
        return parse_config({**DATA, **settings}, DataConfig, origin="test")

    return data_config


@pytest.fixture
def train_config(scans: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Four steps of a stage in float32 on the CPU, with some settings."""

    def train_config(stage: str, run: str = "run", **settings: Any) -> TrainConfig:
        content: dict[str, Any] = {
            "stage": stage,
            "run_dir": str(tmp_path / run),
            "model": MODELS[stage],
            "data": {**DATA, "folders": [str(scans)]},
            "steps": 4,
            "batch": 2,
            "warm_up": 2,
            "ema": 0.5,
            "precision": "float32",
            "device": "cpu",
            "log_every": 2,
        }
        return parse_config({**content, **settings}, TrainConfig, origin="test")

    return train_config
