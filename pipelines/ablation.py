"""The ablation table: what each part of the method is worth in equal time, on one GPU, in as few calls as may be.

    python pipelines/ablation.py --list
    python pipelines/ablation.py --packs PACK... --validation PACK --out runs/ablation --rows one-step norm-off dit
    python pipelines/ablation.py --out runs/ablation --table

A row is a config of configs/ with some changes, trained from its first step on for as long as all others of its kind:
--seconds for a one-step network, --latent-seconds for an autoencoder, which rows share, and for the latent path on it.
The pace is measured first, so that the learning rate has fallen when time is up; warm-up and averaging shrink with
short runs. Samplers train nothing: they are rows of the `latent` model. Every row is judged by foreground dB over B on
whole T1w of --validation at 2, 4 and 6x, and by its share of the truth's detail, and added to OUT/ablation.csv at once.

The same command goes on with the rows that are missing; a model folder in OUT/runs is reused, an unfinished run goes
on. With --max-minutes no row is begun that would not end in time. Trial and validation (about 20 s a row on an H100)
come on top of a row's seconds.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ablation_table import FIGURES, RATIOS, ROWS, Results, Row, as_markdown
from target_grid import TargetGrid, for_scan
from train_mri import SAFETY, say

from medld.checkpoint import CARD, PARTS, load_model
from medld.config import TrainConfig, read_config
from medld.dataset import Fine, Source, load
from medld.errors import CardError, MedldError
from medld.geometry import choose_target
from medld.metrics import Reference
from medld.nn.networks import Networks
from medld.superres import Request, SuperResolver
from medld.training.ending import Clock
from medld.training.loop import Run
from medld.training.pace import measure_pace
from medld.training.selection import MODEL
from medld.training.stages import STAGES
from medld.training.state import has_state
from medld.training.tracking import LOG
from medld.training.validation import Trained, imaged
from medld.volume import Volume

ROOT = Path(__file__).parents[1]
CSV = "ablation.csv"
OVERHEAD = 30.0
"""Seconds that a row may need beside its training: trial, start, validation."""

SHARE_OF_WARM_UP, AVERAGES = 0.1, 20
"""At most a tenth of a run warms up, and its average reaches over a twentieth of it, or as far as its config says."""

TOLD = ("E_NUMERIC", "E_MEMORY")
"""Errors that say something of a row; others say that the command is wrong, and end it."""


def main(argv: Sequence[str] | None = None) -> None:
    """List, tabulate, or train and judge."""
    options = parse(argv)
    if options.list:
        for row in ROWS.values():
            say(f"{row.name:<28}{budget(row, options):>5.0f} s  {row.about}")
    elif options.table:
        say(as_markdown(Results(options.out / CSV).lines))
    else:
        Ablation(options).go()


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; what cannot be done ends the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, nargs="+", help="folders of scans or packs to learn from")
    parser.add_argument("--validation", type=Path, help="the same to judge by")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="(%(default)s)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", default=list(ROWS), help="in this order; all of them")
    parser.add_argument("--seconds", type=float, default=90, help="of a one-step row (%(default)s)")
    parser.add_argument(
        "--latent-seconds", type=float, nargs=2, default=[45, 135], help="of an autoencoder and a latent row (45 135)"
    )
    parser.add_argument("--steps", type=int, help="of every row, in place of seconds")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="(%(default)s)")
    parser.add_argument("--max-minutes", type=float, help="for the whole command")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--set", dest="settings", metavar="[STAGE:]KEY=VALUE", action="append", default=[], help="as in medld train"
    )
    parser.add_argument("--list", action="store_true", help="say what rows there are")
    parser.add_argument("--table", action="store_true", help="print OUT/ablation.csv as Markdown")
    options = parser.parse_args(argv)
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no rows {', '.join(sorted(unknown))}: see --list")
    if not (options.list or options.table) and (options.packs is None or options.validation is None):
        parser.error("expected --packs to learn from and --validation to judge by")
    return options


def budget(row: Row, options: argparse.Namespace) -> float:
    """Seconds of training."""
    first, second = options.latent_seconds
    times = {"one-step": options.seconds, "long": first + second, "autoencoder": first, "latent": second, "sample": 0}
    return float(times[row.kind])


class _TimeIsUpError(Exception):
    """The command's time is over, or would be before a row is done."""


