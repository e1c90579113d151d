"""Who is told a run's figures: always `log.jsonl`, and the trackers that the config names, all of them offline.

Everything stays in the run's folder:

    log.jsonl      a line per entry
    tensorboard/   tensorboard --logdir RUN/tensorboard
    mlruns/        mlflow ui --backend-store-uri RUN/mlruns
    wandb/         wandb sync RUN/wandb/offline-run-*, for those who want to upload it
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from medld.errors import ConfigError

LOG = "log.jsonl"
DEFAULT = "tensorboard"
EXTRAS = {"tensorboard": "train", "mlflow": "mlflow", "wandb": "wandb"}
PROJECT = "medld"

OFFLINE = {
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}
"""What MLflow and W&B must be told to keep a store of plain files and to call nobody; a value set before stands."""


class Tracker(Protocol):
    """Keeps figures by step."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take in the figures of a step."""

    def close(self) -> None:
        """Write what is left to write."""


class JsonLines:
    """One JSON object a line, each with its `step`."""

    def __init__(self, run_dir: Path, step: int) -> None:
        self.path = run_dir / LOG
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line + "\n" for line in lines if _is_before(line, step)]
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(kept), encoding="utf-8")
            os.replace(temporary, self.path)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Append a line."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **figures}) + "\n")

    def close(self) -> None:
        """Nothing is left open."""


class TensorBoard:
    """An event file that TensorBoard draws."""

    def __init__(self, run_dir: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1 if step else None, flush_secs=30)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """One point on the curve of each figure."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is in memory."""
        self.writer.close()


class MLflow:
    """A file store of MLflow with one run."""

    def __init__(self, run_dir: Path, step: int) -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=(run_dir / "mlruns").resolve().as_uri())
        found = self.client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self.client.create_experiment(PROJECT)
        earlier = self.client.search_runs([experiment]) if step else []
        self.run = earlier[0] if earlier else self.client.create_run(experiment, run_name=run_dir.name)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """One value of each figure's metric."""
        for name, value in figures.items():
            self.client.log_metric(self.run.info.run_id, name, value, step=step)

    def close(self) -> None:
        """Mark the run as finished."""
        self.client.set_terminated(self.run.info.run_id)


class WandB:
    """An offline run of Weights & Biases."""

    def __init__(self, run_dir: Path, step: int) -> None:
        import wandb

        earlier = sorted((run_dir / "wandb").glob("offline-run-*/run-*.wandb")) if step else []
        self.run = wandb.init(
            mode="offline",
            dir=str(run_dir),
            project=PROJECT,
            name=run_dir.name,
            id=earlier[0].stem.removeprefix("run-") if earlier else None,
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """One point on the curve of each figure."""
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        """Wait until the file is whole: its service writes on after `finish`, and is done only when it has ended."""
        import wandb

        self.run.finish()
        wandb.teardown()


KINDS: dict[str, Callable[[Path, int], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def open_trackers(
    names: tuple[str, ...] | None, run_dir: Path, step: int, report: Callable[[str], None]
) -> list[Tracker]:
    """`log.jsonl` and the named trackers, for a run that goes on after `step` steps (0: a new one).

    None names TensorBoard, which is then done without where it is not installed; figures of later steps, left by a
    run that was killed, are dropped from the log.

    Raises:
        ConfigError: A tracker is not installed; the message names the extra.
    """
    trackers: list[Tracker] = [JsonLines(run_dir, step)]
    for name in (DEFAULT,) if names is None else names:
        for variable, value in OFFLINE.items():
            os.environ.setdefault(variable, value)
        try:
            trackers.append(KINDS[name](run_dir, step))
        except ImportError as error:
            extra = f"pip install 'medld[{EXTRAS[name]}]'"
            if names is not None:
                raise ConfigError(f"Expected {name} for trackers, it is not installed: {extra}.") from error
            report(f"no {name}: {extra}; figures go to {LOG} alone")
    return trackers


def _is_before(line: str, step: int) -> bool:
    """Whether a line is whole and of a step up to `step`."""
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError, TypeError):
        return False
