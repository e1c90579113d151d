"""One pass along one axis, with the networks in hand."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from medld.acquisition import SMALLEST_LAMBDA, Acquisition, AxisAcquisition
from medld.build import build_networks
from medld.config import AutoencoderConfig, ModelConfig, NetworkConfig
from medld.diffusion.denoise import Denoiser
from medld.diffusion.noise import Flow
from medld.nn.autoencoder import RatioTable
from medld.nn.conditions import Conditions, time_features
from medld.nn.networks import Networks
from medld.superres.axis import AxisPass, Dials
from medld.superres.projection import Strength
from medld.superres.work import Work

SINGLE = 1e-5
CPU = torch.device("cpu")
AXIS = AxisAcquisition(15, 6)
WHOLE = 10**9


class Clock(nn.Module):
    """A backbone that adds nothing and keeps the features that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(B, 2C + 1, I, J, K) to zeros (B, C, I, J, K)."""
        self.seen.append(features)
        return torch.zeros_like(x[:, : x.shape[1] // 2])


def spread(value: float) -> RatioTable:
    """The same deviation for both channels at every ratio."""
    table = RatioTable(2)
    table.values.fill_(value)
    return table


def a_pass(
    networks: Networks,
    *,
    project: bool = True,
    shape: tuple[int, int] = (12, 10),
    seed: int = 0,
    remaining: int = 0,
) -> AxisPass:
    """A pass over six slices of random values."""
    one = torch.ones(1)
    slab = torch.rand(1, 1, *shape, 6, generator=torch.Generator().manual_seed(1))
    return AxisPass(
        networks.to(CPU, torch.float32),
        AXIS,
        slab,
        Conditions(2.5 * one, 2.5 * one, one, 0 * one, 0 * one, torch.zeros(1, dtype=torch.long)),
        remaining,
        Strength(torch.tensor(0.0), torch.tensor(SMALLEST_LAMBDA), project),
        Dials(0.0, 2, seed, WHOLE),
        torch.float32,
        Work(CPU, 1, lambda _: None),
    )


def test_untrained_networks_leave_the_baseline() -> None:
    tiny = NetworkConfig(channels=(4, 4, 4), blocks=(1, 1, 1), embedding=8)
    networks = build_networks(ModelConfig(one_step=tiny, autoencoder=AutoencoderConfig(width=4), denoiser=tiny))
    one = a_pass(networks)
    operator = Acquisition((None, None, AXIS))
    expected = operator.crop(operator.baseline(one.slab))
    assert torch.allclose(one.restore(), expected, atol=SINGLE)
    assert torch.allclose(one.restore(draw=0), expected, atol=SINGLE)  # the decoder says nothing yet


@pytest.mark.parametrize(("draw", "flips"), [(None, 1), (None, 8), (0, 1)])
def test_tiles_equal_the_whole(networks: Networks, draw: int | None, flips: int) -> None:
    whole = a_pass(networks, shape=(8, 130))
    whole = replace(whole, dials=replace(whole.dials, flips=flips))
    tiled = replace(whole, dials=replace(whole.dials, untiled_voxels=1))
    expected = whole.restore(draw)
    assert torch.allclose(tiled.restore(draw), expected, atol=10 * SINGLE * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize(("flips", "dims"), [(2, (2,)), (4, (3,)), (4, (2, 3)), (8, (4,)), (8, (2, 3, 4))])
def test_a_mean_over_mirrored_scans_does_not_care_for_the_side(
    networks: Networks, flips: int, dims: tuple[int, ...]
) -> None:
    def answers(flips: int) -> tuple[torch.Tensor, torch.Tensor]:
        one = a_pass(networks)
        one = replace(one, dials=replace(one.dials, flips=flips))
        return one.restore().flip(dims), replace(one, slab=one.slab.flip(dims)).restore()

    mirrored, of_mirrored = answers(flips)
    assert torch.allclose(mirrored, of_mirrored, atol=10 * SINGLE * float(mirrored.abs().max()), rtol=0)
    mirrored, of_mirrored = answers(1)
    assert not torch.allclose(mirrored, of_mirrored, atol=0.01)


def test_draws_differ_and_repeat(networks: Networks) -> None:
    first, again, second = (a_pass(networks).restore(draw) for draw in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, second, atol=0.01)


def test_seeds_and_passes_have_noise_of_their_own_and_draws_that_of_later_seeds(networks: Networks) -> None:
    drawn = [
        a_pass(networks, seed=seed, remaining=remaining).restore(draw=0)
        for seed, remaining in ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1))
    ]
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(drawn, 2))
    assert torch.equal(drawn[2], a_pass(networks, seed=0).restore(draw=2))


def test_the_latents_table_cancels_where_the_denoiser_adds_nothing(networks: Networks) -> None:
    assert networks.autoencoder is not None
    other = copy.deepcopy(networks.autoencoder)
    other.latent_mean.add_(1.0)
    other.latent_std.mul_(3.0)
    silent = replace(networks, fidelity="latent", denoiser=Denoiser(Clock(), Flow(), spread(1.0)))
    first, second = (a_pass(replace(silent, autoencoder=a)).restore() for a in (networks.autoencoder, other))
    assert torch.allclose(first, second, atol=10 * SINGLE)


def test_the_denoiser_is_told_the_scan_and_the_time(networks: Networks) -> None:
    clock = Clock()
    one = a_pass(networks)  # its networks are copies for use
    one = replace(one, networks=replace(one.networks, denoiser=Denoiser(clock, Flow(), spread(1.0))))
    one.restore(draw=0)
    scan = one.conditions.features()
    expected = [torch.cat([scan, time_features(torch.tensor([t]))], dim=1) for t in (1.0, 0.5)]
    assert len(clock.seen) == 2
    assert all(torch.equal(a, b) for a, b in zip(clock.seen, expected, strict=True))


def test_the_spread_is_that_of_the_scans_ratio(networks: Networks) -> None:
    samples = []
    for knot in (0, 3, 7):  # ratio 2.5 lies between knots 3 and 4
        table = spread(1.0)
        table.values[knot] = 3.0
        samples.append(a_pass(replace(networks, denoiser=Denoiser(Clock(), Flow(), table))).restore(draw=0))
    assert torch.equal(samples[0], samples[2])
    assert not torch.allclose(samples[0], samples[1], atol=0.01)


def test_the_noise_field_is_one_for_the_whole_slab(networks: Networks) -> None:
    """A slab's tile is no slab of its own: its noise depends on where it lies."""
    large = a_pass(networks, project=False, shape=(8, 124))
    small = replace(large, slab=large.slab[:, :, :, 4:])
    assert not torch.allclose(large.restore(draw=0)[..., 64:70, :], small.restore(draw=0)[..., 60:66, :], atol=0.01)
    assert torch.allclose(large.restore()[..., 64:70, :], small.restore()[..., 60:66, :], atol=SINGLE * 100)


def test_a_flow_from_the_one_step_answer_loses_nothing_of_it(networks: Networks) -> None:
    """Where latents never leave the start, a sample is the start, whatever the autoencoder makes of it."""
    silent = replace(networks, denoiser=Denoiser(Clock(), Flow(), spread(0.0)), start="mean")
    one = a_pass(silent)
    expected = one.restore()
    assert torch.allclose(one.restore(draw=0), expected, atol=20 * SINGLE * float(expected.abs().max()), rtol=0)
    assert not torch.allclose(a_pass(replace(silent, start="baseline")).restore(draw=0), expected, atol=0.01)


def test_the_mean_of_a_flow_from_the_one_step_answer_starts_there_too(networks: Networks) -> None:
    silent = replace(networks, denoiser=Denoiser(Clock(), Flow(), spread(0.0)), start="mean")
    answer, mean = (a_pass(replace(silent, fidelity=form)).restore() for form in ("one-step", "latent"))
    assert torch.allclose(mean, answer, atol=20 * SINGLE * float(answer.abs().max()), rtol=0)
    scattered = a_pass(replace(networks, start="mean", fidelity="latent"))
    assert torch.equal(scattered.restore(draw=0), a_pass(replace(networks, start="mean")).restore(draw=0))
