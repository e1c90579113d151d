"""Train a CT model, from data card to table: the one-step form on Hounsfield units, then its evaluation.

For whoever has fine CT and wants a model of it; medld ships none yet. With the shipped card, which lists four training
scans and one for validation, this shows that the way through the program is right and no more: write a card for
your own scans (data_cards/README.md).

    python pipelines/torso_ct.py --data ../shared/data --out runs/torso_ct
    python pipelines/torso_ct.py --card my_card.yaml --data my/ct --out runs/mine --set steps=20000

OUT gets packs/, the run folder ct_one_step/ (its `model/` is what `--model` takes) and fidelity/ with the results. The
same command again goes on where it was cut. How long it takes on a GPU was not measured; the network and the size of
its crops are those of the MRI model (pipelines/brain_mri.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from brain_mri import ROOT, add_options, compare, gather, say, train

CONFIG = ROOT / "configs/superres/ct_one_step.yaml"


def main(argv: Sequence[str] | None = None) -> None:
    """Pack, train, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, card="medld-ct-train", out="runs/torso_ct")
    options = parser.parse_args(argv)
    data = gather(options.card, options.data, options.out)
    run = options.out / CONFIG.stem
    train(CONFIG, run, data, options.device, options.settings)
    say("\nscans of the split val:")
    compare(data, run / "model", options, "fidelity")


if __name__ == "__main__":
    main()
