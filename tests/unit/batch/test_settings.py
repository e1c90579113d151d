"""EnhanceSettings refuses what cannot be meant, and keeps paths out of records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medld.batch.settings import CHOICES, EnhanceSettings
from medld.errors import ConfigError


def test_first_choice_is_the_default() -> None:
    settings = EnhanceSettings()
    assert {name: getattr(settings, name) for name in CHOICES} == {name: c[0] for name, c in CHOICES.items()}


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "sharp"},
        {"device": "gpu"},
        {"device": "cuda:x"},
        {"factor": 0.0},
        {"factor": float("nan")},
        {"slice_thickness": -1.0},
        {"memory_gib": float("inf")},
        {"steps": 0},
        {"samples": 0},
        {"flips": 3},
        {"threads": 0},
        {"seed": -1},
        {"realism": 1.5},
        {"spacing": (1.0, 1.0)},
        {"spacing": (1.0, 0.0, 1.0)},
        {"spacing": (1.0,), "factor": 2.0},
        {"samples": 4},
        {"samples": 4, "uncertainty": "sd.nii.gz"},
        {"samples": 4, "uncertainty": "sd.nii.gz", "mode": "detail", "realism": 0.0},
    ],
)
def test_refuses_with_the_options_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        EnhanceSettings(**wrong)
    assert any(f"--{name.replace('_gib', '').replace('_', '-')}" in str(caught.value) for name in wrong)


def test_a_half_width_and_a_mask_need_no_samples() -> None:
    assert EnhanceSettings(uncertainty="hw.nii", trust="mask.nii").samples == 1


def test_takes_samples_that_differ() -> None:
    assert EnhanceSettings(samples=2, realism=0.5).samples == 2


def test_record_is_plain_and_names_no_folder() -> None:
    settings = EnhanceSettings(
        output=Path("/ward/jane"), report=Path("/ward/jane.json"), model="/home/jane/model", spacing=(1.0,)
    )
    text = json.dumps(settings.as_record())
    assert "jane" not in text
    assert json.loads(text)["spacing"] == [1.0]
