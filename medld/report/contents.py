"""Contents: what a record of `medld enhance` must hold before a page is made of it.

More may be in it. A record that a person or another version has changed is refused here, with the place named, and
not somewhere below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medld.errors import InputError

__all__ = ["check_record"]

NAMED = 5
"""Places that a message names."""

Axis = Literal[0, 1, 2]
Positive = Annotated[float, Field(gt=0)]
Three = Field(min_length=3, max_length=3)
Four = Field(min_length=4, max_length=4)


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Grid(_Part):
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Three]
    spacing_mm: Annotated[list[Positive], Three]
    orientation: str
    affine: Annotated[list[Annotated[list[float], Four]], Four]


class _Input(_Part):
    grid: _Grid
    sha256: str


class _Output(_Input):
    file: str
    notes: list[str] = []


class _Model(_Part):
    name: str
    sha256: dict[str, str]


class _Scan(_Part):
    restored_axes: Annotated[list[Axis], Field(min_length=1)]
    slice_thickness_mm: Annotated[list[Positive | None], Three]


class _Settings(_Part):
    slice_profile: Literal["gaussian", "box", "slr"]


class _Consistency(_Part):
    residual_rms: float
    residual_largest: float
    noise: float
    residual_relative_to_noise: float | None
    residual_relative_to_range: float | None


class _Versions(_Part):
    medld: str


class _Record(_Part):
    method: str
    model: _Model | None
    input: _Input
    output: _Output
    scan: _Scan
    settings: _Settings
    consistency: _Consistency
    versions: _Versions
    warnings: list[str]
    timings_s: dict[str, float] = {}
    memory_gib: dict[str, float | None] = {}


def check_record(record: Mapping[str, Any]) -> None:
    """Refuse a record that is not whole.

    Raises:
        InputError: It lacks something, or holds something else there (E_NOT_IMAGE).
    """
    try:
        _Record.model_validate(dict(record))
    except ValidationError as error:
        # Places alone: a value may be a name.
        places = list(dict.fromkeys(".".join(str(part) for part in one["loc"]) for one in error.errors()))
        more = "" if len(places) <= NAMED else f" and {len(places) - NAMED} more"
        raise InputError(
            f"expected a whole record as medld enhance writes it, got none or another value at "
            f"{', '.join(places[:NAMED])}{more}; enhance the scan again"
        ) from None
