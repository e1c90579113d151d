"""From a shipped model to a cohort's own: tune, judge on subjects that took no part, keep the better.

The result is a model folder whichever way it goes. It holds the start's weights again where tuning did not
help, and its table and card say so.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import medld
from medld.checkpoint import CARD, DEFAULT, Model, find_model, load_model
from medld.config import TrainConfig, read_config
from medld.errors import CheckpointError, OutputError
from medld.training.average import adopt
from medld.training.cohort import Cohort, read_cohort
from medld.training.distributed import ALONE
from medld.training.ending import SAFETY, Clock
from medld.training.loop import Result, Run
from medld.training.pace import measure_pace
from medld.training.selection import MODEL
from medld.training.table import README, TABLE, Table, format_card
from medld.training.tracking import LOG
from medld.training.validation import Validator

CONFIGS = Path(medld.__file__).parent / "configs" / "finetune"
DEFAULTS = {"cpu": CONFIGS / "mri_cpu.yaml", "cuda": CONFIGS / "mri.yaml"}
MOST_SCANS = {"cpu": 4, "cuda": 24}
"""Validation scans that are used; on a CPU each takes seconds, several times over."""

VALIDATIONS = 4
"""Of a run that is bounded in time: of the start, two in between, and of the end."""


@dataclass(frozen=True)
class Tuned:
    """What came of it: whether `out` holds tuned weights, the table behind that, and steps and seconds it took."""

    better: bool
    table: Table
    steps: int
    seconds: float


def finetune(
    cohort: Path,
    out: Path,
    *,
    model: str | Path = DEFAULT,
    max_minutes: float | None = None,
    device: str = "auto",
    seed: int = 0,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Tune the one-step network of a model to the fine scans below a folder.

    Args:
        cohort: NIfTI files, flat or BIDS, of at least two subjects; or `train/` and `val/` with such.
        out: The model folder to make; appears whole or not at all.
        model: What to start from, by name or folder.
        max_minutes: For the whole command, validation included; None tunes as long as validation gets better.
        device: "auto", "cpu", "cuda" or "cuda:1"; a CPU gets smaller crops and batches by default.
        seed: Of the split and of all draws.
        overrides: `key=value` settings of the training config.
        overwrite: Whether an existing model folder may be replaced.
        report: Gets lines of text.

    Raises:
        CohortError, InputError, GridError: The cohort cannot teach; the message names the file.
        CheckpointError: The model is missing, has no one-step network, or is of another modality.
        OutputError: `out` exists.
        ConfigError: An override does not fit.
    """
    clock = Clock(None if max_minutes is None else 60 * max_minutes)
    _check_out(out, overwrite)
    start = load_model(model)
    scans = read_cohort(cohort, seed=seed, report=report).judged_by(MOST_SCANS[ALONE.device(device).type])
    _check_model(start, scans)
    counts = scans.summary()
    report(
        f"{counts['training_scans']} scans of {counts['training_subjects']} subjects to learn from, "
        f"{counts['validation_scans']} of {counts['validation_subjects']} to judge by"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".medld-", dir=out.parent) as folder:
        config = _config(start, model, Path(folder) / "run", device, seed, overrides)
        config.run_dir.mkdir()
        config = _in_time(config, start, scans, clock, report)
        volumes, held_out = ([member.fine for member in side] for side in (scans.training, scans.validation))
        result = Run(config, report, volumes=volumes, held_out=held_out).go(clock=clock)
        table = Table.of(result, scans)
        _write_result(config, start, scans, result, table)
        _move(config.run_dir / MODEL, out)
    for line in table.lines():
        report(line)
    return Tuned(table.better, table, result.steps, clock.passed)


def _check_out(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise OutputError(f"{out} exists. Choose another folder, or give --overwrite to replace a model there.")
    if not (out / CARD).is_file():
        raise OutputError(f"{out} exists and is no model folder, so it is not replaced. Choose another folder.")


def _check_model(start: Model, scans: Cohort) -> None:
    if start.networks.one_step is None:
        raise CheckpointError(f"Expected a model with a one-step network to tune, {start.name} has none.")
    if scans.modality not in start.networks.modalities:
        covered = ", ".join(start.networks.modalities).upper()
        raise CheckpointError(
            f"Expected a cohort of {covered}, which {start.name} was trained on, got {scans.modality.upper()}. "
            "Train a model for it first (`medld train`)."
        )


def _config(
    start: Model, model: str | Path, run_dir: Path, device: str, seed: int, overrides: Sequence[str]
) -> TrainConfig:
    """The defaults for the device, with the start's networks."""
    path = DEFAULTS[ALONE.device(device).type]
    given = [f"run_dir={run_dir}", f"device={device}", f"seed={seed}", "trackers=[]", *overrides]
    config = read_config(path, TrainConfig, given)
    return config.model_copy(update={"model": start.config, "warm_start": (find_model(model),)})


def _in_time(
    config: TrainConfig, start: Model, scans: Cohort, clock: Clock, report: Callable[[str], None]
) -> TrainConfig:
    """As many steps as fit beside the validations, so that the learning rate has fallen when time is up."""
    if clock.seconds is None:
        return config
    volumes = [member.fine for member in scans.validation]
    validator = Validator(volumes, config.validation_ratios, config.device, config.validation_crop)
    judging = SAFETY * validator.expect_seconds(start.networks)
    pace = measure_pace(config, [member.fine for member in scans.training])
    steps = min(config.steps, max(1, int((clock.left - VALIDATIONS * judging) / pace)))
    report(f"{pace:.2f} s a step, {judging:.0f} s a validation: {steps} steps in {clock.left:.0f} s")
    changes = {"steps": steps, "validate_every": max(1, -(-steps // (VALIDATIONS - 1)))}
    return config.model_copy(update=changes | {"warm_up": min(config.warm_up, steps // 10)})


def _write_result(config: TrainConfig, start: Model, scans: Cohort, result: Result, table: Table) -> None:
    """The better weights, table and card; the card tells counts of the cohort, never names."""
    folder = config.run_dir / MODEL
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    if not table.better:
        adopt(config.warm_start[0], folder)
        card["sha256"] = dict(start.sha256)
    training: dict[str, Any] = {
        "stage": "finetune",
        "start": {"name": start.name, "sha256": dict(start.sha256)},
        "tuned": table.better,
        "steps": result.steps,
        "steps_kept": result.best_step if table.better else 0,
        "ended": result.ended,
        "device": card["training"]["device"],
        "cohort": scans.summary(),
        "start_training": start.card.get("training", {}),
    }
    card |= {"name": f"{start.name}-tuned" if table.better else start.name, "training": training}
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (folder / TABLE).write_text(table.csv(), encoding="utf-8")
    (folder / README).write_text(format_card(card, table), encoding="utf-8")
    shutil.copyfile(config.run_dir / LOG, folder / LOG)


def _move(source: Path, out: Path) -> None:
    """`source` in the place of `out`, which may hold an older model."""
    if out.exists():
        older = Path(tempfile.mkdtemp(prefix=".medld-", dir=out.parent)) / out.name
        os.replace(out, older)
        os.replace(source, out)
        shutil.rmtree(older.parent)
    else:
        os.replace(source, out)
