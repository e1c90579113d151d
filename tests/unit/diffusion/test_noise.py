"""The forward process runs straight from the wanted latent to what the scan gives."""

from __future__ import annotations

import pytest
import torch

from medld.diffusion.noise import Flow

SINGLE = 1e-6
MONTE_CARLO = 0.01
"""40,000 draws."""


@pytest.fixture
def parts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clean latent, the scan's own, noise; three items."""
    generator = torch.Generator().manual_seed(0)
    clean, low_res, noise = (torch.randn(3, 2, 4, 4, 4, generator=generator) for _ in range(3))
    return clean, low_res, noise


def test_the_path_has_the_right_ends(parts: tuple[torch.Tensor, ...]) -> None:
    clean, low_res, noise = parts
    flow = Flow(0.7)
    assert torch.equal(flow.diffuse(clean, low_res, noise, torch.zeros(3)), clean)
    assert torch.allclose(flow.diffuse(clean, low_res, noise, torch.ones(3)), flow.start(low_res, noise), atol=SINGLE)


def test_the_path_is_straight(parts: tuple[torch.Tensor, ...]) -> None:
    flow = Flow()
    at = [flow.diffuse(*parts, torch.full((3,), t)) for t in (0.2, 0.5, 0.8)]
    assert torch.allclose(at[1] - at[0], at[2] - at[1], atol=SINGLE)


def test_every_item_has_its_own_time(parts: tuple[torch.Tensor, ...]) -> None:
    t = torch.tensor([0.1, 0.5, 0.9])
    together = Flow().diffuse(*parts, t)
    for item in range(3):
        alone = Flow().diffuse(*(part[item : item + 1] for part in parts), t[item : item + 1])
        assert torch.equal(alone, together[item : item + 1])


@pytest.mark.parametrize("t", [0.25, 0.6, 1.0])
def test_less_its_drift_it_is_a_gaussian_diffusion(t: float) -> None:
    flow, time = Flow(0.5), torch.tensor([t])
    low_res = torch.full((1, 1, 200, 200, 1), 3.0)
    noise = torch.randn(low_res.shape, generator=torch.Generator().manual_seed(0))
    w = flow.diffuse(torch.full_like(low_res, 2.0), low_res, noise, time) - t * low_res
    assert float(w.mean()) == pytest.approx(2 * float(flow.alpha(time)), abs=MONTE_CARLO)
    assert float(w.std()) == pytest.approx(float(flow.sigma(time)), rel=MONTE_CARLO)
