"""`medld train` as it is typed: on its own, resumed after a kill, and shared by several processes."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter

from medld.checkpoint import load_model
from medld.cli import main
from medld.training.state import STATE

LAUNCH = Path(__file__).parents[2] / "pipelines" / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.iterdir())
ROUNDING = 2e-6
"""Of a weight: processes add in another order."""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
Written = Callable[..., Path]


@pytest.fixture
def config(tmp_path: Path) -> Written:
    """A config file for four steps of a tiny network, with some settings."""
    scans = tmp_path / "scans"
    scans.mkdir()
    texture = gaussian_filter(np.random.default_rng(0).standard_normal((36, 36, 40)), 1.2)
    head = (500 + 900 * texture).clip(1).astype(np.float32)
    nib.save(nib.Nifti1Image(head, np.eye(4)), scans / "sub-a_T1w.nii.gz")

    def config(run: str, **settings: Any) -> Path:
        content = {
            "stage": "one-step",
            "run_dir": str(tmp_path / run),
            "model": {"one_step": {"channels": [8, 8, 8], "blocks": [1, 1, 1], "embedding": 8}},
            "data": {"in_plane": 16, "slices": 4, "folders": [str(scans)]},
            "steps": 4,
            "batch": 2,
            "warm_up": 2,
            "precision": "float32",
            "device": "cpu",
            "log_every": 1,
            "trackers": [],
        }
        path = tmp_path / f"{run}.yaml"
        path.write_text(yaml.safe_dump({**content, **settings}))
        return path

    return config


def run_dir_of(config: Path) -> Path:
    """The folder that a config trains into."""
    return config.with_suffix("")


def assert_same_state(first: Path, second: Path, tolerance: float) -> None:
    """The same numbers in the states of two runs."""
    states = [load_file(run_dir_of(config) / STATE) for config in (first, second)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], rtol=0, atol=tolerance), name


def test_the_command_trains_goes_on_and_does_not_overwrite(config: Written, capsys: pytest.CaptureFixture[str]) -> None:
    whole, cut = config("whole"), config("cut")
    assert main(["train", str(whole)]) == 0
    assert capsys.readouterr().out.count("step 4/4") == 1
    assert main(["train", str(cut), "--max-minutes", "0"]) == 0
    assert main(["train", str(cut)]) == 2
    assert "Give --resume" in capsys.readouterr().err
    assert main(["train", str(cut), "--resume"]) == 0
    assert (run_dir_of(whole) / STATE).read_bytes() == (run_dir_of(cut) / STATE).read_bytes()
    assert load_model(run_dir_of(cut) / "model").card["training"]["steps"] == 4


def test_a_setting_that_does_not_exist_is_refused(config: Written, capsys: pytest.CaptureFixture[str]) -> None:
    path = config("run")
    assert main(["train", str(path), "--set", "step=9"]) == 2
    assert "step: Extra inputs" in capsys.readouterr().err
    assert not run_dir_of(path).exists()


def test_a_run_killed_in_the_middle_of_a_write_goes_on_from_the_last_whole_checkpoint(config: Written) -> None:
    whole, cut = config("whole"), config("cut", checkpoint_minutes=1e-9)
    assert main(["train", str(whole)]) == 0
    assert main(["train", str(cut), "--max-minutes", "0"]) == 0
    run_dir = run_dir_of(cut)
    before = (run_dir / STATE).read_bytes()
    half_written = run_dir / "state.tmp"
    written = kill_while_writing(half_written, [sys.executable, "-m", "medld.cli", "train", str(cut), "--resume"])
    half_written.write_bytes(written)
    assert 0 < len(written) < len(before)
    assert (run_dir / STATE).read_bytes() == before
    rows = (run_dir / "log.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == 2  # the step was made, its state lost
    assert main(["train", str(cut), "--resume"]) == 0
    assert (run_dir / STATE).read_bytes() == (run_dir_of(whole) / STATE).read_bytes()
    steps = [json.loads(line)["step"] for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    assert not half_written.exists()


def kill_while_writing(path: Path, command: Sequence[str]) -> bytes:
    """SIGKILL a command that has begun to write a file; the bytes that it got out.

    The file is a pipe that is read no further than its first bytes, so the command cannot get to the end.
    """
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        while not select.select([reader], [], [], 1.0)[0]:
            assert process.poll() is None, "it ended before it wrote"
        written = os.read(reader, 1000)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(reader)
        path.unlink()
    return written


def test_two_processes_of_torchrun_make_the_run_of_one(config: Written) -> None:
    alone, shared = config("alone"), config("shared")
    assert main(["train", str(alone)]) == 0
    done = subprocess.run(
        [LAUNCH / "one_node.sh", shared],
        env={**ENVIRONMENT, "PROCESSES": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 4/4") == 1
    assert_same_state(alone, shared, ROUNDING)
    assert load_model(run_dir_of(shared) / "model").card["training"]["processes"] == 2


@pytest.mark.slow
def test_two_nodes_make_the_run_of_one(config: Written) -> None:
    alone, shared = config("alone"), config("shared")
    assert main(["train", str(alone)]) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    told = {**ENVIRONMENT, "PROCESSES": "1", "MASTER": "127.0.0.1", "PORT": port}
    nodes = [
        subprocess.Popen([LAUNCH / "two_nodes.sh", shared], env={**told, "NODE": str(node)}, stdout=subprocess.DEVNULL)
        for node in range(2)
    ]
    assert [node.wait(timeout=120) for node in nodes] == [0, 0]
    assert_same_state(alone, shared, ROUNDING)


@pytest.mark.slow
def test_a_batch_job_that_is_submitted_again_goes_on(config: Written, tmp_path: Path) -> None:
    whole, cut = config("whole"), config("cut")
    assert main(["train", str(whole)]) == 0
    cluster = tmp_path / "cluster"  # of one node: what a job runs on it is run here
    cluster.mkdir()
    for name, line in (("scontrol", "echo localhost"), ("srun", 'exec "$@"')):
        (cluster / name).write_text(f"#!/bin/sh\n{line}\n")
        (cluster / name).chmod(0o755)
    told = {"SLURM_JOB_NODELIST": "node", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "7"}
    environment = {**ENVIRONMENT, **told, "PATH": f"{cluster}:{ENVIRONMENT['PATH']}"}
    command = [LAUNCH / "slurm.sbatch", cut, run_dir_of(cut)]
    for more in (["--max-minutes", "0"], []):
        subprocess.run(["bash", *command, *more], env=environment, check=True, capture_output=True)
    assert_same_state(whole, cut, ROUNDING)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_launch_file_is_sound_and_trains_through_torchrun(name: str) -> None:
    path = LAUNCH / name
    subprocess.run(["bash", "-n", path], check=True)
    commands = re.sub(r"\\\n\s*", "", path.read_text())
    (launch,) = re.findall(r"^(?:exec|srun) torchrun .*$", commands, re.MULTILINE)
    assert re.search(r"--nproc-per-node \S+ .*--module medld\.cli train .*\"\$@\"$", launch)
    assert f"pipelines/launch/{name}" in commands  # its own header says how it is called


def test_there_is_a_launch_file_for_every_kind_of_cluster() -> None:
    assert SCRIPTS == ["one_node.sh", "slurm.sbatch", "two_nodes.sh"]
