"""The scope check: what it says of scans like those of the training, and of others.

    python pipelines/scope_study.py DATA --gather      ranges of the training scans: medld/weights/mri/scope.json
    python pipelines/scope_study.py DATA               one table

Columns: `outside`, how many numbers of the scan lie outside of the training scans' ranges (W_SCOPE if any); `held
out`, dB that the model gains over B on slices held out of the scan (W_HELD_OUT below 0); `true`, what it gains where
the truth is known, on the middle 64 x 64 pixels; `s`, processor seconds of the check; then the first thing found.

Inside: scans of val/ at 2, 4 and 6x, with noise and at 2x isotropic, the thick scans and the DICOM heads. Outside: CT
said to be MR, DICOM of other things, textures, and one head of val/ at 4x, done something to.

The margins of `symmetry` and `pixel_step` in `medld.scope.domain` were set after a first run of this table, which
reported two heads instead of one, and not the head that was smoothed by 4 mm. Coarse isotropic scans joined the ranges
after heads of 2 mm voxels had been reported.
"""

from __future__ import annotations

import argparse
import csv
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from medld.batch.scope import check_scope
from medld.batch.search import find_inputs
from medld.batch.settings import EnhanceSettings
from medld.checkpoint import SHIPPED, Model, load_model
from medld.errors import MedldError
from medld.evaluation import simulate
from medld.evaluation.protocol import ProtocolConfig
from medld.geometry import Grid, choose_target
from medld.io import read_volume
from medld.metrics import Reference
from medld.scope import DOMAIN, Domain, take_fingerprint
from medld.superres import Request, SuperResolver
from medld.volume import Volume

IMAGED = ((0, 4), (1, 4), (2, 2), (2, 4), (2, 7))
"""Axes and ratios of the thick slices that ranges are gathered from."""

ISOTROPIC = 2.0

MOST_OF_ONE_SOURCE = 4
SIDE = 64
MEMORY_GIB = 16.0
VAL = ("sub-ds002748s02_T1w", "sub-ds002748s13_T1w", "sub-ds002748s60_T1w", "sub-openmscs26_FLAIR")
HARDER = ((4, 0.0), (2, 0.0), (6, 0.0), (4, 0.02))
"""Ratios and noise of the first and the last scan; the others get the first of them."""

CT = ("sub-ccth01_CT", "sub-ctphantom01_acq-1mm_CT", "sub-lungfcp0001_CT", "sub-totalseg01_CT")


@dataclass(frozen=True)
class Case:
    """A scan, and its truth where that is known."""

    inside: bool
    name: str
    scan: Volume
    truth: Volume | None = None


