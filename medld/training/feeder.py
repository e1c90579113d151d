"""Batches ahead of the loop: made by a thread on a CUDA stream of its own, or on demand on the CPU."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from medld.training.apply import Sample

AHEAD = 3


class Feeder:
    """Iterates over samples of steps `start` to `stop`; `waited` counts the seconds the loop had to wait."""

    def __init__(self, make: Callable[[int], Sample], start: int, stop: int, device: torch.device) -> None:
        self.make, self.start, self.stop, self.device = make, start, stop, device
        self.waited = 0.0
        self._closing = threading.Event()

    def __iter__(self) -> Iterator[Sample]:
        if self.device.type == "cpu":
            for step in range(self.start, self.stop):
                began = time.perf_counter()
                sample = self.make(step)
                self.waited += time.perf_counter() - began
                yield sample
            return
        yield from self._from_thread()

    def close(self) -> None:
        """Let the thread end; what it made ahead is dropped."""
        self._closing.set()

    def _from_thread(self) -> Iterator[Sample]:
        ready: queue.Queue[Any] = queue.Queue(AHEAD)
        threading.Thread(target=self._fill, args=(ready,), daemon=True).start()
        for _ in range(self.start, self.stop):
            began = time.perf_counter()
            item = ready.get()
            self.waited += time.perf_counter() - began
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
                for step in range(self.start, self.stop):
                    if self._closing.is_set():
                        return
                    sample = self.make(step)
                    made = torch.cuda.Event()
                    made.record(stream)
                    # Kernels must have run before the host buffers they read from go away.
                    made.synchronize()
                    ready.put((sample, made))
        except BaseException as error:  # handed to the loop, which raises it
            ready.put(error)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
