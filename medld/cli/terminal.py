"""Terminal: what a person reads while scans are restored."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from medld.batch.plan import Job
from medld.batch.prepare import Prepared
from medld.batch.settings import EnhanceSettings, Outcome
from medld.geometry import Grid, format_mm
from medld.report import RESEARCH_USE

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Terminal"]


class Terminal:
    """A listener that prints: one line when a scan begins, one when it is through.

    A bar with the time left is shown while standard error is a terminal, and taken away again
    before the next line, so that logs hold lines only.

    Args:
        quiet: Print warnings and refusals only.
        verbose: Print timings too.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._quiet, self._verbose = quiet, verbose
        self._progress: Progress | None = None
        self._warned: set[str] = set()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._hide_bar()

    def show_settings(self, settings: EnhanceSettings) -> None:
        """The resolved settings, before a dry run."""
        plain = settings.as_record()
        self._say("settings: " + ", ".join(f"{k} {v}" for k, v in plain.items() if v is not None))

    def started(self, job: Job, prepared: Prepared) -> None:
        """Say what is going to happen to a scan, and in how much memory."""
        scan, target = prepared.volume, prepared.request.target
        self._say(
            f"{job.label}: {scan.modality.upper()}, {_describe_grid(scan.grid)} -> "
            f"{_describe_grid(target.grid)}, about {prepared.memory_gib:.1f} GiB"
        )
        for note in target.notes:
            self._say(f"  note: {note}")
        self._warned = set()
        self._warn(job, prepared.warnings)
        self._show_bar(job)

    def progressed(self, fraction: float) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=fraction)

    def finished(self, outcome: Outcome) -> None:
        """Say what became of an input."""
        self._hide_bar()
        if outcome.status in ("refused", "failed"):
            print(
                f"{outcome.label}: {outcome.status}, {outcome.code}: {outcome.reason}",
                file=sys.stderr,
                flush=True,
            )
        elif outcome.status == "skipped":
            self._say(f"{outcome.label}: skipped, {outcome.code}: {outcome.reason}")
        elif outcome.status == "planned":
            self._say(f"{outcome.label}: {outcome.reason}")
        elif outcome.record is not None:
            self._warn(outcome, outcome.record["warnings"])
            self._say(f"{outcome.label} -> {outcome.output}")
            self._say(f"  {_describe_result(outcome.record)}")
            if self._verbose:
                timings = outcome.record["timings_s"].items()
                self._say("  " + ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in timings))

    def conclude(self, outcomes: Sequence[Outcome]) -> None:
        """Count what became of the inputs, and say what the results are not for."""
        if not any(outcome.status != "skipped" for outcome in outcomes):
            print("no scan to restore was found", file=sys.stderr, flush=True)
        counts = Counter(outcome.status for outcome in outcomes)
        self._say(", ".join(f"{count} {status}" for status, count in counts.items()))
        self._say(RESEARCH_USE)

    def _say(self, line: str) -> None:
        """Print to standard output at once, unless quiet."""
        if line and not self._quiet:
            print(line, flush=True)

    def _warn(self, subject: Job | Outcome, warnings: Iterable[str]) -> None:
        """Print the warnings that were not printed for this scan yet."""
        for warning in warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                print(f"{subject.label}: warning: {warning}", file=sys.stderr, flush=True)

    def _show_bar(self, job: Job) -> None:
        """Start a bar with the time left, on terminals only."""
        if self._quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        name = TextColumn("{task.description}", markup=False)  # a file name may hold brackets
        columns = (name, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4)
        self._progress.add_task(job.part or job.path.name, total=1.0)
        self._progress.start()

    def _hide_bar(self) -> None:
        """Take the bar away; the cursor comes back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _describe_grid(grid: Grid) -> str:
    """Shape and spacing in a few characters."""
    return f"{' x '.join(str(n) for n in grid.shape)} at {format_mm(grid.spacing)}"


def _describe_result(record: Any) -> str:
    """Method, agreement with the scan, and time, from a record."""
    consistency = record["consistency"]
    relative = consistency["residual_relative_to_noise"]
    noise = "" if relative is None else f", {relative:.2f} times its noise"
    return (
        f"{record['method']}; imaged again it differs from the scan by {consistency['residual_rms']:.3g} RMS"
        f" ({100 * consistency['residual_relative_to_range']:.2g} % of its range{noise});"
        f" {record['timings_s']['total']:.1f} s"
    )
