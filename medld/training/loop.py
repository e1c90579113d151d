"""The loop: read it from top to bottom.

A run is a folder: the resolved config, `state.safetensors` to resume from exactly, `log.jsonl`, and `model/`,
which `--model` and the next stage's `warm_start` take. The schedule counts in total steps, so a run cut
into several commands ends where an uninterrupted one does.
"""

from __future__ import annotations

import json
import math
import platform
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import medld
from medld.build import build_networks
from medld.checkpoint import PARTS, load_weights, save_model
from medld.config import TrainConfig, read_config
from medld.dataset import Fine, Source, load
from medld.errors import CheckpointError
from medld.nn.networks import Networks
from medld.nn.unet import UNet
from medld.training.apply import Applier, Sample
from medld.training.draw import Drawer
from medld.training.feeder import Feeder
from medld.training.plan import Planner
from medld.training.stages import STAGES, Stage
from medld.training.state import STATE, load_state, save_state
from medld.training.validation import validate

FIGURES_EVERY = 10
VALIDATION_RATIOS = (2.0, 4.0, 6.0)
Report = Callable[[str], None]


def run_training(
    config_path: Path,
    overrides: list[str],
    *,
    resume: bool = False,
    max_minutes: float | None = None,
    dry_run: bool = False,
    report: Report = lambda _: None,
) -> None:
    """Train as the config says, until its last step or `max_minutes`, whichever comes first.

    Raises:
        ConfigError, CardError, CheckpointError: What was asked for does not exist or does not fit.
    """
    config = read_config(config_path, TrainConfig, overrides)
    resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    if dry_run:
        report(resolved)
        return
    if (config.run_dir / STATE).exists() and not resume:
        raise CheckpointError(f"{config.run_dir} holds a run. Give --resume to go on with it, or another run_dir.")
    config.run_dir.mkdir(parents=True, exist_ok=True)
    (config.run_dir / "config.yaml").write_text(resolved)
    Run(config, report).go(resume=resume, seconds=None if max_minutes is None else 60 * max_minutes)


