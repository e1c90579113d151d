"""Validation compares models on the same scans, and knows what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from medld.build import build_networks
from medld.config import TrainConfig
from medld.dataset import Fine
from medld.nn.networks import Networks
from medld.training.validation import Validator, centre, imaged, mean_gain, validate


@pytest.fixture
def networks(train_config: Callable[..., TrainConfig]) -> Networks:
    """A one-step network that has learned nothing yet but is not silent."""
    torch.manual_seed(0)
    networks = build_networks(train_config("one-step").model)
    assert networks.one_step is not None
    with torch.no_grad():
        for parameter in networks.one_step.parameters():
            parameter.add_(0.02)
    return networks


def test_the_centre_is_the_middle_of_what_is_larger(volumes: list[Fine]) -> None:
    whole = volumes[0].array  # 40 x 44 x 48
    assert centre(volumes[0], None) is volumes[0]
    assert np.array_equal(centre(volumes[0], 44).array, whole[:, :, 2:46])
    middle = centre(volumes[0], 20)
    assert np.array_equal(middle.array, whole[10:30, 12:32, 14:34])
    assert (middle.name, middle.spacing) == (volumes[0].name, volumes[0].spacing)


def test_every_ratio_and_volume_has_its_row(networks: Networks, volumes: list[Fine]) -> None:
    rows = Validator(volumes, (2.0, 4.0), "cpu", crop=32).measure(networks)
    assert [(row["ratio"], row["volume"]) for row in rows] == [
        (ratio, fine.name) for ratio in (2.0, 4.0) for fine in volumes
    ]
    assert rows == validate(networks, [centre(fine, 32) for fine in volumes], (2.0, 4.0), "cpu")
    assert mean_gain(rows) == pytest.approx(sum(float(row["gain"]) for row in rows) / 4)


def test_models_are_compared_on_the_same_scans(networks: Networks, volumes: list[Fine]) -> None:
    validator = Validator(volumes[:1], (4.0,), "cpu", crop=32)
    (first,) = validator.measure(networks)
    assert networks.one_step is not None
    with torch.no_grad():
        networks.one_step.head.bias.add_(0.5)
    (worse,) = validator.measure(networks)
    assert worse["baseline"] == first["baseline"]
    assert float(worse["gain"]) < float(first["gain"]) - 0.1
    assert validator.measure(networks) == [worse]


def test_what_a_validation_takes_is_found_from_a_part_and_then_known(networks: Networks, volumes: list[Fine]) -> None:
    validator = Validator(volumes, (2.0, 4.0, 6.0), "cpu", crop=32)
    expected = validator.expect_seconds(networks)
    began = time.monotonic()
    assert validator.expect_seconds(networks) == expected  # nothing is tried twice
    validator.measure(networks)
    assert 0 < validator.expect_seconds(networks) <= time.monotonic() - began


def test_truth_and_scan_fill_the_same_box(volumes: list[Fine]) -> None:
    truth, scan = imaged(volumes[1], 3.5)
    assert scan.array.shape == (40, 44, 13)
    assert truth.array.shape == (40, 44, round(13 * 3.5))
    assert scan.grid.spacing[2] * 13 == pytest.approx(truth.grid.spacing[2] * truth.array.shape[2])
