"""Samplers on Gaussian data, where the exact denoiser and the exact path are known.

Each number of the latent is z ~ N(m, s^2). Without its drift, w_t = z_t - t z_lr = a z + b eps with
a = 1 - t and b = kappa t, so

    E[z | w] = m + a s^2 (w - a m) / (a^2 s^2 + b^2)
    w_t      = a m + sqrt(a^2 s^2 + b^2) (w_1 / kappa)         along the flow, so z_0 = m + s w_1 / kappa
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from medld.diffusion.noise import Flow
from medld.diffusion.sample import Denoise, euler, heun, multistep

SLOPE = 0.1
"""Catches an Euler step that poses as Heun by a wide margin."""

ROUNDING = 1e-12
STEPS = (16, 32, 64, 128)
FLOW = Flow(0.5)
Sampler = Callable[[Denoise, Tensor, int], Tensor]


def column(*values: float) -> Tensor:
    """One value per batch item, against (B, C, I, J, K)."""
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None, None]


MEAN, SPREAD, LOW_RES = column(0.3, -1.0), column(0.4, 1.7), column(0.1, -0.5)


def exact(z_t: Tensor, t: Tensor, spread: Tensor = SPREAD) -> Tensor:
    """The posterior mean of z given z_t."""
    t = t[:, None, None, None, None]
    alpha, sigma = FLOW.alpha(t), FLOW.sigma(t)
    w = z_t - t * LOW_RES
    return MEAN + alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * (w - alpha * MEAN)


@pytest.fixture
def noise() -> Tensor:
    """Normal numbers for both items."""
    return torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def error(sampler: Sampler, noise: Tensor, steps: int) -> float:
    """Distance of a sample from the end of the exact path."""
    sample = sampler(exact, FLOW.start(LOW_RES.expand_as(noise), noise), steps)
    return float((sample - (MEAN + SPREAD * noise)).abs().mean())


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2), (multistep, 2)])
def test_halving_the_step_divides_the_error_by_the_order(sampler: Sampler, order: int, noise: Tensor) -> None:
    errors = [error(sampler, noise, steps) for steps in STEPS]
    slope = -np.polyfit(np.log(STEPS), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=SLOPE)


def test_heun_is_worth_its_second_evaluation(noise: Tensor) -> None:
    assert error(heun, noise, 16) < error(euler, noise, 32)


def test_a_line_through_two_values_is_worth_more_than_one(noise: Tensor) -> None:
    assert error(multistep, noise, 8) < error(euler, noise, 8) / 2


@pytest.mark.parametrize("sampler", [euler, heun, multistep])
def test_one_step_is_the_posterior_mean(sampler: Sampler, noise: Tensor) -> None:
    start = FLOW.start(LOW_RES.expand_as(noise), noise)
    expected = exact(start, torch.ones(2, dtype=torch.float64))
    assert torch.allclose(sampler(exact, start, 1), expected, atol=ROUNDING)
    assert torch.allclose(expected, MEAN.expand_as(noise), atol=ROUNDING)  # z_1 says nothing about z here


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("sampler", [euler, heun, multistep])
def test_data_at_a_point_are_sampled_exactly(sampler: Sampler, steps: int, noise: Tensor) -> None:
    def denoise(z_t: Tensor, t: Tensor) -> Tensor:
        return exact(z_t, t, spread=column(0.0, 0.0))

    sample = sampler(denoise, FLOW.start(LOW_RES.expand_as(noise), noise), steps)
    assert torch.allclose(sample, MEAN.expand_as(noise), atol=ROUNDING)


@pytest.mark.parametrize("sampler", [euler, heun, multistep])
def test_samples_have_the_datas_moments(sampler: Sampler) -> None:
    monte_carlo = 0.02  # 20,000 draws, and 100 steps of the first order
    noise = torch.randn(2, 1, 20, 20, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sample = sampler(exact, FLOW.start(LOW_RES.expand_as(noise), noise), 100)
    for item in range(2):
        assert float(sample[item].mean()) == pytest.approx(float(MEAN[item]), abs=monte_carlo * float(SPREAD[item]))
        assert float(sample[item].std()) == pytest.approx(float(SPREAD[item]), rel=monte_carlo)


@pytest.mark.parametrize(("sampler", "evaluations"), [(euler, 5), (heun, 9), (multistep, 5)])
def test_times_fall_from_one_and_never_reach_zero(sampler: Sampler, evaluations: int, noise: Tensor) -> None:
    seen: list[float] = []

    def denoise(z_t: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (2,)
        assert (t == t[0]).all()
        seen.append(float(t[0]))
        return exact(z_t, t)

    sampler(denoise, noise, 5)
    assert len(seen) == evaluations
    assert seen[0] == 1
    assert seen == sorted(seen, reverse=True)
    assert min(seen) == pytest.approx(0.2)


@pytest.mark.parametrize("sampler", [euler, heun, multistep])
def test_a_sample_does_not_depend_on_its_neighbours(sampler: Sampler, noise: Tensor) -> None:
    start = FLOW.start(LOW_RES.expand_as(noise), noise)
    other = start.clone()
    other[1] += 100
    assert torch.equal(sampler(exact, other, 6)[0], sampler(exact, start, 6)[0])


@pytest.mark.parametrize("sampler", [euler, heun, multistep])
def test_the_start_is_left_alone(sampler: Sampler, noise: Tensor) -> None:
    start = noise.clone()
    sampler(exact, start, 3)
    assert torch.equal(start, noise)
