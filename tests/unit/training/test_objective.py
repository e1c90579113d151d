"""What training minimises is least at the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter
from torch import nn

from medld.acquisition import along
from medld.config import DataConfig
from medld.dataset import Fine
from medld.nn.autoencoder import fold
from medld.training.apply import Applier, Sample
from medld.training.draw import Drawer
from medld.training.objective import (
    EPSILON,
    LEAST_ERROR,
    TYPICAL_ERROR,
    add_profile,
    charbonnier,
    dissimilarity,
    ease,
    gain,
    image_loss,
)
from medld.training.plan import make_plan

BEYOND = 0.05
"""Share of the loss: slices at the ends see past the crop, where even the truth answers with the baseline."""


@pytest.fixture
def sample(volumes: list[Fine], data_config: Callable[..., DataConfig]) -> Sample:
    """Two crops at ratio 3, without noise."""
    config = data_config(slices=16, noise_share=0.0, degrade="gaussian")
    draw = Drawer(volumes, config, 2).draw(0, 0, 1.0, ratio=3.0)
    return Applier(volumes, torch.device("cpu"), "inverse", latents=True).apply(make_plan(draw, config.in_plane))


def perfect(sample: Sample) -> torch.Tensor:
    """The profile that turns the baseline into the truth."""
    missing = sample.high_res - sample.operator.crop(sample.baseline)
    return fold(along(sample.acquisition.like("to_profile", missing), missing, -1))


def nothing(sample: Sample) -> torch.Tensor:
    """The profile of an untrained network."""
    return torch.zeros_like(perfect(sample))


def test_charbonnier_is_quadratic_near_zero_and_linear_far_away() -> None:
    assert charbonnier(torch.zeros(2, 3)).tolist() == [0, 0]
    small, large = torch.full((1, 4), 1e-3), torch.full((1, 4), 100.0)
    assert float(charbonnier(small)) == pytest.approx(1e-6 / (2 * EPSILON), rel=0.01)
    assert float(charbonnier(large)) == pytest.approx(100 - EPSILON, rel=1e-4)
    assert torch.equal(charbonnier(-large), charbonnier(large))


@pytest.mark.parametrize("width", [0.1, 0.3, 3.0])
def test_a_wider_charbonnier_is_the_same_near_zero_and_counts_by_squares_further(width: float) -> None:
    small, inside, far = (torch.full((1, 4), size).double() for size in (1e-3, width / 10, 1000 * width))
    assert float(charbonnier(small, width)) == pytest.approx(float(charbonnier(small)), rel=0.01)
    assert float(charbonnier(inside, width)) == pytest.approx((width / 10) ** 2 / (2 * EPSILON), rel=0.01)
    assert float(charbonnier(2 * far, width)) == pytest.approx(2 * float(charbonnier(far, width)), rel=0.01)


def test_the_loss_is_per_item() -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert charbonnier(rows).tolist() == pytest.approx([0, (1 + EPSILON**2) ** 0.5 - EPSILON])


def test_the_truth_costs_next_to_nothing(sample: Sample) -> None:
    assert (image_loss(sample, perfect(sample)) < BEYOND * image_loss(sample, nothing(sample))).all()


def test_an_answer_is_added_to_the_baseline_and_says_nothing_beyond_the_faces(sample: Sample) -> None:
    single = 1e-5
    padded, margin = add_profile(sample, perfect(sample)), sample.acquisition.margin
    assert torch.allclose(sample.operator.crop(padded), sample.high_res, atol=single)
    for end in (slice(0, margin), slice(-margin, None)):
        assert torch.equal(padded[..., end], sample.baseline[..., end])


def test_the_loss_falls_on_the_way_to_the_truth(sample: Sample) -> None:
    losses = torch.stack([image_loss(sample, share * perfect(sample)) for share in (0.0, 0.3, 0.6, 0.9, 1.0)])
    assert (losses.diff(dim=0) < 0).all()


def test_what_the_projection_replaces_is_not_left_free(sample: Sample) -> None:
    """An offset is projected away, but it still costs before the projection."""
    assert (image_loss(sample, perfect(sample) + 0.05) > 5 * image_loss(sample, perfect(sample))).all()


def test_the_first_items_cost_what_they_do_in_the_batch(sample: Sample) -> None:
    profile = 0.5 * perfect(sample)
    first = image_loss(sample.first(1), profile[:1])
    assert torch.allclose(first, image_loss(sample, profile)[:1], rtol=1e-5)
    assert torch.allclose(ease(sample.first(1)), ease(sample)[:1], rtol=1e-5)


def test_with_ease_a_share_of_the_baselines_error_counts_alike(sample: Sample) -> None:
    """The same heads, B's error scaled: weights fall with it, and weighted errors come to the same."""
    missing = sample.high_res - sample.known
    scaled = [replace(sample, high_res=sample.known + scale * missing) for scale in (0.0, 0.5, 1.0, 2.0, 100.0)]
    weights = torch.stack([ease(one) for one in scaled])
    errors = torch.stack([charbonnier(one.high_res - one.known) for one in scaled])
    assert (weights.diff(dim=0) < 0).all()
    assert weights[0].tolist() == pytest.approx(2 * [TYPICAL_ERROR / LEAST_ERROR])  # the most there can be
    weighted = weights * errors
    assert (weighted.diff(dim=0) > 0).all()
    assert weighted[-1].tolist() == pytest.approx(2 * [TYPICAL_ERROR], rel=2 * LEAST_ERROR / float(errors[-1].min()))
    assert (weighted[3] / weighted[1] < 0.5 * errors[3] / errors[1]).all()


