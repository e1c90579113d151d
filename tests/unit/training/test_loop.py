"""Runs: exact resume, what they leave behind, what they refuse."""

from __future__ import annotations

import json
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
from medld.config import TrainConfig
from medld.errors import CheckpointError, ConfigError
from medld.training import run_training
from medld.training.loop import Run, schedule
from medld.training.state import STATE

Config = Callable[..., TrainConfig]
STAGE_NAMES = ["one-step", "autoencoder", "joint"]


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A run takes SIGTERM for itself; tests give it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(config: TrainConfig, *, resume: bool = False, until: int | None = None) -> Path:
    """Run in this process; the run's folder."""
    config.run_dir.mkdir(exist_ok=True)
    Run(config, lambda _: None).go(resume=resume, until=until)
    return config.run_dir


def written(config: TrainConfig, path: Path) -> Path:
    """The config as a YAML file."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def weights(run_dir: Path, part: str) -> dict[str, torch.Tensor]:
    """The weights of a part in a run's model folder."""
    return load_file(run_dir / "model" / f"{part}.safetensors")


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_four_steps_equal_two_a_resume_and_two(stage: str, train_config: Config) -> None:
    whole = run(train_config(stage, "whole"))
    cut = run(train_config(stage, "cut"), until=2)
    assert (whole / STATE).read_bytes() != (cut / STATE).read_bytes()
    assert run(train_config(stage, "cut"), resume=True) == cut
    assert (whole / STATE).read_bytes() == (cut / STATE).read_bytes()
    for path in sorted((whole / "model").glob("*.safetensors")):
        assert path.read_bytes() == (cut / "model" / path.name).read_bytes()


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
    run_training(written(config, tmp_path / "config.yaml"), ["seed=3"], report=said.append)
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
    assert not warm.optimiser.state


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


def test_the_schedule_rises_straight_and_falls_along_a_cosine(train_config: Config) -> None:
    config = train_config("one-step", steps=1000, warm_up=100, final_share=0.02)
    shares = np.array([schedule(step, config) for step in range(1001)])
    assert shares[:100] == pytest.approx(np.arange(1, 101) / 100)
    assert shares.max() == shares[100] == 1
    assert (np.diff(shares[100:]) < 0).all()
    assert shares[550] == pytest.approx((1 + 0.02) / 2)
    assert shares[-1] == pytest.approx(0.02)


def test_a_schedule_may_do_without_warm_up(train_config: Config) -> None:
    config = train_config("one-step", steps=10, warm_up=0)
    assert schedule(0, config) == 1


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
