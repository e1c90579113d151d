"""Samples ahead of the loop: planned by worker processes, made by a thread on a CUDA stream of its own.

On the CPU everything happens on demand, in the loop's own process. A step has one sample per micro-batch; they come one
by one, so that no more of them lie in memory than are computed next.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from medld.training.apply import Applier, Sample
from medld.training.portion import Planner

AHEAD = 3
WORKERS = 6


class Feeder:
    """Iterates over samples of steps `start` to `stop`; `waited` counts the seconds the loop had to wait."""

    def __init__(self, planner: Planner, applier: Applier, start: int, stop: int, device: torch.device) -> None:
        self.applier, self.device = applier, device
        self.count = max(0, stop - start) * len(planner.portions)
        self.waited = 0.0
        workers = WORKERS if device.type == "cuda" else 0
        self._plans = DataLoader(planner, batch_size=None, sampler=range(start, stop), num_workers=workers)
        self._closing = threading.Event()

    def __iter__(self) -> Iterator[Sample]:
        samples = self._from_thread() if self.device.type == "cuda" else self._made()
        for _ in range(self.count):
            began = time.perf_counter()
            sample = next(samples)
            self.waited += time.perf_counter() - began
            yield sample

    def close(self) -> None:
        """Let the thread end; what it made ahead is dropped."""
        self._closing.set()

    def _made(self) -> Iterator[Sample]:
        for shares in self._plans:
            for share in shares:
                yield self.applier.apply(share.plan, share.portion)

    def _from_thread(self) -> Iterator[Sample]:
        ready: queue.Queue[Any] = queue.Queue(AHEAD)
        threading.Thread(target=self._fill, args=(ready,), daemon=True).start()
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            sample, made = item
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(made)
            for tensor in (*_tensors(sample), *sample.acquisition.kept_tensors()):
                tensor.record_stream(stream)
            yield sample

    def _fill(self, ready: queue.Queue[Any]) -> None:
        try:
            stream = torch.cuda.Stream(self.device)
            with torch.cuda.stream(stream):
                for sample in self._made():
                    made = torch.cuda.Event()
                    made.record(stream)
                    # Kernels must have run before the host buffers they read from go away.
                    made.synchronize()
                    while not self._closing.is_set():
                        try:
                            ready.put((sample, made), timeout=1.0)
                            break
                        except queue.Full:
                            continue
                    if self._closing.is_set():
                        return
        except BaseException as error:  # handed to the loop, which raises it
            ready.put(error)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
