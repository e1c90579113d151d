"""Runs: exact resume, what ends them, what they leave behind, what they refuse."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from medld.build import build_networks
from medld.checkpoint import load_model
from medld.config import SourceConfig, TrainConfig
from medld.dataset import Fine
from medld.errors import CheckpointError, ConfigError, MedldError
from medld.training import run_training
from medld.training.ending import Clock
from medld.training.loop import Result, Run
from medld.training.selection import read_rows
from medld.training.state import PREVIOUS, STATE
from medld.training.validation import mean_gain

Config = Callable[..., TrainConfig]
STAGE_NAMES = ["one-step", "autoencoder", "joint"]
NO_CHANGE = 1e-30
"""A learning rate that leaves every output as it is."""


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A run takes SIGTERM for itself; tests give it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def validated(train_config: Config, scans: Path) -> Config:
    """A one-step config that validates the centres of the heads after every step."""

    def validated(run: str = "run", **settings: Any) -> TrainConfig:
        small = {"validation": [str(scans)], "validation_ratios": [4.0], "validation_crop": 32, "validate_every": 1}
        return train_config("one-step", run, **{**small, "trackers": [], **settings})

    return validated


def outcome(config: TrainConfig, *, resume: bool = False, until: int | None = None, **more: Any) -> Result:
    """Run in this process; what came of it."""
    config.run_dir.mkdir(exist_ok=True)
    return Run(config, more.pop("report", lambda _: None)).go(resume=resume, until=until, **more)


def run(config: TrainConfig, *, resume: bool = False, until: int | None = None) -> Path:
    """Run in this process; the run's folder."""
    outcome(config, resume=resume, until=until)
    return config.run_dir


def written(config: TrainConfig, path: Path) -> Path:
    """The config as a YAML file."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def weights(run_dir: Path, part: str) -> dict[str, torch.Tensor]:
    """The weights of a part in a run's model folder."""
    return load_file(run_dir / "model" / f"{part}.safetensors")


def assert_same_files(first: Path, second: Path, pattern: str, least: int) -> None:
    """The same files with the same bytes in two folders, at least so many."""
    names = sorted(path.relative_to(first) for path in first.glob(pattern))
    assert len(names) >= least
    assert names == sorted(path.relative_to(second) for path in second.glob(pattern))
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []


