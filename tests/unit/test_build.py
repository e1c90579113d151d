"""What a config says is what is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from medld.build import build_networks
from medld.config import ModelConfig, TrainConfig, parse_config
from medld.diffusion.stochastic import DETERMINISTIC, RANDOM
from medld.errors import ConfigError
from medld.nn.attention import AttentionBlock
from medld.nn.blocks import IMAGE_SCALE
from medld.nn.conditions import SCAN_FEATURES, TIME_FEATURES
from medld.nn.networks import Networks
from medld.nn.transformer import Transformer
from medld.nn.unet import WINDOW_EDGE, UNet, receptive_radius
from medld.patches import ALIGN

UNET: dict[str, Any] = {"channels": [8, 8, 8], "blocks": [1, 1, 1], "embedding": 8}
DIT: dict[str, Any] = {"kind": "dit", "embedding": 8, "transformer": {"width": 16, "depth": 2}}
AUTOENCODER: dict[str, Any] = {"width": 8, "encoder_blocks": 1, "decoder_blocks": 1, "embedding": 8}


def build(**content: Any) -> Networks:
    """The networks of a model config."""
    return build_networks(parse_config({"one_step": None, **content}, ModelConfig, origin="a test"))


@pytest.mark.parametrize("network", [UNET, {**UNET, "attention": True}, DIT])
def test_a_network_serves_as_denoiser_and_in_one_step(network: dict[str, Any]) -> None:
    networks = build(one_step=network, autoencoder=AUTOENCODER, denoiser=network)
    assert networks.one_step is not None
    assert networks.denoiser is not None
    voxels = (9, 7, 3)
    assert networks.one_step(torch.rand(2, 1, *voxels), torch.rand(2, SCAN_FEATURES)).shape == (2, 8, *voxels)
    told = torch.rand(2, SCAN_FEATURES + TIME_FEATURES)
    assert networks.denoiser.backbone(torch.rand(2, 5, *voxels), told).shape == (2, 2, *voxels)


def of_kind(module: nn.Module | None, kind: type[nn.Module]) -> list[Any]:
    """The modules of a kind inside a module."""
    assert module is not None
    return [part for part in module.modules() if isinstance(part, kind)]


def test_kinds_become_classes_of_the_sizes_that_were_asked_for() -> None:
    dit = {**DIT, "transformer": {"width": 24, "depth": 3, "patch": [2, 2, 1], "window": [4, 4, 2]}}
    networks = build(one_step={**UNET, "attention": True}, autoencoder=AUTOENCODER, denoiser=dit)
    (unet,) = of_kind(networks.one_step, UNet)
    assert len(of_kind(unet, AttentionBlock)) == 1
    (transformer,) = of_kind(networks.denoiser, Transformer)
    assert transformer.patch == (2, 2, 1)
    assert len(transformer.blocks) == 3
    assert {block.attention.window for block in transformer.blocks} == {(4, 4, 2)}
    assert [block.attention.shift for block in transformer.blocks] == [(0, 0, 0), (2, 2, 1), (0, 0, 0)]
    assert transformer.stem.out_channels == 24
    assert not of_kind(build(one_step=UNET).one_step, AttentionBlock)


@pytest.mark.parametrize("network", [UNET, DIT])
def test_answers_to_an_image_are_scaled_and_those_to_a_latent_are_not(network: dict[str, Any]) -> None:
    networks = build(one_step=network, autoencoder=AUTOENCODER, denoiser=network)
    assert networks.one_step is not None
    assert networks.denoiser is not None
    assert (networks.one_step.output_scale, networks.denoiser.backbone.output_scale) == (IMAGE_SCALE, 1.0)


def test_tiles_suit_what_looks_furthest() -> None:
    plain, looking = (
        build(one_step=UNET),
        build(one_step=UNET, autoencoder=AUTOENCODER, denoiser={**UNET, "attention": True}),
    )
    assert (plain.align, plain.halo) == (ALIGN, 28)
    assert looking.align == WINDOW_EDGE
    assert looking.halo % WINDOW_EDGE == 0
    assert looking.halo >= receptive_radius((1, 1, 1), attention=True)[0]
    assert plain.tileable
    assert looking.tileable
    assert not build(one_step=DIT).tileable


def test_the_flow_is_the_one_of_the_start() -> None:
    parts: dict[str, Any] = {"autoencoder": AUTOENCODER, "denoiser": UNET}
    from_noise = build(**parts, start="noise", kappa=1.0)
    assert from_noise.denoiser is not None
    assert (from_noise.start, from_noise.denoiser.flow.drift, from_noise.denoiser.flow.kappa) == ("noise", False, 1.0)
    for start in ("baseline", "mean"):
        networks = build(**parts, start=start)
        assert networks.denoiser is not None
        assert (networks.start, networks.denoiser.flow.drift) == (start, True)


def test_every_sampler_of_the_configs_exists_and_the_other_way_round() -> None:
    assert set(get_args(ModelConfig.model_fields["sampler"].annotation)) == {*DETERMINISTIC, *RANDOM}
    assert build(one_step=UNET).sampler == "multistep"
    networks = build(one_step=UNET, sampler="ddim", eta=0.3)
    assert (networks.sampler, networks.eta) == ("ddim", 0.3)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"sampler": "magic"}, "sampler"),
        ({"sampler": "euler", "eta": 0.5}, "eta with sampler: ddim"),
        ({"eta": 1.5, "sampler": "ddim"}, "eta"),
        ({"start": "noise"}, "kappa 1"),
        ({"one_step": {**DIT, "attention": True}}, "attention of a network of kind unet"),
        ({"one_step": {**DIT, "transformer": {"width": 20}}}, "transformer.width"),
        ({"one_step": {**DIT, "transformer": {"patch": [4, 0, 2]}}}, "transformer.patch"),
        ({"one_step": {"width": 16}}, "one_step.width"),
    ],
)
def test_what_makes_no_sense_is_refused(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(content, ModelConfig, origin="a test")


@pytest.mark.parametrize("name", ["ssim_weight", "adversarial_weight", "latent_noise"])
def test_options_of_the_autoencoder_are_refused_elsewhere(name: str) -> None:
    model = {"autoencoder": AUTOENCODER}
    content = {"stage": "autoencoder", "run_dir": Path("runs/x"), "model": model, name: 0.1}
    assert getattr(parse_config(content, TrainConfig, origin="a test"), name) == 0.1
    with pytest.raises(ConfigError, match=f"{name} in the autoencoder stage alone"):
        parse_config({**content, "stage": "one-step"}, TrainConfig, origin="a test")
