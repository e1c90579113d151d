"""Plan: which inputs there are and which files each will write, before any of them is opened for good.

    scan.nii.gz           -> scan_desc-sr.nii.gz, scan_desc-sr.json
    sub-01_T2w.nii.gz     -> sub-01_desc-sr_T2w.nii.gz, sub-01_desc-sr_T2w.json

Everything that names alone can tell is refused here: missing inputs, two inputs that would get one
name, outputs that exist, outputs that would replace an input.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medld.batch.settings import EnhanceSettings, Outcome
from medld.errors import ConfigError, InputError, MedldError, OutputError
from medld.io import SUFFIXES, read_header, sidecar_path, split_suffix

__all__ = ["Job", "Plan", "make_plan", "name_output"]

BIDS_NAME = re.compile(r"(?P<entities>sub-[A-Za-z0-9+]+(?:_[A-Za-z]+-[A-Za-z0-9+]+)*)_(?P<suffix>[A-Za-z0-9]+)")
DESC_ENTITY = re.compile(r"(?<=_desc-)[A-Za-z0-9+]+")
MARK = re.compile(r"[A-Za-z0-9_+-]+")
"""What a suffix behind `desc-sr` may be: anything that cannot leave the folder."""


@dataclass(frozen=True)
class Job:
    """One input and the files it will write.

    Args:
        path: The input.
        explicit: Named by the caller, rather than met in a folder.
        output: The restored volume.
        sidecar: Its record.
        uncertainty: Standard deviation over samples, or None.
        preview: Before/after picture, or None.
        report: Copy of the record, or None.
    """

    path: Path
    explicit: bool
    output: Path
    sidecar: Path
    uncertainty: Path | None = None
    preview: Path | None = None
    report: Path | None = None

    @property
    def targets(self) -> tuple[Path, ...]:
        """Every file the job writes, the output last: where it stands, the rest stands too."""
        extras = (self.uncertainty, self.preview, self.report, self.sidecar, self.output)
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

    targets: dict[str, list[Path]]
    protected: frozenset[str]

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> Claims:
        """The claims of all jobs together."""
        targets: dict[str, list[Path]] = {}
        for job in jobs:
            for target in job.targets:
                for file in _files_of(target):
                    targets.setdefault(os.path.realpath(file), []).append(job.path)
        # A scan's JSON sidecar is as much the caller's data as the scan.
        inputs = (path for job in jobs for path in (*_files_of(job.path), sidecar_path(job.path)))
        return cls(targets, frozenset(os.path.realpath(path) for path in inputs))


def make_plan(inputs: Sequence[Path], settings: EnhanceSettings) -> Plan:
    """Find the inputs, name their outputs and refuse what the names forbid.

    Args:
        inputs: Files, or folders that are searched recursively for images (hidden names left out).
        settings: The options.

    Raises:
        ConfigError: If an option makes no sense for these inputs.
        OutputError: If the report on several inputs exists already.
    """
    several = len(inputs) > 1 or any(path.is_dir() for path in inputs)
    _check_options(settings, several)
    sources, outcomes = _find_sources(inputs, settings.force)
    jobs = [_name_files(path, explicit, settings, several) for path, explicit in sources.items()]
    claims = Claims.of(jobs)
    reasons = {job.path: _refuse_targets(job, claims, settings.overwrite) for job in jobs}
    refusals = {path: reason for path, reason in reasons.items() if reason}
    outcomes += [Outcome(path, "refused", OutputError.code, reason) for path, reason in refusals.items()]
    report = settings.report if several else None
    if report is not None:
        if os.path.realpath(report) in claims.targets:
            raise OutputError(f"--report: {report} is written for one of the inputs; name another file")
        if reason := _refuse_file(report, claims.protected, settings.overwrite):
            raise OutputError(f"--report: {reason}")
    return Plan(tuple(job for job in jobs if job.path not in refusals), tuple(outcomes), report)


def name_output(path: Path, mark: str = "sr") -> str:
    """Name of the output of `path`: `desc-sr` before a BIDS suffix, else at the end.

    A BIDS name holds one `desc` at most, so one that is there is extended.

    >>> name_output(Path("sub-01_ses-1_T2w.nii.gz"))
    'sub-01_ses-1_desc-sr_T2w.nii.gz'
    >>> name_output(Path("sub-01_desc-preproc_T2w.nii"))
    'sub-01_desc-preprocsr_T2w.nii'
    >>> name_output(Path("my scan.mha"))
    'my scan_desc-sr.mha'
    """
    stem, suffix = _split_name(path)
    bids = BIDS_NAME.fullmatch(stem)
    if bids is None:
        return f"{stem}_desc-{mark}{suffix}"
    entities = bids["entities"]
    if DESC_ENTITY.search(entities):
        entities = DESC_ENTITY.sub(lambda match: match[0] + mark, entities)
    else:
        entities += f"_desc-{mark}"
    return f"{entities}_{bids['suffix']}{suffix}"


def _check_options(settings: EnhanceSettings, several: bool) -> None:
    """Refuse file options that do not fit one input, or several."""
    known = ", ".join(SUFFIXES)
    output = settings.output
    if output is not None and not output.is_dir():
        if several and (output.exists() or _image_suffix(output)):
            raise ConfigError(f"-o: for several inputs expected a folder, got the file name {output}")
        if output.exists() and not _image_suffix(output):
            raise ConfigError(f"-o: expected a folder or a file that ends in {known}, got {output}")
        if output.suffix and not _image_suffix(output):
            raise ConfigError(f"-o: expected a file that ends in {known}, or a folder, got {output}")
    if several:
        for option, mark in (("uncertainty", settings.uncertainty), ("preview", settings.preview)):
            if mark is not None and not MARK.fullmatch(_clean_mark(mark)):
                raise ConfigError(
                    f"--{option}: for several inputs expected a suffix of letters, digits, - and _, "
                    f"which is put behind desc-sr, got {mark}"
                )
        return
    if settings.uncertainty is not None and not _image_suffix(Path(settings.uncertainty)):
        raise ConfigError(f"--uncertainty: expected a file that ends in {known}, got {settings.uncertainty}")
    if settings.preview is not None and Path(settings.preview).suffix.lower() != ".png":
        raise ConfigError(f"--preview: expected a name that ends in .png, such as look.png, got {settings.preview}")


def _find_sources(inputs: Sequence[Path], force: bool) -> tuple[dict[Path, bool], list[Outcome]]:
    """Inputs to work on, each once, with whether the caller named it; and what is left out already."""
    sources: dict[Path, bool] = {}
    outcomes: list[Outcome] = []
    seen: set[str] = set()
    for path in [p for p in inputs if not p.is_dir()]:
        if os.path.abspath(path) not in seen:
            seen.add(os.path.abspath(path))
            if path.exists():
                sources[path] = True
            else:
                reason = "no such file or folder; check the path"
                outcomes.append(Outcome(path, "refused", InputError.code, reason))
    for folder in [p for p in inputs if p.is_dir()]:
        for path in _walk(folder):
            if os.path.abspath(path) in seen:
                continue
            seen.add(os.path.abspath(path))
            skipped = _skip_by_header(path, force)
            if skipped is None:
                sources[path] = False
            else:
                outcomes.append(skipped)
    return sources, outcomes


def _walk(folder: Path) -> list[Path]:
    """Image files below a folder, sorted; a broken link counts, so that it is refused and not overlooked."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # Hidden: macOS puts a "._scan.nii.gz" that is no image beside every file on a foreign disk.
        found += [Path(parent, n) for n in sorted(names) if not n.startswith(".") and _image_suffix(Path(n))]
    return found


