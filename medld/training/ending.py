"""When a run ends: its steps are done, its time is up, nothing gets better, or a signal asks for it."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Literal

Ending = Literal["", "time", "patience", "signal", "until", "steps", "dry run"]
ENDINGS: tuple[Ending, ...] = ("", "time", "patience", "signal")
"""What may end a run after a step, the more pressing the later; the first is none."""

SAFETY = 1.2
"""The last validation may take this many times as long as one did."""


@dataclass
class Clock:
    """The time that a run may take, `seconds` from `began` on (monotonic), None for any.

    After the last step, `saving` seconds are expected for state and model and `ending` for the rest; `step` are those
    of a step.
    """

    seconds: float | None = None
    began: float = field(default_factory=time.monotonic)
    saving: float = 1.0
    ending: float = 0.0
    step: float = 0.0

    @property
    def passed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds until all must be done."""
        return float("inf") if self.seconds is None else self.seconds - self.passed

    def is_up(self) -> bool:
        """Whether another step would leave too little time for the ending."""
        return self.left < self.step + self.saving + SAFETY * self.ending

    def has_room_for(self, seconds: float) -> bool:
        """Whether something of that length can be done before the ending."""
        return self.left > seconds + self.saving + SAFETY * self.ending


class Stop:
    """While in force, SIGTERM asks the loop to end after the step in hand."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Stop:
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
