"""Configs are strict, complete and say where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from medld.config import ModelConfig, TrainConfig, parse_config, read_config
from medld.errors import ConfigError

TEXT = """
stage: one-step
run_dir: runs/x
model:
  one_step: {channels: [8, 16, 24]}
steps: 10
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small training config."""
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    return path


def test_a_file_says_only_what_differs(path: Path) -> None:
    config = read_config(path, TrainConfig)
    assert config.steps == 10
    assert config.model.one_step is not None
    assert config.model.one_step.channels == (8, 16, 24)
    assert config.learning_rate == TrainConfig(stage="one-step", run_dir=Path("runs/x")).learning_rate


def test_overrides_reach_nested_keys_and_are_checked(path: Path) -> None:
    wanted = ["steps=7", "data.in_plane=32", "model.one_step.channels=[4, 4, 4]", "model.autoencoder={width: 8}"]
    config = read_config(path, TrainConfig, wanted)
    assert (config.steps, config.data.in_plane) == (7, 32)
    assert config.model.one_step is not None
    assert config.model.one_step.channels == (4, 4, 4)
    assert config.model.autoencoder is not None
    assert config.model.autoencoder.width == 8


def test_a_resolved_config_reads_back_as_itself(path: Path) -> None:
    config = read_config(path, TrainConfig)
    assert parse_config(config.model_dump(mode="json"), TrainConfig, origin="here") == config


def test_a_config_is_frozen(path: Path) -> None:
    config = read_config(path, TrainConfig)
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.one_step.chanels=[1]", r"model\.one_step\.chanels: Extra inputs"),
        ("steps=0", "steps: .*greater than or equal to 1"),
        ("steps=many", "steps: .*integer"),
        ("learning_rate=.inf", "learning_rate: .*finite"),
        ("stage=two-step", "stage: .*'one-step'"),
        ("steps", "--set key=value, got 'steps'"),
        ("steps.more=1", "'steps' of 'steps.more'"),
    ],
)
def test_a_wrong_key_or_value_is_named(path: Path, override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_config(path, TrainConfig, [override])


def test_the_message_names_the_file_and_the_known_keys(path: Path) -> None:
    path.write_text(TEXT + "step: 3\n")
    with pytest.raises(ConfigError, match=r"config\.yaml does not fit TrainConfig: step: .*Known keys: stage, .*steps"):
        read_config(path, TrainConfig)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps: 1\nsteps: 2", r"\['steps'\] twice"),
        ("model:\n  kappa: .5\n  kappa: .6", r"\['kappa'\] twice"),
        ("a: [1", "Expected a YAML file"),
        ("- 1", "keys and values .*got list"),
        ("x: !!python/object/apply:os.getcwd []", "Expected a YAML file"),
        ("", "stage: Field required"),
    ],
    ids=["twice", "nested-twice", "syntax", "list", "code", "empty"],
)
def test_a_damaged_file_is_refused(path: Path, text: str, told: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_config(path, TrainConfig)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    for path in (tmp_path / "none.yaml", tmp_path, binary):
        with pytest.raises(ConfigError, match="Check the path"):
            read_config(path, TrainConfig)


def test_an_override_that_is_no_yaml_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError):
        read_config(path, TrainConfig, ["steps=[1"])


def test_a_part_that_is_null_is_not_there() -> None:
    assert parse_config({"one_step": None}, ModelConfig, origin="here").one_step is None


def test_a_config_on_a_base_says_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("stage: one-step\nrun_dir: a\nbatch: 4\ndata: {in_plane: 32, slices: 8}\n")
    (tmp_path / "near.yaml").write_text("base: base.yaml\nrun_dir: b\ndata: {slices: 6}\n")
    (tmp_path / "far.yaml").write_text("base: near.yaml\nbatch: 2\n")
    config = read_config(tmp_path / "far.yaml", TrainConfig, ["seed=3"])
    assert (str(config.run_dir), config.batch, config.seed) == ("b", 2, 3)
    assert (config.data.in_plane, config.data.slices) == (32, 6)


@pytest.mark.parametrize("base", ["missing.yaml", "own.yaml", "loop.yaml"])
def test_a_base_that_is_missing_or_turns_in_a_circle_is_refused(base: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"base: {base}\n")
    (tmp_path / "loop.yaml").write_text("base: own.yaml\n")
    with pytest.raises(ConfigError, match=base):
        read_config(tmp_path / "own.yaml", TrainConfig)
