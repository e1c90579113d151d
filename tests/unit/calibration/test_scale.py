from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibration_heads import SCALE, Head, make_head
from pydantic import ValidationError
from scipy.stats import spearmanr

from medld.acquisition import Acquisition, AxisAcquisition
from medld.calibration import Evidence, ScaleConfig, draw_sample, fit_scale, scale_map
from medld.errors import CohortError, InputError


def with_errors(head: Head, config: ScaleConfig, seed: int) -> tuple[Evidence, np.ndarray]:
    """A truth whose errors are of a Laplace distribution with the deviation that the scale says."""
    errors = np.random.default_rng(seed).laplace(size=head.truth.shape) * scale_map(head.evidence, config)
    return head.evidence, head.evidence.output + errors


def test_the_fit_finds_the_scale_that_errors_were_drawn_with() -> None:
    heads = [make_head(seed, slices) for seed, slices in enumerate((16, 8, 4, 16, 8, 4))]
    made = [(head, *with_errors(head, SCALE, seed)) for seed, head in enumerate(heads)]
    found = fit_scale([draw_sample(evidence, truth, head.foreground) for head, evidence, truth in made])
    for head in heads:
        ratio = scale_map(head.evidence, found)[head.foreground] / scale_map(head.evidence, SCALE)[head.foreground]
        assert np.abs(np.log(ratio)).max() < 0.15
        assert abs(np.log(ratio).mean()) < 0.03


def test_the_scale_has_the_unit_of_the_scan(head: Head) -> None:
    e = head.evidence
    louder = Evidence(12 * e.scan, 12 * e.output, e.acquisition, 12 * e.unit)
    assert np.allclose(scale_map(louder, SCALE), 12 * scale_map(e, SCALE), rtol=1e-4)


def test_fitting_in_other_units_gives_the_same_coefficients(head: Head) -> None:
    e = head.evidence
    louder = Evidence(12 * e.scan, 12 * e.output, e.acquisition, 12 * e.unit)
    once = fit_scale([draw_sample(e, head.truth, head.foreground)])
    twice = fit_scale([draw_sample(louder, 12 * head.truth, head.foreground)])
    assert np.allclose(once.exponents, twice.exponents, atol=1e-2)
    assert np.allclose(scale_map(louder, twice), 12 * scale_map(e, once), rtol=2e-2)


def test_noise_has_a_part_as_large_as_it_was_drawn_with() -> None:
    true = SCALE.model_copy(update={"noise": (-0.2, 0.1, 0.0)})
    samples, heads = [], [make_head(seed, slices) for seed, slices in enumerate((16, 8, 4, 16, 8, 4))]
    for place, head in enumerate(heads):
        noisy = replace(head, evidence=replace(head.evidence, noise=0.01 * (place > 2) * head.evidence.unit))
        evidence, truth = with_errors(noisy, true, place)
        samples.append(draw_sample(evidence, truth, head.foreground))
    assert np.allclose(fit_scale(samples).noise, true.noise, atol=0.1)


def test_more_coarse_axes_have_a_level_of_their_own(head: Head) -> None:
    axes = (AxisAcquisition(40, 20), None, head.evidence.acquisition.axes[2])
    both = replace(head.evidence, acquisition=Acquisition(axes), scan=head.evidence.scan[::2])
    plain, more = (scale_map(both, SCALE.model_copy(update={"axes": g})) for g in (0.0, 0.5))
    assert np.allclose(more, np.exp(0.5) * plain, rtol=1e-4)
    alone = SCALE.model_copy(update={"axes": 0.5})
    assert np.array_equal(scale_map(head.evidence, alone), scale_map(head.evidence, SCALE))


def test_more_noise_than_was_seen_counts_as_the_most_that_was(head: Head) -> None:
    scale = SCALE.model_copy(update={"noise": (-0.2, 0.0, 0.0)})

    def at(percent: float) -> np.ndarray:
        return scale_map(replace(head.evidence, noise=percent / 100 * head.evidence.unit), scale)

    assert np.allclose(at(2.0), np.exp(-0.4) * at(0.0), rtol=1e-4)
    assert np.allclose(at(30.0), at(3.0))


def test_a_fitted_scale_tells_large_errors_from_small_ones_on_another_head() -> None:
    first, second = make_head(1), make_head(2)
    found = fit_scale([draw_sample(first.evidence, first.truth, first.foreground)])
    inside = second.foreground
    error = np.abs(second.truth - second.evidence.output)[inside]
    assert spearmanr(scale_map(second.evidence, found)[inside], error)[0] > 0.25


def test_the_scale_is_positive_and_small_in_empty_air(head: Head) -> None:
    scale = scale_map(head.evidence, SCALE)
    assert scale.min() > 0
    assert scale[0, 0, 0] < 0.1 * np.median(scale[head.foreground])


def test_a_scale_of_the_spread_alone_is_as_large_as_the_spread(head: Head) -> None:
    config = ScaleConfig(features=("spread",), exponents=(), level=(0.0, 0.0, 0.0), phase=(0.0, 0.0))
    for spread in (20.0, 40.0):
        evidence = replace(head.evidence, spread=np.full_like(head.truth, spread))
        assert np.allclose(scale_map(evidence, config), spread + 1e-3 * evidence.unit, rtol=1e-3)
    with pytest.raises(InputError, match="--samples"):
        scale_map(head.evidence, config)


def test_the_same_seed_draws_the_same_voxels(head: Head) -> None:
    first, again, other = (draw_sample(head.evidence, head.truth, head.foreground, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.error, again.error)
    assert not np.array_equal(first.error, other.error)


def test_what_cannot_be_fitted_is_refused(head: Head) -> None:
    with pytest.raises(CohortError, match="at least one scan"):
        fit_scale([])
    with pytest.raises(InputError, match="not empty"):
        draw_sample(head.evidence, head.truth, np.zeros_like(head.foreground))
    with pytest.raises(InputError, match="Expected a truth"):
        draw_sample(head.evidence, head.truth[1:], head.foreground)


@pytest.mark.parametrize("exponents", [(), ((0.1, 0.2), (0.1, 0.2))])
def test_every_feature_but_the_first_has_an_exponent(exponents: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValidationError, match="all but the first"):
        ScaleConfig(features=("texture", "bend"), exponents=exponents, level=(0, 0, 0), phase=(0, 0))
