from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from medld.calibration import (
    LEVELS,
    CalibrationConfig,
    ModeConfig,
    read_calibration,
    write_calibration,
)
from medld.errors import CheckpointError

WEIGHTS = {"one_step.safetensors": "ab" * 32}


@pytest.fixture
def calibration(mode: ModeConfig) -> CalibrationConfig:
    """Of a model with one weight file."""
    return CalibrationConfig(cohort="nobody", protocols=("through-plane-4x",), modes=(mode,))


def edit(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change what a calibration says by hand."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_what_was_written_is_read_again(tmp_path: Path, calibration: CalibrationConfig) -> None:
    path = write_calibration(tmp_path, calibration)
    assert path == tmp_path / "calibration.json"
    assert read_calibration(tmp_path, WEIGHTS) == calibration
    assert [p.name for p in tmp_path.iterdir()] == ["calibration.json"], "nothing temporary stays"


def test_a_model_without_a_calibration_has_none(tmp_path: Path) -> None:
    assert read_calibration(tmp_path, WEIGHTS) is None


@pytest.mark.parametrize("weights", [{"one_step.safetensors": "cd" * 32}, {"denoiser.safetensors": "ab" * 32}, {}])
def test_the_calibration_of_other_weights_is_refused(
    tmp_path: Path, calibration: CalibrationConfig, weights: dict[str, str]
) -> None:
    write_calibration(tmp_path, calibration)
    with pytest.raises(CheckpointError, match="belongs to others"):
        read_calibration(tmp_path, weights)


def test_weights_that_have_no_part_in_it_may_change(tmp_path: Path, calibration: CalibrationConfig) -> None:
    write_calibration(tmp_path, calibration)
    assert read_calibration(tmp_path, {**WEIGHTS, "denoiser.safetensors": "cd" * 32}) == calibration


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(format=2),
        lambda content: content.update(surplus=1),
        lambda content: content.update(modes=[]),
        lambda content: content.update(levels=content["levels"][1:]),
        lambda content: content["modes"][0]["bins"][0]["subjects"][0]["factors"].reverse(),
        lambda content: content["modes"][0]["bins"][0]["subjects"][0]["factors"].pop(),
        lambda content: content["modes"][0]["bins"][0].update(subjects=[]),
        lambda content: content["modes"][0]["scale"].update(level=[float("nan"), 0, 0]),
    ],
)
def test_a_calibration_that_was_tampered_with_is_refused(
    tmp_path: Path, calibration: CalibrationConfig, change: Callable[[dict[str, object]], None]
) -> None:
    edit(write_calibration(tmp_path, calibration), change)
    with pytest.raises(CheckpointError, match="damaged"):
        read_calibration(tmp_path, WEIGHTS)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_what_is_no_calibration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(CheckpointError, match="damaged"):
        read_calibration(tmp_path, WEIGHTS)


def test_a_calibration_cannot_be_changed(calibration: CalibrationConfig) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        calibration.cohort = "somebody"  # type: ignore[misc]


def test_a_spread_needs_samples(mode: ModeConfig) -> None:
    content = mode.model_dump()
    content["scale"] |= {"features": ["spread"], "exponents": []}
    with pytest.raises(ValidationError, match="expected samples"):
        ModeConfig.model_validate(content)
    assert ModeConfig.model_validate({**content, "samples": 2}).is_sampled


def test_a_mode_is_found_by_what_the_networks_do(calibration: CalibrationConfig, mode: ModeConfig) -> None:
    sampled = mode.model_copy(update={"realism": 0.8, "steps": 8, "samples": 4})
    both = calibration.with_mode(sampled)
    assert both.find_mode(0.0, 1, sampled=False) == mode
    assert both.find_mode(0.0, 8, sampled=False) == mode, "where nothing is sampled steps do not matter"
    assert both.find_mode(0.0, 1, sampled=True) == mode, "samples that were not calibrated are left out"
    assert both.find_mode(0.8, 8, sampled=True) == sampled
    assert both.find_mode(0.8, 8, sampled=False) is None
    assert both.find_mode(0.8, 4, sampled=True) is None
    assert both.find_mode(0.5, 8, sampled=True) is None


def test_a_mode_calibrated_again_takes_the_old_ones_place(calibration: CalibrationConfig, mode: ModeConfig) -> None:
    again = mode.model_copy(update={"bins": mode.bins[1:]})
    assert calibration.with_mode(again).modes == (again,)
    assert calibration.with_mode(mode.model_copy(update={"realism": 1.0})).modes[0] == mode


def test_levels_are_those_that_people_ask_for() -> None:
    assert {0.5, 0.68, 0.8, 0.9, 0.95, 0.99} == set(LEVELS)
    assert list(LEVELS) == sorted(LEVELS)
