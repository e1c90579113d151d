"""`medld export`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medld.batch.settings import DEFAULT_MODEL

FORMATS = ("monai-bundle", "huggingface")

EPILOG = """\
examples:
  medld export --to monai-bundle -o bundle/                    the shipped model for MONAI's tools
  medld export --to huggingface --model runs/mine/model -o hub/    an own model, to be published

Weight files are copied as they are. Figures in the card are those of results.json, validation.json or validation.csv
in the model folder; without them the card gives none."""


def add_parser(commands: Any) -> None:
    """Arguments and their help."""
    parser = commands.add_parser("export", help="write a model as a MONAI bundle or for Hugging Face", epilog=EPILOG)
    parser.set_defaults(command="export")
    parser.add_argument("--to", choices=FORMATS, required=True, help="the form")
    parser.add_argument("-o", "--out", metavar="FOLDER", type=Path, required=True, help="the folder to make")
    parser.add_argument("--model", metavar="NAME|DIR", default=DEFAULT_MODEL, help="default %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export of the same kind")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the command; returns the exit code."""
    from medld.export import export_model

    export_model(options.model, to=options.to, out=options.out, overwrite=options.overwrite, report=say)
    return 0
