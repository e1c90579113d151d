"""Which of a run's averaged weights are its result: the last ones, or the best that were validated in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medld.config import TrainConfig
from medld.nn.networks import Networks
from medld.training.average import Average, adopt
from medld.training.ending import Clock
from medld.training.state import Progress
from medld.training.validation import Row, Validator, mean_gain

MODEL, BEST = "model", "best"
ROWS, START_ROWS = "validation.json", "start.json"


class Selection:
    """Validates, keeps the best, and writes the result into a run's folder.

    Args:
        config: The run's.
        average: The averaged weights.
        validator: None where there is nothing to validate on.
        tell: Takes the step and the figures of each validation.
        report: Takes lines.
    """

    def __init__(
        self,
        config: TrainConfig,
        average: Average,
        validator: Validator | None,
        tell: Callable[[int, Mapping[str, float]], None],
        report: Callable[[str], None],
    ) -> None:
        self.config, self.average, self.validator, self.tell, self.report = config, average, validator, tell, report
        self._latest: tuple[int, list[Row]] | None = None

    @property
    def latest(self) -> list[Row]:
        """The rows of the latest validation of this command; none before the first."""
        return self._latest[1] if self._latest else []

    def expect_seconds(self) -> float:
        """How long a validation is going to take; before the first, a part of it is tried."""
        return 0.0 if self.validator is None else self.validator.expect_seconds(self._networks())

    def judge(self, progress: Progress, clock: Clock, card: Mapping[str, Any]) -> Progress:
        """Validate the weights of now and keep them if they are the best; left out where time is short."""
        if self.validator is None:
            return progress
        if clock.seconds is not None and not clock.has_room_for(self.expect_seconds()):
            self.report(f"step {progress.step}: no time for a validation before the last one")
            return progress
        rows, folder = self._measure(progress.step), self.config.run_dir / BEST
        progress = judged(progress, mean_gain(rows))
        if progress.step == 0:
            _write_rows(self.config.run_dir / START_ROWS, rows)
        if progress.best_step == progress.step:
            self.average.write(folder, self.config.model, card)
            _write_rows(folder / ROWS, rows)
        return progress

    def conclude(
        self, progress: Progress, clock: Clock, card: Mapping[str, Any], *, hurry: bool
    ) -> tuple[int, list[Row]]:
        """Write and validate the last weights, and put the best ones in their place if those were better.

        Returns:
            After how many steps the weights in `model/` were, and the rows of their validation: none if there is
            nothing to validate on, no time, or `hurry`.
        """
        run_dir = self.config.run_dir
        self.average.write(run_dir / MODEL, self.config.model, card)
        (run_dir / ROWS).unlink(missing_ok=True)
        rows = self._last_rows(progress.step, clock, hurry)
        last = judged(progress, mean_gain(rows)) if rows else progress
        if last.best_gain is None or last.best_step == progress.step or not (run_dir / BEST).is_dir():
            best_step = progress.step
        else:
            best_step = last.best_step
            self.report(f"the best weights were those of step {best_step}: model/ holds them")
            adopt(run_dir / BEST, run_dir / MODEL)
            rows = read_rows(run_dir / BEST / ROWS)
        if rows:
            _write_rows(run_dir / ROWS, rows)
        return best_step, rows

    def _last_rows(self, step: int, clock: Clock, hurry: bool) -> list[Row]:
        if self.validator is None:
            return []
        if self._latest is not None and self._latest[0] == step:
            return self._latest[1]
        if hurry or (clock.seconds is not None and self.expect_seconds() > clock.left):
            self.report("no time for the last validation")
            return []
        return self._measure(step)

    def _networks(self) -> Networks:
        return self.average.networks(self.config.model)

    def _measure(self, step: int) -> list[Row]:
        assert self.validator is not None, "asked only where there is something to validate on"
        rows = self.validator.measure(self._networks())
        by_ratio = {
            f"validation_gain_{ratio:g}x": mean_gain(row for row in rows if row["ratio"] == ratio)
            for ratio in self.config.validation_ratios
        }
        self.tell(step, {"validation_gain": mean_gain(rows), **by_ratio})
        self._latest = step, rows
        return rows


def judged(progress: Progress, gain: float) -> Progress:
    """What is known after a validation with a mean gain (dB) over B."""
    if progress.best_gain is None or gain > progress.best_gain:
        return replace(progress, best_gain=gain, best_step=progress.step, stale=0)
    return replace(progress, stale=progress.stale + 1)


def read_rows(path: Path) -> list[Row]:
    """The rows of a validation; none if there is no such file."""
    rows: list[Row] = json.loads(path.read_text()) if path.exists() else []
    return rows


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    path.write_text(json.dumps(rows, indent=1))
