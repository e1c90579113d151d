from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medld.errors import InputError
from medld.metrics import Reference
from medld.metrics.tissue import class_shifts, class_thresholds

LEVELS = (200.0, 500.0, 900.0)


@pytest.fixture(scope="module")
def layers() -> np.ndarray:
    """Air and three tissues in slabs of 8 voxels, a little noisy."""
    rng = np.random.default_rng(0)
    levels = np.repeat([0.0, *LEVELS], 8)[:, None, None] * np.ones((1, 16, 16))
    return np.asarray(levels + np.where(levels > 0, rng.normal(0, 10, levels.shape), 0))


def test_classes_are_the_layers(layers: np.ndarray) -> None:
    tissue = layers[layers > 0]
    classes = np.digitize(tissue, class_thresholds(tissue))
    assert np.array_equal(classes, np.abs(tissue[:, None] - LEVELS).argmin(1))


def test_thresholds_leave_the_least_variance_inside_the_classes() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(300, 60, 4000), rng.normal(520, 50, 9000), rng.normal(700, 80, 2000)])
    first, second = class_thresholds(values)

    def spread(cuts: tuple[float, float]) -> float:
        parts = np.split(np.sort(values), np.searchsorted(np.sort(values), cuts))
        return float(sum(((part - part.mean()) ** 2).sum() for part in parts if len(part)))

    best = min(spread(cuts) for cuts in combinations(np.linspace(250, 800, 23), 2))
    assert spread((first, second)) <= 1.005 * best


def test_each_class_reports_its_own_shift(layers: np.ndarray) -> None:
    output = layers.copy()
    for level, by in zip(LEVELS, (30, -20, 7), strict=True):
        output[np.abs(layers - level) < 50] += by
    shifts = Reference(layers).tissue_shift(output)
    data_range = np.ptp(layers)
    assert shifts == pytest.approx({"dark": 30 / data_range, "middle": -20 / data_range, "bright": 7 / data_range})


def test_an_equal_output_has_no_shift(head: np.ndarray) -> None:
    assert Reference(head).tissue_shift(head.copy()) == {"dark": 0.0, "middle": 0.0, "bright": 0.0}


def test_a_bias_is_caught_in_every_class(head: np.ndarray) -> None:
    reference = Reference(head)
    shifts = reference.tissue_shift(head + np.float32(0.02 * reference.data_range))
    assert list(shifts.values()) == pytest.approx([0.02] * 3, abs=1e-6)


def test_lost_contrast_moves_classes_towards_each_other(head: np.ndarray) -> None:
    shifts = Reference(head).tissue_shift(gaussian_filter(head, 1.5))
    assert shifts["bright"] < -0.01
    assert shifts["bright"] < shifts["middle"]
    assert shifts["bright"] < shifts["dark"]


def test_a_bright_vessel_does_not_move_the_thresholds() -> None:
    values = np.random.default_rng(2).normal(500, 100, 10000)
    with_vessel = np.append(values, [50000.0] * 10)
    assert class_thresholds(with_vessel) == pytest.approx(class_thresholds(values), abs=15)


def test_a_value_at_a_threshold_belongs_above() -> None:
    truth = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert class_shifts(truth, truth + np.array([1, 5, 5, 9, 9]), (2.0, 4.0)) == {"dark": 1, "middle": 5, "bright": 9}


@pytest.mark.parametrize("values", [np.full(100, 3.0), np.repeat([1.0, 2.0], 50)], ids=["one-level", "two-levels"])
def test_refuses_a_truth_without_three_levels(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="three levels") as caught:
        class_thresholds(values)
    assert caught.value.code == "E_PIXELS"
