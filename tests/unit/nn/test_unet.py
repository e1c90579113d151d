"""The U-Net: silent before training, as far-sighted as it says, and nothing crosses the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from medld.nn.unet import MULTIPLES, WINDOW, WINDOW_EDGE, UNet, pad_to_multiples, receptive_radius
from medld.patches import apply_tiled

SINGLE = 1e-5
"""Float32 through some twenty layers of order one."""

BRAIN_FLOAT = 0.03
"""bfloat16 keeps 8 bits; the root mean square of its errors through the net stays below this share of the output."""

FEATURES = 5
Wake = Callable[[nn.Module], nn.Module]


def net(
    blocks: tuple[int, int, int] = (1, 1, 1), channels: int = 8, scale: float = 1.0, *, attention: bool = False
) -> UNet:
    """A tiny U-Net from one channel to three."""
    torch.manual_seed(0)
    return UNet(1, 3, FEATURES, (channels, channels, channels), blocks, 8, scale, attention=attention)


def random(*shape: int) -> torch.Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
def test_few_slices_in_bfloat16_are_not_made_of_what_lay_in_memory(wake: Wake, slices: int) -> None:
    """Strided convolutions that leave one slice are wrong on some processors; NaN in freed memory shows it."""
    network = wake(net(channels=24))
    x, features = random(1, 1, 16, 16, slices), random(1, FEATURES)
    exact = network(x, features)
    network.to(torch.bfloat16)
    for _ in range(5):
        filled_with_nan = [torch.full((size,), torch.nan) for size in (100, 1000, 10_000, 100_000) for _ in range(8)]
        del filled_with_nan
        rounded = network(x.bfloat16(), features.bfloat16()).float()
        assert (rounded - exact).square().mean().sqrt() <= BRAIN_FLOAT * exact.square().mean().sqrt()


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("shape", [(8, 8, 4), (9, 11, 5), (4, 4, 2), (3, 5, 1), (1, 1, 1)])
def test_an_untrained_net_gives_zero_on_its_inputs_grid(shape: tuple[int, int, int], attention: bool) -> None:
    answer = net(attention=attention)(random(2, 1, *shape), random(2, FEATURES))
    assert answer.shape == (2, 3, *shape)
    assert not answer.any()


def test_a_trained_net_answers(wake: Wake) -> None:
    x, features = random(1, 1, 8, 8, 4), random(1, FEATURES)
    answer = wake(net())(x, features)
    assert answer.std() > 0.01
    assert not torch.allclose(wake(net())(x, -features), answer, atol=0.01)


def test_fine_detail_goes_past_the_coarse_levels(wake: Wake) -> None:
    unet, x, features = wake(net()), random(1, 1, 8, 8, 4), random(1, FEATURES)
    for up in unet.grow:
        up.conv.weight.zero_()
    assert (unet(x, features) - unet(-x, features)).std() > 0.01


def test_the_output_scale_is_a_factor(wake: Wake) -> None:
    x, features = random(1, 1, 8, 8, 4), random(1, FEATURES)
    assert torch.allclose(wake(net(scale=0.1))(x, features), 0.1 * wake(net())(x, features), atol=SINGLE)


@pytest.mark.parametrize(("axis", "length"), [(0, 160), (1, 160), (2, 96)])
def test_a_voxel_reaches_as_far_as_the_receptive_radius_and_no_further(wake: Wake, axis: int, length: int) -> None:
    unet = wake(net((2, 2, 3), channels=4).double())
    shape = [MULTIPLES[a] for a in range(3)]
    shape[axis] = length
    x, features = random(1, 1, *shape).double(), random(1, FEATURES).double()
    before, reach = unet(x, features), 0
    for place in range(length // 2, length // 2 + MULTIPLES[axis]):  # reach depends on the place within a stride
        touched = x.clone()
        touched.select(2 + axis, place).select(2, 0)[..., 0] += 100
        others = [a for a in range(5) if a != 2 + axis]
        changed = (unet(touched, features) - before).abs().amax(others).nonzero().flatten()
        reach = max(reach, place - int(changed.min()), int(changed.max()) - place)
    assert reach == receptive_radius((2, 2, 3))[axis]


@pytest.mark.parametrize("shape", [(136, 12, 4), (13, 131, 3)])
def test_tiles_equal_the_whole(wake: Wake, shape: tuple[int, int, int]) -> None:
    unet, x, features = wake(net((2, 2, 3))), random(1, 1, *shape), random(1, FEATURES)
    whole = unet(x, features)
    tiled = apply_tiled(lambda part: unet(part, features), x, size=16, halo=56)
    assert torch.allclose(tiled, whole, atol=SINGLE * float(whole.abs().max()), rtol=0)


def test_attention_begins_silent(wake: Wake) -> None:
    x, features = random(1, 1, 16, 8, 4), random(1, FEATURES)
    plain, looking = wake(net()), net(attention=True)
    missing = looking.load_state_dict(plain.state_dict(), strict=False)
    assert missing.missing_keys
    assert all(key.startswith("attention.") for key in missing.missing_keys)
    assert torch.equal(looking(x, features), plain(x, features))


def test_attention_carries_across_a_window_and_no_further(wake: Wake) -> None:
    unet = wake(net(channels=4, attention=True).double())
    x, features = random(1, 1, 3 * WINDOW_EDGE, 4, 2).double(), random(1, FEATURES).double()
    before, place = unet(x, features), WINDOW_EDGE + WINDOW_EDGE // 2
    touched = x.clone()
    touched[:, :, place] += 100
    changed = (unet(touched, features) - before).abs().amax((0, 1, 3, 4)).nonzero().flatten()
    reached = max(place - int(changed.min()), int(changed.max()) - place)
    without, radius = receptive_radius((1, 1, 1))[0], receptive_radius((1, 1, 1), attention=True)[0]
    assert without < reached <= radius
    assert radius == without + (WINDOW[0] - 1) * MULTIPLES[0]
    assert WINDOW_EDGE - without < changed.min() < WINDOW_EDGE
    assert 2 * WINDOW_EDGE <= changed.max() < 2 * WINDOW_EDGE + without


def test_tiles_that_start_where_windows_do_equal_the_whole(wake: Wake) -> None:
    unet = wake(net(channels=4, attention=True))
    x, features = random(1, 1, 4 * WINDOW_EDGE + 5, 5, 3), random(1, FEATURES)
    whole = unet(x, features)
    rounding = SINGLE * float(whole.abs().max())
    halo = -(-receptive_radius((1, 1, 1), attention=True)[0] // WINDOW_EDGE) * WINDOW_EDGE
    assert halo < 3 * WINDOW_EDGE  # so that tiles see a part alone
    tiled = apply_tiled(lambda part: unet(part, features), x, size=WINDOW_EDGE, halo=halo)
    assert torch.allclose(tiled, whole, atol=rounding, rtol=0)


def test_an_answer_does_not_depend_on_its_neighbours(wake: Wake) -> None:
    unet, x, features = wake(net()), random(3, 1, 9, 8, 5), random(3, FEATURES)
    together = unet(x, features)
    rounding = SINGLE * float(together.abs().max())
    for item in range(3):
        alone = unet(x[item : item + 1], features[item : item + 1])
        assert torch.allclose(alone, together[item : item + 1], atol=rounding, rtol=0)
    loud = torch.cat([x[:1], 1e6 * x[1:]])
    assert torch.allclose(unet(loud, features)[:1], together[:1], atol=rounding, rtol=0)


def test_bfloat16_agrees_with_float32(wake: Wake) -> None:
    unet, x, features = wake(net((2, 2, 3), channels=16)), random(1, 1, 16, 16, 8), random(1, FEATURES)
    exact, rough = unet(x, features), unet(x.bfloat16(), features)
    assert rough.dtype == torch.bfloat16
    error = float((rough.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    assert 0 < error < BRAIN_FLOAT


def test_padding_repeats_the_far_ends() -> None:
    x = random(1, 1, 5, 7, 3)
    padded = pad_to_multiples(x, MULTIPLES)
    assert padded.shape == (1, 1, 8, 8, 4)
    assert torch.equal(padded[..., :5, :7, :3], x)
    assert torch.equal(padded[..., 5:, :7, :3], x[..., 4:, :, :].expand(1, 1, 3, 7, 3))
    assert torch.equal(padded[..., 3], padded[..., 2])
    assert pad_to_multiples(padded, MULTIPLES) is padded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalised", [True, False])
def test_what_is_written_over_without_gradients_changes_no_bit(
    wake: Wake, dtype: torch.dtype, normalised: bool
) -> None:
    torch.manual_seed(0)
    network = wake(UNet(1, 3, FEATURES, (8, 8, 8), (2, 2, 1), 8, normalised=normalised))
    x, features = random(1, 1, 12, 8, 6).to(dtype), random(1, FEATURES)
    before = x.clone()
    answer = network(x, features)
    with torch.inference_mode():
        assert torch.equal(network(x, features), answer.detach())
    assert torch.equal(x, before)
