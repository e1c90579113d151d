"""Tune the shipped model to an own cohort, and see on other scans whether that was worth it.

For a group with some tens of fine scans of its own: one site, one protocol, one population. `medld finetune` splits
the cohort by subject, tunes, and keeps the better of start and tuned by its own validation; this adds a judgement
on a folder that took no part in it, by the protocols of `medld evaluate`.

    python pipelines/fine_tune.py COHORT --out runs/mine --test OTHER_SCANS --max-minutes 30

OUT is a model folder (`medld enhance scan.nii.gz --model runs/mine`); with --test it gets test-start/ and test-tuned/
with the results. What else is given goes to `medld finetune`. --max-minutes bounds the tuning and its validation; the
judgement on OTHER_SCANS comes on top.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from medld.checkpoint import DEFAULT
from medld.cli import main as medld

PROTOCOLS = ("through-plane-2x", "through-plane-4x", "through-plane-6x")


def main(argv: Sequence[str] | None = None) -> int:
    """Tune, then compare start and tuned; returns the exit code of the first command that failed, else 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("cohort", help="folder of fine scans, flat or BIDS")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT, help="what to start from (%(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--test", help="fine scans of other subjects")
    parser.add_argument("--protocol", nargs="+", default=PROTOCOLS, help="of the judgement on --test")
    options, rest = parser.parse_known_args(argv)
    shared = ["--device", options.device]
    code = medld(["finetune", options.cohort, "--out", str(options.out), "--model", options.model, *shared, *rest])
    if code or options.test is None:
        return code
    protocols = [word for name in options.protocol for word in ("--protocol", name)]
    for name, model in (("start", options.model), ("tuned", str(options.out))):
        print(f"\n{name} on {options.test}:", flush=True)
        results = str(options.out / f"test-{name}")
        code = code or medld(["evaluate", options.test, *protocols, "--out", results, "--model", model, *shared])
    return code


if __name__ == "__main__":
    if failed := main():
        sys.exit(failed)
