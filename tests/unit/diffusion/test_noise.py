"""The forward process runs straight from the wanted latent to what the scan gives."""

from __future__ import annotations

import pytest
import torch

from medld.diffusion.noise import Flow

SINGLE = 1e-6
MONTE_CARLO = 0.01
"""40,000 draws."""

FIVE_ERRORS = 5 / 200
"""Five standard errors of a slope at unit variance, over as many."""

VOXELS = (2, 3, 4)
SPREAD = torch.tensor([0.4, 1.7])[None, :, None, None, None]


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


@pytest.fixture
def residual() -> torch.Tensor:
    """z - z_lr of deviation `SPREAD`: five items, two channels."""
    return SPREAD * torch.randn(5, 2, 100, 100, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kappa", [0.5, 1.3])
def test_scales_are_the_best_linear_estimate_at_unit_variance(residual: torch.Tensor, kappa: float) -> None:
    flow, t = Flow(kappa), torch.tensor([0.02, 0.25, 0.5, 0.75, 1.0])
    noise = torch.randn(residual.shape, generator=torch.Generator().manual_seed(2))
    low_res = torch.full_like(residual, 3.0)
    w = flow.diffuse(low_res + residual, low_res, noise, t) - low_res
    scales = flow.scales(SPREAD, t)
    assert scales.into.shape == scales.skip.shape == scales.out.shape == (5, 2, 1, 1, 1)
    slope = (residual * w).mean(VOXELS, keepdim=True) / w.square().mean(VOXELS, keepdim=True)
    assert ((slope - scales.skip) / (scales.into * scales.out)).abs().max() < FIVE_ERRORS
    for unit in (scales.into * w, (residual - scales.skip * w) / scales.out):
        assert (unit.std(VOXELS) - 1).abs().max() < 2 * MONTE_CARLO


def test_scales_let_all_pass_at_the_clean_end_and_nothing_at_the_other() -> None:
    scales = Flow().scales(SPREAD, torch.tensor([0.0, 1.0]))
    none, one = torch.zeros(1, 2, 1, 1, 1), torch.ones(1, 2, 1, 1, 1)
    for values, ends in ((scales.skip, (one, none)), (scales.out, (none, SPREAD))):
        assert torch.allclose(values, torch.cat(ends), atol=SINGLE)


def test_without_drift_the_scans_latent_plays_no_part(parts: tuple[torch.Tensor, ...]) -> None:
    clean, low_res, noise = parts
    flow, t = Flow(1.0, drift=False), torch.tensor([0.2, 0.6, 1.0])
    assert torch.equal(flow.start(low_res, noise), noise)
    assert not flow.centre(low_res).any()
    assert torch.equal(flow.diffuse(clean, low_res, noise, t), flow.diffuse(clean, -low_res, noise, t))
    drifting = Flow(1.0).diffuse(clean, torch.zeros_like(low_res), noise, t)
    assert torch.equal(flow.diffuse(clean, low_res, noise, t), drifting)
