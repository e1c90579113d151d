"""AdaptConfig: how the one-step network is tuned on a scan."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from medld.config import Schema

Blend = Annotated[float, Field(gt=0, le=1)]


class AdaptConfig(Schema):
    """How much, and when to keep it.

    Of the weights start + blend (tuned - start), `blends` are judged beside the start on what is held out of the scan;
    the best is kept of those that gain at least `least_gain` dB in-plane and lose nothing through-plane.
    """

    steps: int = Field(300, ge=0)
    learning_rate: float = Field(5e-5, gt=0)
    batch: int = Field(12, ge=1)
    in_plane: int = Field(64, ge=16, multiple_of=4)
    slices: int = Field(16, ge=4, multiple_of=2)
    blends: tuple[Blend, ...] = Field((0.25, 0.5, 0.75, 1.0), min_length=1)
    least_gain: float = Field(0.03, ge=0)
    seed: int = 0


SMALLER = {"batch": 2, "in_plane": 48, "slices": 12}
"""On a CPU, where a step of the full batch would be 7 TFLOP."""


def settings_for(device: str, **chosen: Any) -> AdaptConfig:
    """The defaults of a device ("cpu", "cuda:0"), with what was `chosen`."""
    return AdaptConfig.model_validate({**({} if device.startswith("cuda") else SMALLER), **chosen})
