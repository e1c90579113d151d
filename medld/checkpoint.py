"""A model on disk: a folder of float16 safetensors, one per network, and `model.json`.

`model.json` holds the config that rebuilds the networks, the hash of each weight file, versions and a
summary of how it was trained. Nothing in it is code. Shipped models lie inside the package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from medld.build import build_networks
from medld.config import ModelConfig, parse_config
from medld.errors import CheckpointError
from medld.io import file_sha256
from medld.nn.networks import Networks

SHIPPED = Path(__file__).parent / "weights"
DEFAULT = "mri"
CARD = "model.json"
PARTS = ("one_step", "autoencoder", "denoiser")


@dataclass(frozen=True)
class Model:
    """A loaded model from `folder`; `sha256` maps each weight file to its hash, `card` is the rest of `model.json`."""

    name: str
    config: ModelConfig
    networks: Networks
    sha256: Mapping[str, str]
    card: Mapping[str, Any]
    folder: Path | None = None

    def volumes(self, *parts: str) -> tuple[str, ...]:
        """Names of the volumes that these parts, or all, learned from, or the model did that it started from; sorted.

        They may say more about people than should be published.
        """
        training = self.card.get("training")
        stated = training.get("parts", {}) if isinstance(training, dict) else {}
        told = [stated.get(part) for part in parts]
        return tuple(sorted(set(_volumes_in(told if told and all(told) else training))))


def _volumes_in(training: Any) -> Iterator[str]:
    """All that stands under "volumes", however deep."""
    for part in training if isinstance(training, list) else [training]:
        for key, value in part.items() if isinstance(part, dict) else ():
            yield from map(str, value) if key == "volumes" and isinstance(value, list) else _volumes_in(value)


def list_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD}"))


def find_model(name_or_dir: str | Path) -> Path:
    """The folder of a shipped model or, of anything that is no such name, the path itself; it need not exist."""
    return SHIPPED / str(name_or_dir) if str(name_or_dir) in list_models() else Path(name_or_dir)


def load_model(name_or_dir: str | Path = DEFAULT) -> Model:
    """A shipped model by name, or any model folder by path; weights come back in float32.

    Raises:
        CheckpointError: No such model, or its files are missing, damaged or do not fit each other.
    """
    folder = find_model(name_or_dir)
    if not (folder / CARD).is_file():
        known = ", ".join(list_models()) or "none"
        raise CheckpointError(
            f"Expected a model folder with {CARD} or the name of a shipped model ({known}), got '{name_or_dir}'."
        )
    card = _read_card(folder / CARD)
    config = parse_config(card.pop("config"), ModelConfig, origin=str(folder / CARD))
    networks = build_networks(config)
    hashes: dict[str, str] = card.pop("sha256")
    for part in PARTS:
        module = getattr(networks, part)
        if module is not None:
            _load_part(module, folder / f"{part}.safetensors", hashes)
    return Model(folder.name, config, networks, hashes, card, folder)


def read_training(folder: Path, parts: Collection[str]) -> dict[str, Any]:
    """What a model folder's card says of the training of some parts, {} if it has no card. Raises: CheckpointError."""
    training = _read_card(folder / CARD).get("training") if (folder / CARD).is_file() else None
    if not isinstance(training, dict):
        return {}
    if isinstance(each := training.get("parts"), dict):
        return {**training, "parts": {part: each[part] for part in each if part in parts}}
    return training


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}. Copy the model again.") from error
    if not (isinstance(card, dict) and all(isinstance(card.get(key), dict) for key in ("config", "sha256"))):
        raise CheckpointError(f"Expected the keys config and sha256, each with keys of its own, in {path}.")
    return card


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill `module` from a weight file. Raises: CheckpointError."""
    try:
        module.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold the weights of this model: {error}") from error


def _load_part(module: nn.Module, path: Path, hashes: Mapping[str, str]) -> None:
    if not path.is_file():
        raise CheckpointError(
            f"Expected the weights {path.name} in {path.parent}, they are missing. Copy the model again."
        )
    if file_sha256(path) != hashes.get(path.name):
        raise CheckpointError(
            f"{path.name} in {path.parent} is damaged: its hash differs from {CARD}. Copy the model again."
        )
    load_weights(module, path)


def save_model(
    folder: Path, config: ModelConfig, states: Mapping[str, Mapping[str, Tensor]], card: Mapping[str, Any]
) -> None:
    """Write a model folder; `states` maps parts to state dicts, stored in float16. Files appear whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for part, state in states.items():
        path = folder / f"{part}.safetensors"
        half = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in state.items()}
        path.with_suffix(".tmp").write_bytes(save(half))  # save_file would make it readable to its owner alone
        os.replace(path.with_suffix(".tmp"), path)
        hashes[path.name] = file_sha256(path)
    content = {**card, "config": config.model_dump(mode="json"), "sha256": hashes}
    temporary = folder / f"{CARD}.tmp"
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / CARD)
