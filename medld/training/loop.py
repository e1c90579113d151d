"""The loop: read it from top to bottom.

A run is a folder:

    config.yaml                  the resolved config
    state.safetensors            to resume from exactly; state.previous.safetensors is the one before
    log.jsonl                    figures, and beside it the folders of the trackers
    model/                       what `--model` and the next stage's `warm_start` take
    best/                        with `validate_every`: the best model so far and the rows of its validation
    validation.json, start.json  rows of the validation of model/, and of what a warm start began with

The schedule counts in total steps, so a run cut into several commands ends where an uninterrupted one does, and so
does one that is spread over several processes.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

import medld
from medld.build import build_networks
from medld.checkpoint import PARTS, load_weights, read_training
from medld.config import TrainConfig, read_config
from medld.dataset import Fine, Source, load
from medld.errors import CheckpointError, ConfigError
from medld.nn.blocks import Block
from medld.nn.networks import Networks
from medld.training.apply import Applier
from medld.training.distributed import ALONE, World, joined
from medld.training.draw import Drawer
from medld.training.ending import ENDINGS, Clock, Ending, Stop
from medld.training.feeder import Feeder
from medld.training.learner import Figures, Learner, mean_figures
from medld.training.memory import explained
from medld.training.portion import Planner, split
from medld.training.selection import START_ROWS, Selection, read_rows
from medld.training.stages import STAGES, Stage
from medld.training.state import Progress, has_state
from medld.training.tracking import Tracker, open_trackers
from medld.training.validation import Row, Validator

Report = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What came of a run: steps done in total, why it ended, and what its model is worth.

    `validation` are the rows of the weights in `model/`, those after `best_step` steps; none where none could be made.
    `start` are the rows of what a warm start began with, `last` those of the last weights that were validated, whether
    better or not. `seconds` is the time of this command.
    """

    steps: int
    ended: Ending
    best_step: int
    validation: tuple[Row, ...]
    start: tuple[Row, ...]
    seconds: float
    last: tuple[Row, ...] = ()


def run_training(
    config_path: Path,
    overrides: list[str],
    *,
    resume: bool = False,
    max_minutes: float | None = None,
    dry_run: bool = False,
    report: Report = lambda _: None,
) -> Result:
    """Train as the config says, until its last step or until `max_minutes` are over, validation included.

    Started several times over by torchrun, the processes share the work; the first one writes and reports.

    Raises:
        ConfigError, CardError, CheckpointError: What was asked for does not exist or does not fit.
        ResourceError: The machine's memory ran out.
    """
    clock = Clock(None if max_minutes is None else 60 * max_minutes)
    config = read_config(config_path, TrainConfig, overrides)
    resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    if dry_run:
        report(resolved)
        return Result(0, "dry run", 0, (), (), clock.passed)
    if has_state(config.run_dir) and not resume:
        raise CheckpointError(f"{config.run_dir} holds a run. Give --resume to go on with it, or another run_dir.")
    with joined(config.device) as world:
        if world.leads:
            config.run_dir.mkdir(parents=True, exist_ok=True)
            (config.run_dir / "config.yaml").write_text(resolved)
        return Run(config, report, world=world).go(resume=resume, clock=clock)


