"""Train the brain MRI model, from data card to table: one-step network, autoencoder, flow, evaluation.

For a group with a GPU that wants the model of medld on its own data, or wants to know how ours came to be. The
scans of the card's splits are packed, the three stages run one after the other as their configs say, and the finished
model is compared with cubic interpolation and the baseline B on the card's validation scans, in both modes.

    python pipelines/brain_mri.py --card medld-mri-train --data ../shared/data --out runs/brain_mri
    python pipelines/brain_mri.py --card my_card.yaml --data my/scans --out runs/mine --set joint:steps=20000

OUT gets packs/, a run folder for each stage (its `model/` is what `--model` takes; that of mri_joint is the whole
model), fidelity/ and detail/ with the results. The same command again goes on where it was cut, exactly. On an H100
training_log.md has 25 steps a second of the one-step stage, 22 of the autoencoder and 13.5 of the joint stage, so
12,000, 2,500 and 8,000 of them would take 8, 2 and 10 minutes; pipelines/train_mri.py runs one stage
by the clock instead.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from train_mri import CONFIGS, RUNS

from medld.cards import Split, card_path, read_card
from medld.dataset import INDEX, card_scans, write_pack
from medld.evaluation import evaluate
from medld.io import split_suffix
from medld.training import run_training
from medld.training.state import has_state

ROOT = Path(__file__).parents[1]
PROTOCOLS = ("through-plane-2x", "through-plane-4x", "through-plane-6x", "isotropic-2x")
WARM = {"one-step": (), "autoencoder": (), "joint": ("autoencoder", "one-step")}
"""Whose weights a stage begins with."""


def main(argv: Sequence[str] | None = None) -> None:
    """Pack, train three stages, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, card="medld-mri-train", out="runs/brain_mri")
    options = parser.parse_args(argv)
    data = gather(options.card, options.data, options.out)
    runs = {stage: options.out / name for stage, name in RUNS.items()}
    for stage, run in runs.items():
        warm = [runs[other] / "model" for other in WARM[stage]]
        settings = [f"warm_start={as_yaml(warm)}", *_settings_of(stage, options.settings)]
        train(ROOT / CONFIGS[stage], run, data, options.device, settings)
    for mode in ("fidelity", "detail"):
        say(f"\nmode {mode}, scans of the split val:")
        compare(data, runs["joint"] / "model", options, mode)


def add_options(parser: argparse.ArgumentParser, *, card: str, out: str) -> None:
    """What every training from a card is told."""
    parser.add_argument("--card", default=card, help="name or YAML file (%(default)s)")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the card's files")
    parser.add_argument("--out", type=Path, default=Path(out), help="(%(default)s)")
    parser.add_argument("--protocol", nargs="+", default=PROTOCOLS, help="of the evaluation")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--set", dest="settings", metavar="[STAGE:]KEY=VALUE", action="append", default=[], help="as in medld train"
    )


@dataclass(frozen=True)
class Data:
    """A pack to learn from, the same to validate on, and a folder of the validation scans themselves."""

    train: Path
    validation: Path
    scans: Path


def gather(card: str, folder: Path, out: Path) -> Data:
    """Pack both splits of a card, unless they lie there already, and link the validation scans into one folder."""
    facts, packs = read_card(card), out / "packs"
    data = Data(packs / "train", packs / "val", packs / "scans")
    splits: dict[Split, Path] = {"train": data.train, "val": data.validation}
    for split, pack in splits.items():
        if not (pack / INDEX).exists():
            packed = write_pack(card_scans(facts, folder, split), pack, card=card_path(card).stem, split=split)
            say(f"{split}: {len(packed.names)} scans in {packed.size / 2**20:.1f} MiB")
    data.scans.mkdir(exist_ok=True)
    for scan in card_scans(facts, folder, "val"):
        link = data.scans / f"{scan.name}{split_suffix(scan.path)[1]}"
        if not link.exists():
            link.symlink_to(scan.path.resolve())
    return data


def train(config: Path, run: Path, data: Data, device: str, settings: Sequence[str]) -> None:
    """One stage, from where it was cut if it was; weights and axes of the scans are the card's."""
    say(f"\n{config.stem} -> {run}")
    own = [
        f"run_dir={as_yaml(run)}",
        f"data.folders={as_yaml([data.train])}",
        f"validation={as_yaml([data.validation])}",
    ]
    own += ["data.sources=[{files: '*'}]", f"device={device}"]
    run_training(config, [*own, *settings], resume=has_state(run), report=say)


def as_yaml(paths: Path | Sequence[Path]) -> str:
    """Paths quoted as a config takes them, whatever signs they hold."""
    return json.dumps(paths, default=str)


def compare(data: Data, model: Path, options: argparse.Namespace, mode: str) -> None:
    """The table of a mode, in a folder of its name."""
    evaluate(
        data.scans,
        options.protocol,
        options.out / mode,
        model=model,
        mode=mode,  # type: ignore[arg-type]  # one of the program's own
        device=options.device,
        overwrite=True,
        report=say,
    )


def _settings_of(stage: str, settings: Sequence[str]) -> list[str]:
    """Those for every stage and those for this one, in their order."""
    split = [
        (name, rest) if name in RUNS else ("", text) for text in settings for name, _, rest in [text.partition(":")]
    ]
    return [rest for name, rest in split if name in ("", stage)]


def say(line: str) -> None:
    """Print at once, also into a file."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
