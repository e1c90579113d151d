"""Dropout zeroes a share in training, keeps the mean, and is not there otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from medld.build import build_networks
from medld.checkpoint import PARTS
from medld.config import AutoencoderConfig, ModelConfig, NetworkConfig, parse_config
from medld.errors import ConfigError
from medld.nn.blocks import Block, dropped
from medld.nn.conditions import SCAN_FEATURES
from medld.nn.transformer import TransformerBlock

Wake = Callable[[nn.Module], nn.Module]
SHARE = 0.3
UNET: dict[str, Any] = {"channels": [8, 8, 8], "blocks": [1, 1, 1], "embedding": 8}
DIT: dict[str, Any] = {"kind": "dit", "embedding": 8, "transformer": {"width": 16, "depth": 2}}


def random(*shape: int) -> torch.Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def block(wake: Wake) -> Block:
    """A block whose parts all act, with dropout, in training."""
    awake = wake(Block(8, 6, SHARE)).train()
    assert isinstance(awake, Block)
    return awake


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_is_zeroed_and_the_rest_grows_to_keep_the_mean(dtype: torch.dtype) -> None:
    x = (2 + random(4, 8, 16, 16, 16)).to(dtype)
    torch.manual_seed(0)
    y = dropped(x, SHARE, True)
    assert y.dtype == dtype
    assert float((y == 0).float().mean()) == pytest.approx(SHARE, abs=0.01)
    kept, rounding = y != 0, 2.0**-7
    assert torch.allclose(y[kept].float(), x[kept].float() / (1 - SHARE), rtol=rounding)
    assert float(y.float().mean()) == pytest.approx(float(x.float().mean()), rel=0.01)


def test_over_many_masks_a_block_answers_as_it_does_in_evaluation(block: Block) -> None:
    """What drops out goes into a convolution and nothing else: the mean answer is that of the mean."""
    x, told = random(1, 8, 5, 4, 3), random(1, 6)
    torch.manual_seed(0)
    answers = torch.stack([block(x, told) for _ in range(2000)])
    error = (answers.mean(0) - block.eval()(x, told)).abs().max()
    spread = answers.std(0).max()
    assert spread > 0.1
    assert error < 5 * spread / 2000**0.5


def test_in_evaluation_it_is_not_there(block: Block) -> None:
    x, told, plain = random(2, 8, 5, 4, 3), random(2, 6), Block(8, 6)
    plain.load_state_dict(block.state_dict())
    assert torch.equal(block.eval()(x, told), plain.train()(x, told))
    assert not torch.equal(block.train()(x, told), block.eval()(x, told))


def test_of_no_share_nothing_is_drawn(block: Block, wake: Wake) -> None:
    plain = wake(Block(8, 6)).train()
    for training, draws in ((plain, False), (block, True)):
        before = torch.get_rng_state()
        training(random(2, 8, 5, 4, 3), random(2, 6))
        assert torch.equal(torch.get_rng_state(), before) != draws


def test_the_precision_of_activations_is_kept(block: Block) -> None:
    assert block(random(2, 8, 5, 4, 3).bfloat16(), random(2, 6).bfloat16()).dtype == torch.bfloat16


def test_a_compiled_block_drops_what_the_block_drops(block: Block) -> None:
    """In one graph: a break would cost what compilation gains."""
    x, told = random(2, 8, 5, 4, 3), random(2, 6)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    answers = []
    for function in (block, compiled):
        torch.manual_seed(3)
        answers.append(function(x, told))
    torch.compiler.reset()
    assert torch.allclose(answers[0], answers[1], atol=1e-5)
    assert not torch.allclose(answers[0], block.eval()(x, told), atol=0.1)


def test_only_a_block_with_a_norm_does_not_care_how_large_its_input_is(wake: Wake) -> None:
    x, told = random(1, 8, 5, 4, 3), random(1, 6)
    for normalised in (True, False):
        block = wake(Block(8, 6, normalised=normalised))
        answers = [block(scale * x, told) - scale * x for scale in (1e4, 2e4)]
        same = torch.allclose(answers[0], answers[1], rtol=0.01, atol=0.01 * float(answers[0].abs().max()))
        assert same == normalised


@pytest.mark.parametrize("network", [UNET, DIT])
def test_a_config_reaches_every_block_and_changes_no_weight(network: dict[str, Any]) -> None:
    plain, dropping = (
        ModelConfig(
            one_step=NetworkConfig(**network, dropout=share),
            autoencoder=AutoencoderConfig(width=8, dropout=share),
            denoiser=NetworkConfig(**network, dropout=share),
        )
        for share in (0.0, SHARE)
    )
    torch.manual_seed(0)
    without = build_networks(plain)
    torch.manual_seed(0)
    with_it = build_networks(dropping)
    for part in PARTS:
        first, second = (getattr(networks, part) for networks in (without, with_it))
        assert [name for name, _ in first.named_modules()] == [name for name, _ in second.named_modules()]
        states = first.state_dict(), second.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        blocks = [block for block in second.modules() if isinstance(block, Block | TransformerBlock)]
        assert blocks
        assert {block.dropout for block in blocks} == {SHARE}
        assert not second.training  # a stage turns on what it trains


def test_a_transformer_drops_in_training_alone(wake: Wake) -> None:
    config = ModelConfig(one_step=NetworkConfig(**DIT, dropout=SHARE))
    network = build_networks(config).one_step
    assert network is not None
    x, told = random(1, 1, 8, 8, 4), random(1, SCAN_FEATURES)
    wake(network).train()
    assert not torch.equal(network(x, told), network(x, told))
    network.eval()
    assert torch.equal(network(x, told), network(x, told))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"one_step": {**UNET, "dropout": 1.0}}, "one_step.dropout"),
        ({"one_step": {**UNET, "dropout": -0.1}}, "one_step.dropout"),
        ({"one_step": {**DIT, "norm": "none"}}, "norm: none of a network of kind unet"),
        (
            {"one_step": None, "autoencoder": {}, "denoiser": {"kind": "monai-unet", "dropout": 0.1}},
            "dropout of kind unet or dit",
        ),
        (
            {"autoencoder": {"kind": "monai-kl", "encoder_blocks": 2, "decoder_blocks": 2, "dropout": 0.1}},
            "dropout of kind acquired-grid",
        ),
    ],
)
def test_what_has_no_dropout_or_norm_of_its_own_is_refused(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(content, ModelConfig, origin="a test")
