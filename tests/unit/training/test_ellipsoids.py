"""Ellipsoids: where they lie, how large they are, and what they do to a crop."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import torch
from torch import Tensor

from medld.training.ellipsoids import FACTORS, LEAST_CHANGE, MOST, RADII, Ellipsoid, draw_ellipsoids, factors_of

CPU = torch.device("cpu")
SHAPE = (40, 44, 48)
MIDDLE = np.full(3, 0.5, np.float32)


def ellipsoid(radii: tuple[float, float, float], factor: float = 1.5, turned: np.ndarray | None = None) -> Ellipsoid:
    """One in the middle of a crop, its axes those of the crop unless `turned`."""
    axes = np.eye(3) if turned is None else turned
    return Ellipsoid(MIDDLE, (axes / np.array(radii)[:, None]).astype(np.float32), factor)


def one(found: Ellipsoid) -> Tensor:
    return factors_of([(found,)], SHAPE, CPU)[0]


@pytest.mark.parametrize("radii", [(6.0, 6.0, 6.0), (3.0, 5.0, 9.0), (12.0, 4.0, 4.0)])
def test_volume_and_extent_are_those_of_an_ellipsoid(radii: tuple[float, float, float]) -> None:
    weights = (one(ellipsoid(radii, 2.0)) - 1).double().numpy()
    assert weights.sum() == pytest.approx(4 / 3 * pi * np.prod(radii), rel=0.1)
    places = np.indices(SHAPE).reshape(3, -1) + 0.5 - np.array(SHAPE)[:, None] / 2
    spread = np.sqrt((weights.ravel() * places**2).sum(1) / weights.sum())
    assert spread == pytest.approx(np.array(radii) / 5**0.5, rel=0.1)


def test_the_middle_has_the_factor_and_far_away_nothing_changes() -> None:
    got = one(ellipsoid((6, 5, 7), 0.4))
    assert float(got[20, 22, 24]) == pytest.approx(0.4, abs=0.01)
    assert torch.equal(got[:5], torch.ones_like(got[:5]))


def test_a_turned_one_is_the_one_turned() -> None:
    quarter = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    cube = (40, 40, 40)
    plain, turned = (
        factors_of([(e,)], cube, CPU)[0] for e in (ellipsoid((4, 9, 6)), ellipsoid((4, 9, 6), 1.5, quarter))
    )
    assert not torch.allclose(turned, plain, atol=0.1)
    assert torch.allclose(turned, plain.transpose(0, 1), atol=1e-5)


def test_each_crop_gets_its_own_and_where_they_meet_both() -> None:
    small, large = ellipsoid((4, 4, 4)), ellipsoid((8, 8, 8), 0.7)
    got = factors_of([(small, large), (), (large,)], SHAPE, CPU)
    assert torch.allclose(got[0], one(small) * one(large))
    assert torch.equal(got[1], torch.ones(SHAPE))
    assert torch.equal(got[2], one(large))
    assert torch.equal(factors_of([(), ()], SHAPE, CPU), torch.ones(2, *SHAPE))


def test_those_drawn_are_of_all_sizes_no_finer_than_voxels_show_and_seen() -> None:
    rng = np.random.default_rng(0)
    crops = [draw_ellipsoids(rng) for _ in range(200)]
    assert {len(crop) for crop in crops} == set(range(1, MOST + 1))
    drawn = [found for crop in crops for found in crop]
    assert all(RADII[0] <= found.radius <= RADII[1] for found in drawn)
    factors = np.array([found.factor for found in drawn])
    assert FACTORS[0] <= factors.min() < 0.4
    assert 1.7 < factors.max() <= FACTORS[1]
    assert np.abs(np.log(factors)).min() >= LEAST_CHANGE
    assert 0.4 < (factors > 1).mean() < 0.6
    for found in drawn[:60]:
        weights = (one(found) - 1) / (found.factor - 1)
        assert max(float(weights.diff(dim=axis).abs().max()) for axis in range(3)) < 0.8
