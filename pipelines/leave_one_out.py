"""How the one-step network does on heads of sites that it never saw: each source left out of training in turn.

    python pipelines/leave_one_out.py --packs PACK... --out runs/leave_one_out [--sources remind niimath ...]
    python pipelines/leave_one_out.py --out runs/leave_one_out --table

For every source (subjects called sub-SOURCE*) a network is trained from its first step on for --seconds on all other
volumes and judged on all volumes of that source, by foreground dB over B at --ratios; `a+b` leaves two sources out at
once, `none` leaves nothing out and is judged on every source: what having seen a site is worth. Lines go to
OUT/leave_one_out.csv as they come, models to OUT/runs/SOURCE/model; the same command goes on with the sources that are
missing. With --max-minutes none is begun that would not end in time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from csv_lines import CsvLines
from train_mri import CONFIGS, SAFETY, say

from medld.checkpoint import load_model
from medld.config import TrainConfig, read_config
from medld.dataset import Fine, Source, load
from medld.training.ending import Clock
from medld.training.loop import Run
from medld.training.pace import measure_pace
from medld.training.selection import MODEL
from medld.training.validation import Validator

SOURCES = ("studyforrest", "remind", "niimath", "lindner", "seg3d", "openmscs", "cstar")
EVERYTHING = "none"
CSV = "leave_one_out.csv"
FIELDS = ("left_out", "steps", "volume", "ratio", "baseline", "gain")
OVERHEAD = 45.0
"""Seconds that a source may need beside its training: trial, start, judging."""

Line = dict[str, str]


def main(argv: Sequence[str] | None = None) -> None:
    """Train and judge what is missing, or tabulate."""
    options = parse(argv)
    results = CsvLines(options.out / CSV, FIELDS)
    if not options.table:
        clock = Clock(None if options.max_minutes is None else 60 * options.max_minutes)
        for source in options.sources:
            if any(line["left_out"] == source for line in results.lines):
                continue
            if clock.left < options.seconds + OVERHEAD:
                say(f"time is up; the same command goes on with {source}")
                break
            results.keep([*results.lines, *trained_without(source, options)])
    say(as_markdown(results.lines))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, nargs="+", help="folders of scans or packs")
    parser.add_argument("--out", type=Path, default=Path("runs/leave_one_out"), help="(%(default)s)")
    parser.add_argument("--sources", nargs="+", default=[*SOURCES, EVERYTHING], help="in this order; all of them")
    parser.add_argument("--seconds", type=float, default=200, help="of training without a source (%(default)s)")
    parser.add_argument("--ratios", type=float, nargs="+", default=[2.0, 4.0, 6.0], help="(2 4 6)")
    parser.add_argument("--steps", type=int, help="of training, in place of seconds")
    parser.add_argument("--max-minutes", type=float, help="for the whole command")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[])
    parser.add_argument("--table", action="store_true", help="print OUT/leave_one_out.csv as Markdown")
    options = parser.parse_args(argv)
    if not options.table and options.packs is None:
        parser.error("expected --packs to learn from")
    return options


def trained_without(source: str, options: argparse.Namespace) -> list[Line]:
    """The lines of a source: gain over B of each of its volumes at each ratio."""
    own = [f"run_dir={options.out / 'runs' / source}", f"device={options.device}", "trackers=[]", "validation=[]"]
    config = read_config(CONFIGS["one-step"], TrainConfig, [*options.settings, *own])
    volumes = load(options.packs, [Source(s.files, s.weight, s.axes) for s in config.data.sources])
    training, judged = split(volumes, source)
    steps = options.steps or int(SAFETY * options.seconds / measure_pace(config, training))
    config = config.model_copy(update={"steps": steps, "log_every": max(1, steps // 10)})
    config.run_dir.mkdir(parents=True, exist_ok=True)
    Run(config, lambda _: None, volumes=training, held_out=()).go()
    networks = load_model(config.run_dir / MODEL).networks
    rows = Validator(judged, options.ratios, options.device).measure(networks)
    common = {"left_out": source, "steps": str(steps)}
    lines = [common | {key: str(value) for key, value in row.items()} for row in rows]
    say(f"without {source}: {len(training)} volumes, {steps} steps, {np.mean([row['gain'] for row in rows]):+.2f} dB")
    return lines


def split(volumes: Sequence[Fine], source: str) -> tuple[list[Fine], list[Fine]]:
    """Volumes to learn from and to be judged by; of `EVERYTHING`, those of all sources that are ever left out."""
    if source == EVERYTHING:
        return list(volumes), [v for v in volumes if source_of(v.name)]
    out = source.split("+")
    return [v for v in volumes if source_of(v.name) not in out], [v for v in volumes if source_of(v.name) in out]


def source_of(name: str) -> str:
    """The source that a volume's name tells, "" for one that is never left out."""
    return next((source for source in SOURCES if name.startswith(f"sub-{source}")), "")


def as_markdown(lines: Sequence[Line]) -> str:
    """A row per source and contrast: mean gain over B, of the network without it and of one with everything, if any."""
    ratios = sorted({float(line["ratio"]) for line in lines})
    seen = any(line["left_out"] == EVERYTHING for line in lines)
    head = [f"{ratio:g}x, {kind}" for ratio in ratios for kind in ("left out", *(["seen"] if seen else []))]
    table = [f"| source | contrast | volumes | {' | '.join(head)} |", "| --- | --- | --- |" + " --- |" * len(head)]
    kinds = sorted({(source_of(line["volume"]), contrast_of(line["volume"])) for line in lines})
    for source, contrast in kinds:
        own = [line for line in lines if (source_of(line["volume"]), contrast_of(line["volume"])) == (source, contrast)]
        cells = [_mean(own, ratio, kind) for ratio in ratios for kind in (source, *([EVERYTHING] if seen else []))]
        count = len({line["volume"] for line in own})
        table.append(f"| {source} | {contrast} | {count} | {' | '.join(cells)} |")
    return "\n".join(table)


def contrast_of(name: str) -> str:
    """The end of a volume's name, `ce-gad_T1w` whole."""
    return "ce-gad_T1w" if name.endswith("ce-gad_T1w") else name.rsplit("_", 1)[-1]


def _mean(lines: Sequence[Line], ratio: float, left_out: str) -> str:
    gains = [
        float(line["gain"])
        for line in lines
        if float(line["ratio"]) == ratio and left_out in line["left_out"].split("+")
    ]
    return f"{np.mean(gains):+.2f}" if gains else ""


if __name__ == "__main__":
    main()
