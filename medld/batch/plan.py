"""Plan: which files each input will write, before any of them is opened for good.

    scan.nii.gz           -> scan_desc-sr.nii.gz, scan_desc-sr.json
    sub-01_T2w.nii.gz     -> sub-01_desc-sr_T2w.nii.gz, sub-01_desc-sr_T2w.json
    study/ (DICOM)        -> study_desc-sr/series-3-1f2e3d4c5b6a_desc-sr/IM-0001.dcm ...,
                             study_desc-sr/series-3-1f2e3d4c5b6a_desc-sr.json

Maps that have no name of their own are called after the output: scan_desc-srmean.nii.gz, or beside a file that was
named with -o, restored.mha, restored_desc-mean.mha; those of DICOM are parametric maps, .dcm.

Everything that names alone can tell is refused here: missing inputs, two inputs that would get one
name, outputs that exist, outputs that would replace an input.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medld.batch.inputs import ImageFile, Input, files_of
from medld.batch.names import clean_mark, image_suffix, name_output
from medld.batch.options import becomes_image, check_options, is_nifti
from medld.batch.search import Found, find_inputs
from medld.batch.settings import EnhanceSettings, Outcome, label
from medld.errors import ConfigError, OutputError
from medld.io import sidecar_path

__all__ = ["Job", "Plan", "make_plan"]

SERIES_FILE = re.compile(r"IM-\d+\.dcm")
"""What a series folder of ours holds, and nothing else: only such a folder is ever replaced."""


@dataclass(frozen=True)
class Job:
    """One input and the files it will write.

    Args:
        input: The scan.
        output: The restored volume: a file, or the folder of a DICOM series.
        sidecar: Its record.
        dicom: Whether the output is a DICOM series.
        maps: What is written about each voxel, by kind: "uncertainty", "mean" and "std" of samples, "lower" and "upper"
            end of its interval.
        trust: Mask of the voxels to trust, or None.
        preview: Before/after picture, or None.
        report: Copy of the record, or None.
    """

    input: Input
    output: Path
    sidecar: Path
    dicom: bool = False
    maps: Mapping[str, Path] = field(default_factory=dict)
    trust: Path | None = None
    preview: Path | None = None
    report: Path | None = None

    @property
    def path(self) -> Path:
        """What the caller named, or a file met below it."""
        return self.input.path

    @property
    def explicit(self) -> bool:
        """Named by the caller, rather than met in a folder."""
        return self.input.explicit

    @property
    def part(self) -> str:
        """Which part of `path` it is, empty for all of it."""
        return self.input.part

    @property
    def label(self) -> str:
        """What a person at the terminal calls the input."""
        return label(self.path, self.part)

    @property
    def targets(self) -> tuple[Path, ...]:
        """Everything the job writes, the output last: where it stands, the rest stands too."""
        extras = (*self.maps.values(), self.trust, self.preview, self.report, self.sidecar, self.output)
        return tuple(path for path in extras if path is not None)


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    Args:
        jobs: Inputs to restore, in the order given, folders sorted by name.
        outcomes: Inputs already skipped or refused.
        report: One document on all inputs, when there are several; else None.
    """

    jobs: tuple[Job, ...]
    outcomes: tuple[Outcome, ...]
    report: Path | None = None


@dataclass(frozen=True)
class Claims:
    """Who wants to write which file, by real path, and which files must stay as they are."""

    targets: dict[str, list[Job]]
    protected: frozenset[str]

    @classmethod
    def of(cls, jobs: Sequence[Job], found: Found) -> Claims:
        """The claims of all jobs together."""
        targets: dict[str, list[Job]] = {}
        for job in jobs:
            for target in job.targets:
                for file in files_of(target):
                    targets.setdefault(os.path.realpath(file), []).append(job)
        originals = {os.path.realpath(file) for item in found.inputs for file in item.files}
        return cls(targets, frozenset(originals | found.originals))


def make_plan(inputs: Sequence[Path], settings: EnhanceSettings) -> Plan:
    """Find the inputs, name their outputs and refuse what the names forbid.

    Args:
        inputs: Files, or folders that are searched recursively (hidden names left out).
        settings: The options.

    Raises:
        ConfigError: If an option makes no sense for these inputs.
        OutputError: If the report on several inputs exists already.
    """
    found = find_inputs(inputs, settings)
    several = _are_several(inputs, found)
    check_options(settings, several=several, dicom=found.dicom)
    outcomes = found.outcomes
    if settings.format == "dicom":
        outcomes = outcomes + [_refuse_conversion(item) for item in found.inputs if item.series is None]
        found = replace(found, inputs=[item for item in found.inputs if item.series is not None])
    # A report on DICOM lists what was left out too, so it is never one record.
    together = several or found.dicom
    jobs = [_name_files(item, settings, several, together) for item in found.inputs]
    claims = Claims.of(jobs, found)
    reasons = [_refuse_targets(job, claims, settings.overwrite) for job in jobs]
    refusals = [(job, reason) for job, reason in zip(jobs, reasons, strict=True) if reason]
    outcomes = outcomes + [Outcome(j.path, "refused", OutputError.code, r, part=j.part) for j, r in refusals]
    report = settings.report if together else None
    if report is not None:
        _check_report(report, claims, settings.overwrite)
    kept = tuple(job for job, reason in zip(jobs, reasons, strict=True) if not reason)
    return Plan(kept, tuple(outcomes), report)


