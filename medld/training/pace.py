"""How fast a run goes on this machine: a schedule counts in steps, a user in minutes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from medld.config import TrainConfig
from medld.dataset import Fine
from medld.training.distributed import ALONE
from medld.training.loop import Run
from medld.training.stages import Stage
from medld.training.tracking import LOG

STEPS, TOGETHER = {"cpu": 6, "cuda": 320}, {"cpu": 1, "cuda": 40}
"""Steps that are tried, and how many are timed as one, since reading the clock waits for a GPU; a trial that read it
every ten steps told 18.8 steps a second of a run that did 23.5."""

SETTLED = {"cpu": 0.5, "cuda": 0.75}
"""The part of them after which the median counts: until then a process loads kernels, chooses among them and makes the
matrices of every new ratio. On an H200 160 steps and half of them made the first run of a process look slower by a
third to a half than it was, later ones by less than a tenth."""


def measure_pace(config: TrainConfig, volumes: Sequence[Fine], stage: type[Stage] | None = None) -> float:
    """Seconds a step of a run with that config (and `stage`) takes, tried in a folder of its own that goes away again.

    Raises:
        As `Run`.
    """
    kind = ALONE.device(config.device).type
    with tempfile.TemporaryDirectory() as folder:
        changes = {"run_dir": Path(folder), "steps": STEPS[kind], "log_every": TOGETHER[kind], "trackers": ()}
        trial = config.model_copy(update=changes | {"validate_every": 0, "patience": 0})
        Run(trial, lambda _: None, volumes=volumes, held_out=(), stage=stage).go()
        rows = [json.loads(line) for line in (trial.run_dir / LOG).read_text(encoding="utf-8").splitlines()]
    return median(1.0 / float(row["steps_per_second"]) for row in rows[int(SETTLED[kind] * len(rows)) :])
