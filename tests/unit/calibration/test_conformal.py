from __future__ import annotations

from math import ceil, sqrt

import numpy as np
import pytest

from medld.calibration import LEVELS, factors_of, find_factor
from medld.errors import CohortError, ConfigError

TRIALS = 4000
FOUR_ERRORS = 4 * sqrt(0.25 / TRIALS)
"""Of a share seen in so many trials: four standard errors at most."""
AT_90 = LEVELS.index(0.9)


def draw_subjects(rng: np.random.Generator, subjects: int, voxels: int) -> list[tuple[float, ...]]:
    """Subjects whose errors are larger or smaller as a whole, which is what keeps voxels from being exchangeable."""
    level = np.exp(0.4 * rng.standard_normal(subjects))
    return [factors_of([each * np.abs(rng.standard_normal(voxels))]) for each in level]


@pytest.mark.parametrize(("subjects", "share"), [(5, 0.5), (9, 0.5), (9, 0.9), (14, 0.7)])
def test_the_next_subject_reaches_the_level_exactly_as_often_as_promised(
    rng: np.random.Generator, subjects: int, share: float
) -> None:
    pool = draw_subjects(rng, 400, 60)
    reached = 0
    for _ in range(TRIALS):
        *held_out, new = (pool[index] for index in rng.choice(len(pool), subjects + 1, replace=False))
        reached += new[AT_90] <= find_factor(held_out, 0.9, share)
    promised = ceil(share * (subjects + 1)) / (subjects + 1)
    assert abs(reached / TRIALS - promised) < FOUR_ERRORS


def test_of_one_voxel_a_subject_it_is_split_conformal_prediction(rng: np.random.Generator) -> None:
    scores = np.abs(rng.standard_normal(19))
    rank = ceil(0.8 * (len(scores) + 1))
    assert find_factor([factors_of([score]) for score in scores], 0.9, 0.8) == np.sort(scores)[rank - 1]


def test_higher_levels_and_stricter_shares_never_give_a_smaller_factor(rng: np.random.Generator) -> None:
    subjects = draw_subjects(rng, 12, 100)
    by_level = [find_factor(subjects, level) for level in LEVELS]
    by_share = [find_factor(subjects, 0.9, share) for share in np.linspace(0.05, 0.92, 20)]
    for factors in (by_level, by_share):
        assert (np.diff(factors) >= 0).all()
        assert factors[-1] > factors[0]
    values = [subject[AT_90] for subject in subjects]
    assert (by_share[0], by_share[-1]) == (min(values), max(values))


def test_scores_of_twice_the_size_give_twice_the_factor(rng: np.random.Generator) -> None:
    scores = [np.abs(rng.standard_normal(200)) for _ in range(12)]
    once = find_factor([factors_of([part]) for part in scores])
    assert find_factor([factors_of([2 * part]) for part in scores]) == 2 * once


@pytest.mark.parametrize(("share", "need"), [(0.5, 1), (0.8, 4), (0.9, 9)])
def test_too_few_subjects_are_refused_and_one_more_is_enough(rng: np.random.Generator, share: float, need: int) -> None:
    subjects = draw_subjects(rng, need, 50)
    find_factor(subjects, 0.9, share)
    with pytest.raises(CohortError, match=f"at least {need} held-out subjects"):
        find_factor(subjects[:-1], 0.9, share)


@pytest.mark.parametrize(("level", "share"), [(0.85, 0.5), (1.0, 0.5), (0.9, 1.0), (0.9, 0.0)])
def test_a_level_or_share_that_is_none_is_refused(rng: np.random.Generator, level: float, share: float) -> None:
    with pytest.raises(ConfigError, match="level out of"):
        find_factor(draw_subjects(rng, 3, 50), level, share)


def test_factors_are_the_quantiles_of_the_scores(rng: np.random.Generator) -> None:
    scores = rng.exponential(size=4001)
    for level, factor in zip(LEVELS, factors_of([scores]), strict=True):
        assert factor == np.quantile(scores, level, method="inverted_cdf")
        assert np.mean(scores <= factor) >= level


def test_scans_of_a_subject_count_alike_however_large_they_are() -> None:
    small, large = np.full(10, 1.0), np.full(1000, 2.0)
    found = dict(zip(LEVELS, factors_of([small, large]), strict=True))
    assert (found[0.5], found[0.68]) == (1, 2)


@pytest.mark.parametrize("scores", [[], [np.empty(0)], [np.array([1.0, np.nan])], [np.array([np.inf])]])
def test_scores_that_are_none_are_refused(scores: list[np.ndarray]) -> None:
    with pytest.raises(CohortError, match="finite scores"):
        factors_of(scores)