class Run:
    """One training run in memory.

    Args:
        config: Everything about it.
        report: Told a line at a time; only in the first of several processes.
        world: The processes that share the run.
        volumes: To learn from; None loads those of the config.
        held_out: To validate on; None loads those of the config.
        stage: What is trained and what it costs; None takes the package's own for the config's stage.

    Raises:
        ConfigError, CardError, CheckpointError: What the config names does not exist or does not fit.
        ResourceError: The volumes do not fit into the device's memory.
    """

    def __init__(
        self,
        config: TrainConfig,
        report: Report,
        *,
        world: World = ALONE,
        volumes: Sequence[Fine] | None = None,
        held_out: Sequence[Fine] | None = None,
        stage: type[Stage] | None = None,
    ) -> None:
        self.config, self.world = config, world
        self.report: Report = report if world.leads else lambda _: None
        self.portions = split(config.batch, config.accumulate, world.rank, world.size)
        self.device = world.device(config.device)
        torch.manual_seed(config.seed)
        torch.backends.cudnn.benchmark = self.device.type == "cuda"
        self.networks = build_networks(config.model)
        self._warm = _warm_start(self.networks, config.warm_start)
        self.stage: Stage = (stage or STAGES[config.stage])(self.networks, config)
        with explained(self.device):
            self._place(None if volumes is None else list(volumes))
        self.learner = Learner(self.stage, config, self.device, world)
        if config.compile:  # block by block: one compilation serves all blocks of a width
            for module in self.stage.modules.modules():
                if isinstance(module, Block):
                    module.compile()
        average, validator = self.learner.average, self._make_validator(held_out)
        self.selection = Selection(config, average, validator, self._tell, self.report)
        self.progress = Progress()
        self.trackers: list[Tracker] = []
        count = sum(parameter.numel() for parameter in self.learner.trained)
        processes = f", {world.size} processes" if world.size > 1 else ""
        self.report(f"{len(self.volumes)} volumes, {count:,} parameters, {self.device}{processes}")

    def _place(self, volumes: list[Fine] | None) -> None:
        """Networks and volumes on the device."""
        config = self.config
        for module in (*(getattr(self.networks, part) for part in PARTS), *self.stage.modules.values()):
            if module is not None:
                module.to(self.device, memory_format=torch.channels_last_3d)
        sources = [Source(s.files, s.weight, s.axes) for s in config.data.sources]
        self.volumes = load(config.data.folders, sources) if volumes is None else volumes
        self.drawer = Drawer(self.volumes, config.data, config.batch)
        self.applier = Applier(self.volumes, self.device, config.model.profile_map, latents=self.stage.latents)

    def _make_validator(self, held_out: Sequence[Fine] | None) -> Validator | None:
        """What validates, in the process that does; an autoencoder alone restores nothing."""
        config = self.config
        if not (config.validation if held_out is None else held_out):
            if config.validate_every:
                raise ConfigError("Expected volumes for validate_every to validate on, got none. Name a folder.")
            return None
        if config.stage == "autoencoder" or not self.world.leads:
            return None
        volumes = load(config.validation) if held_out is None else held_out
        return Validator(volumes, config.validation_ratios, str(self.device), config.validation_crop)

    def go(self, *, resume: bool = False, clock: Clock | None = None, until: int | None = None) -> Result:
        """Steps (to `until` at most), log, checkpoints, validation, and at the end the model folder.

        Raises:
            CheckpointError: There is no state to resume from.
            MedldError: E_NUMERIC, if the loss or the gradient stopped being finite.
            ResourceError: The machine's memory ran out; the message names the largest batch that fits.
        """
        clock = clock or Clock()
        with explained(self.device), ExitStack() as stack:
            self._start(resume, clock, stack)
            ended = self._learn(min(self.config.steps, until or self.config.steps), clock)
            result = self._finish(ended, clock)
        return result

    def _start(self, resume: bool, clock: Clock, stack: ExitStack) -> None:
        """Where the run stands: its state, its log, how long its end will take, and what it starts from."""
        config = self.config
        if resume:
            self.progress = self.learner.load(config.run_dir, self.report)
        elif self.world.leads:
            (config.run_dir / START_ROWS).unlink(missing_ok=True)
        if self.world.leads:
            self.trackers = open_trackers(config.trackers, config.run_dir, self.progress.step, self.report)
            for tracker in self.trackers:
                stack.enter_context(closing(tracker))
            if clock.seconds is not None:
                self._expect_ending(clock)
        if self.progress.step == 0:
            if config.validate_every and set(self.stage.parts) <= self._warm:
                self._judge(clock)
            self.stage.prepare(self.drawer, self.applier)
        self.world.make_equal(self.stage.modules)

    def _expect_ending(self, clock: Clock) -> None:
        """Measure, where time is limited, what will be left to do after the last step."""
        began = time.monotonic()
        self.learner.average.finish(self.drawer, self.applier)
        clock.ending = time.monotonic() - began + self.selection.expect_seconds()

    def _learn(self, stop_at: int, clock: Clock) -> Ending:
        """The steps."""
        config, start = self.config, self.progress.step
        if self._is_stale():
            return "patience"
        planner = Planner(self.drawer, config.data.in_plane, config.seed, config.steps, self.portions)
        log, saved, since = [], time.monotonic(), time.monotonic()
        with Stop() as stop, closing(Feeder(planner, self.applier, start, stop_at, self.device)) as feeder:
            samples = iter(feeder)
            for step in range(start + 1, stop_at + 1):
                log.append(self.learner.learn(samples, self.progress.step))
                self.progress = replace(self.progress, step=step)
                clock.step = (time.monotonic() - since) / len(log)
                if step % config.log_every == 0 or step == config.steps:
                    self._log(log, time.monotonic() - since, feeder.waited)
                    log, since, feeder.waited = [], time.monotonic(), 0.0
                if config.validate_every and step % config.validate_every == 0 and step < config.steps:
                    judging = time.monotonic()
                    self._judge(clock)
                    since += time.monotonic() - judging  # what a step takes is told without it
                if self.world.leads and time.monotonic() - saved > 60 * config.checkpoint_minutes:
                    saved = time.monotonic()
                    self.learner.save(config.run_dir, self.progress)
                    clock.saving = max(clock.saving, 2 * (time.monotonic() - saved))
                if ending := ENDINGS[self.world.most(self._ending(stop, clock))]:
                    return ending
        return "steps" if stop_at == config.steps else "until"

    def _judge(self, clock: Clock) -> None:
        """Validate in between; what follows from it, the other processes learn with the reason to end."""
        if self.world.leads:
            self.progress = self.selection.judge(self.progress, clock, self._card())

    def _ending(self, stop: Stop, clock: Clock) -> int:
        """The number of the most pressing reason to end here, as this process sees it."""
        if stop.asked:
            return ENDINGS.index("signal")
        if self._is_stale():
            return ENDINGS.index("patience")
        return ENDINGS.index("time") if self.world.leads and clock.is_up() else 0

    def _is_stale(self) -> bool:
        return 0 < self.config.patience <= self.progress.stale

    def _log(self, log: list[Figures], seconds: float, waited: float) -> None:
        """Means since the last entry, over all processes."""
        own = {name: float(value) for name, value in mean_figures(log).items()}
        every = self.world.gather(own)
        means = {name: float(torch.tensor([row[name] for row in every if name in row]).nanmean()) for name in own}
        self.learner.check_finite(self.progress.step)
        rates = {"steps_per_second": len(log) / seconds, "data_share": waited / seconds}
        self._tell(self.progress.step, {**means, "learning_rate": self.learner.rate, **rates})

    def _tell(self, step: int, figures: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(step, figures)
        line = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.report(f"step {step}/{self.config.steps}  {line}")

    def _finish(self, ended: Ending, clock: Clock) -> Result:
        """State on disk, then the model, validated."""
        step, rows = self.progress.step, list[Row]()
        if self.world.leads:
            self.learner.save(self.config.run_dir, self.progress)
            self.learner.average.finish(self.drawer, self.applier)
            hurry = ended == "signal"  # a batch system that asks to end does not wait long
            step, rows = self.selection.conclude(self.progress, clock, self._card(), hurry=hurry)
            for row in rows:
                self.report("  ".join(f"{k} {v:.2f}" if isinstance(v, float) else str(v) for k, v in row.items()))
        self.world.most(0)  # the others stay until all is written
        start = read_rows(self.config.run_dir / START_ROWS)
        last = tuple(self.selection.latest)
        return Result(self.progress.step, ended, step, tuple(rows), tuple(start), clock.passed, last)

    def _card(self) -> dict[str, Any]:
        config = self.config
        training: dict[str, Any] = {
            "stage": config.stage,
            "steps": self.progress.step,
            "of": config.steps,
            "batch": config.batch,
            "device": _device_name(self.device),
            "processes": self.world.size,
            "volumes": [volume.name for volume in self.volumes],
        }
        if starts := [start for folder in config.warm_start if (start := read_training(folder, self._warm))]:
            training["start_training"] = starts
        versions = {"medld": medld.__version__, "torch": torch.__version__, "python": platform.python_version()}
        return {"name": config.run_dir.name, "training": training, "versions": versions}


def _warm_start(networks: Networks, folders: tuple[Path, ...]) -> set[str]:
    """Fill networks from model folders; returns the parts that were filled."""
    warm: set[str] = set()
    for folder in folders:
        found = [
            part for part in PARTS if (folder / f"{part}.safetensors").is_file() and getattr(networks, part) is not None
        ]
        if not found:
            raise CheckpointError(f"Expected weights for this config in {folder}, found none. Check warm_start.")
        for part in found:
            load_weights(getattr(networks, part), folder / f"{part}.safetensors")
        warm |= set(found)
    return warm


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
