"""AdaptConfig: how the one-step network is tuned on a scan."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medld.config import Schema

Blend = Annotated[float, Field(gt=0, le=1)]


class AdaptConfig(Schema):
    """How much, on what, and when to keep it.

    Of the steps, a share `through_plane` restores the scan's own slices from slices twice as far apart and a share
    `steady` asks for what the start answers; the others restore the scan's pixels along an in-plane axis from slices as
    far apart as its own, zoomed out up to `zoom_out` times, where its slices look less thick. `told_soft`: there the
    network is told that the axis across the slices is softer than the pixels.

    `trained` are all weights, those that steer by what the network is told of the scan, one vector (128 numbers) that
    is added to that, or the last layer; `anchor` pulls them to the start.

    Of the weights start + blend (tuned - start), `blends` are judged beside the start on what is held out of the scan;
    the best is kept of those that gain at least `least_gain` dB in-plane and lose nothing through-plane.
    """

    steps: int = Field(300, ge=0)
    learning_rate: float = Field(5e-5, gt=0)
    batch: int = Field(12, ge=1)
    in_plane: int = Field(64, ge=16, multiple_of=4)
    slices: int = Field(16, ge=4, multiple_of=2)
    through_plane: float = Field(0.0, ge=0, le=1)
    steady: float = Field(0.0, ge=0, le=1)
    zoom_out: float = Field(1.0, ge=1, le=4)
    anchor: float = Field(0.0, ge=0)
    trained: Literal["all", "steering", "embedding", "head"] = "all"
    told_soft: bool = True
    blends: tuple[Blend, ...] = Field((0.25, 0.5, 1.0), min_length=1)
    least_gain: float = Field(0.03, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _check_shares(self) -> AdaptConfig:
        if self.through_plane + self.steady > 1:
            raise ValueError(f"expected shares of 1 at most, got {self.through_plane:g} and {self.steady:g}")
        return self


SMALLER = {"batch": 2, "in_plane": 48, "slices": 12}
"""On a CPU, where a step of the full batch would be 7 TFLOP."""


def settings_for(device: str, **chosen: Any) -> AdaptConfig:
    """The defaults of a device ("cpu", "cuda:0"), with what was `chosen`."""
    return AdaptConfig.model_validate({**({} if device.startswith("cuda") else SMALLER), **chosen})
