"""Samplers on Gaussian data, where the exact denoiser and the exact path are known.

Each number of the latent is z ~ N(m, s^2). Without its drift, w_t = z_t - t z_lr = a z + b eps with
a = 1 - t and b = kappa t, so

    E[z | w] = m + a s^2 (w - a m) / (a^2 s^2 + b^2)
    w_t      = a m + sqrt(a^2 s^2 + b^2) (w_1 / kappa)         along the flow, so z_0 = m + s w_1 / kappa

Samplers that draw noise on the way have no path to be compared with; theirs are laws of moments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from medld.diffusion.noise import Flow
from medld.diffusion.sample import Denoise, euler, heun, multistep
from medld.diffusion.stochastic import (
    DETERMINISTIC,
    RANDOM,
    Walk,
    ddim,
    ddpm,
    evaluations,
    make_sampler,
    predictor_corrector,
)

SLOPE = 0.1
"""Catches an Euler step that poses as Heun by a wide margin."""

ROUNDING = 1e-12
STEPS = (16, 32, 64, 128)
FLOW = Flow(0.5)
Sampler = Callable[[Denoise, Tensor, int], Tensor]
NAMES = [*DETERMINISTIC, *RANDOM]


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


def walk_of(like: Tensor, seed: int = 1) -> Walk:
    """Around the scan's own latent, with noise of a seed."""
    return Walk(FLOW, LOW_RES.expand_as(like).to(like.dtype), torch.Generator().manual_seed(seed))


def draw(name: str, denoise: Denoise, start: Tensor, steps: int, *, eta: float = 0.6, seed: int = 1) -> Tensor:
    """A sample of the sampler of that name; DDIM's lies between its two ends."""
    return make_sampler(name, walk_of(start, seed), eta)(denoise, start, steps)


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


@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_the_posterior_mean(name: str, noise: Tensor) -> None:
    start = FLOW.start(LOW_RES.expand_as(noise), noise)
    expected = exact(start, torch.ones(2, dtype=torch.float64))
    assert torch.allclose(draw(name, exact, start, 1), expected, atol=ROUNDING)
    assert torch.allclose(expected, MEAN.expand_as(noise), atol=ROUNDING)  # z_1 says nothing about z here


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("name", NAMES)
def test_data_at_a_point_are_sampled_exactly(name: str, steps: int, noise: Tensor) -> None:
    def denoise(z_t: Tensor, t: Tensor) -> Tensor:
        return exact(z_t, t, spread=column(0.0, 0.0))

    sample = draw(name, denoise, FLOW.start(LOW_RES.expand_as(noise), noise), steps)
    assert torch.allclose(sample, MEAN.expand_as(noise), atol=ROUNDING)


