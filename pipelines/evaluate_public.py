"""Evaluate a model on a folder of fine scans by every shipped protocol: one table, ready to publish.

For whoever wants to know how a model does on a public data set (IXI, HCP, OASIS, ...) before using it on scans like
those. Each scan is imaged through thick slices, restored by the methods without a network (cubic interpolation and the
baseline B among them) and by the model, and compared with itself.

    python pipelines/evaluate_public.py FOLDER --out results [--model NAME|DIR] [--mode detail] [--limit 10]
    python pipelines/evaluate_public.py ixi --data IXI/ --out results

FOLDER is searched for NIfTI, NRRD and MetaImage files, flat or as BIDS; a data card's name or file takes the scans of
its split val. OUT gets `table.md` beside the files of `medld evaluate`, which hold all methods with their intervals. A
run that was cut goes on with the same command. To restore a volume of 7 million voxels takes 18 s at 4x and 62 s at 2x
isotropic on two CPU cores with AVX512-BF16 (pipelines/benchmark.py); the methods without a network and the scores come
on top.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from medld.checkpoint import DEFAULT, list_models, load_model
from medld.evaluation import Summary, evaluate, list_protocols
from medld.evaluation.methods import NO_MODEL
from medld.evaluation.sources import find_source
from medld.io import split_suffix

HEAD = ("protocol", "contrast", "scans", "cubic, dB / SSIM", "B", "medld", "gain over B, mean (lowest), dB")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, evaluate, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FOLDER|CARD")
    parser.add_argument("--data", type=Path, help="folder with the card's files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT, help="name, folder, or baseline (%(default)s)")
    parser.add_argument("--mode", default="fidelity", choices=("fidelity", "balanced", "detail"))
    parser.add_argument("--protocol", nargs="+", default=list_protocols(), help="default: all that ship")
    parser.add_argument("--limit", type=int, help="only the first subjects")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(argv)
    known = scans_of_training(options.source, options.data, options.model)
    if known:
        print(f"scans with names that the model was trained on ({len(known)}): {', '.join(known)}", flush=True)
    summaries = evaluate(
        options.source,
        options.protocol,
        options.out,
        data=options.data,
        model=options.model,
        mode=options.mode,
        limit=options.limit,
        device=options.device,
        overwrite=options.overwrite,
        report=lambda line: print(line, flush=True),
    )
    table = options.out / "table.md"
    table.write_text("\n".join(tabulate(summaries)) + "\n", encoding="utf-8")
    print(f"table: {table}")


def scans_of_training(source: str, data: Path | None, model: str) -> list[str]:
    """Scans of a folder or card whose names stand in `model.json`: on these a model looks better than it is."""
    if model == NO_MODEL or (model == DEFAULT and DEFAULT not in list_models()):
        return []
    learned = set(load_model(model).card.get("training", {}).get("volumes", ()))
    paths = [scan.path for scan in find_source(source, data).scans]
    return [path.name for path in paths if split_suffix(path)[0] in learned]


def tabulate(summaries: Sequence[Summary]) -> list[str]:
    """One line a protocol and contrast, as Markdown; what was not run is left empty."""
    cells = {(s.protocol, s.group, s.method): s for s in summaries}
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    for protocol, group in dict.fromkeys((s.protocol, s.group) for s in summaries):
        methods = [cells.get((protocol, group, method)) for method in ("cubic", "B", "medld")]
        scores = ["" if s is None else f"{s.psnr:.2f} / {s.ssim:.4f}" for s in methods]
        ours = methods[-1]
        gain = "" if ours is None else f"{ours.gain:+.2f} ({ours.lowest_gain:+.2f})"
        count = next(s.scans for s in methods if s is not None)
        lines.append(_line([protocol, group, str(count), *scores, gain]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
