"""What a model chooses, a restoration does: the sampler, the start of its flow, the networks' windows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from medld.acquisition import SMALLEST_LAMBDA, AxisAcquisition
from medld.build import build_networks
from medld.config import ModelConfig, parse_config
from medld.diffusion.denoise import Denoiser
from medld.diffusion.noise import Flow
from medld.diffusion.stochastic import DETERMINISTIC, RANDOM
from medld.geometry import choose_target
from medld.nn.conditions import Conditions
from medld.nn.networks import Networks
from medld.superres import Request, SuperResolver
from medld.superres.axis import AxisPass, Dials
from medld.superres.projection import Strength
from medld.superres.work import Work
from medld.volume import Volume

NAMES = [*DETERMINISTIC, *RANDOM]
SINGLE = 1e-5
CPU = torch.device("cpu")
Make = Callable[[Networks | None], SuperResolver]


def restore(resolver: SuperResolver, scan: Volume, **options: Any) -> np.ndarray:
    """The restored values."""
    return resolver.restore(scan, Request(choose_target(scan.grid), **options)).volume.array


def test_every_sampler_gives_its_own_samples_again_and_again(make: Make, networks: Networks, head: Volume) -> None:
    samples = {}
    for name in NAMES:
        resolver = make(replace(networks, sampler=name, eta=0.5 if name == "ddim" else 0.0))
        first, again, other = (restore(resolver, head, realism=1.0, steps=2, seed=seed) for seed in (0, 0, 1))
        assert np.array_equal(first, again), name
        assert not np.allclose(first, other, atol=1), name
        samples[name] = first
    for one, other in itertools.combinations(NAMES, 2):
        assert not np.array_equal(samples[one], samples[other]), (one, other)


def test_without_new_noise_ddim_and_euler_are_one(make: Make, networks: Networks, head: Volume) -> None:
    ddim, euler = (make(replace(networks, sampler=name)) for name in ("ddim", "euler"))
    options: dict[str, Any] = {"realism": 1.0, "steps": 3}
    assert np.array_equal(restore(ddim, head, **options), restore(euler, head, **options))


def test_the_mean_is_no_matter_of_the_sampler(make: Make, networks: Networks, head: Volume) -> None:
    means = [restore(make(replace(networks, fidelity="latent", sampler=name)), head, realism=0.0) for name in NAMES]
    assert all(np.array_equal(means[0], mean) for mean in means[1:])


class Witness(torch.nn.Module):
    """A backbone that adds nothing and keeps what it is shown of the noisy latent."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(B, 2C + 1, I, J, K) to zeros (B, C, I, J, K)."""
        self.seen.append(x[:, : x.shape[1] // 2])
        return torch.zeros_like(self.seen[-1])


@pytest.mark.parametrize("draw", [None, 0])
def test_from_pure_noise_the_scans_latent_is_told_but_never_moved_around(networks: Networks, draw: int | None) -> None:
    """The noisy latent, all the way down, is the same whatever the scan."""
    assert networks.denoiser is not None
    shown = []
    for drift in (False, True):
        for scan in (1.0, 0.3):
            silent = Denoiser(Witness(), Flow(1.0, drift=drift), networks.denoiser.spread)
            start: Any = "baseline" if drift else "noise"
            chosen = replace(networks, denoiser=silent, start=start, fidelity="latent", sampler="ddpm")
            one = a_pass(chosen, (8, 8))
            replace(one, slab=scan * one.slab).restore(draw)
            witness = one.networks.denoiser
            assert witness is not None
            shown.append(torch.stack(witness.backbone.seen))
    assert shown[0].shape[0] == (1 if draw is None else 2)
    assert torch.equal(shown[0], shown[1])
    assert (draw is None) == (not shown[0].any())  # the mean starts at no noise at all
    # A path that drifts is shown less its drift: the same numbers, but for the rounding of taking it off.
    assert all(torch.allclose(with_drift, shown[0], atol=1e-4) for with_drift in shown[2:])


def a_pass(networks: Networks, in_plane: tuple[int, int]) -> AxisPass:
    """A pass over six slices of random values."""
    one = torch.ones(1)
    return AxisPass(
        networks.to(CPU, torch.float32),
        AxisAcquisition(15, 6),
        torch.rand(1, 1, *in_plane, 6, generator=torch.Generator().manual_seed(1)),
        Conditions(2.5 * one, 2.5 * one, one, 0 * one, 0 * one, torch.zeros(1, dtype=torch.long)),
        0,
        Strength(torch.tensor(0.0), torch.tensor(SMALLEST_LAMBDA), True),
        Dials(0.0, 2, 0, 10**9),
        torch.float32,
        Work(CPU, 1, lambda _: None),
    )


def test_tiles_keep_to_the_windows_of_attention() -> None:
    network = {"channels": [4, 4, 4], "blocks": [1, 1, 1], "embedding": 8, "attention": True}
    torch.manual_seed(0)
    networks = build_networks(parse_config({"one_step": network}, ModelConfig, origin="a test"))
    assert networks.one_step is not None
    with torch.no_grad():
        for parameter in networks.one_step.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    whole = a_pass(networks, (263, 6))
    tiled = replace(whole, dials=replace(whole.dials, untiled_voxels=1))
    expected = whole.restore()
    assert torch.allclose(tiled.restore(), expected, atol=10 * SINGLE * float(expected.abs().max()), rtol=0)
    halved = replace(tiled, networks=replace(tiled.networks, align=4))
    assert not torch.allclose(halved.restore(), expected, atol=10 * SINGLE * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_a_restoration_runs_with_either_backbone(make: Make, head: Volume, kind: str) -> None:
    network: dict[str, Any] = {"kind": kind, "channels": [4, 4, 4], "blocks": [1, 1, 1], "embedding": 8}
    network["transformer"] = {"width": 8, "depth": 2}
    content = {"one_step": network, "autoencoder": {"width": 4, "embedding": 8}, "denoiser": network}
    torch.manual_seed(0)
    networks = build_networks(parse_config(content, ModelConfig, origin="a test"))
    baseline = restore(make(None), head)
    assert np.allclose(restore(make(networks), head), baseline, atol=0.01)  # untrained, it changes nothing
    with torch.no_grad():
        for part in (networks.one_step, networks.autoencoder, networks.denoiser):
            assert part is not None
            for parameter in part.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    mean, sample = (restore(make(networks), head, realism=realism, steps=2) for realism in (0.0, 1.0))
    assert not np.allclose(mean, baseline, atol=1)
    assert not np.allclose(mean, sample, atol=1)
