"""Options: the arguments of every command, and their help."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from medld import __version__
from medld.batch.settings import BASELINE, CHOICES, DEFAULT_MODEL, EnhanceSettings
from medld.cli import convert, data, evaluate, export, finetune, inspect, latent, report
from medld.errors import CODES, WARNINGS, ConfigError

__all__ = ["DEFAULTS", "parse"]

DEFAULTS = EnhanceSettings()

DESCRIPTION = """\
Super-resolution of MRI and CT scans: thick slices become thin ones, coarse voxels fine ones.
Research use, not for diagnosis."""

EPILOG = """\
examples:
  medld enhance scan.nii.gz                          writes scan_desc-sr.nii.gz and its record, .json
  medld enhance study/ -o restored/                  every scan below a folder; DICOM in, DICOM out
  medld inspect study/                               which series there are, and what of them is usable
  medld convert study/ -o scan.nii.gz                DICOM as it is read, in another format
  medld train config.yaml --dry-run                  what a training would do
  medld evaluate scans/ --protocol through-plane-4x --out results/
  medld report scan_desc-sr.nii.gz                   a page on one restored scan
  medld info                                         version, devices, shipped models

each command has its own --help"""

ENHANCE_EPILOG = """\
examples:
  medld enhance scan.nii.gz
      slices as thin as the pixels are wide, beside the scan: scan_desc-sr.nii.gz, scan_desc-sr.json
  medld enhance sub-01_T2w.nii.gz -o restored.mha --preview look.png
      another name and format, and a before/after picture
  medld enhance scan.nii.gz --spacing 1 --slice-thickness 5 --slice-profile slr
      1 mm along every coarser axis; the slices are 5 mm thick whatever their distance
  medld enhance study/ more/scan.nii -o restored/ --report run.json
      several inputs: a folder of results, one report on all
  medld enhance scan.nii.gz --uncertainty width.nii.gz --trust mask.nii.gz
      besides, half the width of intervals that hold 90 % of a typical subject's voxels, and which details to trust
  medld enhance scan.nii.gz --interval
      besides, both ends of these intervals: scan_desc-srlower.nii.gz, scan_desc-srupper.nii.gz
  medld enhance scan.nii.gz --mode detail --samples 8
      besides, mean and deviation of 8 samples: scan_desc-srmean.nii.gz, scan_desc-srstd.nii.gz; each sample alone is
      what --realism 1 gives with --seed 0 to 7
  medld enhance study/ --dry-run
      all checks, nothing written

DICOM (a file, a folder, a .zip archive) becomes a derived DICOM series, in a folder of its own:
  medld enhance dicom/ -o out/
      out/series-NUMBER-HASH_desc-sr/IM-0001.dcm ..., and its record out/series-NUMBER-HASH_desc-sr.json
      without -o: the same in dicom_desc-sr/, beside the folder
  medld enhance dicom/ --series 2 -o restored.nii.gz
      the second volume of several (medld inspect lists them), as NIfTI
  medld enhance dicom/ --series all -o out/ --report run.json
      every usable volume; the report lists the others too, with their reasons

