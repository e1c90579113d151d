"""Folding, the table that standardises latents, and the two halves of the autoencoder."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from medld.nn.autoencoder import (
    LOG_VARIANCE,
    RATIO_KNOTS,
    SMALLEST_SHARE,
    Autoencoder,
    Posterior,
    RatioTable,
    fold,
    knot_weights,
    unfold,
)
from medld.nn.conditions import Conditions

SINGLE = 1e-5
Wake = Callable[[nn.Module], nn.Module]


def random(*shape: int) -> torch.Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def autoencoder() -> Autoencoder:
    """Full depth, four channels wide, with a table that is no identity."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(2, 4, embedding=8)
    autoencoder.latent_mean.copy_(random(RATIO_KNOTS, 2))
    autoencoder.latent_std.copy_(0.2 + random(RATIO_KNOTS, 2).abs())
    return autoencoder


def test_unfolding_undoes_folding() -> None:
    samples = random(2, 1, 3, 4, 8 * 5)
    assert fold(samples).shape == (2, 8, 3, 4, 5)
    assert torch.equal(unfold(fold(samples)), samples)
    folded = random(2, 8, 3, 4, 5)
    assert torch.equal(fold(unfold(folded)), folded)


def test_channels_are_the_samples_of_a_slice_in_order() -> None:
    folded = fold(torch.arange(8.0 * 5).reshape(1, 1, 1, 1, 40))
    assert folded[0, :, 0, 0, 2].tolist() == list(range(16, 24))


def test_knot_weights_sum_to_one_and_interpolate() -> None:
    ratio = torch.linspace(1, 8, 200)
    weights = knot_weights(ratio)
    assert torch.allclose(weights.sum(1), torch.ones(200), atol=SINGLE)
    assert weights.min() >= 0
    assert (weights > 0).sum(1).max() <= 2
    knots = torch.log(torch.tensor(8.0)) * torch.arange(RATIO_KNOTS) / (RATIO_KNOTS - 1)
    assert torch.allclose(knot_weights(knots.exp()), torch.eye(RATIO_KNOTS), atol=SINGLE)
    assert torch.allclose(weights @ knots, ratio.log(), atol=SINGLE)  # linear in log r


def test_ratios_beyond_the_knots_take_the_nearest() -> None:
    assert torch.equal(knot_weights(torch.tensor([0.5, 20.0])), knot_weights(torch.tensor([1.0, 8.0])))


def test_a_table_is_ones_until_it_is_filled() -> None:
    assert torch.allclose(RatioTable(3)(torch.linspace(1, 8, 50)), torch.ones(50, 3, 1, 1, 1), atol=SINGLE)


def test_a_table_is_linear_in_log_r_between_knots() -> None:
    table, knots = RatioTable(3), 8 ** (torch.arange(RATIO_KNOTS) / (RATIO_KNOTS - 1))
    table.values.copy_(random(RATIO_KNOTS, 3).abs())
    for share in (0.0, 0.3, 0.5, 1.0):
        between = table(knots[:-1] ** (1 - share) * knots[1:] ** share)
        expected = torch.lerp(table.values[:-1], table.values[1:], share)
        assert between.shape == (RATIO_KNOTS - 1, 3, 1, 1, 1)
        assert torch.allclose(between.flatten(1), expected, atol=SINGLE)


def test_standardising_is_undone(autoencoder: Autoencoder) -> None:
    latent, ratio = random(3, 2, 4, 4, 4), torch.tensor([1.3, 4.0, 8.0])
    standard = autoencoder.standardise(latent, ratio)
    assert not torch.allclose(standard, latent, atol=0.1)
    assert torch.allclose(autoencoder.unstandardise(standard, ratio), latent, atol=SINGLE)


def test_latents_of_the_tables_moments_become_standard(autoencoder: Autoencoder) -> None:
    latent = autoencoder.latent_mean[-1] + autoencoder.latent_std[-1] * random(5000, 2)
    standard = autoencoder.standardise(latent.T.reshape(1, 2, 50, 10, 10), torch.tensor([8.0]))
    assert torch.allclose(standard.reshape(2, -1).T, random(5000, 2), atol=SINGLE)


