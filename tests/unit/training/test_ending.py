"""Runs end in time, and know which weights were best."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from medld.training.ending import SAFETY, Clock, Stop
from medld.training.selection import judged
from medld.training.state import Progress


def clock(limit: float | None, passed: float, **expected: float) -> Clock:
    """A clock that has been running for some seconds."""
    return Clock(limit, time.monotonic() - passed, **{"saving": 0.0, **expected})


def test_without_a_limit_there_is_always_time() -> None:
    endless = clock(None, 1e6, ending=1e9, step=1e9)
    assert not endless.is_up()
    assert endless.has_room_for(1e9)


@pytest.mark.parametrize("kind", ["ending", "saving", "step"])
def test_time_is_up_while_there_is_still_enough_for_what_follows(kind: str) -> None:
    needed = 10.0 * (SAFETY if kind == "ending" else 1)
    assert not clock(100, 99 - needed, **{kind: 10.0}).is_up()
    assert clock(100, 101 - needed, **{kind: 10.0}).is_up()


def test_something_in_between_leaves_room_for_the_ending() -> None:
    assert clock(100, 50, ending=10.0).has_room_for(37)
    assert not clock(100, 50, ending=10.0).has_room_for(39)
    assert not clock(100, 50, ending=10.0, saving=3.0).has_room_for(37)


def test_time_that_has_passed_and_time_that_is_left_make_up_the_limit() -> None:
    running = clock(100, 30)
    assert running.passed == pytest.approx(30, abs=1)
    assert running.passed + running.left == pytest.approx(100, abs=1)


def test_sigterm_is_asked_of_the_loop_and_given_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_cannot_listen_and_does_not_try() -> None:
    asked = []

    def work() -> None:
        with Stop() as stop:
            asked.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]


def test_a_better_gain_is_remembered_and_others_are_counted() -> None:
    progress, history = Progress(), []
    for step, gain in enumerate([1.0, 0.5, 1.0, 1.5, -2.0], start=1):
        progress = judged(Progress(step, progress.best_gain, progress.best_step, progress.stale), gain)
        history.append((progress.best_gain, progress.best_step, progress.stale))
    assert history == [(1.0, 1, 0), (1.0, 1, 1), (1.0, 1, 2), (1.5, 4, 0), (1.5, 4, 1)]
    assert judged(Progress(3), -5.0) == Progress(3, -5.0, 3, 0)