reason codes of refusals (E_) and warnings (W_):
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of one command; `command` names it.

    Raises:
        ConfigError: If the arguments are wrong.
        SystemExit: After `--help` and `--version`.
    """
    options, unknown = _build_parser().parse_known_args(_join_spacing(arguments))
    if unknown:
        raise ConfigError(f"unknown arguments: {' '.join(unknown)}; see medld {options.command} --help")
    return options


def _join_spacing(arguments: Sequence[str]) -> list[str]:
    """Join the numbers after `--spacing` into one argument.

    argparse would take the inputs that follow them for numbers too, and refuse them.
    """
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        joined.append(rest.pop(0))
        if joined[-1] == "--":
            return joined + rest
        if joined[-1] == "--spacing" and rest and _is_number(rest[0]):
            numbers = []
            while rest and _is_number(rest[0]):
                numbers.append(rest.pop(0))
            joined[-1] += "=" + ",".join(numbers)
    return joined


def _is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def _spacings(text: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    return tuple(float(part) for part in text.split(","))


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake costs one line and leaves through `main`."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **keywords)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def _build_parser() -> argparse.ArgumentParser:
    """All commands."""
    parser = _Parser(prog="medld", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"medld {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_enhance(commands)
    _add_train(commands)
    for module in (inspect, convert, evaluate, report, finetune, data, latent, export):
        module.add_parser(commands)
    info = commands.add_parser("info", help="version, devices, shipped models", description=DESCRIPTION)
    info.set_defaults(command="info")
    return parser


def _add_enhance(commands: Any) -> None:
    """`medld enhance`; an option that is not given stays away, so that defaults live in one place."""
    codes = "\n".join(f"  {code:<16} {meaning}" for code, meaning in {**CODES, **WARNINGS}.items())
    parser = commands.add_parser(
        "enhance",
        help="restore scans",
        usage="medld enhance INPUT... [-o OUTPUT] [options]",
        description=DESCRIPTION,
        epilog=ENHANCE_EPILOG + codes,
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(command="enhance")
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", type=Path, help="image or DICOM files, .zip, folders to search"
    )
    _add_target_options(parser.add_argument_group("target (default: slices as fine as the pixels)"))
    _add_scan_options(parser.add_argument_group("the scan"))
    _add_restoration_options(parser.add_argument_group("restoration"))
    _add_file_options(parser.add_argument_group("files"))
    _add_machine_options(parser.add_argument_group("machine"))
    _add_talk_options(parser)


def _add_target_options(group: Any) -> None:
    """How fine the result is to be."""
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--spacing",
        metavar="MM [MM MM]",
        type=_spacings,
        help="one value for every axis that is coarser, or three in the order of the array axes",
    )
    either.add_argument("--factor", metavar="R", type=float, help="times finer: slice axis (isotropic: all)")


def _add_scan_options(group: Any) -> None:
    """What is known about the scan."""
    group.add_argument(
        "--modality", choices=CHOICES["modality"], help=f"default {DEFAULTS.modality}: DICOM, name, sidecar, values"
    )
    group.add_argument(
        "--slice-thickness",
        metavar="MM",
        type=float,
        help="default: SliceThickness of sidecar or DICOM, else spacing",
    )
    group.add_argument(
        "--series",
        metavar="WANTED",
        help="of DICOM: number (medld inspect lists them), UID, pattern of the description, or all",
    )
    group.add_argument(
        "--slice-profile",
        choices=CHOICES["slice_profile"],
        help=f"default {DEFAULTS.slice_profile}; auto: told from the voxels, and the thickness too if nobody states it",
    )


def _add_restoration_options(group: Any) -> None:
    """How it is restored."""
    group.add_argument(
        "--mode", choices=CHOICES["mode"], help=f"most faithful to most detailed; default {DEFAULTS.mode}"
    )
    group.add_argument("--realism", metavar="L", type=float, help="0 (fidelity) to 1; default: the mode's")
    group.add_argument("--steps", metavar="K", type=int, help="sampler steps; default: the mode's")
    group.add_argument(
        "--flips",
        metavar="N",
        type=int,
        help="mean of the answers to N mirrored copies (1, 2, 4, 8): eight gain .1 to .3 dB, for N times the time; "
        f"default {DEFAULTS.flips}",
    )
    group.add_argument("--samples", metavar="N", type=int, help="draw N; their mean and deviation are written too")
    group.add_argument(
        "--adapt-steps",
        metavar="N",
        type=int,
        help="tune the network on the scan itself, kept only where parts held out of it gain; "
        f"default {DEFAULTS.adapt_steps}: not",
    )
    group.add_argument("--seed", metavar="N", type=int, help=f"default {DEFAULTS.seed}")
    group.add_argument(
        "--consistency",
        choices=CHOICES["consistency"],
        help=f"agreement with the scan; default {DEFAULTS.consistency}: as far as its noise allows",
    )
    group.add_argument(
        "--model",
        metavar="NAME|DIR",
        help=f"default {DEFAULT_MODEL}; {BASELINE}: no network, a spline made consistent",
    )


def _add_file_options(group: Any) -> None:
    """What is read and written where."""
    group.add_argument("-o", "--output", type=Path, help="file, or folder (always so for several inputs)")
    group.add_argument(
        "--format", choices=CHOICES["format"], help=f"default {DEFAULTS.format}: DICOM for DICOM, else the scan's own"
    )
    group.add_argument("--report", metavar="FILE.json", type=Path, help="copy of the record; of all, for several")
    group.add_argument("--preview", metavar="FILE.png", help="before/after picture (several inputs: a suffix)")
    group.add_argument(
        "--uncertainty",
        metavar="FILE",
        help="calibrated 90 %% half-width; standard deviation over --samples where there is no calibration "
        "(several inputs: a suffix)",
    )
    group.add_argument(
        "--trust", metavar="FILE", help="mask: 1 where details can be trusted, else 0 (several inputs: a suffix)"
    )
    group.add_argument(
        "--interval", action="store_true", help="both ends of the calibrated 90 %% interval, beside the output"
    )
    group.add_argument("--overwrite", action="store_true", help="replace outputs; inputs never")
    group.add_argument("--force", action="store_true", help="take label maps for scans; keep the model on any scan")


def _add_machine_options(group: Any) -> None:
    """What it runs on."""
    group.add_argument("--device", metavar="auto|cpu|cuda[:i]", help=f"default {DEFAULTS.device}")
    group.add_argument("--threads", metavar="N", type=int, help="CPU threads; default all")
    group.add_argument(
        "--memory",
        dest="memory_gib",
        metavar="GIB",
        type=float,
        help="most memory; default 80 %% of the machine's; beyond 512^3 voxels the disk of the output serves too",
    )


def _add_talk_options(parser: argparse.ArgumentParser) -> None:
    """How much is said."""
    parser.add_argument("--dry-run", action="store_true", default=False, help="check and plan, write nothing")
    talk = parser.add_mutually_exclusive_group()
    talk.add_argument("--quiet", action="store_true", default=False, help="only warnings and refusals")
    talk.add_argument("--verbose", action="store_true", default=False, help="also timings and tracebacks")


def _add_train(commands: Any) -> None:
    """`medld train`."""
    parser = commands.add_parser(
        "train",
        help="train a model as a config says",
        epilog="example:\n  medld train config.yaml --set steps=2000 --max-minutes 25",
    )
    parser.set_defaults(command="train")
    parser.add_argument("config", metavar="CONFIG.yaml", type=Path)
    parser.add_argument(
        "--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help="may be repeated"
    )
    parser.add_argument("--resume", action="store_true", help="go on where the run folder's last checkpoint is")
    parser.add_argument("--max-minutes", metavar="M", type=float, help="stop in time, with a checkpoint")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config, train nothing")
