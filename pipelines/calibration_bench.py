"""A process of `calibrate.py`: it restores a scan, then says what it tells of the scale or how it is covered."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medld.calibration import Case, Evidence, Sample, ScaleConfig, Scores, draw_sample, score
from medld.checkpoint import load_model
from medld.dataset import subject_of
from medld.errors import ConfigError
from medld.evaluation import ProtocolConfig
from medld.evaluation.methods import request_for
from medld.evaluation.simulate import Simulated, image
from medld.io import file_sha256, read_volume, split_suffix
from medld.metrics import find_foreground
from medld.superres import Request, SuperResolver

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How the model is used; `crop` takes the middle of every scan, for slow machines."""

    model: str
    mode: Any
    samples: int
    crop: int | None
    keep: Path | None
    threads: int | None


class Bench:
    """The model on a device."""

    def __init__(self, settings: Settings, device: str) -> None:
        self.model = load_model(settings.model)
        self.resolver = SuperResolver(self.model, device=device, threads=settings.threads)
        self.mode, self.samples, self.crop, self.keep = settings.mode, settings.samples, settings.crop, settings.keep

    def restore(self, path: Path, config: ProtocolConfig) -> tuple[Evidence, Any]:
        """One scan by one protocol: the restoration and its truth."""
        volume, _ = read_volume(path)
        made = image(volume if self.crop is None else volume.middle((self.crop,) * 3), config, path.name)
        request = replace(request_for(made, config, self.mode), samples=self.samples)
        kept = self._outputs(f"{split_suffix(path)[0]}__{config.name}", made, request)
        acquisition, noise = request.acquisition(made.scan.grid), float(kept["noise"])
        return Evidence.of(made.scan, kept["output"], acquisition, noise, kept.get("spread")), made.truth.array

    def _outputs(self, name: str, made: Simulated, request: Request) -> dict[str, Any]:
        """Output, noise and, with samples, their spread; from `keep` if of this model, its presets and the scan."""
        scanned = hashlib.sha256(np.ascontiguousarray(made.scan.array).tobytes()).hexdigest()
        presets = sorted(self.model.networks.presets.items())
        of = f"{self.mode} {presets} {self.samples} {scanned} {sorted(self.model.sha256.items())}"
        path = None if self.keep is None else self.keep / f"{name}__{self.mode}.npz"
        if path is not None and path.is_file():
            with np.load(path) as kept:
                if str(kept["of"]) == of:
                    return {key: kept[key] for key in kept.files}
        restoration = self.resolver.restore(made.scan, request)
        found: dict[str, Any] = {"of": of, "output": restoration.volume.array, "noise": restoration.noise}
        if self.samples > 1:
            if restoration.spread is None:
                raise ConfigError(
                    f"--samples: expected a model that draws samples, got {self.model.name}; leave it out"
                )
            found["spread"] = restoration.spread.array
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **found)
        return found


def sample(bench: Bench, config: ProtocolConfig, path: Path, features: Sequence[Any]) -> Sample:
    """What one scan by one protocol tells about the scale."""
    evidence, truth = bench.restore(path, config)
    return draw_sample(evidence, truth, find_foreground(truth), features)


def judge(bench: Bench, config: ProtocolConfig, path: Path, scale: ScaleConfig) -> Scores:
    """The errors of one scan by one protocol in units of the scale."""
    volume, _ = read_volume(path)
    case = Case(split_suffix(path)[0], subject_of(path), volume.contrast, config.name, file_sha256(path))
    evidence, truth = bench.restore(path, config)
    return score(case, evidence, truth, find_foreground(truth), scale)


class Workers:
    """Does work on scans in `jobs` processes, each with a `Bench` on one of `devices`; one job is this process."""

    def __init__(self, settings: Settings, devices: Sequence[str], jobs: int) -> None:
        self._bench, self._pool = None, None
        if jobs == 1:
            self._bench = Bench(settings, devices[0])
            return
        context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU that its parent uses
        free = context.SimpleQueue()
        for job in range(jobs):
            free.put(devices[job % len(devices)])
        self._pool = ProcessPoolExecutor(jobs, context, _take_place, (settings, free))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[..., T], tasks: Sequence[tuple[ProtocolConfig, Path]], *others: Any) -> Iterator[T]:
        """`work(bench, *task, *others)` of each task, in their order, as they are done."""
        if self._bench is not None:
            found: Iterator[T] = (work(self._bench, *task, *others) for task in tasks)
        else:
            assert self._pool is not None, "either this process works or others do"
            found = self._pool.map(partial(_work, work, others), tasks)
        for (config, path), result in zip(tasks, found, strict=True):
            print(f"{work.__name__:<6} {config.name}  {path.name}", flush=True)
            yield result


_PLACE: list[Bench] = []
"""The bench of a process of `Workers`."""


def _take_place(settings: Settings, free: SimpleQueue[str]) -> None:
    _PLACE.append(Bench(settings, free.get()))


def _work(work: Callable[..., T], others: tuple[Any, ...], task: tuple[ProtocolConfig, Path]) -> T:
    return work(_PLACE[0], *task, *others)
