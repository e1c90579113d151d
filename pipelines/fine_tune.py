"""Tune the shipped model to an own cohort, and see on other scans whether that was worth it.

For a group with some tens of fine scans of its own: one site, one protocol, one population. `medld finetune` splits
the cohort by subject, tunes, and keeps the better of start and tuned by its own validation; this adds a judgement
on a folder that took no part in it, by the protocols of `medld evaluate`.

    python pipelines/fine_tune.py COHORT --out runs/mine --test OTHER_SCANS --max-minutes 30

OUT is a model folder (`medld enhance scan.nii.gz --model runs/mine`); with --test it gets test-start/ and test-tuned/
with the results. --max-minutes bounds the tuning and its validation; the judgement on OTHER_SCANS comes on top.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from medld.checkpoint import DEFAULT
from medld.evaluation import evaluate
from medld.training.finetune import finetune

PROTOCOLS = ("through-plane-2x", "through-plane-4x", "through-plane-6x")


def main(argv: Sequence[str] | None = None) -> None:
    """Tune, then compare start and tuned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path, help="folder of fine scans, flat or BIDS")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT, help="what to start from (%(default)s)")
    parser.add_argument("--test", type=Path, help="fine scans of other subjects")
    parser.add_argument("--protocol", nargs="+", default=PROTOCOLS, help="of the judgement on --test")
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[])
    options = parser.parse_args(argv)
    finetune(
        options.cohort,
        options.out,
        model=options.model,
        max_minutes=options.max_minutes,
        device=options.device,
        seed=options.seed,
        overrides=options.overrides,
        report=say,
    )
    if options.test is None:
        return
    for name, model in (("start", options.model), ("tuned", options.out)):
        say(f"\n{name} on {options.test}:")
        results = options.out / f"test-{name}"
        evaluate(options.test, options.protocol, results, model=model, device=options.device, report=say)


def say(line: str) -> None:
    """Print at once, also into a file."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
