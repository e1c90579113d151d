"""`medld evaluate`: how good a restoration is, on scans whose truth is known."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medld.batch.settings import BASELINE, CHOICES, DEFAULT_MODEL, EnhanceSettings
from medld.cli.data import DATA_VARIABLE
from medld.errors import ConfigError

DEFAULTS = EnhanceSettings()

EPILOG = """\
examples:
  medld evaluate scans/ --protocol through-plane-4x --out results/
      fine scans made coarse, restored by every free method and by the shipped model, and compared with themselves
  medld evaluate medld-mri-train --data ../shared/data --protocol through-plane-4x --out results/
      the validation scans of a data card
  medld evaluate scans/ --protocol through-plane-4x --write-scans coarse/
      only the coarse scans, for another tool; afterwards
  medld evaluate scans/ --protocol through-plane-4x --other eclare=restored/ --out results/
      its outputs in the same table
  medld evaluate scans/ --protocol through-plane-4x-lesions --out results/
      the same of truths with 20 lesions in each: which are kept, erased, invented
  medld evaluate scans/ --protocol through-plane-4x --out results/ --write-outputs made/
      truths and outputs, to be segmented by a tool of your choice; afterwards
  medld evaluate scans/ --protocol through-plane-4x --out dice/ --labels truth=seg/truth --labels medld=seg/medld
      whether it finds the same in both
  medld evaluate scans/ --protocol through-plane-4x --out results/ --shard 1/4
      a quarter of the subjects, on one of four machines; the last to finish writes the table
  medld evaluate --merge part1/ part2/ --out results/
      parts from several folders"""


def add_parser(commands: Any) -> None:
    """Arguments and their help; an option that is not given stays away, so that defaults live in one place."""
    parser = commands.add_parser(
        "evaluate",
        help="simulate thick slices of fine scans, restore them, compare",
        usage="medld evaluate FOLDER|CARD --protocol NAME --out DIR [options]",
        epilog=EPILOG,
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(command="evaluate")
    parser.add_argument("source", metavar="FOLDER|CARD", nargs="?", help="fine scans, flat or BIDS; or a data card")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="gets report.html, report.pdf, results.json, subjects.csv"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    _add_scans(parser.add_argument_group("scans"))
    _add_methods(parser.add_argument_group("methods"))
    _add_table(parser.add_argument_group("table"))
    _add_machine(parser.add_argument_group("machine"))


def _add_scans(group: Any) -> None:
    """What is compared."""
    group.add_argument(
        "--protocol", dest="protocols", metavar="NAME", action="append", help="shipped name or .yaml; may be repeated"
    )
    group.add_argument(
        "--data", metavar="FOLDER", type=Path, help=f"where a card's files are; default: {DATA_VARIABLE}"
    )
    group.add_argument("--split", choices=("train", "val", "test"), help="of the card; default val")
    group.add_argument("--limit", metavar="N", type=int, help="only the first N subjects")
    group.add_argument(
        "--write-scans", dest="scans_to", metavar="DIR", type=Path, help="the simulated scans, for another tool"
    )
    group.add_argument(
        "--write-outputs", dest="outputs_to", metavar="DIR", type=Path, help="truths and outputs, to segment or look at"
    )


def _add_methods(group: Any) -> None:
    """What is compared with the truth."""
    group.add_argument(
        "--model",
        metavar="NAME|DIR|COLUMN=DIR",
        action="append",
        help=f"may be repeated; default {DEFAULT_MODEL}; {BASELINE}: none",
    )
    group.add_argument("--mode", choices=CHOICES["mode"], help=f"of the models; default {DEFAULTS.mode}")
    group.add_argument("--flips", metavar="N", type=int, help="mirrored copies that the models average over; default 1")
    group.add_argument("--samples", metavar="N", type=int, help="drawn beside each answer: how they differ, and where")
    group.add_argument("--baselines", metavar="NAME", nargs="+", help="methods without a network; default all")
    group.add_argument(
        "--other", dest="others", metavar="NAME=FOLDER", action="append", help="outputs of another tool, by protocol"
    )
    group.add_argument("--resample-others", action="store_true", help="bring these to the truth's grid")


def _add_table(group: Any) -> None:
    """What is written down."""
    group.add_argument("--metrics", metavar="NAME", nargs="+", help="beyond PSNR, SSIM and detail; or all")
    group.add_argument(
        "--labels", metavar="NAME=FOLDER", action="append", help="label maps of 'truth' and of methods: their Dice"
    )
    group.add_argument("--against", metavar="METHOD", help="gains and differences from it; default B")
    group.add_argument(
        "--participants", metavar="FILE", type=Path, help="table for subgroups; default participants.tsv in FOLDER"
    )
    group.add_argument("--seed", metavar="N", type=int, help="of the bootstrap; default 0")
    group.add_argument("--no-pages", dest="pages", action="store_false", help="no report.html and report.pdf")


def _add_machine(group: Any) -> None:
    """What it runs on."""
    group.add_argument("--shard", metavar="I/N", help="the I-th of N parts, by subject")
    group.add_argument("--merge", metavar="DIR", nargs="+", type=Path, help="put the parts of several folders together")
    group.add_argument("--device", metavar="auto|cpu|cuda[:i]", help=f"default {DEFAULTS.device}")
    group.add_argument("--threads", metavar="N", type=int, help="CPU threads; default all")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the command; returns the exit code.

    Raises:
        ConfigError: If the options do not go together.
    """
    from medld.evaluation import evaluate, simulate_scans

    given = {name: value for name, value in vars(options).items() if name != "command"}
    if "merge" in given:
        return _merge(given, say)
    source, protocols = given.pop("source", None), given.pop("protocols", ())
    if source is None or not protocols:
        raise ConfigError("expected FOLDER|CARD and --protocol NAME; see medld evaluate --help")
    if "data" not in given and not Path(source).is_dir() and os.environ.get(DATA_VARIABLE):
        given["data"] = Path(os.environ[DATA_VARIABLE])
    for option, name in (("--other", "others"), ("--labels", "labels")):
        if name in given:
            given[name] = _pairs(option, given[name])
    out = given.pop("out", None)
    if out is None and "scans_to" in given:
        kept = {name: given[name] for name in ("data", "split", "limit") if name in given}
        count = simulate_scans(source, protocols, given["scans_to"], report=say, **kept)
        say(f"{count} scans in {given['scans_to']}")
    elif out is None:
        raise ConfigError("expected --out DIR, or --write-scans DIR alone; see medld evaluate --help")
    else:
        evaluate(source, protocols, out, report=say, **given)
    return 0


def _merge(given: dict[str, Any], say: Callable[[str], None]) -> int:
    """Put the parts of several folders together."""
    from medld.evaluation import merge

    unused = sorted(set(given) - {"merge", "out", "overwrite", "pages"})
    if unused or "out" not in given:
        raise ConfigError(
            "--merge DIR... goes with --out, --overwrite and --no-pages alone: the rest was said when the parts ran"
        )
    kept = {name: given[name] for name in ("overwrite", "pages") if name in given}
    merge(given["merge"], given["out"], report=say, **kept)
    return 0


def _pairs(option: str, texts: Sequence[str]) -> dict[str, Path]:
    """NAME=FOLDER as a mapping."""
    pairs = {}
    for text in texts:
        name, sign, folder = text.partition("=")
        if not (name and sign and folder) or name in pairs:
            raise ConfigError(f"{option}: expected NAME=FOLDER, each name once, got {text}")
        pairs[name] = Path(folder)
    return pairs
