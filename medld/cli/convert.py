"""`medld convert`: what was read, untouched, in another format."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medld.cli.signals import removed_when_terminated

EPILOG = """\
examples:
  medld convert study/ -o scan.nii.gz                the only usable series of a folder
  medld convert study.zip --series 2 -o scan.mha     the second one of an archive
  medld convert scan.mha -o scan.nii.gz              an image file

Voxels (scanner units, HU for CT) and affine are those that medld enhance works on: int16 if all values
are whole and fit, else float32. The slice thickness is not carried over: give --slice-thickness to
medld enhance, or restore the DICOM itself."""


def add_parser(commands: Any) -> None:
    """Arguments and their help."""
    parser = commands.add_parser("convert", help="a scan as an image file, nothing changed", epilog=EPILOG)
    parser.set_defaults(command="convert")
    parser.add_argument("path", metavar="PATH", type=Path, help="DICOM file, folder or .zip, or image file")
    parser.add_argument("-o", "--output", metavar="OUT.nii.gz", type=Path, required=True, help="decides the format")
    parser.add_argument("--series", metavar="WANTED", help="of DICOM: number, UID or pattern of the description")
    parser.add_argument("--overwrite", action="store_true", help="replace the output; inputs never")
    parser.add_argument("--force", action="store_true", help="take label maps for scans")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the command; returns the exit code."""
    from medld.batch.convert import convert
    from medld.geometry import format_mm

    with removed_when_terminated():
        done = convert(
            options.path, options.output, series=options.series, overwrite=options.overwrite, force=options.force
        )
    for warning in done.warnings:
        print(f"{done.label}: warning: {warning}", file=sys.stderr, flush=True)
    grid = done.volume.grid
    say(
        f"{done.label} -> {options.output}: {done.volume.modality.upper()}, "
        f"{' x '.join(map(str, grid.shape))} at {format_mm(grid.spacing)}, {done.dtype}"
    )
    return 0
