from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice

from medld.errors import InputError
from medld.metrics import dice


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5, (12, 11, 10))


def test_dice_is_monais(labels: np.ndarray) -> None:
    output = np.where(np.random.default_rng(1).random(labels.shape) < 0.7, labels, (labels + 1) % 5)
    one_hot = [torch.from_numpy(np.stack([m == k for k in range(5)]))[None] for m in (output, labels)]
    by_monai = compute_dice(*one_hot, include_background=False)[0].tolist()
    assert list(dice(labels, output).values()) == pytest.approx(by_monai, abs=1e-6)


def test_equal_maps_overlap_wholly_in_any_type(labels: np.ndarray) -> None:
    assert dice(labels, labels.astype(np.float64)) == {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}
    assert dice(labels.astype(np.uint8), labels.astype(np.int16)) == {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}


def test_a_label_that_one_map_lacks_overlaps_nowhere() -> None:
    assert dice(np.array([0, 1, 1, 7]), np.array([0, 1, 2, 2])) == pytest.approx({1: 2 / 3, 2: 0.0, 7: 0.0})


@pytest.mark.parametrize(
    ("truth", "output", "says"),
    [
        (np.ones(4), np.ones(5), "one shape"),
        (np.zeros(4), np.zeros(4), "background alone"),
        (np.array([0, 1.5]), np.array([0, 1.0]), "whole numbers"),
        (np.array([0, np.nan]), np.array([0, 1.0]), "whole numbers"),
        (np.array([0, np.inf]), np.array([0, 1.0]), "whole numbers"),
    ],
    ids=["shape", "empty", "fraction", "nan", "inf"],
)
def test_refuses_what_is_no_label_map(truth: np.ndarray, output: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        dice(truth, output)
    assert caught.value.code == "E_PIXELS"
