"""Figures reach every tracker that the config names, offline, and none that is not installed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from medld.errors import ConfigError
from medld.training.tracking import LOG, OFFLINE, open_trackers

ROWS = {1: {"loss": 0.5, "gain": -1.0}, 2: {"loss": 0.25, "gain": 2.5}, 3: {"loss": 0.125, "gain": 3.0}}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers are told by environment variables to stay offline; tests take them back."""
    for name in OFFLINE:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def track(folder: Path, names: tuple[str, ...] | None, *, after: int, until: int) -> list[str]:
    """Log the rows of a command that goes on after some steps; what was said."""
    said: list[str] = []
    trackers = open_trackers(names, folder, after, said.append)
    for step in range(after + 1, until + 1):
        for tracker in trackers:
            tracker.log(step, ROWS[step])
    for tracker in trackers:
        tracker.close()
    return said


def forget(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make a package, and what was imported through it, impossible to import."""
    for module in [m for m in sys.modules if m.split(".")[0] == name or m.startswith(f"torch.utils.{name}")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)


def lines(folder: Path) -> dict[int, dict[str, float]]:
    """The log by step; each step once."""
    rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    by_step = {row.pop("step"): row for row in rows}
    assert len(by_step) == len(rows)
    return by_step


def test_the_log_has_a_line_per_entry(tmp_path: Path) -> None:
    assert track(tmp_path, (), after=0, until=3) == []
    assert lines(tmp_path) == ROWS
    assert [path.name for path in tmp_path.iterdir()] == [LOG]


def test_a_resume_drops_what_was_logged_after_its_checkpoint(tmp_path: Path) -> None:
    track(tmp_path, (), after=0, until=3)
    with (tmp_path / LOG).open("a") as stream:
        stream.write('{"step": 4, "lo')  # killed in the middle of a line
    trackers = open_trackers((), tmp_path, 1, lambda _: None)
    assert lines(tmp_path) == {1: ROWS[1]}
    for tracker in trackers:
        tracker.log(2, ROWS[2])
    assert lines(tmp_path) == {1: ROWS[1], 2: ROWS[2]}


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    track(tmp_path, None, after=0, until=3)
    track(tmp_path, None, after=1, until=2)  # a resume from step 1: later points no longer hold
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["loss", "gain"]
    for name in ("loss", "gain"):
        points = {event.step: event.value for event in events.Scalars(name)}
        assert points == {step: ROWS[step][name] for step in (1, 2)}


def test_mlflow_keeps_one_run_in_plain_files(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    track(tmp_path, ("mlflow",), after=0, until=1)
    track(tmp_path, ("mlflow",), after=1, until=3)
    client = mlflow.tracking.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("medld").experiment_id])
    assert run.info.status == "FINISHED"
    history = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "gain")}
    assert history == {step: row["gain"] for step, row in ROWS.items()}
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_wandb_stays_offline_and_goes_on_under_the_same_name(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    track(tmp_path, ("wandb",), after=0, until=1)
    (first,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert b"gain" in first.read_bytes()
    for after in (1, 2):
        track(tmp_path, ("wandb",), after=after, until=after + 1)
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 3
    assert {path.name for path in files} == {first.name}


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_by_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(monkeypatch, name)
    extra = {"tensorboard": "train"}.get(name, name)
    with pytest.raises(ConfigError, match=rf"{name} .*not installed: pip install 'medld\[{extra}\]'"):
        open_trackers((name,), tmp_path, 0, lambda _: None)


def test_tensorboard_that_nobody_asked_for_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "tensorboard")
    said = track(tmp_path, None, after=0, until=3)
    assert len(said) == 1
    assert "medld[train]" in said[0]
    assert lines(tmp_path) == ROWS
