"""Run: one volume after the other, the model loaded once; one bad file does not stop the rest.

A volume's output, record and extras are written together or not at all, also when the run is
interrupted. The same input, settings and seed give the same output bytes, whatever ran before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from medld.batch.adaptation import Adaptation, adapt_model, check_adaptable
from medld.batch.doubt import Doubt, DoubtSource, find_source
from medld.batch.outputs import Made, describe_output, write_map, write_mask, write_output
from medld.batch.plan import Job, Plan
from medld.batch.prepare import Prepared, find_memory_limit, prepare_scan
from medld.batch.scope import Scope, check_scope
from medld.batch.settings import BASELINE, DEFAULT_MODEL, EnhanceSettings, Outcome
from medld.batch.staging import staged
from medld.batch.warm import warm_up
from medld.checkpoint import Model, list_models, load_model
from medld.errors import ConfigError, LabelMapError, MedldError, OutputError, RestorationError
from medld.io.formats import format_of
from medld.report import (
    RESEARCH_USE,
    describe_grid,
    describe_trace,
    describe_versions,
    measure_peak_gib,
    save_preview,
    write_json,
)
from medld.scratch import Scratch
from medld.superres import Residual, Restoration, SuperResolver

__all__ = ["Listener", "run_plan"]

logger = logging.getLogger(__name__)

GIB = 2**30


class Listener(Protocol):
    """Who wants to know how the run goes."""

    def started(self, job: Job, prepared: Prepared) -> None:
        """A scan was read and its restoration begins."""

    def progressed(self, fraction: float) -> None:
        """The restoration has come this far, 0 to 1."""

    def finished(self, outcome: Outcome) -> None:
        """An input is through."""


@dataclass(frozen=True)
class _Run:
    """What all volumes of a run share."""

    settings: EnhanceSettings
    listener: Listener
    model: Model | None
    resolver: SuperResolver
    limit_gib: float
    dry_run: bool
    source: DoubtSource | None


def run_plan(plan: Plan, settings: EnhanceSettings, listener: Listener, *, dry_run: bool = False) -> list[Outcome]:
    """Restore every input of a plan.

    Args:
        plan: The inputs and their outputs.
        settings: The options.
        listener: Told about each input.
        dry_run: Do all the checks, restore and write nothing.

    Returns:
        One outcome per input, those of the plan first.

    Raises:
        CheckpointError: If the model is missing or damaged.
        ConfigError: If the device is not there, or the model cannot do what is asked.
        OutputError: If the report on several inputs cannot be written.
    """
    outcomes = list(plan.outcomes)
    for outcome in outcomes:
        listener.finished(outcome)
    if plan.jobs:
        run = _start(settings, listener, dry_run)
        for job in plan.jobs:
            outcomes.append(_do(job, run))
            listener.finished(outcomes[-1])
    if plan.report is not None and not dry_run:
        _write_report(plan.report, outcomes)
    return outcomes


def _start(settings: EnhanceSettings, listener: Listener, dry_run: bool) -> _Run:
    """Load the model; refuse what this machine or the model cannot do before any volume is read."""
    if settings.device.startswith("cuda"):
        index, present = int(settings.device.partition(":")[2] or 0), torch.cuda.device_count()
        if index >= present:
            raise ConfigError(f"--device: expected one of this machine's {present} CUDA devices, got {settings.device}")
    model = _find_model(settings.model)
    check_adaptable(settings, model)
    source = find_source(settings, model)
    resolver = SuperResolver(model, device=settings.device, threads=settings.threads)
    if model is not None and resolver.device != "cpu" and not dry_run:
        warm_up(model, resolver, settings)
    return _Run(settings, listener, model, resolver, find_memory_limit(settings), dry_run, source)


def _find_model(name: str) -> Model | None:
    """The named model; None for the baseline, and for the default while none is shipped."""
    if name == BASELINE or (name == DEFAULT_MODEL and DEFAULT_MODEL not in list_models()):
        return None
    return load_model(name)


def _do(job: Job, run: _Run) -> Outcome:
    """One input from file to file; whatever goes wrong becomes an outcome."""
    try:
        return _enhance(job, run)
    except MedldError as error:
        return _explain(job, error)
    except OSError as error:
        code, reason = "E_NOT_IMAGE", f"cannot be read: {error.strerror}; check its permissions"
    except (MemoryError, torch.OutOfMemoryError):
        code, reason = "E_TOO_BIG", "memory ran out; lower --memory, or ask for a coarser --spacing"
    except Exception as error:  # one bad file must not stop the rest, whatever it does to us
        # Its message may quote the file and so the patient: nobody is shown it.
        code, reason = "E_INTERNAL", f"{type(error).__name__}, a defect of medld; --verbose shows where"
        logger.debug("the restoration failed: %s", describe_trace(error))
    return Outcome(job.path, "failed", code, reason, part=job.part)


def _explain(job: Job, error: MedldError) -> Outcome:
    """The outcome of an error that has a code."""
    if isinstance(error, RestorationError | OutputError) or error.code == "E_INTERNAL":
        return Outcome(job.path, "failed", error.code, str(error), part=job.part)
    if isinstance(error, LabelMapError) and not job.explicit:
        return Outcome(job.path, "skipped", error.code, "a label map", part=job.part)
    return Outcome(job.path, "refused", error.code, str(error), part=job.part)


def _enhance(job: Job, run: _Run) -> Outcome:
    """Read, restore and write one volume."""
    start = time.perf_counter()
    # The output's folder may not be there yet; what is over it lies on the same disk.
    scratch = Scratch(next(folder for folder in job.output.absolute().parents if folder.is_dir()))
    prepared = prepare_scan(job.input, run.settings, run.resolver, run.limit_gib, scratch)
    reading = time.perf_counter() - start
    run.listener.started(job, prepared)
    if run.dry_run:
        files = ", ".join(str(target) for target in reversed(job.targets))
        return Outcome(job.path, "planned", reason=f"would write {files}", output=job.output, part=job.part)
    prepared, run, scope = _in_scope(prepared, run)
    run, adaptation = _adapted(prepared, run)
    if run.source is not None:
        run.source.check(prepared.volume)
    restoration = run.resolver.restore(prepared.volume, prepared.request, run.listener.progressed)
    if scope is not None and scope.fallback:
        restoration = replace(restoration, warnings=())  # why there is no model is said already
    parts = {"scope": scope, "adaptation": adaptation}
    spent = {name: part.seconds for name, part in parts.items() if part is not None}
    found = {name: None if part is None else part.record for name, part in parts.items()}
    restoration = replace(restoration, timings={"read": reading, **spent, **restoration.timings})
    storage = prepared.storage if job.dicom else prepared.storage.converted_to(format_of(job.output))
    prepared = replace(prepared, warnings=tuple(dict.fromkeys((*prepared.warnings, *storage.warnings))))
    try:
        record = _write(job, run, replace(prepared, storage=storage), restoration, found, start)
    except OSError as error:
        folder = "the folder of the output" if job.part else job.output.parent
        raise OutputError(
            f"{folder} cannot be written: {error.strerror}; make room, or name a folder with -o"
        ) from error
    return Outcome(job.path, "done", output=job.output, record=record, part=job.part)


def _in_scope(prepared: Prepared, run: _Run) -> tuple[Prepared, _Run, Scope | None]:
    """The scan with warnings, the run with the model or, where interpolation does better, without, and what was found.

    Raises:
        ConfigError: Interpolation does better, and what is asked for besides needs the model.
    """
    if run.model is None:
        return prepared, run, None
    settings = run.settings
    scope = check_scope(prepared.volume, prepared.request, run.model, run.resolver, force=settings.force)
    prepared = replace(prepared, warnings=(*prepared.warnings, *scope.warnings))
    if not scope.fallback:
        return prepared, run, scope
    if run.source is not None:
        raise ConfigError(
            f"{run.source.asked_for}: on slices held out of this scan interpolation does better than "
            f"{run.model.name}, and nothing is known of its errors; leave them out, or keep the model with --force"
        )
    return prepared, replace(run, model=None, resolver=SuperResolver(device=settings.device)), scope


def _adapted(prepared: Prepared, run: _Run) -> tuple[_Run, Adaptation | None]:
    """The run with the model as it is tuned on the scan, where that is asked for, and what came of it."""
    settings = run.settings
    if not settings.adapt_steps:
        return run, None
    device, progress = run.resolver.device, run.listener.progressed
    adaptation = adapt_model(prepared.volume, prepared.request, run.model, settings, device, progress)
    if adaptation.model is run.model:
        return run, adaptation
    return replace(run, model=adaptation.model, resolver=SuperResolver(adaptation.model, device=device)), adaptation


def _write(
    job: Job, run: _Run, prepared: Prepared, restoration: Restoration, found: Mapping[str, Any], start: float
) -> dict[str, Any]:
    """Write all files of a job, and return its record, with what was `found`; `start` is when the job began."""
    begin = time.perf_counter()
    scan, made = prepared.volume, Made(run.settings, run.model)
    with staged(job.targets) as where:
        stored = write_output(where[job.output], job, restoration.volume, prepared, made)
        # What is reported must be true of the file, so it is measured after rounding.
        output = restoration.volume.with_array(stored)
        residual = run.resolver.residual(output, scan, prepared.request, restoration.noise)
        if run.settings.consistency != "off":  # else to differ was asked for
            restoration = replace(restoration, warnings=(*restoration.warnings, *residual.warnings))
        doubt = run.source.judge(prepared, restoration, output) if run.source else None
        if doubt is not None:
            _write_doubt(where, job, doubt, prepared, made)
            restoration = replace(restoration, warnings=(*restoration.warnings, *doubt.warnings))
        if job.preview is not None:
            save_preview(where[job.preview], scan, output)
        now = time.perf_counter()
        restoration.timings.update(write=now - begin, total=now - start)
        record = _build_record(job, run, prepared, restoration, residual)
        record |= found
        record |= doubt.record if doubt is not None else {}
        record["output"] = {**describe_output(where[job.output], job, prepared.storage), **record["output"]}
        for path in (job.sidecar, job.report):
            if path is not None:
                write_json(where[path], record)
    return record


def _write_doubt(where: Mapping[Path, Path], job: Job, doubt: Doubt, prepared: Prepared, made: Made) -> None:
    """Write what was asked for of the maps and the mask."""
    for kind, path in job.maps.items():
        write_map(where[path], job, kind, doubt.maps[kind], prepared, made)
    if job.trust is not None:
        assert doubt.trusted is not None, "checked before anything was written"
        write_mask(where[job.trust], doubt.trusted, prepared)


def _build_record(
    job: Job, run: _Run, prepared: Prepared, restoration: Restoration, residual: Residual
) -> dict[str, Any]:
    """The account of one restoration, in the order a reader asks for it."""
    scan, target, model = prepared.volume, prepared.request.target, run.model
    return {
        # By its versions and the name of its output `medld.io` knows a record, and the output, again.
        "versions": describe_versions(),
        "use": RESEARCH_USE,
        "method": restoration.method,
        "model": {"name": model.name, "sha256": dict(model.sha256)} if model else None,
        "input": job.input.describe() | {"grid": describe_grid(scan.grid)},
        "output": {"grid": describe_grid(target.grid), "notes": list(target.notes)},
        "scan": {
            "modality": scan.modality,
            "modality_from": scan.provenance.get("modality_from"),
            "contrast": scan.contrast,
            "restored_axes": list(target.axes),
            "slice_thickness_mm": list(prepared.thickness.per_axis),
            "slice_thickness_from": prepared.thickness.source,
            "slice_profile": prepared.profile.shape,
            "slice_profile_from": prepared.profile.source,
            "slice_profile_estimate": prepared.profile.estimate,
        },
        "settings": run.settings.as_record(),
        "seed": run.settings.seed,
        "consistency": {
            "residual_rms": residual.rms,
            "residual_largest": residual.largest,
            "noise": restoration.noise,
            "residual_relative_to_noise": residual.relative_to_noise,
            "residual_relative_to_range": residual.relative_to_range,
        },
        "device": run.resolver.device,
        "precision": restoration.precision,
        "timings_s": restoration.timings,
        "memory_gib": _describe_memory(run, prepared),
        "warnings": list(dict.fromkeys((*prepared.warnings, *restoration.warnings))),
    }


def _describe_memory(run: _Run, prepared: Prepared) -> dict[str, float | None]:
    """Peak, estimate, limit and what lay in files, in GiB; the process's peak is of the whole run so far.

    Of these files the peak counts, and the estimate does not, what the system left in memory while there was room.
    """
    memory = {"peak": measure_peak_gib(), "estimate": prepared.memory_gib, "limit": run.limit_gib}
    memory["mapped"] = prepared.mapped_gib
    if run.resolver.device.startswith("cuda"):
        memory["device_peak"] = torch.cuda.max_memory_allocated(run.resolver.device) / GIB
    return memory


def _write_report(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write one document on all inputs, those included that were not restored."""
    document = {
        "use": RESEARCH_USE,
        "versions": describe_versions(),
        "inputs": [_describe_outcome(outcome) for outcome in outcomes],
    }
    try:
        with staged([path]) as where:
            write_json(where[path], document)
    except OSError as error:
        raise OutputError(f"--report: cannot be written: {error.strerror}; name another file") from error


def _describe_outcome(outcome: Outcome) -> dict[str, Any]:
    """One input of a report; a file or folder of DICOM may be called after the patient, so only its part is."""
    entry = {
        "file": outcome.part or outcome.path.name,
        "status": outcome.status,
        "code": outcome.code,
        "reason": outcome.reason,
        "record": outcome.record,
    }
    return entry | ({"files": list(outcome.files)} if outcome.files else {})
