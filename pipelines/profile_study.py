"""The slice profile told from the voxels: how often it is right, and what a wrong one costs.

    python pipelines/profile_study.py DATA [--only accuracy|sources|cost]      the tables
    python pipelines/profile_study.py DATA --tune                              writes medld/superres/profile.json

Scans of DATA/val are imaged with every shape, thickness (in slice spacings), ratio and noise below, and
`estimate_profile` says what it sees. `accuracy`: on val/, with what was gathered from train/. `sources`: on train/,
noise-free, each source judged by what the others say: heads of other sites. `cost`: foreground dB of mode fidelity on
crops of 72 x 72 pixels at 4x, with the right profile, with the default (Gaussian, thickness = spacing) and with
estimated ones.

Statistics (`--tune`): for each ratio the mean over sources of the mean spectrum difference of the true candidate, by
anatomical axis, and the covariance about it, a tenth of its diagonal added.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medld.acquisition import Profile
from medld.checkpoint import load_model
from medld.evaluation import simulate
from medld.evaluation.protocol import ProtocolConfig
from medld.geometry import choose_target
from medld.io import read_volume
from medld.metrics import Reference
from medld.superres import Request, SuperResolver
from medld.superres.profile import CANDIDATES, HEADS, Heads, contrast_spectra, decide, load_heads
from medld.volume import Volume

RATIOS = (2, 4, 6)
SHAPES: tuple[Profile, ...] = ("gaussian", "box", "slr")
THICKNESSES = (0.6, 0.8, 1.0, 1.25, 1.6, 2.0)
NOISES = (0.0, 0.02)
TRAIN = (
    *(f"sub-ds002748s{number}_T1w" for number in ("01", "22", "36")),
    *("sub-studyforrest02_T1w", "sub-remind022_T2w", "sub-remind022_ce-gad_T1w", "sub-seg3d01_T1w"),
    *("sub-niimath01_T1w", "sub-lindner01_ce-gad_T1w", "sub-cstar01_FLAIR", "sub-openmscs07_FLAIR"),
)
"""Scans that are fine along all axes; the sources' interpolated ones would teach their interpolation."""
VAL = (*(f"sub-ds002748s{number}_T1w" for number in ("02", "13", "54")), "sub-openmscs26_FLAIR")
COST, COST_THICKNESSES = (VAL[0], VAL[3]), (0.6, 0.8, 1.0, 1.25, 1.6, 2.0)
LARGEST = 200
SIDE = 72
DIAGONAL = 0.1


@dataclass(frozen=True)
class Case:
    """One simulated scan: what it is, and what `contrast_spectra` sees of it."""

    source: str
    world_axis: int
    ratio: int
    shape: Profile
    thickness: float
    noise: float
    difference: np.ndarray

    @property
    def true_candidate(self) -> int:
        """The candidate nearest to the truth."""
        same = [abs(np.log(t / self.thickness)) if s == self.shape else np.inf for s, t in CANDIDATES]
        return int(np.argmin(same))


