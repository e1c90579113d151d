"""Calibrate a model: how far its values are from the truth, from held-out scans to `calibration.json` and a table.

    python pipelines/calibrate.py SCANS... --fit SCANS... --out OUT [--model NAME|DIR] [--test SCANS...]
    python pipelines/calibrate.py data/val data/train --files 'sub-ds002748*_T1w*' --fit data/train/sub-a_T1w.nii.gz \\
        --out calibrated --mode detail --samples 8 --model DIR

SCANS are fine volumes, as files or folders. Each is imaged through thick slices by every protocol, restored and
compared with itself: those of --fit give the scale, the others the factors of each subject (medld.calibration.conformal
says what is promised, and to whom). Scans that the networks of the mode learned from, by `model.json`, do not
calibrate; nor do subjects of --fit.

OUT gets coverage.csv, with every restoration by the factor that the other subjects give, and calibration.json, to be
put beside the weights; one that is there already for these weights keeps its other modes. Scans of --test, of other
sites or by other protocols, are judged in the same way and change nothing. What --keep has is not restored again. With
--jobs N as many processes share the scans, over the devices of --device in turn, and the result is the same. How
lesions are covered `medld evaluate --protocol through-plane-4x-lesions` says.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from calibration_bench import Settings, Workers, judge, sample

from medld.calibration import (
    LEVEL,
    LEVELS,
    CalibrationConfig,
    ModeConfig,
    Row,
    fit_scale,
    gather_bins,
    leave_one_out,
    read_calibration,
    write_calibration,
)
from medld.checkpoint import DEFAULT, Model, load_model
from medld.dataset import subject_of
from medld.evaluation import load_protocol
from medld.io import SUFFIXES, split_suffix

PROTOCOLS = (*(f"through-plane-{ratio}x" for ratio in (2, 3, 4, 5, 6, 8)), "isotropic-2x")
NOISY = tuple(f"through-plane-{ratio}x-noise2" for ratio in (2, 4, 6))
SAMPLING = ("texture", "bend", "spread")
REGIONS = ("foreground", "boundary")


def main(argv: Sequence[str] | None = None) -> None:
    """Restore, fit, calibrate, test, write."""
    options = parse_options(argv)
    model = load_model(options.model)
    fitting = find_files(options.fit, "*")
    realism, steps = model.networks.position(options.mode)
    weights = weights_of(model, alone=not realism and options.samples == 1)
    calibrating = held_out(find_files(options.scans, options.files), fitting, model.volumes(*parts_of(weights)))
    testing = find_files(options.test, options.files)
    protocols, tests, noisy = (
        [load_protocol(n) for n in names] for names in (options.protocol, options.test_protocol, options.fit_protocol)
    )
    print(f"{len(fitting)} scans for the scale, {len(calibrating)} to calibrate, {len(testing)} to test", flush=True)

    features: Sequence[Any] = options.features or (SAMPLING if options.samples > 1 else SAMPLING[:2])
    with Workers(settings_of(options), options.device, options.jobs) as workers:
        samples = workers.map(sample, list(product([*protocols, *noisy], fitting)), features)
        scale = fit_scale(list(samples), features)
        print(f"scale: {scale.model_dump_json()}", flush=True)
        scores = list(workers.map(judge, list(product(protocols, calibrating)), scale))
        others = list(workers.map(judge, list(product(tests or protocols, testing)), scale))

    mode = ModeConfig(
        weights=weights,
        realism=realism,
        steps=steps,
        samples=options.samples,
        scale=scale,
        bins=gather_bins(scores),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"calibration: {write_mode(options.out, model, mode, options)}")
    rows = [("held out", row) for row in leave_one_out(scores, scores, options.level)]
    rows += [("test", row) for row in leave_one_out(others, scores, options.level)]
    write_rows(options.out / "coverage.csv", rows)
    for line in tabulate(rows):
        print(line)


def settings_of(options: argparse.Namespace) -> Settings:
    """What every process needs to know; several share the processors unless --threads says otherwise."""
    shared = max(1, (os.cpu_count() or 1) // options.jobs) if options.jobs > 1 else None
    threads = options.threads or shared
    return Settings(options.model, options.mode, options.samples, options.crop, options.keep, threads)


def write_mode(out: Path, model: Model, mode: ModeConfig, options: argparse.Namespace) -> Path:
    """Write the calibration, with the other modes that one in `out` has for these weights."""
    before = read_calibration(out, model.sha256)
    modes = (mode,) if before is None else before.with_mode(mode).modes
    return write_calibration(
        out, CalibrationConfig(cohort=options.cohort, protocols=tuple(options.protocol), modes=modes)
    )


def weights_of(model: Model, *, alone: bool) -> dict[str, str]:
    """The weight files that have a part in a mode: where the one-step network answers `alone`, its own."""
    is_one_step = alone and model.networks.one_step is not None and model.networks.fidelity == "one-step"
    return {name: sha for name, sha in model.sha256.items() if not is_one_step or name == "one_step.safetensors"}


def parts_of(weights: Iterable[str]) -> list[str]:
    """The networks that weight files are of."""
    return [name.removesuffix(".safetensors") for name in weights]


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path, metavar="SCANS")
    parser.add_argument("--files", default="*", help="pattern on names in folders, those of --test included")
    parser.add_argument("--fit", nargs="+", type=Path, required=True, metavar="SCANS")
    parser.add_argument("--test", nargs="+", type=Path, default=[], metavar="SCANS", help="judged, without a say")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT, help="name or folder (%(default)s)")
    parser.add_argument("--mode", default="fidelity", choices=("fidelity", "balanced", "detail"))
    parser.add_argument("--samples", type=int, default=1, help="for a scale with the spread over so many samples")
    parser.add_argument("--features", nargs="+", choices=SAMPLING, help="of the scale, the first one carries its unit")
    parser.add_argument("--protocol", nargs="+", default=PROTOCOLS)
    parser.add_argument("--fit-protocol", nargs="*", default=NOISY, help="of --fit besides: what noise does")
    parser.add_argument("--test-protocol", nargs="+", default=(), help="of --test (those of --protocol)")
    parser.add_argument(
        "--level", type=float, default=LEVEL, choices=LEVELS, help="of the table; the file has them all"
    )
    parser.add_argument("--cohort", default="", help="whose scans these are, in a sentence")
    parser.add_argument("--crop", type=int, help="only the middle of each scan, voxels along each axis")
    parser.add_argument("--keep", type=Path, help="folder for restorations")
    parser.add_argument("--device", nargs="+", default=["auto"], help="one, or several for --jobs (auto)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--threads", type=int, help="of each process")
    return parser.parse_args(argv)


def find_files(places: Sequence[Path], pattern: str) -> list[Path]:
    """The image files among `places`, and those in folders whose names match."""
    found = []
    for place in places:
        inside = sorted(place.iterdir()) if place.is_dir() else []
        found += [path for path in inside if fnmatch.fnmatch(path.name, pattern)] if place.is_dir() else [place]
    return [path for path in found if path.name.lower().endswith(tuple(SUFFIXES))]


def held_out(paths: Sequence[Path], taken: Sequence[Path], learned: Sequence[str]) -> list[Path]:
    """Those whose subjects are not `taken` and which were not `learned` from."""
    subjects = {subject_of(path) for path in taken}
    free = [path for path in paths if subject_of(path) not in subjects]
    return [path for path in free if split_suffix(path)[0] not in learned]


def write_rows(path: Path, rows: Sequence[tuple[str, Row]]) -> None:
    """Every restoration as a line of a CSV file."""
    names = [f"{kind}_{region}" for kind in ("covered", "constant") for region in REGIONS]
    tenths = [f"{kind}_{n}" for kind in ("error", "tenth") for n in range(1, 11)]
    head = ["protocol", "scan", "contrast", "how", "subjects", "factor", "half_width", "constant_half_width"]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*head, "correlation", *names, *tenths])
        for how, row in rows:
            case = row.case
            own = [row.subjects, row.factor, row.half_width, row.constant_half_width, row.correlation]
            covered = [part.get(region, "") for part in (row.covered, row.constant) for region in REGIONS]
            table.writerow([case.protocol, case.name, case.contrast, how, *own, *covered, *row.errors, *row.tenths])


def tabulate(rows: Sequence[tuple[str, Row]]) -> Iterator[str]:
    """Means over subjects with their spread, as Markdown, in percent; half-widths in percent of the scan's unit."""
    yield "| protocol | scans | foreground | lowest | boundary | half-width | constant | its boundary | r |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for key in dict.fromkeys((row.case.protocol, how, row.case.contrast) for how, row in rows):
        part = [row for how, row in rows if (row.case.protocol, how, row.case.contrast) == key]
        inside = [row.covered["foreground"] for row in part]
        spread = f" ± {100 * stdev(inside):.1f}" if len(part) > 1 else ""
        cells = [
            key[0],
            f"{len(part)} {key[2]} ({key[1]})",
            f"{100 * mean(inside):.1f}{spread}",
            f"{100 * min(inside):.1f}",
            f"{100 * mean(row.covered['boundary'] for row in part):.1f}",
            f"{100 * mean(row.half_width for row in part):.2f}",
            f"{100 * mean(row.constant_half_width for row in part):.2f}",
            f"{100 * mean(row.constant['boundary'] for row in part):.1f}",
            f"{mean(row.correlation for row in part):.2f}",
        ]
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
