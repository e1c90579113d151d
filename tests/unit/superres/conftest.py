"""Tiny networks with random weights that really act, and a processor of one's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from medld.build import build_networks
from medld.config import AutoencoderConfig, ModelConfig, NetworkConfig
from medld.geometry import Grid
from medld.nn.networks import Networks
from medld.superres import SuperResolver
from medld.volume import Volume

PROCESSOR = Path("/proc/cpuinfo")
Pretend = Callable[[str], None]


@pytest.fixture(scope="session")
def networks() -> Networks:
    """All three parts at the depths whose reach tiles count on, woken by noise on their weights."""
    torch.manual_seed(0)
    network = NetworkConfig(channels=(8, 8, 8), embedding=8)
    autoencoder = AutoencoderConfig(width=8, embedding=8)
    networks = build_networks(ModelConfig(one_step=network, autoencoder=autoencoder, denoiser=network))
    with torch.no_grad():
        for part in (networks.one_step, networks.autoencoder, networks.denoiser):
            assert part is not None
            for parameter in part.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        assert networks.autoencoder is not None
        networks.autoencoder.latent_mean.normal_()
        networks.autoencoder.latent_std.uniform_(0.5, 2.0)
        assert networks.denoiser is not None
        networks.denoiser.load_state_dict({"spread.values": torch.rand(8, 2) + 0.5}, strict=False)
    return networks


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Lets the machine's processor have certain features, "" for none."""
    read = Path.read_text

    def pretend(features: str) -> None:
        def read_text(path: Path, *args: Any, **kwargs: Any) -> str:
            return f"flags\t: {features}\n" if path == PROCESSOR else read(path, *args, **kwargs)

        monkeypatch.setattr(Path, "read_text", read_text)

    return pretend


@pytest.fixture
def make(pretend: Pretend) -> Iterator[Callable[[Networks | None], SuperResolver]]:
    """Makes a resolver for the CPU, in float32 whatever the machine."""
    pretend("sse2 avx2")

    def make(networks: Networks | None) -> SuperResolver:
        return SuperResolver(None if networks is None else SimpleNamespace(networks=networks), device="cpu")

    return make


@pytest.fixture
def resolver(make: Callable[[Networks | None], SuperResolver], networks: Networks) -> SuperResolver:
    """With all networks, in float32."""
    return make(networks)


def phantom(shape: tuple[int, int, int], spacing: tuple[float, float, float], noise: float = 0.0) -> Volume:
    """A head of structured tissue in air that is zero, up to about 1000."""
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    tissue = 600 + 250 * np.sin(4 * i + 2 * k) * np.cos(3 * j) + 150 * np.sign(np.sin(5 * j - 3 * k))
    head = i**2 + j**2 + 0.4 * k**2 < 0.8
    grain = np.random.default_rng(0).normal(0, noise, shape)
    values = np.where(head, (tissue + grain).clip(1), 0).astype(np.float32)
    return Volume(values, Grid(shape, np.diag([*spacing, 1.0])), "mr", "T1w")


@pytest.fixture
def head() -> Volume:
    """Nine slices 4 mm apart."""
    return phantom((22, 18, 9), (1.0, 1.0, 4.0))


@pytest.fixture
def noisy_head() -> Volume:
    """The same with 3 % noise in tissue."""
    return phantom((40, 36, 9), (1.0, 1.0, 4.0), noise=30.0)


@pytest.fixture
def isotropic_head() -> Volume:
    """2 mm in every direction."""
    return phantom((12, 11, 10), (2.0, 2.0, 2.0))


@pytest.fixture
def wide_head() -> Volume:
    """Wider than a tile with both its halos, so that tiles see a part of it."""
    return phantom((124, 18, 6), (1.0, 1.0, 3.0))