def test_dissimilarity_is_zero_for_the_truth_and_grows_with_blur(sample: Sample) -> None:
    truth = sample.high_res
    blurs = [nn.functional.avg_pool3d(truth, width, 1, width // 2, count_include_pad=False) for width in (1, 3, 5)]
    losses = torch.stack([dissimilarity(image, truth) for image in blurs])
    assert losses.shape == (3, 2)
    assert losses[0].tolist() == pytest.approx([0, 0], abs=1e-5)
    assert (losses.diff(dim=0) > 0.02).all()
    assert (losses < 1).all()


def local(values: NDArray[Any]) -> NDArray[Any]:
    """Means in Gaussian windows of seven voxels along the last three axes, where they fit."""
    weights = np.exp(-0.5 * (np.arange(-3, 4) / 1.5) ** 2)
    for axis in (-3, -2, -1):
        values = correlate1d(values, weights / weights.sum(), axis)
    return values[..., 3:-3, 3:-3, 3:-3]


def test_dissimilarity_is_that_of_wang_and_others(sample: Sample) -> None:
    y = sample.high_res.double().numpy()[:, 0]
    x = gaussian_filter(y, (0, 1, 1, 1))
    means = [local(x), local(y)]
    variances = [local(z * z) - mean**2 for z, mean in zip((x, y), means, strict=True)]
    covariance = local(x * y) - means[0] * means[1]
    likeness = (2 * means[0] * means[1] + 0.01**2) / (means[0] ** 2 + means[1] ** 2 + 0.01**2)
    likeness = likeness * (2 * covariance + 0.03**2) / (variances[0] + variances[1] + 0.03**2)
    found = dissimilarity(torch.from_numpy(x).float()[:, None], sample.high_res)
    assert found.tolist() == pytest.approx(list(1 - likeness.mean((1, 2, 3))), rel=1e-3)


def test_dissimilarity_hears_structure_more_than_brightness(sample: Sample) -> None:
    """Two errors of one size: a shift of all values, and noise."""
    truth = sample.high_res + 0.5
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    shifted, noisy = (dissimilarity(truth + 0.05 * error, truth) for error in (torch.ones_like(truth), noise))
    assert (noisy > 3 * shifted).all()


@pytest.mark.parametrize("slices", [1, 2, 5, 20])
def test_dissimilarity_has_a_window_for_thin_volumes(slices: int) -> None:
    volume = torch.rand(2, 1, 16, 16, slices, generator=torch.Generator().manual_seed(0))
    assert dissimilarity(volume, volume).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert (dissimilarity(volume.flip(2), volume) > 0.5).all()


def test_gain_is_zero_for_nothing_and_large_for_the_truth(sample: Sample) -> None:
    assert float(gain(sample, nothing(sample))) == pytest.approx(0, abs=1e-3)
    assert float(gain(sample, 0.5 * perfect(sample))) == pytest.approx(6.02, abs=1)  # half the error
    assert float(gain(sample, perfect(sample))) > 15
    assert float(gain(sample, -0.5 * perfect(sample))) < -3


def test_an_answer_leads_back_to_its_network(sample: Sample) -> None:
    profile = nothing(sample).requires_grad_()
    image_loss(sample, profile).sum().backward()
    assert profile.grad is not None
    assert profile.grad.abs().max() > 0
    step = profile.detach() - 1e-3 * profile.grad / profile.grad.abs().max()
    assert image_loss(sample, step).sum() < image_loss(sample, profile).sum()
