"""Train the MRI model by the clock: one-step network, autoencoder, then the flow between them.

    python pipelines/train_mri.py one-step    --seconds 520 --data PACK... --validation PACK [--warm medld/weights/mri]
    python pipelines/train_mri.py autoencoder --seconds 150 --data PACK...
    python pipelines/train_mri.py joint       --seconds 900 --data PACK... --validation PACK

A schedule counts in steps and a rented machine in seconds, so each stage first times a few steps (which also fills
the compiler's cache), then sets the number of steps that fit. Runs go to --out; a run that was cut goes on with
--resume. PACK is a folder of NIfTI files or a pack of them (`medld.dataset.pack`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

from medld.training import run_training

CONFIGS = {
    "one-step": Path("configs/superres/mri_one_step.yaml"),
    "autoencoder": Path("configs/autoencoder/mri.yaml"),
    "joint": Path("configs/diffusion/mri_joint.yaml"),
}
RUNS = {"one-step": "mri_one_step", "autoencoder": "mri_autoencoder", "joint": "mri_joint"}
TRIAL_STEPS, TRIAL_LOG = 120, 20
VALIDATION_SECONDS = 25
SAFETY = 0.985


def main() -> None:
    """Parse, time, train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=list(CONFIGS))
    parser.add_argument("--seconds", type=float, required=True, help="for everything, trial and validation included")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--validation", nargs="*", default=[])
    parser.add_argument("--warm", nargs="*", default=None, help="model folders to start from")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], dest="overrides")
    options = parser.parse_args()
    began = time.monotonic()
    run = options.out / RUNS[options.stage]
    steps = _planned_steps(run) if options.resume else _time_steps(options, began)
    left = options.seconds - (time.monotonic() - began)
    _train(options, run, [f"steps={steps}", "log_every=500"], minutes=(left - VALIDATION_SECONDS) / 60)


def _time_steps(options: argparse.Namespace, began: float) -> int:
    """Steps that fit into what is left after a trial."""
    trial = options.out / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    _train(options, trial, [f"steps={TRIAL_STEPS}", f"log_every={TRIAL_LOG}", "validation=[]"], minutes=None)
    rows = [json.loads(line) for line in (trial / "log.jsonl").read_text().splitlines()][-3:]
    rate = sum(row["steps_per_second"] for row in rows) / len(rows)
    left = options.seconds - (time.monotonic() - began) - VALIDATION_SECONDS
    print(f"{rate:.1f} steps a second, {left:.0f} s left")
    return int(rate * left * SAFETY)


def _planned_steps(run: Path) -> int:
    import yaml

    return int(yaml.safe_load((run / "config.yaml").read_text())["steps"])


def _train(options: argparse.Namespace, run: Path, overrides: list[str], minutes: float | None) -> None:
    settings = [f"run_dir={run}", f"data.folders=[{','.join(options.data)}]", f"compile={options.compile}"]
    settings.append(f"validation=[{','.join(options.validation)}]")
    if options.warm is not None:
        settings.append(f"warm_start=[{','.join(options.warm)}]")
    resume = options.resume and run.name != "trial"
    run_training(
        CONFIGS[options.stage],
        [*settings, *options.overrides, *overrides],
        resume=resume,
        max_minutes=minutes,
        report=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    main()
