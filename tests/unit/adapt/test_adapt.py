"""A network tuned on a scan, or the start where that is no better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from medld.adapt import AdaptConfig, Adapted, adapt, settings_for
from medld.adapt.judge import IN_PLANE, THROUGH_PLANE
from medld.adapt.tune import blended
from medld.config import parse_config
from medld.errors import ConfigError
from medld.geometry import choose_target
from medld.nn.networks import Networks
from medld.superres import Request, SuperResolver
from medld.training.validation import Trained
from medld.volume import Volume

Tune = Callable[..., Adapted]
SMALL = {"steps": 3, "in_plane": 32, "slices": 8, "batch": 2}


@pytest.fixture(scope="module")
def tuned(scan: Volume, request_for_scan: Request, networks: Networks) -> Tune:
    """The scan adapted to, with some settings."""

    def tuned(start: Networks = networks, **settings: object) -> Adapted:
        config = settings_for("cpu", **{**SMALL, **settings})
        return adapt(scan, request_for_scan, start, config, device="cpu")

    return tuned


def weights(networks: Networks) -> torch.Tensor:
    """All one-step weights in a row."""
    assert networks.one_step is not None
    return torch.cat([parameter.flatten() for parameter in networks.one_step.parameters()])


def test_no_steps_change_nothing(tuned: Tune, networks: Networks) -> None:
    result = tuned(steps=0)
    assert result.networks is networks
    assert result.record(AdaptConfig(steps=0))["steps"] == 0


def test_the_start_is_not_touched_and_the_same_seed_gives_the_same_weights(tuned: Tune, networks: Networks) -> None:
    before = weights(networks).clone()
    first, again, other = (tuned(seed=seed).candidates[1.0] for seed in (0, 0, 1))
    assert torch.equal(weights(networks), before)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))
    assert not torch.equal(weights(first), before)


def test_the_same_whatever_random_numbers_were_drawn_before(tuned: Tune) -> None:
    first = tuned()
    torch.rand(7)
    np.random.default_rng().random(3)
    assert torch.equal(weights(first.candidates[1.0]), weights(tuned().candidates[1.0]))


def test_blends_lie_between_the_start_and_the_end(tuned: Tune, networks: Networks) -> None:
    result = tuned(blends=(0.25, 1.0))
    quarter, end, start = (weights(n) for n in (result.candidates[0.25], result.candidates[1.0], networks))
    torch.testing.assert_close(quarter, start + 0.25 * (end - start))
    module = result.candidates[1.0].one_step
    assert module is not None
    torch.testing.assert_close(weights(blended(networks, module, 1.0)), end)


@pytest.mark.parametrize("settings", [{}, {"least_gain": 1.0}, {"learning_rate": 0.1}])
def test_never_keeps_what_is_worse_on_what_was_held_out(tuned: Tune, networks: Networks, settings: object) -> None:
    result = tuned(**settings)  # type: ignore[arg-type]
    assert result.held_out is not None
    least = settings_for("cpu", **settings).least_gain  # type: ignore[arg-type]
    if result.blend == 0:
        assert result.networks is networks
        assert "the start was kept" in result.reason
    else:
        assert result.networks is result.candidates[result.blend]
        gains = result.held_out.blends[result.blend]
        assert gains[THROUGH_PLANE]["gain_db"] >= 0
        assert gains[IN_PLANE]["gain_db"] >= least


def test_harm_is_noticed_and_the_start_kept(tuned: Tune, networks: Networks) -> None:
    result = tuned(learning_rate=0.5, steps=6)
    assert result.held_out is not None
    assert all(min(row["gain_db"] for row in gains.values()) < 0 for gains in result.held_out.blends.values())
    assert result.networks is networks


def test_a_start_that_can_be_bettered_is(
    tuned: Tune, scan: Volume, request_for_scan: Request, truth: np.ndarray
) -> None:
    """The tiny model was never trained; what is kept is nearer to the truth, which only the test knows."""
    result = tuned(steps=16, learning_rate=1e-3)
    assert result.blend > 0
    before, after = (
        SuperResolver(Trained(n), device="cpu").restore(scan, request_for_scan).volume.array
        for n in (tuned(steps=0).networks, result.networks)
    )
    assert np.square(after - truth).mean() < np.square(before - truth).mean()


def test_what_cannot_be_adapted_to_is_left_with_a_reason(
    scan: Volume, request_for_scan: Request, networks: Networks
) -> None:
    config = settings_for("cpu", **SMALL)
    small = scan.cropped((0, 0, 0), (60, 64, 16))
    on = Request(choose_target(small.grid))
    coarse = replace(scan, grid=replace(scan.grid, affine=np.diag([3.0, 3.0, 3.0, 1.0])))
    isotropic = Request(choose_target(coarse.grid, spacing=(1.5,)))
    latent = replace(networks, fidelity="latent")
    cases = [
        (adapt(small, on, networks, config, device="cpu"), networks, "too small"),
        (adapt(coarse, isotropic, networks, config, device="cpu"), networks, "every axis is coarse"),
        (adapt(replace(scan, modality="ct"), request_for_scan, networks, config, device="cpu"), networks, "CT"),
        (adapt(scan, request_for_scan, latent, config, device="cpu"), latent, "one-step"),
    ]
    for result, start, word in cases:
        assert result.networks is start
        assert word in result.reason
        assert result.held_out is None


def test_air_is_left_alone(scan: Volume, request_for_scan: Request, networks: Networks) -> None:
    empty = scan.with_array(np.zeros_like(scan.array))
    result = adapt(empty, request_for_scan, networks, settings_for("cpu", **SMALL), device="cpu")
    assert result.networks is networks


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="stepz"):
        parse_config({"stepz": 3}, AdaptConfig, origin="test")
