"""Compare: one scan after the other, each by every method, into a journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medld.errors import InputError, MedldError, RestorationError
from medld.evaluation.exchange import write_output
from medld.evaluation.figures import Beside, measure, ratio_along
from medld.evaluation.journal import Entry, Journal
from medld.evaluation.labels import TRUTH, LabelMaps
from medld.evaluation.methods import BASELINES, Case, Method, Other, Output, request_for
from medld.evaluation.participants import Participants
from medld.evaluation.protocol import ProtocolConfig
from medld.evaluation.simulate import Simulated, image
from medld.evaluation.sources import UNUSABLE, FineScan, Source
from medld.evaluation.table import Row
from medld.geometry import Grid
from medld.io import file_sha256
from medld.metrics import Metric, Reference
from medld.report import Sketcher, SketchStore

Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is compared, on what: all that is decided before the first scan is read."""

    source: Source
    protocols: tuple[ProtocolConfig, ...]
    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    participants: Participants
    against: str
    labels: LabelMaps
    outputs_to: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all scans."""
        return tuple(scan.name for scan in self.source.scans)

    @property
    def others(self) -> tuple[Other, ...]:
        """Other tools among the methods."""
        return tuple(method for method in self.methods if isinstance(method, Other))

    @property
    def sketched(self) -> tuple[str, ...]:
        """Methods whose spectra a report draws: cubic, the one that is counted against, models and other tools."""
        names = [method.name for method in self.methods]
        return tuple(name for name in names if name in ("cubic", self.against) or name not in BASELINES)

    @property
    def alone(self) -> bool:
        """Whether there is one protocol, so that outputs need no folder of its name."""
        return len(self.protocols) == 1

    def output_hash(self, other: Other, scan: FineScan, protocol: ProtocolConfig) -> str:
        """SHA-256 of another tool's file for a scan, "" if there is none or several."""
        try:
            path = other.tool.find(scan.name, protocol.name, self.names, alone=self.alone)
        except InputError:
            return ""
        return "" if path is None else file_sha256(path)

    def output_hashes(self, scan: FineScan, protocol: ProtocolConfig) -> dict[str, str]:
        """By the other tools' names, and of label maps."""
        labels = self.labels.hashes(scan.name, protocol.name, self.names, alone=self.alone)
        return {other.name: self.output_hash(other, scan, protocol) for other in self.others} | labels


def compare(
    plan: Plan, journal: Journal, scans: Sequence[FineScan], sketches: SketchStore | None, report: Report
) -> None:
    """Put every scan by every protocol into the journal, but for those that are in it already, unchanged.

    What a report shows of each goes to `sketches`, if there are to be pages.
    """
    for protocol in plan.protocols:
        for scan in scans:
            sha256, outputs = scan.hash(), plan.output_hashes(scan, protocol)
            known = journal.entries.get((protocol.name, scan.name))
            if known is not None and (known.sha256, dict(known.outputs)) == (sha256, outputs):
                continue
            entry = Entry(protocol.name, scan.name, sha256, outputs)
            entry = _measured(plan, scan, protocol, entry, sketches)
            journal.add(entry)
            for line in _lines(entry):
                report(line)


