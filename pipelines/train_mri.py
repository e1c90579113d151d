"""Train the MRI model by the clock: one-step network, autoencoder, then the flow between them.

    python pipelines/train_mri.py one-step    --seconds 520 --data PACK... --validation PACK [--warm medld/weights/mri]
    python pipelines/train_mri.py autoencoder --seconds 150 --data PACK...
    python pipelines/train_mri.py joint       --seconds 900 --data PACK... --validation PACK

A schedule counts in steps and a rented machine in seconds, so each stage first times a few steps (which also fills
the compiler's cache), then sets the number of steps that fit; --pace, from the log of an earlier run, saves the trial,
which told up to 30 % too little on an H200 (run 14 of the training log). Runs go to --out; a run that was cut goes on
with --resume. PACK is a folder of NIfTI files or a pack of them (`medld.dataset.pack`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from medld.config import TrainConfig, read_config
from medld.dataset import Source, load
from medld.training import run_training
from medld.training.pace import measure_pace

CONFIGS = {
    "one-step": Path("configs/superres/mri_one_step.yaml"),
    "autoencoder": Path("configs/autoencoder/mri.yaml"),
    "joint": Path("configs/diffusion/mri_joint.yaml"),
}
RUNS = {"one-step": "mri_one_step", "autoencoder": "mri_autoencoder", "joint": "mri_joint"}
SAFETY = 0.97
"""Share of the time that the schedule counts on; the clock ends a run that turns out slower."""


def main() -> None:
    """Parse, time, train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=list(CONFIGS))
    parser.add_argument("--seconds", type=float, required=True, help="for everything, trial and validation included")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--validation", nargs="*", default=[])
    parser.add_argument("--validation-seconds", type=float, default=25, help="kept for the last one (%(default)s)")
    parser.add_argument("--warm", nargs="*", default=None, help="model folders to start from")
    parser.add_argument("--pace", type=float, metavar="STEPS", help="a second, in place of a trial")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], dest="overrides")
    options = parser.parse_args()
    began = time.monotonic()
    run = options.out / RUNS[options.stage]
    settings = _settings(options, run)
    if not options.resume:
        settings.append(f"steps={_steps(options, settings, began)}")
    left = options.seconds - (time.monotonic() - began)
    path = run / "config.yaml" if options.resume else CONFIGS[options.stage]
    run_training(path, settings, resume=options.resume, max_minutes=left / 60, report=say)


def _settings(options: argparse.Namespace, run: Path) -> list[str]:
    """What the command says, as overrides of the stage's config."""
    settings = [f"run_dir={run}", f"data.folders=[{','.join(options.data)}]", f"compile={options.compile}"]
    settings += [f"validation=[{','.join(options.validation)}]", "log_every=500"]
    if options.warm is not None:
        settings.append(f"warm_start=[{','.join(options.warm)}]")
    return [*settings, *options.overrides]


def _steps(options: argparse.Namespace, settings: list[str], began: float) -> int:
    """Steps that fit into what is left after a trial, if one is needed, and before the validation."""
    config = read_config(CONFIGS[options.stage], TrainConfig, settings)
    sources = [Source(s.files, s.weight, s.axes) for s in config.data.sources]
    pace = 1 / options.pace if options.pace else measure_pace(config, load(config.data.folders, sources))
    kept = options.validation_seconds if options.validation else 0
    left = options.seconds - (time.monotonic() - began) - kept
    say(f"{1 / pace:.1f} steps a second, {left:.0f} s left")
    return int(SAFETY * left / pace)


def say(line: str) -> None:
    """Print at once, also into a file."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