def many(times: int = 1) -> Tensor:
    """20,000 normal numbers an item, or that many times as many."""
    return torch.randn(2, times, 20, 20, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def moment_errors(sample: Tensor) -> Tensor:
    """How far mean and deviation are from the data's, in deviations of the data; (2, items)."""
    mean, deviation = (getattr(sample, name)(dim=(1, 2, 3, 4)) for name in ("mean", "std"))
    spread = SPREAD.flatten()
    return torch.stack([mean - MEAN.flatten(), deviation - spread]) / spread


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_datas_moments(name: str) -> None:
    monte_carlo = 0.02  # 20,000 draws, and 300 steps of the first order
    noise = many()
    sample = draw(name, exact, FLOW.start(LOW_RES.expand_as(noise), noise), 300)
    assert moment_errors(sample).abs().max() < monte_carlo


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_a_quarter_of_the_step_leaves_a_quarter_of_what_samples_lack_in_spread(eta: float) -> None:
    noise, monte_carlo = many(4), 0.15  # of the order: 80,000 draws for what is a twenty-fifth at the last
    start = FLOW.start(LOW_RES.expand_as(noise), noise)
    lacks = [-moment_errors(draw("ddim", exact, start, steps, eta=eta))[1] for steps in (16, 64)]
    order = torch.log(lacks[0] / lacks[1]) / np.log(4)
    assert (order - 1).abs().max() < monte_carlo


@pytest.mark.parametrize("steps", [1, 3, 8])
@pytest.mark.parametrize("name", ["euler", "heun", "multistep", "ddim", "ddpm", "predictor-corrector"])
def test_evaluations_are_counted_as_they_are_made(name: str, steps: int, noise: Tensor) -> None:
    made = 0

    def counted(z_t: Tensor, t: Tensor) -> Tensor:
        nonlocal made
        made += 1
        return exact(z_t, t)

    draw(name, counted, FLOW.start(LOW_RES.expand_as(noise), noise), steps)
    assert made == evaluations(name, steps)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_without_new_noise_ddim_is_eulers_method_to_the_bit(steps: int, noise: Tensor) -> None:
    start = FLOW.start(LOW_RES.expand_as(noise), noise)
    walk = walk_of(noise)
    before = walk.generator.get_state()
    assert torch.equal(ddim(exact, start, steps, walk, eta=0.0), euler(exact, start, steps))
    assert torch.equal(walk.generator.get_state(), before)


def test_ddpm_is_ddim_that_renews_as_much_as_a_forward_path(noise: Tensor) -> None:
    start = FLOW.start(LOW_RES.expand_as(noise), noise)
    assert torch.equal(ddpm(exact, start, 5, walk_of(noise)), ddim(exact, start, 5, walk_of(noise), eta=1.0))
    assert not torch.allclose(ddpm(exact, start, 5, walk_of(noise)), euler(exact, start, 5), atol=0.01)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_of_known_data_a_way_back_is_distributed_as_a_way_there(eta: float) -> None:
    """w_t ~ N(alpha_t z, sigma_t^2), whatever is renewed; neighbours on the way are as alike as eta says."""
    noise, monte_carlo = many(), 0.03
    seen: list[tuple[float, Tensor]] = []

    def denoise(z_t: Tensor, t: Tensor) -> Tensor:
        time = float(t[0])
        seen.append((time, (z_t - time * LOW_RES - FLOW.alpha(time) * MEAN) / FLOW.sigma(time)))
        return MEAN.expand_as(z_t)

    ddim(denoise, FLOW.start(LOW_RES.expand_as(noise), noise), 6, walk_of(noise), eta=eta)
    for _, left in seen:
        assert abs(float(left.mean())) < monte_carlo
        assert float(left.std()) == pytest.approx(1, abs=monte_carlo)
    for (t, left), (s, after) in pairwise(seen):
        forward = FLOW.alpha(t) * FLOW.sigma(s) / (FLOW.alpha(s) * FLOW.sigma(t))
        alike = (1 - eta**2 * (1 - forward**2)) ** 0.5
        assert float((left * after).mean()) == pytest.approx(alike, abs=monte_carlo)


def test_the_first_step_of_reverse_diffusion_forgets_the_start() -> None:
    """Nothing of z is in w_1, and a step from there is as long as can be: it must not count as a small one."""
    noise, monte_carlo = many(), 0.03
    seen: list[Tensor] = []

    def denoise(z_t: Tensor, t: Tensor) -> Tensor:
        seen.append((z_t - t[0] * LOW_RES - FLOW.alpha(t[0]) * MEAN) / FLOW.sigma(t[0]))
        return MEAN.expand_as(z_t)

    predictor_corrector(denoise, FLOW.start(LOW_RES.expand_as(noise), noise), 2, walk_of(noise), corrections=0)
    assert float((seen[0] * seen[1]).mean()) == pytest.approx(0, abs=monte_carlo)
    assert float(seen[1].std()) == pytest.approx(1, abs=monte_carlo)


def test_corrections_mend_what_the_predictor_spoils() -> None:
    noise = many()
    start = FLOW.start(LOW_RES.expand_as(noise), noise)
    errors = []
    for corrections in (0, 1, 4):
        sample = predictor_corrector(exact, start, 16, walk_of(noise), corrections)
        errors.append(float(moment_errors(sample).abs().max()))
    assert errors[2] < 0.6 * errors[1] < 0.6 * errors[0]


def test_corrections_however_many_and_long_leave_a_gaussian_alone() -> None:
    monte_carlo = 0.03  # 20,000 draws; the noise of Song et al. would add a seventh to the spread
    noise = many()
    start = FLOW.start(LOW_RES.expand_as(noise), noise)
    sample = predictor_corrector(exact, start, 50, walk_of(noise), corrections=8, ratio=0.5)
    assert moment_errors(sample).abs().max() < monte_carlo


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_sample_is_that_of_its_seed(name: str, noise: Tensor) -> None:
    start = FLOW.start(LOW_RES.expand_as(noise), noise).float()
    single = partial(draw, name, lambda z, t: exact(z, t).float(), start, 5)
    assert torch.equal(single(seed=1), single(seed=1))
    assert single(seed=1).dtype == torch.float32
    assert not torch.allclose(single(seed=1), single(seed=2), atol=0.01)


EVALUATIONS = {"euler": 5, "heun": 9, "multistep": 5, "ddim": 5, "ddpm": 5, "predictor-corrector": 9}


@pytest.mark.parametrize("name", NAMES)
def test_times_fall_from_one_and_never_reach_zero(name: str, noise: Tensor) -> None:
    seen: list[float] = []

    def denoise(z_t: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (2,)
        assert (t == t[0]).all()
        seen.append(float(t[0]))
        return exact(z_t, t)

    draw(name, denoise, noise, 5)
    assert len(seen) == EVALUATIONS[name]
    assert seen[0] == 1
    assert seen == sorted(seen, reverse=True)
    assert min(seen) == pytest.approx(0.2)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_depend_on_its_neighbours(name: str, noise: Tensor) -> None:
    start = FLOW.start(LOW_RES.expand_as(noise), noise)
    other = start.clone()
    other[1] += 100
    assert torch.equal(draw(name, exact, other, 6)[0], draw(name, exact, start, 6)[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_start_is_left_alone(name: str, noise: Tensor) -> None:
    start = noise.clone()
    draw(name, exact, start, 3)
    assert torch.equal(start, noise)
