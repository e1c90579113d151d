"""What per-scan adaptation adds to a model, and whether slices held out of a scan tell where it does.

    python pipelines/adapt_study.py MODEL_DIR PACK... --ratios 4 --steps 300 --out results/adapt \\
        [--variants learning_rate=1e-4 learning_rate=5e-5,slices=24 ...] [--only remind] [--crop 160]

For every volume of the packs (`medld.dataset.pack`, or a folder of NIfTI files), slices along its last axis, every
ratio and every variant (settings of `medld.adapt.AdaptConfig`, joined by commas): foreground dB of B, and what is
gained over it before, after (`chosen` by what was held out of the scan) and by each blend, chosen or not. Lines go to
OUT/adapt_study.csv as they come; the same command goes on with those that are missing. The contract at 4x, on sources
that the model never saw: `chosen` at least .3 dB over `before` on average, nowhere .05 below it, 60 s at most.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from csv_lines import CsvLines

from medld.adapt import Adapted, adapt, settings_for
from medld.adapt.judge import TESTS
from medld.checkpoint import load_model
from medld.dataset import Fine, load
from medld.geometry import choose_target
from medld.metrics import Reference
from medld.nn.networks import Networks
from medld.superres import Request, SuperResolver
from medld.training.validation import Trained, centre, imaged

CSV = "adapt_study.csv"
KEY = ("variant", "ratio", "volume")
BLENDS = (0.25, 0.5, 0.75, 1.0)
GAINS = tuple(f"blend_{blend:g}" for blend in BLENDS)
HELD_OUT = tuple(f"{test}_{blend}" for test in TESTS for blend in ("start", *(f"{blend:g}" for blend in BLENDS)))
FIELDS = (*KEY, "baseline", "before", "chosen", "blend", *GAINS, *HELD_OUT, "seconds", "reason")

Line = dict[str, str]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print a table of means."""
    options = parse(argv)
    results = CsvLines(options.out / CSV, FIELDS)
    networks = load_model(options.model).networks
    volumes = [centre(fine, options.crop) for fine in load(options.packs) if options.only in fine.name]
    for variant in options.variants:
        for ratio in options.ratios:
            for fine in volumes:
                key = (variant, f"{ratio:g}", fine.name)
                if any(tuple(line[name] for name in KEY) == key for line in results.lines):
                    continue
                line = dict(zip(KEY, key, strict=True)) | measure(networks, fine, ratio, variant, options)
                results.keep([*results.lines, line])
                say("  ".join(f"{name} {line[name]}" for name in FIELDS if line.get(name)))
    say(as_markdown(results.lines))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder with one_step.safetensors and model.json")
    parser.add_argument("packs", type=Path, nargs="+", help="folders of scans or packs")
    parser.add_argument("--ratios", type=float, nargs="+", default=[4.0], help="(4)")
    parser.add_argument("--steps", type=int, default=300, help="(%(default)s)")
    parser.add_argument("--variants", nargs="+", default=[""], metavar="KEY=VALUE,...", help="(the defaults)")
    parser.add_argument("--only", default="", help="part of a volume's name")
    parser.add_argument("--crop", type=int, help="voxels of the centre along each axis, in place of whole volumes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("results/adapt"), help="(%(default)s)")
    return parser.parse_args(argv)


def measure(networks: Networks, fine: Fine, ratio: float, variant: str, options: argparse.Namespace) -> Line:
    """Gains over B on one scan, before and after."""
    device = SuperResolver(device=options.device).device
    chosen = dict(setting.split("=", 1) for setting in variant.split(",") if setting)
    config = settings_for(device, **{"steps": options.steps, "blends": BLENDS, **chosen})
    truth, scan = imaged(fine, ratio)
    request = Request(choose_target(scan.grid, spacing=truth.grid.spacing), consistency="exact")
    reference = Reference(truth.array)

    def score(model: Networks | None) -> float:
        engine = SuperResolver(None if model is None else Trained(model), device=device)
        return reference.psnr(engine.restore(scan, request).volume.array)

    baseline, before = score(None), score(networks)
    began = time.monotonic()
    adapted = adapt(scan, request, networks, config, device=device)
    seconds = time.monotonic() - began
    blends = {blend: score(model) for blend, model in adapted.candidates.items()}
    after = blends[adapted.blend] if adapted.blend else before
    line = {"baseline": baseline, "before": before - baseline, "chosen": after - baseline, "blend": adapted.blend}
    line |= {f"blend_{blend:g}": value - baseline for blend, value in blends.items()}
    line |= dict(held_out(adapted)) | {"seconds": seconds}
    return {name: f"{value:.3f}" for name, value in line.items()} | {"reason": adapted.reason}


def held_out(adapted: Adapted) -> Iterator[tuple[str, float]]:
    """What was held out said: the start's gain over B, and each blend's over the start."""
    if adapted.held_out is not None:
        rows = {"start": adapted.held_out.start} | {f"{b:g}": row for b, row in adapted.held_out.blends.items()}
        yield from ((f"{test}_{who}", row[test]["gain_db"]) for test in TESTS for who, row in rows.items())


def as_markdown(lines: Sequence[Line]) -> str:
    """A row per variant and ratio: mean gains over B, what the choice adds at worst, and how well the tests tell."""
    head = ("variant", "ratio", "scans", "before", "chosen", "worst change", *GAINS, *TESTS, "seconds")
    table = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for variant, ratio in dict.fromkeys((line["variant"], line["ratio"]) for line in lines):
        own = [line for line in lines if (line["variant"], line["ratio"]) == (variant, ratio)]
        means = {name: _mean(own, name) for name in ("before", "chosen", *GAINS, "seconds")}
        worst = min(float(line["chosen"]) - float(line["before"]) for line in own)
        cells = [variant or "defaults", ratio, str(len(own)), means["before"], means["chosen"], f"{worst:+.2f}"]
        cells += [*(means[name] for name in GAINS), *(_correlation(own, test) for test in TESTS), means["seconds"]]
        table.append("| " + " | ".join(cells) + " |")
    return "\n".join(table)


def _mean(lines: Sequence[Line], name: str) -> str:
    values = [float(line[name]) for line in lines if line[name]]
    return f"{np.mean(values):+.2f}" if values else ""


def _correlation(lines: Sequence[Line], test: str) -> str:
    """Of what blends add to the scan with what they add on what was held out of it, over scans and blends."""
    pairs = [
        (float(line[f"blend_{blend:g}"]) - float(line["before"]), float(line[f"{test}_{blend:g}"]))
        for line in lines
        for blend in BLENDS
        if line[f"blend_{blend:g}"] and line[f"{test}_{blend:g}"]
    ]
    varied = len(pairs) > 2 and np.ptp(pairs, axis=0).min() > 0
    return f"{np.corrcoef(np.array(pairs).T)[0, 1]:.2f}" if varied else ""


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
