"""Choose what `balanced` and `detail` mean: what each position of the realism slider costs and what it brings.

    python pipelines/presets.py MODEL_FOLDER PACK... [--ratios 4 6] [--realism .3 .5 .7 .9] [--steps 8]

For every volume of the packs (`medld.dataset.pack`, or a folder of NIfTI files), slices along its last axis: foreground
dB of `fidelity`, its share of the truth's power above the scan's Nyquist frequency, and for each position dB lost and
the part of the missing share that it closes. `detail` closes at least .4 for at most 2 dB with a share below 1,
`balanced` costs at most .7 dB; a perfect sampler that closes c loses 10 log10(1 + c).

With --samples N also whether samples differ where the truth is uncertain and agree where it is not: the foreground in
five parts of one size, from the voxels on which N samples agree most to those on which they differ most, and in each
part the samples' deviation and the error of `fidelity`, root mean squares in percent of the truth's range.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medld.checkpoint import load_model
from medld.dataset import Fine, load
from medld.geometry import choose_target
from medld.metrics import Reference, detail_closed, find_foreground
from medld.superres import Request, SuperResolver
from medld.training.validation import imaged

PARTS = 5


def main() -> None:
    """One line per volume, ratio and position, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("packs", type=Path, nargs="+")
    parser.add_argument("--ratios", type=float, nargs="+", default=[4.0, 6.0])
    parser.add_argument("--realism", type=float, nargs="+", default=[0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--steps", type=int, nargs="+", default=[8])
    parser.add_argument("--samples", type=int, default=0, help="draw so many, and say where they differ")
    parser.add_argument("--only", default="", help="part of a volume's name")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    resolver = SuperResolver(load_model(options.model), device=options.device)
    volumes = [volume for volume in load(options.packs) if options.only in volume.name]
    positions = [(realism, steps) for steps in options.steps for realism in options.realism]
    for ratio in options.ratios:
        tables = [measure(resolver, volume, ratio, positions) for volume in volumes]
        for position, *rows in zip(positions, *tables, strict=True):
            lost, closed, share = np.mean(rows, axis=0)
            print(f"{ratio:.1f}x  mean  realism {position[0]:.2f}  steps {position[1]}", end="  ")
            print(f"lost {lost:.2f} dB  closed {closed:.2f}  share {share:.2f}", flush=True)
        if options.samples > 1:
            fifths = np.mean([measure_spread(resolver, volume, ratio, options.samples) for volume in volumes], axis=0)
            for name, values in zip(("deviation", "error"), fifths, strict=True):
                print(f"{ratio:.1f}x  mean  {name:<9} in fifths  {'  '.join(f'{v:.2f} %' for v in values)}", flush=True)


def measure(resolver: SuperResolver, fine: Fine, ratio: float, positions: list[tuple[float, int]]) -> list[list[float]]:
    """dB lost, part closed and share of each position."""
    truth, scan = imaged(fine, ratio)
    reference = Reference(truth.array)
    request = Request(choose_target(scan.grid, spacing=truth.grid.spacing), consistency="exact", realism=0.0, steps=1)

    def figures(realism: float, steps: int) -> tuple[float, float]:
        array = resolver.restore(scan, replace(request, realism=realism, steps=steps)).volume.array
        return reference.psnr(array), reference.detail_share(array, ratio)

    best, known = figures(0.0, 1)
    print(f"{ratio:.1f}x  {fine.name}  fidelity {best:.2f} dB  share {known:.2f}", flush=True)
    rows = []
    for realism, steps in positions:
        score, share = figures(realism, steps)
        rows.append([best - score, detail_closed(share, known), share])
        print(f"    realism {realism:.2f}  steps {steps}  lost {rows[-1][0]:.2f}  closed {rows[-1][1]:.2f}", flush=True)
    return rows


def measure_spread(resolver: SuperResolver, fine: Fine, ratio: float, samples: int) -> NDArray[np.float64]:
    """Deviation of samples and error of `fidelity` (2, PARTS), percent of the range, by how much samples differ."""
    truth, scan = imaged(fine, ratio)
    request = Request(choose_target(scan.grid, spacing=truth.grid.spacing), consistency="exact", samples=samples)
    restoration = resolver.restore(scan, request)
    assert restoration.spread is not None, "more than one sample was asked for"
    inside = find_foreground(truth.array)
    spread = restoration.spread.array[inside]
    error = (restoration.volume.array - truth.array)[inside]
    parts = np.array_split(np.argsort(spread, kind="stable"), PARTS)
    rms = [
        [np.sqrt(np.mean(np.square(values[part], dtype=np.float64))) for part in parts] for values in (spread, error)
    ]
    return np.array(rms) * 100 / float(np.ptp(truth.array))


if __name__ == "__main__":
    main()
