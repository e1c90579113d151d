"""The clock and the counter of one restoration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass
class Work:
    """Counts network passes for the progress bar and seconds per stage for the record."""

    device: torch.device
    passes: int
    report: Callable[[float], None]
    done: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)

    def advance(self, share: float) -> None:
        """`share` of one network pass is done."""
        self.done += share
        self.report(min(1.0, self.done / max(self.passes, 1)))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds of a block to `stage`, kernels that it queued on a GPU included."""
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - start
