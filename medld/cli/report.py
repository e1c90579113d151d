"""`medld report`: a page on one restoration, for whoever has to trust it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medld.cli.signals import removed_when_terminated
from medld.errors import ConfigError, OutputError

SUFFIX = ".html"

EPILOG = """\
examples:
  medld report scan_desc-sr.nii.gz                   writes scan_desc-sr.html beside it
  medld report out/series-3-1f2e3d4c5b6a_desc-sr     a DICOM series that medld enhance wrote
  medld report restored.nii.gz --scan scan.nii.gz --uncertainty spread.nii.gz -o page.html

One file, to be opened in a browser or printed: geometry, agreement with the scan, noise, sharpness, warnings,
model and hashes; before and after in three planes. The output's record (.json) has to lie beside it. The scan is
looked for beside the output and one folder above it; without it nothing is compared. An output or a scan that
differs from what the record says is refused. Of DICOM, the page shows hashed UIDs alone."""


def add_parser(commands: Any) -> None:
    """Arguments and their help."""
    parser = commands.add_parser("report", help="a page on one restored scan", epilog=EPILOG)
    parser.set_defaults(command="report")
    parser.add_argument("path", metavar="OUTPUT", type=Path, help="image file or series folder of medld enhance")
    parser.add_argument("-o", "--output", metavar="FILE.html", type=Path, help="default: beside OUTPUT")
    parser.add_argument("--scan", metavar="PATH", type=Path, help="what it was made of, if it lies elsewhere")
    parser.add_argument(
        "--uncertainty", metavar="FILE", type=Path, help="image file that medld enhance --uncertainty wrote"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the page")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the command; returns the exit code."""
    target = _choose_target(options)
    from medld.batch.search import discreet
    from medld.batch.staging import staged
    from medld.report import RESEARCH_USE, examine_output, render_scan_report

    with discreet():
        found = examine_output(options.path, options.scan, options.uncertainty)
    page = render_scan_report(found)
    try:
        with removed_when_terminated(), staged([target]) as where:
            where[target].write_bytes(page)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}; make room, or name another file") from error
    for note in found.notes:
        print(f"{options.path}: warning: {note}", file=sys.stderr, flush=True)
    without = "" if found.before is not None else " (without the scan, which is not beside it; name it with --scan)"
    say(f"{options.path} -> {target}{without}")
    say(RESEARCH_USE)
    return 0


def _choose_target(options: argparse.Namespace) -> Path:
    """Where the page goes."""
    from medld.io import sidecar_path

    target: Path = options.output or sidecar_path(os.path.abspath(options.path)).with_suffix(SUFFIX)
    if target.suffix.lower() not in (SUFFIX, ".htm"):
        raise ConfigError(f"-o: expected a file that ends in {SUFFIX}, got {target}")
    if target.is_dir():
        raise OutputError(f"{target} is a folder; name another file with -o")
    if os.path.lexists(target) and not options.overwrite:
        raise OutputError(f"{target} exists; add --overwrite to replace it, or name another file with -o")
    return target
