"""Adaptation: the model tuned on the scan that it is to restore, where `--adapt-steps` asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from medld.batch.settings import EnhanceSettings
from medld.checkpoint import Model
from medld.errors import ConfigError
from medld.superres import Request
from medld.volume import Volume

__all__ = ["Adaptation", "adapt_model", "check_adaptable"]


@dataclass(frozen=True)
class Adaptation:
    """The model that restores the scan, what the report says of it, and the seconds that it took."""

    model: Model | None
    record: dict[str, Any]
    seconds: float = 0.0


def check_adaptable(settings: EnhanceSettings, model: Model | None) -> None:
    """Raises: ConfigError, steps are asked for and the model has no network that could take them."""
    if settings.adapt_steps and (model is None or model.networks.one_step is None):
        name = settings.model if model is None else model.name
        raise ConfigError(f"--adapt-steps tunes the one-step network of a model, {name} has none; name another --model")


def adapt_model(
    volume: Volume,
    request: Request,
    model: Model | None,
    settings: EnhanceSettings,
    device: str,
    progress: Callable[[float], None],
) -> Adaptation:
    """Tune the model on a scan and keep the better; without one, as where interpolation does better, say so.

    Args:
        volume: The scan.
        request: What is wanted of it.
        model: The model, not touched; or None.
        settings: Steps and seed.
        device: What it runs on.
        progress: Told the share of the steps that are done.
    """
    if model is None:
        return Adaptation(None, {"steps": 0, "blend": 0.0, "reason": "interpolation restores this scan, not the model"})
    from medld.adapt import adapt, settings_for  # brings all of training, which other restorations do without

    config = settings_for(device, steps=settings.adapt_steps, seed=settings.seed)
    adapted = adapt(volume, request, model.networks, config, device=device, progress=progress)
    kept = model if adapted.networks is model.networks else replace(model, networks=adapted.networks)
    return Adaptation(kept, adapted.record(config), adapted.seconds)