class Ablation:
    """Makes the rows that are asked for and not there yet."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.clock = Clock(None if options.max_minutes is None else 60 * options.max_minutes)
        self.results = Results(options.out / CSV)
        self.judge = Judge(options.validation, options.device)

    def go(self) -> None:
        """All rows of a seed, then those of the next."""
        wanted = [(ROWS[name], seed) for seed in self.options.seed for name in self.options.rows]
        try:
            for row, seed in wanted:
                if not self.results.has(row, seed):
                    self._make(row, seed)
        except _TimeIsUpError:
            missing = [f"{row.name} ({seed})" for row, seed in wanted if not self.results.has(row, seed)]
            say(f"time is up; the same command goes on with: {', '.join(missing)}")

    def _make(self, row: Row, seed: int) -> bool:
        """A row, after the one that it needs; whether there is a model of it now."""
        if row.after and not is_finished(self._run_dir(row.after, seed)) and not self._make(ROWS[row.after], seed):
            say(f"{row.name} ({seed}): left out, it needs {row.after}")
            return False
        if self.clock.left < budget(row, self.options) + OVERHEAD:
            raise _TimeIsUpError
        line: dict[str, Any] = {"row": row.name, "seed": seed, "config": row.config, "changes": " ".join(row.changes)}
        try:
            line |= self._figures(row, seed)
        except ImportError as error:
            say(f"{row.name} ({seed}): left out: {error}")
            return False
        except MedldError as error:
            if error.code not in TOLD:
                raise
            line["note"] = f"{error.code}: {error}"
        finally:
            _tidy()
        self.results.add(line)
        say("  ".join(f"{key} {value}" for key, value in line.items() if value != ""))
        return "note" not in line

    def _figures(self, row: Row, seed: int) -> dict[str, Any]:
        """What is known of a row once it is trained and judged."""
        if row.kind == "sample":
            chosen = read_config(ROOT / "configs" / row.config, TrainConfig).model
            networks = load_model(self._run_dir(row.after, seed) / MODEL).networks
            networks = replace(networks, sampler=chosen.sampler, eta=chosen.eta)
            return self.judge.measure(networks, realism=1.0, steps=row.steps)
        run_dir = self._run_dir(row.name, seed)
        if not is_finished(run_dir):
            self._train(row, seed, run_dir)
        networks, facts = load_model(run_dir / MODEL).networks, facts_of(run_dir)
        if row.kind == "autoencoder":
            return facts
        return facts | self.judge.measure(networks, on_target=row.stage is TargetGrid)

    def _train(self, row: Row, seed: int, run_dir: Path) -> None:
        """From where it was cut, if it was."""
        resume, path = has_state(run_dir), run_dir / "config.yaml"
        config = read_config(path, TrainConfig) if resume else self.config_of(row, seed)
        sources = [Source(s.files, s.weight, s.axes) for s in config.data.sources]
        volumes = load(config.data.folders, sources)
        if not resume:
            config = self._fitted(config, row, volumes)
            run_dir.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        clock = Clock(None if self.clock.seconds is None else self.clock.left - OVERHEAD / 2)
        run = Run(config, lambda _: None, volumes=volumes, held_out=(), stage=row.stage)
        if run.go(resume=resume, clock=clock).ended != "steps":
            raise _TimeIsUpError

    def config_of(self, row: Row, seed: int) -> TrainConfig:
        """The row's config, what the command sets, and then what the row changes, which has the last word.

        Raises:
            ConfigError: A setting does not fit.
        """
        options, path = self.options, ROOT / "configs" / row.config
        stage = read_config(path, TrainConfig).stage
        warm = [str(self._run_dir(row.after, seed) / MODEL)] if row.after else []
        run_dir, packs = str(self._run_dir(row.name, seed)), [str(pack) for pack in options.packs]
        places = {"run_dir": run_dir, "warm_start": warm, "data.folders": packs}
        own = [f"{key}={json.dumps(value)}" for key, value in places.items()]
        own += [f"seed={seed}", f"device={options.device}", "trackers=[]", "validation=[]"]
        settings = ["muon_rate=0", *_settings_of(stage, options.settings)]  # as when the first rows were made
        return read_config(path, TrainConfig, [*settings, *row.changes, *own])

    def _fitted(self, config: TrainConfig, row: Row, volumes: list[Fine]) -> TrainConfig:
        """As many steps as fit into the row's seconds, and what goes with their number."""
        steps = self.options.steps
        if steps is None:
            pace = measure_pace(config, volumes, row.stage)
            steps = max(2, int(SAFETY * budget(row, self.options) / pace))
            say(f"{row.name}: {1 / pace:.1f} steps a second, {steps} steps")
        warm_up = min(config.warm_up, int(SHARE_OF_WARM_UP * steps))
        ema = min(config.ema, max(0.5, 1 - AVERAGES / steps))
        changes = {"steps": steps, "warm_up": warm_up, "ema": ema, "log_every": max(1, steps // 10)}
        return config.model_copy(update=changes)

    def _run_dir(self, name: str, seed: int) -> Path:
        return Path(self.options.out) / "runs" / f"{name}-{seed}"


def _settings_of(stage: str, settings: Sequence[str]) -> list[str]:
    """Those for every stage and those for this one, in their order."""
    split = [
        (first, rest) if first in STAGES else ("", text)
        for text in settings
        for first, _, rest in [text.partition(":")]
    ]
    return [rest for first, rest in split if first in ("", stage)]


def is_finished(run_dir: Path) -> bool:
    """Whether the model of a run is that of its last step."""
    card = run_dir / MODEL / CARD
    if not card.is_file():
        return False
    training = json.loads(card.read_text(encoding="utf-8"))["training"]
    return bool(training["steps"] == training["of"])


def facts_of(run_dir: Path) -> dict[str, Any]:
    """Size, steps, pace and share of time spent waiting for data of a finished run; the first entry warmed up."""
    model = load_model(run_dir / MODEL)
    rows = [json.loads(line) for line in (run_dir / LOG).read_text(encoding="utf-8").splitlines()]
    counts = np.diff([0, *(row["step"] for row in rows)])
    seconds = np.array([count / row["steps_per_second"] for count, row in zip(counts, rows, strict=True)])
    later = slice(1, None) if len(rows) > 1 else slice(None)
    waited = seconds * [row["data_share"] for row in rows]
    networks = [getattr(model.networks, part) for part in PARTS]
    return {
        "device": model.card["training"]["device"],
        "parameters": sum(p.numel() for network in networks if network is not None for p in network.parameters()),
        "steps": rows[-1]["step"],
        "steps_per_second": round(float(counts[later].sum() / seconds[later].sum()), 2),
        "data_share": round(float(waited[later].sum() / seconds[later].sum()), 4),
        "seconds": round(float(seconds.sum()), 1),
        "training_gain": round(rows[-1]["gain"], 3) if "gain" in rows[-1] else "",
    }


def _tidy() -> None:
    """What one row kept is of no use to the next: memory, and compiled code, of which there may be so much."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Case:
    """A held-out volume at one ratio, its scan, and B's foreground dB."""

    ratio: float
    truth: Volume
    scan: Volume
    reference: Reference
    baseline: float


class Judge:
    """Whole T1w volumes, slices along the last axis, restored as `medld enhance` does; B once for all rows."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device

    def measure(
        self, networks: Networks, *, realism: float = 0.0, steps: int = 1, on_target: bool = False
    ) -> dict[str, float]:
        """Mean gain over B (dB) and share of the truth's detail at each ratio."""
        found: dict[str, list[float]] = {}
        for case in self._cases:
            ready = for_scan(networks, case.truth, case.scan) if on_target else networks
            array = self._restored(Trained(ready), case.truth, case.scan, realism=realism, steps=steps)
            figures = {
                "gain": case.reference.psnr(array) - case.baseline,
                "detail": case.reference.detail_share(array, case.ratio),
            }
            for name, value in figures.items():
                found.setdefault(f"{name}_{case.ratio:g}x", []).append(value)
        return {name: round(float(np.mean(found[name])), 3) for name in FIGURES}

    @cached_property
    def _cases(self) -> list[Case]:
        volumes = [fine for fine in load([self.folder]) if fine.contrast == "T1w"]
        if not volumes:
            raise CardError(f"Expected T1w volumes to judge by in {self.folder}, found none.")
        return [case for ratio in RATIOS for case in self._at(ratio, volumes)]

    def _at(self, ratio: float, volumes: list[Fine]) -> Iterator[Case]:
        for fine in volumes:
            truth, scan = imaged(fine, ratio)
            reference = Reference(truth.array)
            yield Case(ratio, truth, scan, reference, reference.psnr(self._restored(None, truth, scan)))

    def _restored(self, model: Trained | None, truth: Volume, scan: Volume, **dials: Any) -> np.ndarray[Any, Any]:
        request = Request(choose_target(scan.grid, spacing=truth.grid.spacing), consistency="exact", **dials)
        return SuperResolver(model, device=self.device).restore(scan, request).volume.array


if __name__ == "__main__":
    main()