def main() -> None:
    """The ranges, or the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--gather", action="store_true")
    options = parser.parse_args()
    model = load_model("mri")
    if options.gather:
        domain = Domain.of(fingerprints(options.data / "train", model))
        (SHIPPED / "mri" / DOMAIN).write_text(domain.as_json(), encoding="utf-8")
        return
    resolver = SuperResolver(model)
    print(f"{'':<9}{'scan':<44}{'outside':>8}{'held out':>10}{'true':>8}{'s':>6}  found")
    counts: dict[bool, list[tuple[bool, bool]]] = {True: [], False: []}
    for case in every_case(options.data):
        counts[case.inside].append(tabulate(case, model, resolver))
    for inside, found in counts.items():
        scope, held = (sum(flags) for flags in zip(*found, strict=True))
        group = "inside" if inside else "outside"
        print(f"# {group}: {len(found)} scans, W_SCOPE on {scope}, W_HELD_OUT on {held}")


def fingerprints(folder: Path, model: Model) -> Iterator[dict[str, float]]:
    """Of the scans that the model learned from, as they are, as thick slices and with coarse voxels."""
    taken: dict[str, int] = {}
    for name in model.volumes():
        source = name[4:12]
        taken[source] = taken.get(source, 0) + 1
        if taken[source] > MOST_OF_ONE_SOURCE:
            continue
        volume, _ = read_volume(folder / f"{name}.nii.gz")
        yield take_fingerprint(volume)
        for axis, ratio in IMAGED:
            yield take_fingerprint(thick(volume, ratio, axis)[1])
        yield take_fingerprint(coarse(volume, ISOTROPIC))


def thick(volume: Volume, ratio: float, axis: int = 2, noise: float = 0.0) -> tuple[Volume, Volume]:
    """Truth and scan of thick slices."""
    wanted = {"name": "study", "axes": "through-plane", "axis": axis, "ratio": ratio, "noise": noise}
    return simulate(volume, ProtocolConfig.model_validate(wanted), "study")


def coarse(volume: Volume, ratio: float) -> Volume:
    """The scan of coarse isotropic voxels."""
    wanted = {"name": "study", "axes": "isotropic", "ratio": ratio}
    return simulate(volume, ProtocolConfig.model_validate(wanted), "study")[1]


def every_case(data: Path) -> Iterator[Case]:
    """All scans of the table."""
    for name in VAL:
        volume, _ = read_volume(data / "val" / f"{name}.nii.gz")
        for ratio, noise in HARDER if name in (VAL[0], VAL[-1]) else HARDER[:1]:
            truth, scan = thick(volume, ratio, noise=noise)
            yield Case(True, f"{name} {ratio}x" + (f" noise {noise:g}" if noise else ""), scan, truth)
        if name in (VAL[0], VAL[-1]):
            yield Case(True, f"{name} isotropic 2x", coarse(volume, ISOTROPIC))
    for path in sorted((data / "thick").glob("*w.nii.gz")) + sorted((data / "thick").glob("*FLAIR.nii.gz")):
        yield Case(True, path.name[:-7], read_volume(path)[0])
    yield from dicom_cases(data / "dicom")
    for name in CT:
        volume, _ = read_volume(data / "train" / f"{name}.nii.gz")
        truth, scan = thick(replace(volume, modality="mr", array=volume.array + 1024.0), 3)
        yield Case(False, f"{name} as MR 3x", scan, truth)
    volume, _ = read_volume(data / "val" / f"{VAL[0]}.nii.gz")
    yield from made_cases(volume)


def dicom_cases(folder: Path) -> Iterator[Case]:
    """Volumes of MR heads (inside) and of other things in MR (outside), eight slices or more."""
    with (folder / "index.csv").open(encoding="utf-8") as file:
        rows = {r["case"]: r for r in csv.DictReader(file) if r["outcome"] == "volume" and r["modality"] == "MR"}
    for name, row in rows.items():
        what = row["body_part"]
        if not what or min(int(n) for n in row["shape"].split("x")) < 8:
            continue
        with tempfile.TemporaryDirectory() as where:
            with tarfile.open(folder / f"{name}.tar.xz") as tar:
                tar.extractall(where, filter="data")
            for item in find_inputs([Path(where) / name], EnhanceSettings()).inputs:
                try:
                    volume, _ = item.load(force=False)
                except MedldError as error:
                    print(f"# {name}: {error.code}")
                    continue
                yield Case("head" in what, f"{name} ({what})", volume)


def made_cases(volume: Volume) -> Iterator[Case]:
    """A head at 4x with something done to it, and things that are no head on its grid."""
    array = volume.array.astype(np.float32)
    rng = np.random.default_rng(0)
    rotated = ndimage.rotate(array, 30, (1, 2), reshape=False, order=1)
    alike = np.stack([fractal(rng, array.shape[:2]) for _ in range(array.shape[2])], axis=2)
    made: dict[str, Callable[[], np.ndarray]] = {
        "inverted contrast": lambda: array.max() - array,
        "inverted inside the head": lambda: np.where(array > 0, array.max() - array, 0),
        "smoothed, 2 mm FWHM": lambda: ndimage.gaussian_filter(array, 2 / 2.355),
        "smoothed, 4 mm FWHM": lambda: ndimage.gaussian_filter(array, 4 / 2.355),
        "rotated by 30 degrees": lambda: rotated,
        "white noise": lambda: np.abs(rng.standard_normal(array.shape)),
        "texture 1/f in 3D": lambda: fractal(rng, array.shape),
        "textures, one a slice": lambda: alike,
        "checkerboard of 6 voxels": lambda: (np.indices(array.shape) // 6).sum(0) % 2 * 200.0 + 20,
    }
    for name, make in made.items():
        truth, scan = thick(replace(volume, array=make().astype(np.float32)), 4)
        yield Case(False, name + ", 4x", scan, truth)
    truth, scan = thick(volume, 4)
    affine = scan.grid.affine @ np.diag([*(np.array(scan.grid.spacing)[[2, 0, 1]] / scan.grid.spacing), 1.0])
    yield Case(False, "spacings of the wrong axes", replace(scan, grid=Grid(scan.grid.shape, affine)))
    yield Case(
        False, "slices in a random order", replace(scan, array=scan.array[:, :, rng.permutation(scan.grid.shape[2])])
    )


def fractal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random texture with the 1/f amplitude of photographs, 1 to 255."""
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")))
    power = -len(shape) / 2
    with np.errstate(divide="ignore"):
        amplitude = np.where(frequency > 0, frequency**power, 0)
    field = np.fft.ifftn(np.fft.fftn(rng.standard_normal(shape)) * amplitude).real
    return np.asarray(1 + 254 * (field - field.min()) / np.ptp(field))


def tabulate(case: Case, model: Model, resolver: SuperResolver) -> tuple[bool, bool]:
    """One line; whether either warning was given."""
    scan = replace(case.scan, modality="mr")
    try:
        request = Request(choose_target(scan.grid), memory_gib=MEMORY_GIB)
    except MedldError:
        request = Request(choose_target(scan.grid, factor=2), memory_gib=MEMORY_GIB)
    start = time.process_time()
    scope = check_scope(scan, request, model, resolver)
    seconds = time.process_time() - start
    held = scope.record["held_out"]
    gain = "" if held is None else f"{held['gain_db']:+.2f}"
    true = "" if case.truth is None else f"{true_gain(case.truth, scan, resolver):+.2f}"
    found = scope.record["outside"]
    group = "inside" if case.inside else "outside"
    print(
        f"{group:<9}{case.name[:43]:<44}{len(found):>8}{gain:>10}{true:>8}{seconds:>6.1f}  {''.join(found[:1])}",
        flush=True,
    )
    return bool(found), scope.fallback


def true_gain(truth: Volume, scan: Volume, resolver: SuperResolver) -> float:
    """dB over B on the middle pixels."""
    fine, coarse = (volume.middle((SIDE, SIDE, volume.grid.shape[2])) for volume in (truth, scan))
    request = Request(choose_target(coarse.grid, spacing=fine.grid.spacing), memory_gib=MEMORY_GIB)
    reference = Reference(fine.array)
    with_model, without = (
        reference.psnr(engine.restore(coarse, request).volume.array) for engine in (resolver, SuperResolver())
    )
    return with_model - without


if __name__ == "__main__":
    main()
