"""A small head, and a calibration that was never measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from calibration_heads import SCALE, Head, make_head

from medld.calibration import LEVELS, BinConfig, ModeConfig, SubjectConfig

WEIGHTS = {"one_step.safetensors": "ab" * 32}


@pytest.fixture
def head() -> Head:
    """One of them."""
    return make_head(0)


@pytest.fixture
def subject() -> Callable[..., SubjectConfig]:
    """A held-out subject whose scores are uniform up to some width."""

    def make(width: float = 1.0, agreement: float = 0.7, ratio: float = 4.0) -> SubjectConfig:
        factors = tuple(width * level for level in LEVELS)
        return SubjectConfig(scans=("0123456789ab",), ratios=(ratio,), factors=factors, agreement=agreement)

    return make


@pytest.fixture
def mode(subject: Callable[..., SubjectConfig]) -> ModeConfig:
    """A calibration at 4x of nine subjects with T1w, and of eleven with anything."""
    nine = tuple(subject(1 + 0.1 * n) for n in range(9))
    bins = (
        BinConfig(axes=1, low=3.5, high=4.5, contrast="T1w", subjects=nine),
        BinConfig(axes=1, low=3.5, high=4.5, contrast=None, subjects=(*nine, subject(3.0), subject(4.0))),
    )
    return ModeConfig(weights=WEIGHTS, realism=0.0, steps=1, samples=1, scale=SCALE, bins=bins)
