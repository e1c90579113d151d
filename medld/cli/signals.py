"""Signals: what a request to end the program does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["removed_when_terminated"]

TERMINATED = 128 + signal.SIGTERM


@contextmanager
def removed_when_terminated() -> Iterator[None]:
    """Let SIGTERM (a batch system's end of time) unwind the program as Ctrl-C does, so that it cleans up."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
