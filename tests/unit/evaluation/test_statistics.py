from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm

from medld.evaluation.statistics import (
    FEWEST_FOR_INTERVAL,
    FEWEST_FOR_TEST,
    compare_groups,
    compare_paired,
    estimate,
    signed_rank,
    words,
)

MONTE_CARLO = 0.05
"""Of the interval's width: two bootstraps of 9,999 draws rarely differ by more; of six subjects means come in jumps."""


def _values(subjects: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 1.0, (1, subjects)) + 30


def _interval_by_hand(x: np.ndarray, seed: int = 5) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of the mean, from Efron's formulas."""
    rng = np.random.default_rng(seed)
    means = np.sort(x[rng.integers(0, x.size, (9999, x.size))].mean(1))
    ties = np.isclose(means, x.mean(), rtol=1e-12)
    bias = norm.ppf(np.mean((means < x.mean()) & ~ties) + np.mean(ties) / 2)
    jackknife = np.array([np.delete(x, i).mean() for i in range(x.size)])
    d = jackknife.mean() - jackknife
    acceleration = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    z = norm.ppf([0.025, 0.975])
    low, high = np.quantile(means, norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))))
    return float(low), float(high)


@pytest.mark.parametrize("subjects", [6, 12, 30])
def test_the_interval_is_efrons(subjects: int) -> None:
    values = _values(subjects)
    found, (low, high) = estimate(values)[0], _interval_by_hand(values[0])
    assert found.low is not None
    assert found.high is not None
    assert abs(found.low - low) < MONTE_CARLO * (high - low)
    assert abs(found.high - high) < MONTE_CARLO * (high - low)


def test_mean_and_spread_are_numpys() -> None:
    values = _values(7)
    found = estimate(values)[0]
    assert found.mean == pytest.approx(values.mean())
    assert found.sd == pytest.approx(values.std(ddof=1))
    assert found.subjects == 7


def test_the_same_seed_gives_the_same_interval_and_columns_do_not_change_each_other() -> None:
    one, other = _values(9, 1), _values(9, 2)
    both = estimate(np.vstack([one, other]))
    assert estimate(one) == both[:1]
    assert estimate(other) == both[1:]
    assert estimate(one, seed=1) != both[:1]


def test_more_subjects_narrow_the_interval() -> None:
    widths = []
    for subjects in (10, 160):
        found = estimate(_values(subjects))[0]
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2.5


def test_few_subjects_get_no_interval_and_one_no_spread() -> None:
    few, one = estimate(_values(FEWEST_FOR_INTERVAL - 1))[0], estimate(_values(1))[0]
    assert (few.low, few.high) == (None, None)
    assert few.sd is not None
    assert (one.sd, one.low) == (None, None)
    assert estimate(_values(FEWEST_FOR_INTERVAL))[0].low is not None


def test_subjects_of_one_value_leave_nothing_to_draw_from() -> None:
    found = estimate(np.full((1, 8), 31.5))[0]
    assert (found.low, found.high, found.sd) == (31.5, 31.5, 0)


def test_an_infinite_value_leaves_the_others_their_interval() -> None:
    values = np.vstack([_values(8, 1), _values(8, 2)])
    values[0, 3] = np.inf
    perfect, usual = estimate(values)
    assert (perfect.mean, perfect.sd, perfect.low) == (np.inf, None, None)
    assert usual == estimate(values[1:])[0]


def test_a_missing_value_leaves_out_its_subject() -> None:
    values = _values(9)
    holed = np.insert(values, 4, np.nan, axis=1)
    assert estimate(holed) == estimate(values)
    assert estimate(np.full((1, 3), np.nan))[0].subjects == 0


@pytest.mark.parametrize("subjects", [6, 7, 9])
def test_p_is_that_of_all_signs_counted(subjects: int) -> None:
    d = np.random.default_rng(subjects).normal(0.6, 1, subjects)
    ranks = np.argsort(np.argsort(np.abs(d))) + 1
    observed = ranks[d > 0].sum()
    sums = [ranks[np.array(signs)].sum() for signs in product([True, False], repeat=subjects)]
    centre = ranks.sum() / 2
    expected = np.mean(np.abs(np.array(sums) - centre) >= abs(observed - centre))
    assert signed_rank(d) == pytest.approx(expected)


def test_p_needs_six_subjects_and_is_one_where_nothing_differs() -> None:
    assert signed_rank(np.ones(FEWEST_FOR_TEST - 1)) is None
    assert signed_rank(np.zeros(FEWEST_FOR_TEST)) == 1
    assert signed_rank(np.arange(1.0, FEWEST_FOR_TEST + 1)) == pytest.approx(2 / 2**FEWEST_FOR_TEST)


def test_a_paired_difference_has_the_interval_of_its_mean() -> None:
    differences = _values(8) - 30
    found, alone = compare_paired(differences)[0], estimate(differences)[0]
    assert (found.mean, found.low, found.high) == (alone.mean, alone.low, alone.high)
    assert found.p == pytest.approx(2 / 2**8)


def test_groups_differ_by_their_means_with_an_interval_around() -> None:
    inside, outside = _values(12, 1), _values(20, 2) + 1
    found = compare_groups(inside, outside)[0]
    assert found.mean == pytest.approx(inside.mean() - outside.mean())
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high
    by_welch = np.sqrt(inside.var(ddof=1) / 12 + outside.var(ddof=1) / 20)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(by_welch, rel=0.15)


def test_a_group_of_four_gets_a_difference_and_no_interval() -> None:
    found = compare_groups(_values(4), _values(20))[0]
    assert np.isfinite(found.mean)
    assert (found.low, found.high) == (None, None)
    assert np.isnan(compare_groups(np.empty((1, 0)), _values(20))[0].mean)


def test_words_say_what_few_subjects_do_not_allow() -> None:
    assert words(1).startswith("1 subject, too few for an interval (5 needed) or a test (6 needed)")
    assert words(5).startswith("5 subjects, too few for a test")
    assert words(6) == ""