@pytest.mark.parametrize("stage", STAGE_NAMES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_four_steps_equal_two_a_resume_and_two(stage: str, accumulate: int, train_config: Config) -> None:
    settings = {"accumulate": accumulate, "trackers": []}
    whole = run(train_config(stage, "whole", **settings))
    cut = run(train_config(stage, "cut", **settings), until=2)
    assert (whole / STATE).read_bytes() != (cut / STATE).read_bytes()
    assert run(train_config(stage, "cut", **settings), resume=True) == cut
    assert_same_files(whole, cut, STATE, 1)
    assert_same_files(whole, cut, "model/*.safetensors", 1)


def test_a_resume_is_exact_with_validation_in_between(validated: Config) -> None:
    whole = run(validated("whole"))
    for until in (1, 3, None):
        cut = run(validated("cut"), resume=until != 1, until=until)
    assert_same_files(whole, cut, STATE, 1)
    assert_same_files(whole, cut, "best/*.safetensors", 1)
    assert_same_files(whole, cut, "*/validation.json", 1)
    assert_same_files(whole, cut, "model/*.safetensors", 1)


def test_validation_changes_no_weight(validated: Config) -> None:
    states = [load_file(run(validated(f"every{every}", validate_every=every)) / STATE) for every in (0, 1)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_micro_batches_make_the_step_of_the_whole_batch(train_config: Config) -> None:
    settings = {"batch": 4, "trackers": [], "data": None}
    settings["data"] = {**train_config("one-step").data.model_dump(mode="json"), "noise_share": 1.0}
    states = {
        parts: load_file(run(train_config("one-step", f"parts{parts}", accumulate=parts, **settings)) / STATE)
        for parts in (1, 2, 4)
    }
    rounding = 2e-6  # a step moves a weight by up to 5e-4
    for parts in (2, 4):
        for name, value in states[1].items():
            assert torch.allclose(value, states[parts][name], rtol=0, atol=rounding), name
    other = load_file(run(train_config("one-step", "other", seed=1, **settings)) / STATE)
    assert not all(torch.allclose(value, other[name], rtol=0, atol=rounding) for name, value in states[1].items())


def test_a_batch_that_does_not_divide_into_micro_batches_is_refused(train_config: Config) -> None:
    with pytest.raises(ConfigError, match="accumulate to divide batch"):
        train_config("one-step", batch=4, accumulate=3)


def test_a_run_cut_by_the_clock_ends_where_another_does(train_config: Config, tmp_path: Path) -> None:
    whole = run(train_config("one-step", "whole"))
    config = train_config("one-step", "cut")
    path = written(config, tmp_path / "config.yaml")
    for command in range(config.steps):
        run_training(path, [], resume=command > 0, max_minutes=0)  # time for one step each
        card = json.loads((config.run_dir / "model" / "model.json").read_text())
        assert card["training"]["steps"] == command + 1
    assert (whole / STATE).read_bytes() == (config.run_dir / STATE).read_bytes()


def test_another_seed_is_another_run(train_config: Config) -> None:
    first, second = (run(train_config("one-step", f"run{seed}", seed=seed), until=1) for seed in (0, 1))
    assert (first / STATE).read_bytes() != (second / STATE).read_bytes()


def test_a_run_leaves_a_model_a_log_and_its_config(train_config: Config, tmp_path: Path) -> None:
    config = train_config("one-step")
    said: list[str] = []
    result = run_training(written(config, tmp_path / "config.yaml"), ["seed=3"], report=said.append)
    assert (result.steps, result.ended, result.best_step) == (4, "steps", 4)
    assert result.validation == result.start == ()
    assert result.seconds > 0
    assert yaml.safe_load((config.run_dir / "config.yaml").read_text())["seed"] == 3
    rows = [json.loads(line) for line in (config.run_dir / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert all(np.isfinite(row["loss"]) and row["gradient"] > 0 for row in rows)
    assert len(said) == 1 + len(rows)
    model = load_model(config.run_dir / "model")
    assert model.config == config.model
    assert model.card["training"]["stage"] == "one-step"
    assert model.card["training"]["volumes"] == ["sub-a_T1w", "sub-b_T2w"]


def test_the_model_holds_averaged_weights(train_config: Config) -> None:
    run_dir = run(train_config("one-step"))
    state = load_file(run_dir / STATE)
    model = weights(run_dir, "one_step")
    assert len(model) > 20
    for name, value in model.items():
        assert torch.equal(value, state[f"average/module.one_step.{name}"].half())
    assert any(not torch.equal(value, state[f"model/one_step.{name}"].half()) for name, value in model.items())


def test_the_joint_stage_starts_from_the_autoencoder_and_keeps_its_encoder(train_config: Config) -> None:
    first = run(train_config("autoencoder", "first"))
    second = run(train_config("joint", "second", warm_start=[str(first / "model")]))
    before, after = weights(first, "autoencoder"), weights(second, "autoencoder")
    for name, value in before.items():
        frozen = name.startswith(("encoder.", "latent_"))
        assert torch.equal(value, after[name]) or not frozen, name
    assert any(not torch.equal(value, after[name]) for name, value in before.items() if name.startswith("decoder."))
    assert before["latent_std"].float().std() > 0  # the table was filled
    live = load_file(second / STATE)
    for name, value in before.items():
        if name.startswith("encoder."):
            assert torch.equal(live[f"model/autoencoder.{name}"], value.float())


def test_a_frozen_autoencoder_is_saved_as_it_was(train_config: Config) -> None:
    first = run(train_config("autoencoder", "first"))
    second = run(train_config("joint", "second", train_decoder=False, warm_start=[str(first / "model")]))
    before, after = weights(first, "autoencoder"), weights(second, "autoencoder")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    state = load_file(second / STATE)
    assert not any("autoencoder" in name for name in state)
    spread = state["model/denoiser.spread.values"]
    assert (spread > 0).all()
    assert (spread != 1).all()  # measured before the first step
    assert torch.equal(weights(second, "denoiser")["spread.values"], spread.half())


def test_a_warm_start_takes_rounded_weights_and_nothing_else(train_config: Config) -> None:
    first = run(train_config("one-step", "first"))
    warm = Run(train_config("one-step", "second", warm_start=[str(first / "model")]), lambda _: None)
    assert warm.networks.one_step is not None
    for name, value in warm.networks.one_step.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights(first, "one_step")[name].float())
    assert not warm.learner.optimiser.state


def test_the_card_of_a_warm_start_tells_what_the_weights_before_it_learned_from(train_config: Config) -> None:
    first = run(train_config("one-step", "first"))
    known = load_model(first / "model").volumes("one_step")
    config = train_config("one-step", "second", warm_start=[str(first / "model")])
    fewer = config.data.model_copy(update={"sources": (SourceConfig(files=f"{known[0]}*"),)})
    second = run(config.model_copy(update={"data": fewer}))
    told = json.loads((second / "model" / "model.json").read_text())["training"]
    assert told["volumes"] == [known[0]] != list(known)
    assert load_model(second / "model").volumes("one_step") == known


def test_the_card_of_a_warm_start_leaves_out_parts_that_it_did_not_take(train_config: Config) -> None:
    first = run(train_config("one-step", "first")) / "model"
    card = json.loads((first / "model.json").read_text())
    card["training"] = {"parts": {"one_step": {"steps": 7}, "denoiser": {"steps": 8}}}
    (first / "model.json").write_text(json.dumps(card))
    second = run(train_config("one-step", "second", warm_start=[str(first)])) / "model"
    told = json.loads((second / "model.json").read_text())["training"]
    assert told["start_training"] == [{"parts": {"one_step": {"steps": 7}}}]


def test_a_warm_start_without_fitting_weights_is_refused(train_config: Config, tmp_path: Path) -> None:
    first = run(train_config("one-step", "first"), until=1)
    for folder in (tmp_path, first / "model"):
        with pytest.raises(CheckpointError, match="Check warm_start"):
            Run(train_config("autoencoder", "second", warm_start=[str(folder)]), lambda _: None)


def test_a_run_is_not_overwritten(train_config: Config, tmp_path: Path) -> None:
    config = train_config("one-step")
    path = written(config, tmp_path / "config.yaml")
    run_training(path, ["steps=1"])
    before = (config.run_dir / STATE).read_bytes()
    with pytest.raises(CheckpointError, match=r"holds a run\. Give --resume"):
        run_training(path, [])
    assert (config.run_dir / STATE).read_bytes() == before


def test_there_must_be_a_run_to_resume(train_config: Config, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="without --resume"):
        run_training(written(train_config("one-step"), tmp_path / "config.yaml"), [], resume=True)


def test_a_dry_run_tells_the_config_and_writes_nothing(train_config: Config, tmp_path: Path) -> None:
    config = train_config("one-step")
    said: list[str] = []
    run_training(written(config, tmp_path / "config.yaml"), ["steps=9"], dry_run=True, report=said.append)
    assert TrainConfig.model_validate(yaml.safe_load(said[0])) == config.model_copy(update={"steps": 9})
    assert not config.run_dir.exists()


def test_untrained_networks_gain_nothing_on_held_out_volumes(train_config: Config, scans: Path) -> None:
    config = train_config("one-step", validation=[str(scans)], steps=1, learning_rate=1e-12)
    rows = json.loads((run(config) / "validation.json").read_text())
    assert {(row["volume"], row["ratio"]) for row in rows} == {
        (name, ratio) for name in ("sub-a_T1w", "sub-b_T2w") for ratio in (2.0, 4.0, 6.0)
    }
    nothing = 0.01  # dB
    assert all(abs(row["gain"]) < nothing for row in rows)
    by_ratio = {row["ratio"]: row["baseline"] for row in rows if row["volume"] == "sub-a_T1w"}
    assert by_ratio[2.0] > by_ratio[4.0] > by_ratio[6.0]


@pytest.mark.parametrize(
    ("stage", "model"), [("one-step", {"one_step": None}), ("autoencoder", {}), ("joint", {"one_step": None})]
)
def test_a_stage_without_its_network_is_refused(stage: str, model: dict[str, Any], train_config: Config) -> None:
    with pytest.raises(ConfigError):
        Run(train_config(stage, model=model), lambda _: None)


def test_a_fresh_network_is_that_of_the_seed(train_config: Config) -> None:
    one, two, other = (Run(train_config("one-step", seed=seed), lambda _: None) for seed in (0, 0, 1))
    torch.manual_seed(0)
    expected = build_networks(train_config("one-step").model).one_step
    assert expected is not None
    for run_ in (one, two):
        assert run_.networks.one_step is not None
        assert torch.equal(run_.networks.one_step.stem.weight, expected.stem.weight)
    assert other.networks.one_step is not None
    assert not torch.equal(other.networks.one_step.stem.weight, expected.stem.weight)


def test_the_joint_stage_may_start_at_a_frozen_one_step_network(train_config: Config) -> None:
    one_step, latents = run(train_config("one-step", "first")), run(train_config("autoencoder", "second"))
    parts = train_config("joint").model.model_dump(mode="json")
    model = {**parts, "one_step": parts["denoiser"], "start": "mean"}
    folders = [str(folder / "model") for folder in (one_step, latents)]
    joint = run(train_config("joint", "third", model=model, warm_start=folders))
    before, after = weights(one_step, "one_step"), weights(joint, "one_step")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert load_model(joint / "model").networks.start == "mean"


def test_sigterm_ends_a_run_after_the_step_in_hand_with_a_checkpoint(validated: Config) -> None:
    config = validated("cut", validate_every=0, log_every=1)
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        if line.startswith("step 2/"):
            os.kill(os.getpid(), signal.SIGTERM)

    result = outcome(config, report=report)
    assert (result.steps, result.ended) == (2, "signal")
    assert result.validation == ()  # who asks to end does not wait for it
    assert "no time for the last validation" in said
    assert load_model(config.run_dir / "model").card["training"]["steps"] == 2
    whole = run(validated("whole", validate_every=0, log_every=1))
    assert_same_files(whole, run(config, resume=True), STATE, 1)


def test_a_checkpoint_is_written_on_the_timer(train_config: Config) -> None:
    run_dir = run(train_config("one-step", checkpoint_minutes=1e-9))
    assert (run_dir / PREVIOUS).read_bytes() == (run_dir / STATE).read_bytes()  # of the last step, and at the end
    assert not (run(train_config("one-step", "other")) / PREVIOUS).exists()


def test_patience_counts_validations_without_a_better_one(validated: Config) -> None:
    result = outcome(validated(steps=20, patience=2, learning_rate=NO_CHANGE, validate_every=2))
    assert (result.steps, result.ended, result.best_step) == (6, "patience", 2)
    again = outcome(validated(steps=20, patience=2, learning_rate=NO_CHANGE, validate_every=2), resume=True)
    assert (again.steps, again.ended, again.best_step) == (6, "patience", 2)


def test_patience_needs_validations_and_these_need_volumes(validated: Config) -> None:
    with pytest.raises(ConfigError, match="give validate_every as well"):
        validated(validate_every=0, patience=2)
    with pytest.raises(ConfigError, match="Name a folder"):
        Run(validated(validation=[]), lambda _: None)


def test_an_autoencoder_is_not_validated(train_config: Config, scans: Path) -> None:
    with pytest.raises(ConfigError, match="leave validate_every 0"):
        train_config("autoencoder", validation=[str(scans)], validate_every=1)
    assert outcome(train_config("autoencoder", validation=[str(scans)], steps=1)).validation == ()


def test_the_best_weights_are_the_result(validated: Config) -> None:
    first = run(validated("first", learning_rate=NO_CHANGE, steps=1, validate_every=0))
    config = validated("second", warm_start=[str(first / "model")], learning_rate=0.3, warm_up=0)
    result = outcome(config)
    run_dir = config.run_dir
    assert (result.steps, result.best_step) == (4, 0)
    assert result.start == result.validation == tuple(read_rows(run_dir / "validation.json"))
    assert len(result.start) == 2
    assert_same_files(first / "model", run_dir / "model", "*.safetensors", 1)
    assert load_model(run_dir / "model").card["training"]["steps"] == 0
    rows = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    gains = {row["step"]: row["validation_gain"] for row in rows if "validation_gain" in row}
    assert sorted(gains) == [0, 1, 2, 3, 4]
    assert gains[0] == pytest.approx(mean_gain(result.start))
    assert gains[4] < gains[0]


def test_last_weights_that_are_the_best_stay(validated: Config) -> None:
    ruined = run(validated("ruined", learning_rate=0.3, warm_up=0, validate_every=0))
    config = validated("healed", warm_start=[str(ruined / "model")], learning_rate=0.02, steps=8, validate_every=7)
    result = outcome(config)
    assert mean_gain(result.validation) > mean_gain(result.start)
    assert result.best_step in (7, 8)
    assert load_model(config.run_dir / "model").card["training"]["steps"] == result.best_step


def test_a_warm_start_is_judged_only_where_validations_follow(validated: Config) -> None:
    first = run(validated("first", steps=1, validate_every=0))
    result = outcome(validated("second", steps=1, validate_every=0, warm_start=[str(first / "model")]))
    assert result.start == ()
    assert len(result.validation) == 2


def test_a_run_that_is_out_of_time_does_without_validation(validated: Config) -> None:
    said: list[str] = []
    result = outcome(validated(), clock=Clock(0.0), report=said.append)
    assert (result.steps, result.ended, result.validation) == (1, "time", ())
    assert [line for line in said if "no time" in line] == [
        "step 1: no time for a validation before the last one",
        "no time for the last validation",
    ]


def test_a_run_ends_in_time_with_its_validation_done(validated: Config) -> None:
    limit = 2.5
    result = outcome(validated(steps=100_000, validate_every=0), clock=Clock(limit))
    assert result.ended == "time"
    assert len(result.validation) == 2
    assert 1 < result.steps < 100_000
    someone_else_computes = 1.5
    assert result.seconds < someone_else_computes * limit


def test_volumes_may_be_given_as_they_are(train_config: Config, volumes: list[Fine]) -> None:
    config = train_config("one-step", data={"in_plane": 16, "slices": 4, "folders": []}, steps=1, trackers=[])
    config.run_dir.mkdir()
    result = Run(config, lambda _: None, volumes=volumes[:1], held_out=volumes[1:]).go()
    assert {row["volume"] for row in result.validation} == {volumes[1].name}
    assert load_model(config.run_dir / "model").card["training"]["volumes"] == [volumes[0].name]
    assert Run(config, lambda _: None, volumes=volumes, held_out=[]).go().validation == ()


def test_weights_that_are_lost_are_refused_and_the_checkpoint_kept(train_config: Config) -> None:
    config = train_config("one-step", trackers=[], checkpoint_minutes=1e-9)
    before = (run(config, until=2) / STATE).read_bytes()
    ruinous = train_config("one-step", trackers=[], checkpoint_minutes=1e-9, learning_rate=1e30, log_every=100)
    with pytest.raises(MedldError, match="Expected a finite loss, got nan at step 4") as refusal:
        run(ruinous, resume=True)
    assert refusal.value.code == "E_NUMERIC"
    assert (config.run_dir / PREVIOUS).read_bytes() == before
