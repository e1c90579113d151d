"""How much of what is wrong with a restoration is noise of the truth, which nothing can restore.

    python pipelines/noise_floor.py FOLDER RESULTS [--method medld]

For every scan of FOLDER that RESULTS/subjects.csv (`medld evaluate`) or RESULTS itself (a file of `leave_one_out.py`)
has lines of: the deviation of the truth's noise in percent of its range; the foreground PSNR that was reached; that of
an answer which is right but for the noise at frequencies that the scan did not measure; and the part that this noise
has in the squared error that is left.

The noise is read across the last axis from the quietest tenth of the windows inside the head
(`medld.intensity.estimate_noise`), texture not subtracted, and taken to be white: a truth that was interpolated or
filtered shows less than it has, and one whose noise differs from place to place has more elsewhere.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from medld.evaluation.protocol import load_protocol
from medld.intensity import estimate_noise, intensity_map
from medld.io import read_volume
from medld.metrics import Reference
from medld.volume import Volume

HEAD = "| protocol | scan | noise, % | reached, dB | but for noise, dB | part of the error |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Reached:
    """What was reached on a scan whose slices measured the part `kept` of the truth's frequencies."""

    protocol: str
    scan: str
    kept: float
    psnr: float

    def as_row(self, noise: float) -> str:
        """A line of the table; `noise` as a part of the truth's range."""
        left = noise**2 * (1 - self.kept)
        part = left / 10 ** (-self.psnr / 10)
        limit = -10 * math.log10(left) if left > 0 else math.inf
        return f"| {self.protocol} | {self.scan} | {100 * noise:.2f} | {self.psnr:.2f} | {limit:.2f} | {part:.3f} |"


def main(argv: Sequence[str] | None = None) -> None:
    """A line for each scan and protocol."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the truths, NIfTI files")
    parser.add_argument("results", type=Path, help="folder of medld evaluate, or a file of leave_one_out.py")
    parser.add_argument("--method", default="medld", help="of subjects.csv (%(default)s)")
    options = parser.parse_args(argv)
    by_scan: dict[str, list[Reached]] = defaultdict(list)
    for one in read(options.results, options.method):
        by_scan[one.scan].append(one)
    print(HEAD)
    for path in sorted(options.folder.glob("*.nii*")):
        if rows := by_scan.get(path.name.split(".")[0]):
            noise = noise_of(read_volume(path)[0])
            print("\n".join(one.as_row(noise) for one in rows), flush=True)


def read(results: Path, method: str) -> Iterator[Reached]:
    """What either kind of file says."""
    whole = results.is_dir()
    with (results / "subjects.csv" if whole else results).open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if not whole:
                psnr = float(row["baseline"]) + float(row["gain"])
                yield Reached(f"{float(row['ratio']):g}x", row["volume"], 1 / float(row["ratio"]), psnr)
            elif row["method"] == method and row["psnr"]:
                axes = len(load_protocol(row["protocol"]).coarse_axes)
                kept = float(row["ratio"]) ** -axes
                yield Reached(row["protocol"], row["file"].split(".")[0], kept, float(row["psnr"]))


def noise_of(truth: Volume) -> float:
    """Deviation of a truth's noise as a part of its range."""
    units = intensity_map(truth.array, truth.modality)
    scan = torch.from_numpy(units.forward(truth.array))[None, None]
    return estimate_noise(scan, texture=0.0).item() * units.scale / Reference(truth.array).data_range


if __name__ == "__main__":
    main()
