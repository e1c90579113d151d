"""Schema: a calibration as a JSON file beside the weights that it belongs to, and its strict reader.

A file holds what was measured on held-out subjects (the factors of each in every bin of ratios), not a finished
factor, so that a scan which took part can be judged without itself. Each mode names the weights that it rests on by
their hashes and is refused with any others: errors of one network say nothing about another's. No name of a subject is
in it; the hashes of the scans tell whether one took part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from medld.calibration.conformal import LEVELS
from medld.calibration.scale import ScaleConfig
from medld.config import Schema, parse_config
from medld.errors import CheckpointError, ConfigError

FILE = "calibration.json"

EDGES = (1.19, 2.5, 3.4, 4.5, 5.5, 7.0, 8.0)
"""Of the bins of ratios: one around each of the integer ratios 2 to 6, and one up to 8."""

SCAN_DIGITS = 12

Ratio = Annotated[float, Field(ge=1, le=16)]


class SubjectConfig(Schema):
    """One held-out subject in a bin."""

    scans: tuple[str, ...] = Field(min_length=1)
    """First twelve digits of the SHA-256 of each scan's file."""
    ratios: tuple[Ratio, ...] = Field(min_length=1)
    """At which they were restored."""
    factors: tuple[float, ...]
    """c_k at `conformal.LEVELS`."""
    agreement: float = Field(ge=-1, le=1)
    """What all but a twentieth of the foreground reach between truth and B; see `rings`."""

    @field_validator("factors")
    @classmethod
    def _ascending(cls, factors: tuple[float, ...]) -> tuple[float, ...]:
        if len(factors) != len(LEVELS) or not (np.diff(factors, prepend=0.0) >= 0).all():
            raise ValueError(f"expected {len(LEVELS)} factors from 0 up")
        return factors


class BinConfig(Schema):
    """The subjects of one bin: a number of coarse axes, ratios from `low` to below `high`, one contrast or all."""

    axes: Literal[1, 2, 3]
    low: Ratio
    high: Ratio
    contrast: str | None
    """None: all contrasts that were there."""
    subjects: tuple[SubjectConfig, ...] = Field(min_length=1)

    @property
    def ratios(self) -> tuple[float, float]:
        """Smallest and largest that was restored."""
        all_of_them = [ratio for subject in self.subjects for ratio in subject.ratios]
        return min(all_of_them), max(all_of_them)

    def without(self, scan: str) -> BinConfig:
        """The bin without the subject of a scan, by its file's SHA-256; itself if that took no part.

        Raises:
            ConfigError: Nobody else is in it.
        """
        others = tuple(subject for subject in self.subjects if scan[:SCAN_DIGITS] not in subject.scans)
        if not others:
            raise ConfigError("Expected calibration by other subjects than the one that is judged, there are none.")
        return self.model_copy(update={"subjects": others})


class ModeConfig(Schema):
    """What was calibrated: outputs of one position of the model, with samples or without."""

    weights: dict[str, str] = Field(min_length=1)
    """SHA-256 of each weight file that has a part in it."""
    realism: float = Field(ge=0, le=1)
    steps: int = Field(ge=1)
    samples: int = Field(ge=1)
    """Drawn for the spread; 1 where the scale needs none."""
    scale: ScaleConfig
    bins: tuple[BinConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _samples_for_a_spread(self) -> ModeConfig:
        if self.samples < 2 and "spread" in self.scale.features:
            raise ValueError("expected samples (2 or more) where the scale has a spread")
        return self

    @property
    def is_sampled(self) -> bool:
        """Whether it rests on samples."""
        return self.samples > 1

    def covers(self, realism: float, steps: int) -> bool:
        """Whether outputs of that position are meant; where nothing is sampled steps do not matter."""
        return self.realism == realism and (self.steps == steps or not (realism or self.is_sampled))


class CalibrationConfig(Schema):
    """A calibration."""

    format: Literal[1] = 1
    cohort: str = ""
    """Whose scans they are, in a sentence for the reader of a report."""
    protocols: tuple[str, ...] = ()
    """How the scans were simulated."""
    levels: tuple[float, ...] = LEVELS
    modes: tuple[ModeConfig, ...] = Field(min_length=1)

    @field_validator("levels")
    @classmethod
    def _known_levels(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if levels != LEVELS:
            raise ValueError("expected the levels that this version keeps; calibrate again")
        return levels

    def find_mode(self, realism: float, steps: int, *, sampled: bool) -> ModeConfig | None:
        """The mode for an output, with samples where some were drawn if that was calibrated; None if none fits."""
        fitting = [mode for mode in self.modes if mode.covers(realism, steps) and (sampled or not mode.is_sampled)]
        return max(fitting, key=lambda mode: mode.is_sampled, default=None)

    def with_mode(self, mode: ModeConfig) -> CalibrationConfig:
        """Another mode added, or in the place of the one that it replaces."""
        kind = (mode.realism, mode.steps, mode.is_sampled)
        others = tuple(one for one in self.modes if (one.realism, one.steps, one.is_sampled) != kind)
        return self.model_copy(update={"modes": (*others, mode)})


def write_calibration(folder: Path, calibration: CalibrationConfig) -> Path:
    """Write `calibration.json` into the folder of its model, whole or not at all."""
    path = folder / FILE
    temporary = path.with_suffix(".tmp")
    text = json.dumps(calibration.model_dump(mode="json"), separators=(",", ":"))
    temporary.write_text(text.replace('{"scans"', '\n{"scans"') + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def read_calibration(folder: Path, weights: Mapping[str, str]) -> CalibrationConfig | None:
    """The calibration in a model's folder, None if there is none.

    Args:
        folder: Of the model.
        weights: SHA-256 of each of its weight files, `Model.sha256`.

    Raises:
        CheckpointError: It is damaged, of another version, or belongs to other weights.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ConfigError(f"Expected keys and values, got {type(content).__name__}.")
        calibration = parse_config(content, CalibrationConfig, origin=path.name)
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(f"Expected a calibration in {path}, it is damaged: {error}. Calibrate again.") from error
    if any(weights.get(name) != sha256 for mode in calibration.modes for name, sha256 in mode.weights.items()):
        raise CheckpointError(
            f"Expected a calibration of these weights, {path} belongs to others. Calibrate this model "
            "(pipelines/calibrate.py), or delete the file."
        )
    return calibration
