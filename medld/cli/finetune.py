"""`medld finetune`: a model for one's own scans."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medld.batch.settings import DEFAULT_MODEL

EPILOG = """\
examples:
  medld finetune cohort/ --out model/ --max-minutes 30
  medld enhance scan.nii.gz --model model/

COHORT holds fine scans of at least two subjects: NIfTI files, flat or BIDS, DICOM studies, or both; or train/ and val/
with such. A person of DICOM is the hash of a Patient ID. Thick slices are simulated from them. OUT is a model folder
with the better of start and tuned, validation.csv and README.md; the exit code is 0 either way, the table says which
it is."""


def add_parser(commands: Any) -> None:
    """Arguments and their help."""
    parser = commands.add_parser("finetune", help="tune a model to an own cohort of fine scans", epilog=EPILOG)
    parser.set_defaults(command="finetune")
    parser.add_argument("cohort", metavar="COHORT", type=Path, help="folder of fine scans")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the model folder to make")
    parser.add_argument("--model", metavar="NAME|DIR", default=DEFAULT_MODEL, help="start from it; default %(default)s")
    parser.add_argument("--max-minutes", metavar="M", type=float, help="for the whole command, validation included")
    parser.add_argument("--device", metavar="auto|cpu|cuda[:i]", default="auto", help="default %(default)s")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the split and all draws")
    parser.add_argument(
        "--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help="training config; repeatable"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model folder at OUT")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the command; returns the exit code."""
    from medld.training.finetune import finetune

    finetune(
        options.cohort,
        options.out,
        model=options.model,
        max_minutes=options.max_minutes,
        device=options.device,
        seed=options.seed,
        overrides=options.overrides,
        overwrite=options.overwrite,
        report=say,
    )
    return 0
