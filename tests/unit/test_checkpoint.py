"""Models on disk: what is read is what was written, and damage is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from medld.build import build_networks
from medld.checkpoint import CARD, PARTS, list_models, load_model, load_weights, save_model
from medld.config import AutoencoderConfig, ModelConfig, NetworkConfig
from medld.errors import CheckpointError, ConfigError
from medld.io import file_sha256
from medld.nn.networks import Networks

HALF = 2.0**-11
"""Relative rounding of float16."""

NETWORK = NetworkConfig(channels=(4, 4, 4), blocks=(1, 1, 1), embedding=8)
CONFIG = ModelConfig(
    one_step=NETWORK,
    autoencoder=AutoencoderConfig(width=4, encoder_blocks=1, decoder_blocks=1, embedding=8),
    denoiser=NETWORK,
    kappa=0.7,
    detail=(0.9, 5),
)


@pytest.fixture
def networks() -> Networks:
    """Freshly initialised networks."""
    torch.manual_seed(0)
    return build_networks(CONFIG)


@pytest.fixture
def folder(networks: Networks, tmp_path: Path) -> Path:
    """A model folder with all three parts."""
    folder = tmp_path / "tiny"
    states = {part: getattr(networks, part).state_dict() for part in PARTS}
    save_model(folder, CONFIG, states, {"training": {"steps": 3}})
    return folder


def test_weights_come_back_rounded_to_half_precision(networks: Networks, folder: Path) -> None:
    model = load_model(folder)
    for part in PARTS:
        before, after = getattr(networks, part).state_dict(), getattr(model.networks, part).state_dict()
        assert before.keys() == after.keys()
        for name, value in before.items():
            assert after[name].dtype == torch.float32
            assert torch.allclose(after[name], value, rtol=HALF, atol=1e-7), name


def test_config_card_and_presets_come_back(folder: Path) -> None:
    model = load_model(folder)
    assert model.name == "tiny"
    assert model.config == CONFIG
    assert model.card == {"training": {"steps": 3}}
    assert model.networks.presets["detail"] == (0.9, 5)
    assert model.networks.denoiser is not None
    assert model.networks.denoiser.flow.kappa == 0.7


def test_hashes_are_those_of_the_files(folder: Path) -> None:
    model = load_model(str(folder))
    assert set(model.sha256) == {f"{part}.safetensors" for part in PARTS}
    assert all(file_sha256(folder / name) == digest for name, digest in model.sha256.items())


def test_a_folder_holds_whole_files_alone(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, *(f"{part}.safetensors" for part in PARTS)])


def test_a_part_the_config_leaves_out_is_not_looked_for(networks: Networks, tmp_path: Path) -> None:
    config = ModelConfig(one_step=NETWORK)
    assert networks.one_step is not None
    save_model(tmp_path / "one", config, {"one_step": networks.one_step.state_dict()}, {})
    model = load_model(tmp_path / "one")
    assert model.networks.autoencoder is None
    assert model.networks.denoiser is None


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(CheckpointError, match="got 'no-such-model'") as caught:
        load_model("no-such-model")
    assert caught.value.code == "E_MODEL"
    assert "no-such-model" not in list_models()


@pytest.mark.parametrize("part", PARTS)
def test_changed_weights_are_refused(folder: Path, part: str) -> None:
    path = folder / f"{part}.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=f"{part}.*damaged"):
        load_model(folder)


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / "autoencoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"autoencoder\.safetensors.*missing"):
        load_model(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    card["config"]["one_step"]["channels"] = [4, 4, 8]
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"one_step\.safetensors does not hold the weights of this model"):
        load_model(folder)


def test_a_card_that_is_no_json_or_of_another_version_is_refused(folder: Path) -> None:
    whole = (folder / CARD).read_text()
    (folder / CARD).write_text(whole[:-20])
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_model(folder)
    (folder / CARD).write_text(whole.replace('"kappa"', '"lambda"'))
    with pytest.raises(ConfigError, match="lambda"):
        load_model(folder)


@pytest.mark.parametrize("text", ["[]", '{"config": {}, "sha256": []}'])
def test_a_card_of_another_kind_is_refused(folder: Path, text: str) -> None:
    (folder / CARD).write_text(text)
    with pytest.raises(CheckpointError):
        load_model(folder)


def test_a_file_that_holds_no_tensors_is_refused(networks: Networks, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"not tensors")
    assert networks.one_step is not None
    for name in ("x.safetensors", "none.safetensors"):
        with pytest.raises(CheckpointError, match="does not hold the weights"):
            load_weights(networks.one_step, tmp_path / name)