def _measured(
    plan: Plan, scan: FineScan, protocol: ProtocolConfig, entry: Entry, sketches: SketchStore | None
) -> Entry:
    """The entry with the rows of its scan."""
    skipped: list[Mapping[str, str]] = []

    def skip(error: MedldError, **where: str) -> None:
        own = {"protocol": protocol.name, "file": scan.name, **where}
        skipped.append({**own, "code": error.code, "reason": str(error)})

    try:
        volume = scan.read()
        made = image(volume, protocol, key=scan.key)
        reference = Reference(made.truth.array)
        _ = reference.foreground  # refuses a truth without one, once and not for every method
        request_for(made, protocol)
    except UNUSABLE as error:
        skip(error)
        return replace(entry, skipped=tuple(skipped))
    facts = _facts(plan, scan, protocol, made, entry.sha256, scan.group(volume))
    sketcher = None
    if sketches is not None:
        sketcher = Sketcher(made.truth, protocol.name, scan.name, slice_axis(protocol), facts["ratio"])
    case = Case(made, protocol, scan.name, plan.names, plan.alone)
    if plan.outputs_to:
        write_output(plan.outputs_to, TRUTH, protocol.name, scan.name, made.truth)
    rows: list[Row] = []
    for method in plan.methods:
        try:
            output = method.restore(case)
            if plan.outputs_to:
                restored = replace(made.truth, array=output.array)
                write_output(plan.outputs_to, method.name, protocol.name, scan.name, restored)
            values = measure(
                reference,
                output.array,
                made,
                protocol,
                plan.metrics,
                lambda name, error, own=method.name: skip(error, method=own, metric=name),  # type: ignore[misc]
                _beside(plan, case, volume.grid, method.name, output, skip),
            )
            width = output.promise.half_width(made, entry.sha256) if output.promise else None
            if output.promise and width is not None:
                values |= output.promise.judge(reference, made, width)
        except (*UNUSABLE, RestorationError) as error:
            skip(error, method=method.name)
            continue
        if sketcher is not None and method.name in plan.sketched:
            pictured = method.name != "cubic" or plan.against == "cubic"
            sketcher.add(method.name, output.array, pictured=pictured, spread=width, samples=output.samples)
        rows.append(Row(**facts, method=method.name, how=output.how, values=values, output_sha256=output.sha256))
    if sketches is not None and sketcher is not None:
        sketches.save(sketcher.finish())
    return replace(entry, rows=with_gains(rows, plan.against), skipped=tuple(skipped))


def _beside(plan: Plan, case: Case, whole: Grid, method: str, output: Output, skip: Callable[..., None]) -> Beside:
    """Samples and label maps of an output; a map that is missing or elsewhere is skipped with the reason."""
    if method not in plan.labels.methods:
        return Beside(output.samples)
    name, protocol, grid = case.name, case.protocol.name, case.made.truth.grid
    try:
        truth = plan.labels.of_truth(name, protocol, plan.names, whole, grid)
        own = plan.labels.of_output(method, name, protocol, plan.names, grid, alone=plan.alone)
    except UNUSABLE as error:
        skip(error, method=method, metric="dice")
        return Beside(output.samples)
    return Beside(output.samples, truth, own)


def _facts(
    plan: Plan, scan: FineScan, protocol: ProtocolConfig, made: Simulated, sha256: str, group: str
) -> dict[str, Any]:
    """What the rows of one scan share."""
    return {
        "protocol": protocol.name,
        "group": group,
        "subject": scan.subject,
        "file": scan.name,
        "sha256": sha256,
        "shape": "x".join(str(n) for n in made.truth.grid.shape),
        "ratio": ratio_along(made, slice_axis(protocol)),
        "traits": plan.participants.traits(scan.path, scan.subject),
    }


def slice_axis(protocol: ProtocolConfig) -> int:
    """The array axis across the slices; where all are coarse, the last."""
    return 2 if protocol.axes == "isotropic" else protocol.axis


def with_gains(rows: Sequence[Row], against: str) -> tuple[Row, ...]:
    """The rows of one scan with their gains over the method `against`; NaN where it has no row."""
    base = next((row.values for row in rows if row.method == against), {})
    nothing = float("nan")
    return tuple(
        replace(
            row,
            gain=row.values["psnr"] - base.get("psnr", nothing),
            ssim_gain=row.values["ssim"] - base.get("ssim", nothing),
        )
        for row in rows
    )


def _lines(entry: Entry) -> list[str]:
    """What is said of a scan."""
    name = f"{entry.protocol}  {entry.file}  "
    scores = ", ".join(f"{row.method} {row.values['psnr']:.2f}" for row in entry.rows)
    left = [
        f"{name}{' '.join(one[key] + ' ' for key in ('method', 'metric') if key in one)}skipped, {one['code']}: "
        f"{one['reason']}"
        for one in entry.skipped
    ]
    return [*([f"{name}{scores} dB"] if scores else []), *left]