def _skip_by_header(path: Path, force: bool) -> Outcome | None:
    """Why a file met in a folder is left out, if its header says so; an unreadable one is left to the run."""
    try:
        header = read_header(path)
    except MedldError:
        return None
    if header.second_pass:
        return Outcome(path, "skipped", "E_SECOND_PASS", "an output of medld")
    if header.named_label and not force:
        return Outcome(path, "skipped", "E_NOT_IMAGE", "a label map")
    return None


def _name_files(path: Path, explicit: bool, settings: EnhanceSettings, several: bool) -> Job:
    """The files that one input writes."""
    output = path.with_name(name_output(path))
    if settings.output is not None:
        is_file = not several and _image_suffix(settings.output) and not settings.output.is_dir()
        output = settings.output if is_file else settings.output / output.name
    job = Job(path, explicit, output, sidecar_path(output))
    if not several:
        # The sidecar stands there anyway: asking for it as the report is no collision.
        wants_copy = settings.report is not None and not _is_same(settings.report, job.sidecar)
        return replace(
            job,
            uncertainty=None if settings.uncertainty is None else Path(settings.uncertainty),
            preview=None if settings.preview is None else Path(settings.preview),
            report=settings.report if wants_copy else None,
        )
    if settings.uncertainty is not None:
        spread = name_output(path, "sr" + _clean_mark(settings.uncertainty))
        job = replace(job, uncertainty=output.with_name(spread))
    if settings.preview is not None:
        picture = _split_name(Path(name_output(path, "sr" + _clean_mark(settings.preview))))[0]
        job = replace(job, preview=output.with_name(picture + ".png"))
    return job


def _refuse_targets(job: Job, claims: Claims, overwrite: bool) -> str:
    """Why the files of a job must not be written, in one sentence; empty if they may."""
    for target in [file for image in job.targets for file in _files_of(image)]:
        claimants = claims.targets[os.path.realpath(target)]
        if len(claimants) > 1:
            rivals = sorted({str(path) for path in claimants if path != job.path})
            source = f"{' and '.join(rivals)} would" if rivals else "two files of this input would"
            return f"{source} be written to {target} too; choose other names, or enhance them one by one"
        if reason := _refuse_file(target, claims.protected, overwrite):
            return reason
    return ""


def _refuse_file(target: Path, protected: frozenset[str], overwrite: bool) -> str:
    """Why one file must not be written, in one sentence; empty if it may."""
    if os.path.realpath(target) in protected:
        return f"{target} is an input, or its sidecar, and is never replaced; name another output with -o"
    if target.is_dir():
        return f"{target} is a folder; name another output with -o"
    if os.path.lexists(target) and not overwrite:
        return f"{target} exists; add --overwrite to replace it, or name another output with -o"
    return ""


def _is_same(first: Path, second: Path) -> bool:
    """Whether two paths are one file, existing or not."""
    return os.path.realpath(first) == os.path.realpath(second)


def _files_of(image: Path) -> tuple[Path, ...]:
    """The files an image consists of: an .mhd header has its voxels beside it."""
    return (image, image.with_suffix(".raw")) if image.suffix.lower() == ".mhd" else (image,)


def _image_suffix(path: Path) -> str:
    """The image suffix of a file name, empty if it has none."""
    return split_suffix(path)[1]


def _split_name(path: Path) -> tuple[str, str]:
    """A file name without its suffix, and that suffix, be it an image's or another."""
    stem, suffix = split_suffix(path)
    return (stem, suffix) if suffix else (path.stem, path.suffix)


def _clean_mark(mark: str) -> str:
    """A suffix option without the file ending that a caller may have added to it."""
    return mark if "/" in mark else _split_name(Path(mark))[0]
