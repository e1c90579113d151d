"""Run: an evaluation from its settings to its table, whole, in shards, or where a killed one stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from medld.cards import Split
from medld.checkpoint import Model
from medld.config import Schema, parse_config
from medld.errors import ConfigError, InputError
from medld.evaluation.compare import Plan, compare
from medld.evaluation.exchange import OtherTool, check_outside, write_scans
from medld.evaluation.figures import asked_for, choose_metrics
from medld.evaluation.journal import (
    WHOLE,
    Journal,
    gather_shards,
    journal_path,
    open_journal,
    parse_shard,
    read_journal,
)
from medld.evaluation.labels import make_label_maps
from medld.evaluation.methods import BASELINES, Mode, load_models, make_methods
from medld.evaluation.participants import find_participants, read_participants
from medld.evaluation.protocol import ProtocolConfig, list_protocols, load_protocol
from medld.evaluation.record import check_free, conclude, make_head
from medld.evaluation.sources import find_source
from medld.evaluation.table import Summary
from medld.io import file_sha256
from medld.report import SketchStore
from medld.superres import Flips, SuperResolver

Report = Callable[[str], None]


class RunSettings(Schema):
    """What a run may choose, as results.json keeps it; paths of this machine are left out on purpose."""

    mode: Mode = "fidelity"
    flips: Flips = 1
    limit: int | None = Field(None, ge=1)
    """Only the first so many subjects, in the order of their names."""
    device: str = "auto"
    threads: int | None = Field(None, ge=1)
    against: str = "B"
    """Method from which gains and differences count."""
    seed: int = Field(0, ge=0)
    """Of the bootstrap."""
    resample_others: bool = False
    samples: int = Field(0, ge=0, le=100)
    labels: tuple[str, ...] = ()
    """Whose label maps are compared."""
    card: str = ""
    split: Literal["train", "val", "test", ""] = ""
    participants: str = ""
    """SHA-256 of the table."""


def evaluate(
    source: Path | str,
    protocols: Sequence[str],
    out: Path | str,
    *,
    data: Path | str | None = None,
    split: Split = "val",
    model: Path | str | Sequence[Path | str] | None = None,
    baselines: Sequence[str] = BASELINES,
    others: Mapping[str, Path | str] | None = None,
    resample_others: bool = False,
    scans_to: Path | str | None = None,
    outputs_to: Path | str | None = None,
    labels: Mapping[str, Path | str] | None = None,
    mode: Mode = "fidelity",
    flips: int = 1,
    samples: int = 0,
    metrics: Sequence[str] | None = None,
    against: str = "B",
    participants: Path | str | None = None,
    limit: int | None = None,
    shard: str | tuple[int, int] = WHOLE,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    pages: bool = True,
    report: Report = lambda line: None,
) -> tuple[Summary, ...]:
    """Compare methods on every scan of a folder or card, by every protocol.

    Args:
        source: Folder of fine volumes, flat or BIDS, or a data card's name or file. Files that cannot serve are
            skipped and listed with the reason.
        protocols: Shipped names or YAML files.
        out: Gets results.json (everything), subjects.csv (the rows), report.html and report.pdf; created if missing.
            A run that was killed here goes on.
        data: Folder with the card's files.
        split: Of the card.
        model: Name, folder or COLUMN=either, one or several, or "baseline" for none; None takes the shipped one if
            there is one.
        baselines: Methods without a network, out of `BASELINES`.
        others: Column to folder with the outputs of another tool, see `exchange.py`.
        resample_others: Bring outputs on another grid to the truth's instead of refusing them.
        scans_to: Folder that gets the simulated scans too, for another tool.
        outputs_to: Folder that gets the truths and every method's outputs, to look at or to segment.
        labels: "truth" and methods to folders with their label maps, see `labels.py`.
        mode: Mode of the models.
        flips: Mirrored copies of a scan (1, 2, 4 or 8) whose answers the models average.
        samples: How many each model with a diffusion part draws beside its answer, for what they differ by.
        metrics: Beyond the headline: names of `medld.metrics.METRICS`, or "all".
        against: Method from which gains, differences and p count.
        participants: Table for the subgroups; None takes participants.tsv or .csv in the folder, if there is one.
        limit: Only the first so many subjects.
        shard: "2/4", or (2, 4): the second of four parts, by subject. When all parts lie in `out`, the last one to
            finish writes the results; `merge` does it for parts in several folders.
        seed: Of the bootstrap.
        device: "auto", "cpu", "cuda" or "cuda:1".
        threads: CPU threads, None for all.
        overwrite: Replace the results of an earlier run, or an unfinished one with other settings.
        pages: Write report.html and report.pdf. Scans that an unfinished run measured without have no pictures there.
        report: Gets a line of text for each scan and, at the end, the tables.

    Returns:
        The lines of the table; none from a shard that others are still to follow.

    Raises:
        ConfigError: An unknown protocol, none, or a setting that is wrong.
        InputError: Not one scan could be used, or not one output of another tool was found.
        OutputError: `out` holds results already, or an unfinished run with other settings.
        CardError: The card is wrong, or its files are missing.
        CheckpointError: A model is missing or damaged.
    """
    out, part = Path(out), parse_shard(shard)
    chosen = load_protocols(protocols)
    check_free(out, overwrite=overwrite)
    wish: dict[str, object] = {
        "mode": mode,
        "flips": flips,
        "limit": limit,
        "device": device,
        "threads": threads,
        "against": against,
        "seed": seed,
    }
    wish |= {"samples": samples, "labels": tuple(labels or ())}
    parse_config(wish, RunSettings, origin="The evaluation")
    found = find_source(source, data, split, limit)
    models, missing = load_models(model)
    if missing:
        report("no model is shipped yet: methods without a network alone")
    tools = [OtherTool(name, Path(folder), resample_others) for name, folder in (others or {}).items()]
    methods = make_methods(
        baselines, models, tools, mode=mode, flips=flips, samples=samples, device=device, threads=threads
    )
    table = find_participants(found.folder) if participants is None else Path(participants)
    maps = make_label_maps(labels or {}, [method.name for method in methods])
    more = asked_for(chosen, samples=bool(samples), labels=bool(maps.folders))
    target = None if outputs_to is None else Path(outputs_to)
    if target is not None:
        check_outside(target, found)
    plan = Plan(found, chosen, methods, choose_metrics(metrics, more), read_participants(table), against, maps, target)
    _check_methods(plan, report)
    own = {"resample_others": resample_others, "card": found.card, "split": found.split}
    known = {"participants": file_sha256(table) if table else ""}
    settings = parse_config({**wish, **own, **known}, RunSettings, origin="The evaluation")
    if scans_to is not None:
        report(f"{write_scans(found, chosen, Path(scans_to), report)} simulated scans in {scans_to}")
    journal = open_journal(out, _head(plan, settings, models), part, overwrite=overwrite)
    sketches = sketches_in(out) if pages else None
    compare(plan, journal, found.shard(*part), sketches, report)
    return _finish(out, journal, sketches, report)


def merge(
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    overwrite: bool = False,
    pages: bool = True,
    report: Report = lambda line: None,
) -> tuple[Summary, ...]:
    """Put the shards of one evaluation, from several folders, together as one run would have made it.

    Args:
        folders: Where the shards were written, the `out` of each.
        out: Gets results.json, subjects.csv, report.html and report.pdf.
        overwrite: Replace the results of an earlier run.
        pages: Write report.html and report.pdf.
        report: Gets the tables.

    Raises:
        ConfigError: They are not all the shards of one evaluation, each once and complete.
        OutputError: `out` holds results already, or a shard is damaged.
        InputError: Not one scan could be used.
    """
    check_free(Path(out), overwrite=overwrite)
    paths = sorted(path for folder in dict.fromkeys(map(Path, folders)) for path in folder.glob("rows*.jsonl"))
    head, entries = gather_shards(paths)
    sketches = sketches_in(*dict.fromkeys(map(Path, folders))) if pages else None
    return conclude(Path(out), head, entries, sketches, report)


def simulate_scans(
    source: Path | str,
    protocols: Sequence[str],
    folder: Path | str,
    *,
    data: Path | str | None = None,
    split: Split = "val",
    limit: int | None = None,
    report: Report = lambda line: None,
) -> int:
    """Write the scans that an evaluation would restore, for another tool; returns how many.

    Args:
        source: As for `evaluate`, like data, split and limit.
        protocols: Shipped names or YAML files.
        folder: Gets PROTOCOL/scan.nii.gz and a sidecar beside each, see `exchange.py`.
        data: Folder with the card's files.
        split: Of the card.
        limit: Only the first so many subjects.
        report: Gets a line for each scan that cannot serve.

    Raises:
        ConfigError, InputError, CardError: As `evaluate`.
        OutputError: The folder lies inside the source's.
    """
    return write_scans(find_source(source, data, split, limit), load_protocols(protocols), Path(folder), report)


def load_protocols(names: Sequence[str]) -> tuple[ProtocolConfig, ...]:
    """The protocols of these names or files, each once.

    Raises:
        ConfigError: There is none, one is unknown, or two different ones have one name.
    """
    chosen = tuple(load_protocol(name) for name in dict.fromkeys(names))
    if not chosen:
        raise ConfigError(f"Expected at least one protocol out of {', '.join(list_protocols())}, got none.")
    taken = [protocol.name for protocol in chosen]
    if len(set(taken)) < len(taken):
        raise ConfigError(f"Expected protocols of different names, got {', '.join(taken)}. Rename one in its file.")
    return chosen


def _check_methods(plan: Plan, report: Report) -> None:
    """Refuse what would show only after hours: nothing to count from, another tool without a single output."""
    names = [method.name for method in plan.methods]
    if plan.against not in names:
        raise ConfigError(f"Expected to count from one of {', '.join(names)}, got '{plan.against}'. Check --against.")
    for other in plan.others:
        scans, count = plan.source.scans, 0
        for protocol in plan.protocols:
            count += sum(bool(plan.output_hash(other, scan, protocol)) for scan in scans)
            for stray in other.tool.unmatched(plan.names, protocol.name, alone=plan.alone):
                report(
                    f"{protocol.name}  {stray}  of {other.name} left out: no scan has its name, so no truth is there"
                )
        if not count:
            raise InputError(
                f"Expected outputs of {other.name} below {other.tool.folder}, in a folder for each protocol "
                f"({plan.protocols[0].name}/), named like the scans; found none. Check --other.",
                "E_NOT_IMAGE",
            )


def _head(plan: Plan, settings: RunSettings, models: Mapping[str, Model]) -> dict[str, object]:
    machine = SuperResolver(None, device=settings.device, threads=settings.threads)
    return make_head(
        settings.model_dump(),
        plan.protocols,
        models,
        [method.name for method in plan.methods],
        plan.metrics,
        {"device": machine.device, "precision": machine.precision},
        plan.names,
    )


def _finish(out: Path, journal: Journal, sketches: SketchStore | None, report: Report) -> tuple[Summary, ...]:
    """Close the journal, and write the results if it was the last one."""
    journal.finish()
    index, count = journal.shard
    if journal.shard == WHOLE:
        try:
            summaries = conclude(out, journal.head, journal.entries, sketches, report)
        except InputError:  # not one row: leave nothing behind
            sketches_in(out).remove()
            journal.path.unlink()
            if not any(out.iterdir()):
                out.rmdir()
            raise
        journal.path.unlink()
        sketches_in(out).remove()
        return summaries
    paths = [journal_path(out, (other, count)) for other in range(1, count + 1)]
    left = [place for place, path in enumerate(paths, 1) if not (path.exists() and read_journal(path).complete)]
    if left:
        report(f"shard {index}/{count} is complete; still to come in {out}: {', '.join(map(str, left))}")
        return ()
    head, entries = gather_shards(paths)
    return conclude(out, head, entries, sketches, report)


def sketches_in(*folders: Path) -> SketchStore:
    """Where the pictures of unfinished runs lie."""
    return SketchStore(tuple(folder / "sketches" for folder in folders))
