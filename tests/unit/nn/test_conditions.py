"""What networks are told."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from medld.nn.conditions import (
    CONTRASTS,
    GEOMETRY_FEATURES,
    SCAN_FEATURES,
    THICKNESS_TOLD,
    TIME_FEATURES,
    Conditions,
    time_features,
)


def test_features_have_the_sizes_that_networks_are_built_for(conditions: Conditions) -> None:
    assert conditions.geometry().shape == (3, GEOMETRY_FEATURES)
    assert conditions.features().shape == (3, SCAN_FEATURES)
    assert time_features(torch.rand(3)).shape == (3, TIME_FEATURES)


def test_an_item_does_not_depend_on_its_neighbours(conditions: Conditions) -> None:
    alone = Conditions(**{field.name: getattr(conditions, field.name)[1:2] for field in fields(conditions)})
    assert torch.equal(alone.features(), conditions.features()[1:2])


def test_the_first_items_are_told_as_in_the_batch(conditions: Conditions) -> None:
    assert torch.equal(conditions.first(2).features(), conditions.features()[:2])
    assert torch.equal(conditions.first(3).features(), conditions.features())


@pytest.mark.parametrize("name", [field.name for field in fields(Conditions)])
def test_every_condition_is_told(conditions: Conditions, name: str) -> None:
    value = getattr(conditions, name)
    other = replace(conditions, **{name: (value + 1) % len(CONTRASTS) if name == "contrast" else value * 0.9 + 0.01})
    assert (conditions.features() != other.features()).any(1).sum() >= 2  # clamps may hide a change at an end


def test_the_autoencoder_is_told_the_geometry_alone(conditions: Conditions) -> None:
    other = replace(conditions, noise=conditions.noise + 1, contrast=conditions.contrast * 0, soft=conditions.soft + 1)
    assert torch.equal(other.geometry(), conditions.geometry())


def test_thickness_outside_the_training_is_told_clamped(conditions: Conditions) -> None:
    low, high = THICKNESS_TOLD
    outside = replace(conditions, thickness=torch.tensor([0.1, 5.0, 1.0]))
    clamped = replace(conditions, thickness=torch.tensor([low, high, 1.0]))
    assert torch.equal(outside.features(), clamped.features())


def test_features_stay_small_whatever_the_scan(conditions: Conditions) -> None:
    wild = replace(conditions, spacing_ratio=conditions.spacing_ratio * 100, noise=conditions.noise * 1e3)
    assert wild.features().abs().max() <= 3


def test_times_are_told_apart() -> None:
    features = time_features(torch.linspace(0, 1, 65))
    distance = torch.cdist(features, features) + 10 * torch.eye(65)
    assert distance.min() > 0.1