def main() -> None:
    """The tables, or the statistics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--only", choices=("accuracy", "sources", "cost"))
    options = parser.parse_args()
    if options.tune:
        write_heads(list(survey(options.data / "train", TRAIN)))
        return
    if options.only in (None, "accuracy"):
        tabulate("val", [(case, load_heads()) for case in survey(options.data / "val", VAL)])
    if options.only in (None, "sources"):
        cases = list(survey(options.data / "train", TRAIN, NOISES[:1]))
        fits = {s: gather([c for c in cases if c.source != s]) for s in {c.source for c in cases}}
        tabulate("train, other sources", [(case, fits[case.source]) for case in cases])
    if options.only in (None, "cost"):
        tabulate_cost(options.data / "val")


def read(path: Path) -> Volume:
    """A scan, its middle if it is very large."""
    volume = read_volume(path)[0].middle((LARGEST,) * 3)
    return volume.with_array(volume.array.astype(np.float32))


def survey(folder: Path, names: Sequence[str], noises: Sequence[float] = NOISES) -> Iterator[Case]:
    """Every case of the named scans: all along the last axis, a third of them along the others."""
    for name in names:
        volume = read(folder / f"{name}.nii.gz")
        source = "ds002748" if "ds002748" in name else name.split("_")[0]
        for axis, ratio, noise in ((a, r, n) for a in range(3) for r in RATIOS for n in noises):
            for number, (shape, thickness) in enumerate((s, t) for s in SHAPES for t in THICKNESSES):
                if axis != 2 and (number // len(THICKNESSES) + number + axis) % 3:
                    continue
                scan = imaged(volume, axis, ratio, shape, thickness, noise, f"{name}{number}")
                difference = contrast_spectra(scan, axis)
                world = volume.grid.world_axes[axis]
                yield Case(source, world, ratio, shape, thickness, noise, difference.astype(np.float32))
        print(f"# {name}", flush=True)


def imaged(
    volume: Volume, axis: int, ratio: float, shape: Profile, thickness: float, noise: float, key: str = ""
) -> Volume:
    """`volume` as a scan of thick slices."""
    return simulate(volume, protocol_of(axis, ratio, shape, thickness, noise), key)[1]


def protocol_of(axis: int, ratio: float, shape: Profile, thickness: float, noise: float) -> ProtocolConfig:
    """Through-plane along an array axis."""
    return ProtocolConfig.model_validate(
        {
            "name": "study",
            "axes": "through-plane",
            "axis": axis,
            "ratio": ratio,
            "profile": shape,
            "thickness": thickness,
            "noise": noise,
        }
    )


def gather(cases: Sequence[Case]) -> tuple[Heads, ...]:
    """m and S^-1 of the cases, one a ratio, every source weighing the same."""
    return tuple(_gather_ratio(ratio, [c for c in cases if c.ratio == ratio]) for ratio in RATIOS)


def _gather_ratio(ratio: float, cases: Sequence[Case]) -> Heads:
    groups: dict[tuple[int, str], list[np.ndarray]] = defaultdict(list)
    for case in cases:
        groups[case.world_axis, case.source].append(case.difference[case.true_candidate].astype(np.float64))
    mean = np.array([np.mean([np.mean(v, axis=0) for (w, _), v in groups.items() if w == a], axis=0) for a in range(3)])
    about = [np.mean([np.outer(d - mean[w], d - mean[w]) for d in v], axis=0) for (w, _), v in groups.items()]
    covariance = np.mean(about, axis=0)
    covariance += np.diag(DIAGONAL * np.diag(covariance) + 0.003)
    return Heads(ratio, mean, np.linalg.inv(covariance))


def write_heads(cases: Sequence[Case]) -> None:
    """Ship what was gathered."""
    heads = [
        {"ratio": h.ratio, "mean": h.mean.round(3).tolist(), "precision": h.precision.round(3).tolist()}
        for h in gather(cases)
    ]
    HEADS.write_text(json.dumps({"scans": list(TRAIN), "heads": heads}) + "\n", encoding="utf-8")


def tabulate(title: str, judged: Iterable[tuple[Case, tuple[Heads, ...]]]) -> None:
    """How often the shape is right, and how far the thickness is off, by ratio and noise, shape, thickness."""
    rows = [(case, decide(case.difference, case.ratio, case.world_axis, heads)) for case, heads in judged]
    print(
        f"\n{title:<24}{'n':>6}{'shape right':>13}{'thickness off, median':>23}{'90 %':>7}"
        f"{'spacing off':>13}{'90 %':>7}"
    )
    groups = {
        f"{r}x, noise {n:g}": [x for x in rows if x[0].ratio == r and x[0].noise == n] for r in RATIOS for n in NOISES
    }
    groups |= {s: [x for x in rows if x[0].shape == s] for s in SHAPES}
    groups |= {f"thickness {t:g}": [x for x in rows if x[0].thickness == t] for t in THICKNESSES}
    groups |= {s: [x for x in rows if x[0].source == s] for s in sorted({x[0].source for x in rows})}
    for label, group in (groups | {"all": rows}).items():
        if not group:
            continue
        off = np.array([np.exp(abs(np.log(e.thickness / c.thickness))) - 1 for c, e in group])
        default = np.array([np.exp(abs(np.log(c.thickness))) - 1 for c, _ in group])
        right = np.mean([e.profile == c.shape for c, e in group])
        figures = [100 * np.quantile(values, q) for values in (off, default) for q in (0.5, 0.9)]
        print(
            f"{label:<24}{len(group):>6}{100 * right:>11.0f} %{figures[0]:>21.0f} %{figures[1]:>5.0f} %"
            f"{figures[2]:>11.0f} %{figures[3]:>5.0f} %"
        )


def tabulate_cost(folder: Path) -> None:
    """Foreground PSNR with the right profile, and what other answers lose against it."""
    resolver = SuperResolver(load_model("mri"))
    losses: dict[str, list[list[float]]] = defaultdict(list)
    for name in COST:
        volume = read(folder / f"{name}.nii.gz")
        for shape, thickness in ((s, t) for s in SHAPES for t in COST_THICKNESSES):
            figures = cost_of(resolver, volume, shape, thickness)
            for label in (shape, f"thickness {thickness:g}", f"{shape} {thickness:g}", "all"):
                losses[label].append(figures)
        print(f"# {name}", flush=True)
    print(
        f"\n{'4x, noise 0':<24}{'right, dB over B':>18}{'default':>10}{'estimated':>11}"
        f"{'as Gaussian':>13}{'thickness told':>16}   dB against right"
    )
    for label, rows in losses.items():
        mean = np.mean(rows, axis=0)
        print(f"{label:<24}{mean[0]:>+18.2f}{mean[1]:>+10.2f}{mean[2]:>+11.2f}{mean[3]:>+13.2f}{mean[4]:>+16.2f}")


def cost_of(resolver: SuperResolver, volume: Volume, shape: Profile, thickness: float) -> list[float]:
    """Gain over B with the right profile; then dB of other answers against that.

    These are the default, the estimate, the best estimate that is a Gaussian, and the shape estimated for the true
    thickness.
    """
    truth, scan = simulate(volume, protocol_of(2, 4, shape, thickness, 0.0))
    difference, world = contrast_spectra(scan, 2), volume.grid.world_axes[2]
    estimate = decide(difference, 4, world, load_heads())
    gaussian = decide(difference, 4, world, load_heads(), shapes=("gaussian",))
    told = decide(difference, 4, world, load_heads(), thickness=thickness)
    truth, scan = (volume.middle((SIDE, SIDE, volume.grid.shape[2])) for volume in (truth, scan))
    reference = Reference(truth.array)
    known: dict[tuple[Profile, float], float] = {}

    def restored(engine: SuperResolver, profile: Profile, tau: float) -> float:
        request = Request(
            choose_target(scan.grid, spacing=truth.grid.spacing),
            thickness=(None, None, tau * scan.grid.spacing[2]),
            profile=profile,
            consistency="exact",
        )
        return float(reference.psnr(engine.restore(scan, request).volume.array))

    def psnr(profile: Profile, tau: float) -> float:
        if (profile, tau) not in known:
            known[profile, tau] = restored(resolver, profile, tau)
        return known[profile, tau]

    right = psnr(shape, thickness)
    answers: tuple[tuple[Profile, float], ...]
    answers = (("gaussian", 1.0), (estimate.profile, estimate.thickness), ("gaussian", gaussian.thickness))
    others = [psnr(profile, tau) - right for profile, tau in (*answers, (told.profile, thickness))]
    return [right - restored(SuperResolver(), shape, thickness), *others]


if __name__ == "__main__":
    main()
