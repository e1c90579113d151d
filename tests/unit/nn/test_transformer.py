"""The transformer: silent before training, of any size, told everything, and able to learn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from medld.nn.transformer import Transformer

SINGLE = 1e-5
FEATURES = 5
PATCH = (4, 4, 2)
WINDOW = (2, 2, 2)
Wake = Callable[[nn.Module], nn.Module]


def net(depth: int = 2, scale: float = 1.0) -> Transformer:
    """A tiny one from one channel to three, whose windows are 8 x 8 x 4 voxels."""
    torch.manual_seed(0)
    return Transformer(1, 3, FEATURES, 8, depth, PATCH, WINDOW, 8, scale)


def random(*shape: int) -> torch.Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(8, 8, 4), (9, 11, 5), (4, 4, 2), (3, 5, 1), (1, 1, 1), (16, 4, 7)])
def test_an_untrained_net_gives_zero_on_its_inputs_grid(shape: tuple[int, int, int]) -> None:
    answer = net()(random(2, 1, *shape), random(2, FEATURES))
    assert answer.shape == (2, 3, *shape)
    assert not answer.any()


def test_what_it_is_told_matters_once_awake(wake: Wake) -> None:
    x, features, awake = random(1, 1, 8, 8, 4), random(1, FEATURES), wake(net())
    answer = awake(x, features)
    assert answer.std() > 0.01
    for feature in range(FEATURES):
        other = features.clone()
        other[:, feature] += 1
        assert not torch.allclose(awake(x, other), answer, atol=1e-3)


def test_every_voxel_of_a_patch_matters_and_is_answered(wake: Wake) -> None:
    awake, x, features = wake(net(1)), random(1, 1, *PATCH), random(1, FEATURES)
    x.requires_grad_()
    answer = awake(x, features)
    assert (answer[0].flatten(1).std(1) > 1e-3).all()
    answer.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().min() > 0


def reach(awake: nn.Module, place: int) -> torch.Tensor:
    """Which of 24 rows change with one of them."""
    x, features = random(1, 1, 24, 4, 2), random(1, FEATURES)
    touched = x.clone()
    touched[:, :, place] += 10
    return (awake(touched, features) - awake(x, features)).abs().amax((0, 1, 3, 4)) > SINGLE


def test_windows_do_not_see_each_other_until_they_are_shifted(wake: Wake) -> None:
    rows = torch.arange(24)
    assert torch.equal(reach(wake(net(1)), 9), rows // 8 == 1)
    shifted = (rows >= 4) & (rows < 20)  # both shifted windows that the row's own window is in
    assert torch.equal(reach(wake(net(2)), 9), shifted)
    assert reach(wake(net(3)), 9).all()


def test_tiles_would_not_do() -> None:
    assert net().tileable is False


def test_the_output_scale_is_a_factor(wake: Wake) -> None:
    x, features = random(1, 1, 8, 8, 4), random(1, FEATURES)
    assert torch.allclose(wake(net(scale=0.1))(x, features), 0.1 * wake(net())(x, features), atol=SINGLE)


def test_an_answer_does_not_depend_on_its_neighbours(wake: Wake) -> None:
    awake, x, features = wake(net()), random(3, 1, 9, 8, 5), random(3, FEATURES)
    together = awake(x, features)
    rounding = SINGLE * float(together.abs().max())
    for item in range(3):
        alone = awake(x[item : item + 1], features[item : item + 1])
        assert torch.allclose(alone, together[item : item + 1], atol=rounding, rtol=0)


def test_bfloat16_agrees_with_float32(wake: Wake) -> None:
    awake, x, features = wake(net()), random(1, 1, 16, 16, 8), random(1, FEATURES)
    exact, rough = awake(x, features), awake(x.bfloat16(), features)
    assert rough.dtype == torch.bfloat16
    assert 0 < float((rough.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt()) < 0.05


def test_a_gradient_reaches_every_weight_once_awake(wake: Wake) -> None:
    awake = wake(net()).requires_grad_()
    awake(random(2, 1, 17, 12, 6), random(2, FEATURES)).square().mean().backward()
    for name, parameter in awake.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
        if name.endswith("bias.0"):  # windows of two patches know three distances
            assert (parameter.grad.abs() > 0).all(), name


def test_its_first_step_is_not_its_last() -> None:
    """Zero heads and closed gates must open: two steps move every layer."""
    fresh = net()
    before = {name: value.clone() for name, value in fresh.named_parameters()}
    optimiser = torch.optim.Adam(fresh.parameters(), 1e-2)
    x, features, wanted = random(2, 1, 16, 8, 4), random(2, FEATURES), random(2, 3, 16, 8, 4)
    for _ in range(4):
        optimiser.zero_grad()
        (fresh(x, features) - wanted).square().mean().backward()
        optimiser.step()
    assert all(not torch.equal(value, before[name]) for name, value in fresh.named_parameters())
