"""The command line: parse, call one function, print, exit code.

    options     arguments and their help
    terminal    what is printed while scans are restored
    table       rows of text below one another
    waiting     how threads wait

and a file for each command that brings its own arguments.

Exit codes:

    0     all done (what was skipped in folders included)
    1     something broke
    2     something was refused, or the command was misused
    130   interrupted; nothing half-written is left

Results go to standard output; warnings, refusals and the progress bar to standard error.
Whatever is slow to load is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial

from medld.batch.settings import EnhanceSettings, Outcome
from medld.cli import convert, data, evaluate, export, finetune, inspect, latent, report
from medld.cli.options import DEFAULTS, parse
from medld.cli.signals import removed_when_terminated
from medld.cli.waiting import spin_briefly
from medld.errors import MedldError, OutputError

__all__ = ["main"]

INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + 13  # SIGPIPE, which Windows has no name for


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments; None takes the program's own.

    Returns:
        The exit code.
    """
    spin_briefly(os.environ)
    commands = {"enhance": _enhance, "train": _train, "info": _info}
    for module in (inspect, convert, evaluate, report, finetune, data, latent, export):
        commands[module.__name__.rpartition(".")[2]] = partial(module.run, say=_say)
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        return commands[options.command](options)
    except MedldError as error:
        print(f"medld: {error.code}: {error}", file=sys.stderr)
        return 1 if _is_broken(error) else 2
    except BrokenPipeError:  # whoever reads what is printed has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("medld: interrupted; nothing half-written is left", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:  # argparse after --help and --version, or a request to terminate
        return int(stop.code or 0)


def _enhance(options: argparse.Namespace) -> int:
    """Restore scans."""
    given = vars(options)
    settings = EnhanceSettings(**{f.name: given[f.name] for f in fields(EnhanceSettings) if f.name in given})
    from medld.batch.plan import make_plan
    from medld.batch.run import run_plan
    from medld.cli.terminal import Terminal

    if options.verbose:
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("medld").setLevel(logging.DEBUG)
    plan = make_plan(options.inputs, settings)
    with Terminal(quiet=options.quiet, verbose=options.verbose) as terminal, removed_when_terminated():
        if options.dry_run:
            terminal.show_settings(settings)
        outcomes = run_plan(plan, settings, terminal, dry_run=options.dry_run)
        terminal.conclude(outcomes)
    return _exit_code(outcomes)


def _train(options: argparse.Namespace) -> int:
    """Train a model."""
    from medld.training import run_training

    run_training(
        options.config,
        options.overrides,
        resume=options.resume,
        max_minutes=options.max_minutes,
        dry_run=options.dry_run,
        report=_say,
    )
    return 0


def _info(options: argparse.Namespace) -> int:
    """Say what is installed."""
    import torch

    from medld.batch.prepare import find_memory_limit
    from medld.checkpoint import list_models, load_model
    from medld.report import RESEARCH_USE, describe_versions
    from medld.superres import SuperResolver

    print(", ".join(f"{name} {version}" for name, version in describe_versions().items()))
    print(f"memory for a restoration: {find_memory_limit(DEFAULTS):g} GiB")
    print(f"device cpu: {torch.get_num_threads()} threads, {SuperResolver(None, device='cpu').precision}")
    for index in range(torch.cuda.device_count()):
        print(f"device cuda:{index}: {torch.cuda.get_device_name(index)}")
    code = 0
    for name in list_models():
        try:
            print(f"model {name}: " + ", ".join(f"{f} {sha[:12]}" for f, sha in load_model(name).sha256.items()))
        except MedldError as error:
            print(f"model {name}: {error.code}: {error}")
            code = 1
    if not list_models():
        print("model: none is shipped; scans are restored by the baseline (spline and projection)")
    print(RESEARCH_USE)
    return code


def _is_broken(error: MedldError) -> bool:
    """Whether an error that ended the command is ours or the machine's, rather than the caller's."""
    return error.code == "E_INTERNAL" or (isinstance(error, OutputError) and error.__cause__ is not None)


def _exit_code(outcomes: Sequence[Outcome]) -> int:
    """What a script is told about all inputs together."""
    statuses = {outcome.status for outcome in outcomes}
    if "failed" in statuses:
        return 1
    return 2 if "refused" in statuses or not statuses & {"done", "planned"} else 0


def _say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)