def _are_several(inputs: Sequence[Path], found: Found) -> bool:
    """Whether options name suffixes rather than files: several inputs, or a folder of images."""
    if len(inputs) != 1 or len(found.inputs) > 1:
        return True
    only_dicom = found.dicom and all(item.series is not None for item in found.inputs)
    return inputs[0].is_dir() and not only_dicom


def _refuse_conversion(item: Input) -> Outcome:
    """Nothing but DICOM becomes DICOM: an image file does not know whose scan it is."""
    reason = "--format dicom needs DICOM as its input, got an image file; leave the option out"
    return Outcome(item.path, "refused" if item.explicit else "skipped", ConfigError.code, reason)


def _name_files(item: Input, settings: EnhanceSettings, several: bool, together: bool) -> Job:
    """The files that one input writes."""
    is_file = becomes_image(settings, several) and settings.output is not None and image_suffix(settings.output)
    dicom = item.series is not None and not becomes_image(settings, several)
    suffix = None if dicom else _suffix_of(item, settings)
    output = (settings.output or item.home) / item.name_output("sr", suffix)
    if is_file:
        assert settings.output is not None
        output = settings.output
    job = Job(item, output, sidecar_path(output), dicom)
    if not together:
        # The sidecar stands there anyway: asking for it as the report is no collision.
        wants_copy = settings.report is not None and not _is_same(settings.report, job.sidecar)
        job = replace(job, report=settings.report if wants_copy else None)
    map_suffix = ".dcm" if dicom else suffix
    maps = {
        kind: output.with_name(name_output(output, kind) if is_file else item.name_output("sr" + kind, map_suffix))
        for kind in _kinds_of(settings)
    }
    if settings.uncertainty is not None and not several:
        maps["uncertainty"] = Path(settings.uncertainty)
    elif settings.uncertainty is not None:
        maps["uncertainty"] = output.with_name(item.name_output("sr" + clean_mark(settings.uncertainty), map_suffix))
    job = replace(job, maps=maps)
    if not several:
        return replace(
            job,
            trust=None if settings.trust is None else Path(settings.trust),
            preview=None if settings.preview is None else Path(settings.preview),
        )
    if settings.trust is not None:
        mask = item.name_output("sr" + clean_mark(settings.trust), ".nii.gz" if dicom else suffix)
        job = replace(job, trust=output.with_name(mask))
    if settings.preview is not None:
        job = replace(job, preview=output.with_name(item.name_output("sr" + clean_mark(settings.preview), ".png")))
    return job


def _kinds_of(settings: EnhanceSettings) -> tuple[str, ...]:
    """The maps that have their names from the output's."""
    return (*(("mean", "std") if settings.samples > 1 else ()), *(("lower", "upper") if settings.interval else ()))


def _suffix_of(item: Input, settings: EnhanceSettings) -> str | None:
    """File suffix of an image output; None for the input's own."""
    if isinstance(item, ImageFile) and (settings.format == "auto" or is_nifti(image_suffix(item.path))):
        return None
    return ".nii.gz"


def _check_report(report: Path, claims: Claims, overwrite: bool) -> None:
    """Refuse a report on several inputs that must not be written."""
    if os.path.realpath(report) in claims.targets:
        raise OutputError(f"--report: {report} is written for one of the inputs; name another file")
    if reason := _refuse_file(report, str(report), claims, overwrite):
        raise OutputError(f"--report: {reason}")


def _refuse_targets(job: Job, claims: Claims, overwrite: bool) -> str:
    """Why the files of a job must not be written, in one sentence; empty if they may."""
    for target in [file for image in job.targets for file in files_of(image)]:
        # A report quotes this sentence, and a folder of DICOM is often called after the patient.
        name = target.name if job.part else str(target)
        claimants = claims.targets[os.path.realpath(target)]
        if len(claimants) > 1:
            rivals = sorted({rival.part or str(rival.path) for rival in claimants if rival is not job})
            source = f"{' and '.join(rivals)} would" if rivals else "two files of this input would"
            return f"{source} be written to {name} too; choose other names, or enhance them one by one"
        refuse = _refuse_folder if job.dicom and target == job.output else _refuse_file
        if reason := refuse(target, name, claims, overwrite):
            return reason
    return ""


def _refuse_file(target: Path, name: str, claims: Claims, overwrite: bool) -> str:
    """Why one file, called `name`, must not be written, in one sentence; empty if it may."""
    if os.path.realpath(target) in claims.protected:
        return f"{name} is an input, or its sidecar, and is never replaced; name another output with -o"
    if target.is_dir():
        return f"{name} is a folder; name another output with -o"
    if os.path.lexists(target) and not overwrite:
        return f"{name} exists; add --overwrite to replace it, or name another output with -o"
    return ""


def _refuse_folder(target: Path, name: str, claims: Claims, overwrite: bool) -> str:
    """Why a series folder, called `name`, must not be written, in one sentence; empty if it may."""
    inside = os.path.realpath(target) + os.sep
    if any(path.startswith(inside) for path in claims.protected):
        return f"{name} holds an input, which is never replaced; name another output with -o"
    if any(path.startswith(inside) for path in claims.targets):
        return f"another output would lie in {name}, which holds one series; name it elsewhere"
    if not os.path.lexists(target):
        return ""
    if not overwrite:
        return f"{name} exists; add --overwrite to replace it, or name another output with -o"
    if target.is_symlink() or not target.is_dir() or not all(SERIES_FILE.fullmatch(p.name) for p in target.iterdir()):
        return f"{name} is no series folder of medld and is not replaced; name another output with -o"
    return ""


def _is_same(first: Path, second: Path) -> bool:
    """Whether two paths are one file, existing or not."""
    return os.path.realpath(first) == os.path.realpath(second)