def test_a_channel_that_hardly_varies_is_not_blown_up(autoencoder: Autoencoder) -> None:
    autoencoder.latent_mean.zero_()
    autoencoder.latent_std.copy_(torch.tensor([1.0, 1e-6]).expand(RATIO_KNOTS, 2))
    standard = autoencoder.standardise(torch.ones(1, 2, 1, 1, 1), torch.tensor([3.0]))
    assert standard.flatten().tolist() == pytest.approx([1, 1 / SMALLEST_SHARE])


def test_the_divergence_is_zero_for_a_standard_normal_alone() -> None:
    zero = torch.zeros(1, 2, 2, 2, 2)
    assert Posterior(zero, zero).divergence() == 0
    assert Posterior(zero + 1, zero).divergence() == pytest.approx(0.5)
    assert Posterior(zero, zero + 1).divergence() > 0
    assert Posterior(zero, zero - 1).divergence() > 0


def test_samples_have_the_posteriors_moments() -> None:
    mean, log_variance = torch.full((1, 1, 40, 40, 40), 3.0), torch.full((1, 1, 40, 40, 40), -2.0)
    sample = Posterior(mean, log_variance).sample(random(1, 1, 40, 40, 40))
    monte_carlo = 0.01  # 64,000 draws
    assert float(sample.mean()) == pytest.approx(3, abs=monte_carlo)
    assert float(sample.std()) == pytest.approx(torch.tensor(-1.0).exp().item(), rel=monte_carlo)


def test_shapes_and_limits(autoencoder: Autoencoder, conditions: Conditions, wake: Wake) -> None:
    wake(autoencoder)
    geometry = conditions.geometry()
    posterior = autoencoder.encode(1e4 * random(3, 8, 5, 4, 3), geometry)
    assert posterior.mean.shape == posterior.log_variance.shape == (3, 2, 5, 4, 3)
    assert (float(posterior.log_variance.min()), float(posterior.log_variance.max())) == LOG_VARIANCE
    assert autoencoder.decode(posterior.mean, random(3, 1, 5, 4, 3), geometry).shape == (3, 8, 5, 4, 3)


def test_an_untrained_decoder_gives_zero(autoencoder: Autoencoder, conditions: Conditions) -> None:
    answer = autoencoder.decode(random(3, 2, 5, 4, 3), random(3, 1, 5, 4, 3), conditions.geometry())
    assert not answer.any()


@pytest.mark.parametrize("half", ["encode", "decode"])
def test_a_voxel_reaches_no_further_than_the_halo_of_tiles(
    autoencoder: Autoencoder, conditions: Conditions, wake: Wake, half: str
) -> None:
    halo = 8  # of `superres.axis.HALO_AUTOENCODER`, for encoder and decoder at their default depths
    wake(autoencoder.double())
    geometry, place = conditions.geometry()[:1].double(), 15
    x = random(1, 8 if half == "encode" else 3, 31, 1, 1).double()
    touched = x.clone()
    touched[:, :, place] += 10

    def run(x: torch.Tensor) -> torch.Tensor:
        if half == "decode":
            return autoencoder.decode(x[:, :2], x[:, 2:], geometry)
        return autoencoder.encoder(x, geometry)

    changed = (run(touched) - run(x)).abs().amax((0, 1, 3, 4)).nonzero().flatten()
    reach = max(place - int(changed.min()), int(changed.max()) - place)
    assert 0 < reach <= halo


def test_an_answer_does_not_depend_on_its_neighbours(
    autoencoder: Autoencoder, conditions: Conditions, wake: Wake
) -> None:
    wake(autoencoder)
    samples, geometry = random(3, 8, 5, 4, 3), conditions.geometry()
    together = autoencoder.encode(samples, geometry).mean
    alone = autoencoder.encode(samples[1:2], geometry[1:2]).mean
    assert torch.allclose(alone, together[1:2], atol=SINGLE * float(together.abs().max()), rtol=0)
