"""However many processes share a run, its result is that of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from medld.config import TrainConfig, read_config
from medld.errors import ConfigError
from medld.training.distributed import ALONE, World, joined
from medld.training.loop import Run
from medld.training.state import STATE

PROCESSES = 2
STAGE_NAMES = ["one-step", "autoencoder", "joint"]
ROUNDING = 2e-6
"""Of a weight, which four steps move by up to 2e-3: processes add in another order."""


def share_runs(paths: Sequence[str]) -> None:
    """What each of the processes does: agree, then train as each config says, cut in the middle."""
    with joined("cpu") as world:
        assert world.gather(world.rank) == [0, 1]
        assert world.most(world.rank) == 1
        layer = nn.Linear(2, 2)
        nn.init.constant_(layer.weight, world.rank)
        world.make_equal(layer)
        assert float(layer.weight.detach().sum()) == 0
        if world.leads:
            layer.weight.grad = torch.ones(2, 2)
        world.average_gradients([layer.weight])
        assert layer.weight.grad is not None
        assert layer.weight.grad.tolist() == [[0.5, 0.5], [0.5, 0.5]]
        for path in paths:
            config, lines = read_config(path, TrainConfig), list[str]()
            Run(config, lines.append, world=world).go(until=2)
            result = Run(config, lines.append, world=world).go(resume=True)
            assert (result.steps, result.ended) == (4, "steps")
            assert bool(lines) == world.leads


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def share_with_another_process(paths: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process and one more, which know of each other as torchrun would have told them."""
    shared = {"WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    told = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(PROCESSES)]
    other = subprocess.Popen([sys.executable, __file__, *paths], env={**os.environ, "OMP_NUM_THREADS": "1", **told[1]})
    for name, value in told[0].items():
        monkeypatch.setenv(name, value)
    try:
        share_runs(paths)
        assert other.wait(timeout=60) == 0
    finally:
        other.kill()  # it would wait for this process, should this one have failed
        other.wait()


@pytest.fixture
def config_of(train_config: Callable[..., TrainConfig], scans: Path) -> Callable[..., TrainConfig]:
    """Four crops a step, all of them noisy, and a validation in between."""

    def config_of(stage: str, run: str, **settings: Any) -> TrainConfig:
        data = {**train_config(stage).data.model_dump(mode="json"), "noise_share": 1.0}
        if stage != "autoencoder":
            settings |= {"validation": [str(scans)], "validation_ratios": [4.0], "validation_crop": 32}
            settings["validate_every"] = 2
        return train_config(stage, run, batch=4, data=data, trackers=[], **settings)

    return config_of


def test_two_processes_give_what_one_gives(
    config_of: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, paths = [], []
    # Masks of dropout belong to a micro-batch: alike where the batch is cut into as many parts.
    dropping = {"model": {"one_step": {**config_of("one-step", "").model.one_step.model_dump(), "dropout": 0.3}}}
    cases = [*((stage, 1, {}) for stage in STAGE_NAMES), ("one-step", 4, dropping)]
    for number, (stage, parts, settings) in enumerate(cases):
        alone = config_of(stage, f"{number}-alone", accumulate=parts, **settings)
        alone.run_dir.mkdir()
        Run(alone, lambda _: None).go()
        shared = config_of(stage, f"{number}-shared", accumulate=2, **settings)
        shared.run_dir.mkdir()
        pairs.append((alone.run_dir, shared.run_dir))
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(yaml.safe_dump(shared.model_dump(mode="json")))
    share_with_another_process([str(path) for path in paths], monkeypatch)
    for one, two in pairs:
        assert_same_run(one, two)


def assert_same_run(one: Path, two: Path) -> None:
    """The same states, logs and validations, to rounding."""
    first, second = load_file(one / STATE), load_file(two / STATE)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=0, atol=ROUNDING), (two.name, name)
    logs = [[json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()] for path in (one, two)]
    told = ("loss", "gradient", "gain", "validation_gain")
    figures = [[(row["step"], name, row[name]) for row in log for name in told if name in row] for log in logs]
    assert len(figures[0]) >= 5
    pooled_over_tissue = 0.05  # dB; a gain is that of a portion
    for (step, name, value), other in zip(*figures, strict=True):
        near = pooled_over_tissue if name == "gain" else 1e-4
        assert other[:2] == (step, name)
        assert other[2] == pytest.approx(value, abs=near)


def test_alone_nothing_is_exchanged() -> None:
    layer = nn.Linear(2, 2)
    ALONE.average_gradients(list(layer.parameters()))
    assert layer.weight.grad is None
    ALONE.make_equal(layer)
    assert ALONE.leads
    assert ALONE.most(3) == 3
    assert ALONE.gather("a") == ["a"]


def test_a_single_process_of_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined("cpu") as world:
        assert world is ALONE


def test_processes_that_cannot_find_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"MASTER_ADDR, MASTER_PORT .*torchrun"), joined("cpu"):
        pass


def test_every_process_has_a_device_of_its_own() -> None:
    second = World(rank=5, size=8, local_rank=1)
    assert not second.leads
    assert second.device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"auto, cuda or cpu for 8 processes, got cuda:0"):
        second.device("cuda:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert ALONE.device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(ConfigError, match="Expected at least 1 GPUs on this machine, found 0"):
            ALONE.device(name)


if __name__ == "__main__":  # the other process
    share_runs(sys.argv[1:])
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert not any("gloo" in name for name in threads), threads  # they could abort the interpreter at its end