class Run:
    """One training run in memory."""

    def __init__(self, config: TrainConfig, report: Report) -> None:
        self.began = time.monotonic()
        self.config, self.report = config, report
        self.device = torch.device(
            config.device if config.device != "auto" else "cuda:0" if torch.cuda.is_available() else "cpu"
        )
        torch.manual_seed(config.seed)
        torch.backends.cudnn.benchmark = self.device.type == "cuda"
        self.networks = build_networks(config.model)
        _warm_start(self.networks, config.warm_start)
        self.stage: Stage = STAGES[config.stage](self.networks, config)
        for part in PARTS:
            module = getattr(self.networks, part)
            if module is not None:
                module.to(self.device, memory_format=torch.channels_last_3d)
        modules = self.stage.modules
        self.average = AveragedModel(modules, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        trained = [p for p in modules.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            trained,
            config.learning_rate,
            config.betas,
            weight_decay=config.weight_decay,
            fused=self.device.type == "cuda",
        )
        if config.compile:  # the autoencoder's stacks are not worth it: a minute and a half for no more steps a second
            for module in modules.modules():
                if isinstance(module, UNet):
                    module.compile()
        sources = [Source(s.files, s.weight, s.axes) for s in config.data.sources]
        self.volumes = load(config.data.folders, sources)
        self.drawer = Drawer(self.volumes, config.data, config.batch)
        self.applier = Applier(self.volumes, self.device, config.model.profile_map, latents=self.stage.latents)
        report(f"{len(self.volumes)} volumes, {sum(p.numel() for p in trained):,} parameters, {self.device}")

    def go(self, *, resume: bool = False, seconds: float | None = None, until: int | None = None) -> None:
        """Steps (to `until` at most), log, checkpoints, and at the end the model folder with its validation."""
        config, modules = self.config, self.stage.modules
        start = load_state(config.run_dir, modules, self.average, self.optimiser) if resume else 0
        if start == 0:
            self.stage.prepare(self.drawer, self.applier)
        stop_at = min(config.steps, until or config.steps)
        planner = Planner(self.drawer, config.data.in_plane, config.seed, config.steps)
        feeder = Feeder(planner, self.applier.apply, start, stop_at, self.device)
        log, saved, since, step = [], time.monotonic(), time.monotonic(), start
        with _Stop() as stop:
            for sample in feeder:
                log.append(self._step(sample, step))
                step += 1
                if step % config.log_every == 0 or step == config.steps:
                    self._log(step, log, time.monotonic() - since, feeder.waited)
                    log, since, feeder.waited = [], time.monotonic(), 0.0
                if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                    save_state(config.run_dir, step, modules, self.average, self.optimiser)
                    saved = time.monotonic()
                if stop.asked or (seconds is not None and time.monotonic() - self.began > seconds):
                    break
        feeder.close()
        save_state(config.run_dir, step, modules, self.average, self.optimiser)
        self._finish(step)

    def _step(self, sample: Sample, step: int) -> dict[str, torch.Tensor]:
        """One update; returns figures for the log, still on the device, since reading them waits for it."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * schedule(step, config)
        generator = torch.Generator(self.device).manual_seed(config.seed * 1_000_003 + step)
        loss, figures = self.stage.loss(sample, generator, figures=step % FIGURES_EVERY == 0)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], config.clip)
        self.optimiser.step()
        self.average.update_parameters(self.stage.modules)
        return {"loss": loss.detach(), "gradient": norm.detach(), **figures}

    def _log(self, step: int, log: list[dict[str, torch.Tensor]], seconds: float, waited: float) -> None:
        keys = dict.fromkeys(key for row in log for key in row)
        mean = {key: float(torch.stack([row[key] for row in log if key in row]).mean()) for key in keys}
        row = {"step": step, **mean, "steps_per_second": len(log) / seconds, "data_share": waited / seconds}
        with (self.config.run_dir / "log.jsonl").open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        self.report(
            f"step {step}/{self.config.steps}  " + "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "step")
        )

    def _finish(self, step: int) -> None:
        """Averaged weights, validated and written as a model folder."""
        average = self.average.module
        assert isinstance(average, nn.ModuleDict)
        live = self.stage.modules
        self.stage.modules = average
        self.stage.finish(self.drawer, self.applier)
        self.stage.modules = live
        states = {name: module.state_dict() for name, module in average.items()}
        states |= {p: m.state_dict() for p in PARTS if p not in states and (m := getattr(self.networks, p)) is not None}
        card = {
            "name": self.config.run_dir.name,
            "training": {
                "stage": self.config.stage,
                "steps": step,
                "of": self.config.steps,
                "device": _device_name(self.device),
                "volumes": [volume.name for volume in self.volumes],
            },
            "versions": {
                "medld": medld.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        save_model(self.config.run_dir / "model", self.config.model, states, card)
        self._validate(average)

    def _validate(self, average: nn.ModuleDict) -> None:
        if not self.config.validation or self.config.stage == "autoencoder":
            return
        networks = build_networks(self.config.model)
        for name in PARTS:
            module, source = (
                getattr(networks, name),
                average[name] if name in average else getattr(self.networks, name),
            )
            if module is not None and source is not None:
                module.load_state_dict(source.state_dict())
        volumes: list[Fine] = load(self.config.validation)
        rows = validate(networks, volumes, VALIDATION_RATIOS, str(self.device))
        (self.config.run_dir / "validation.json").write_text(json.dumps(rows, indent=1))
        for row in rows:
            self.report("  ".join(f"{k} {v:.2f}" if isinstance(v, float) else str(v) for k, v in row.items()))


class _Stop:
    """While in force, SIGTERM asks the loop to end after the step in hand."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _Stop:
        # Only the main thread may listen; whoever runs us elsewhere stops us otherwise.
        self._listening = threading.current_thread() is threading.main_thread()
        if self._listening:
            self._previous = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listening:
            signal.signal(signal.SIGTERM, self._previous)

    def _ask(self, *_: object) -> None:
        self.asked = True


def schedule(step: int, config: TrainConfig) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine down to `final_share`."""
    if step < config.warm_up:
        return (step + 1) / config.warm_up
    progress = (step - config.warm_up) / max(1, config.steps - config.warm_up)
    return config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * progress))


def _warm_start(networks: Networks, folders: tuple[Path, ...]) -> None:
    for folder in folders:
        found = [
            part for part in PARTS if (folder / f"{part}.safetensors").is_file() and getattr(networks, part) is not None
        ]
        if not found:
            raise CheckpointError(f"Expected weights for this config in {folder}, found none. Check warm_start.")
        for part in found:
            load_weights(getattr(networks, part), folder / f"{part}.safetensors")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
