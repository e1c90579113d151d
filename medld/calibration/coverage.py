"""Coverage: what a calibration is worth on scans whose truth is known.

For one restoration, over its foreground, at the tissue boundaries in it and, of a finished half-width, in lesions:

    covered        share of the region's voxels whose truth lies in the interval
    half-width     mean over the foreground, in parts of the scan's unit
    constant       both again for one half-width everywhere, calibrated the same way: what the scale is worth
    correlation    Spearman's, of scale and |error|
    deciles        mean |error| and covered share in tenths of the foreground, from the smallest scale to the largest

Subjects are left out one at a time: each is tested with the factor that the others give. A boundary is the steepest
tenth of the truth's foreground, by the gradient of a Gaussian of one voxel.

A region's scores are kept as their 2000 quantiles, so that shares are right to 1/2000.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_gradient_magnitude
from scipy.stats import spearmanr

from medld.calibration.conformal import LEVEL, factors_of, find_factor
from medld.calibration.evidence import Evidence
from medld.calibration.rings import agreement
from medld.calibration.scale import ScaleConfig, check_truth, scale_map
from medld.calibration.schema import EDGES
from medld.errors import InputError

Array = NDArray[Any]

QUANTILES = 2000
TENTHS = 10
VOXELS = 100_000
"""Of the foreground, evenly drawn, for correlation and tenths."""
DISAGREEING = 0.05
"""Share of a truth's foreground that may disagree with B."""
FOREGROUND, BOUNDARY, LESIONS = "foreground", "boundary", "lesions"


@dataclass(frozen=True)
class Case:
    """One scan by one protocol; `scan` is the start of its file's SHA-256."""

    name: str
    subject: str
    contrast: str
    protocol: str
    scan: str = ""


@dataclass(frozen=True, eq=False)
class Scores:
    """What is kept of one restoration; `ratio` is the geometric mean over its coarse axes, `axes` their number."""

    case: Case
    axes: int
    ratio: float
    regions: Mapping[str, Array]
    """Region to the quantiles of |error| / scale."""
    constant: Mapping[str, Array]
    """The same for a scale of one unit everywhere."""
    scale: float
    """Mean over the foreground, in parts of the unit."""
    correlation: float
    tenths: Array
    """Quantiles of |error| / scale in tenths of the foreground, (10, 2000)."""
    errors: Array
    """Mean |error| in them over the foreground's, (10,)."""
    agreement: float
    """What all but a twentieth of the foreground reach between truth and B."""

    @property
    def bin(self) -> tuple[int, float, float]:
        """Number of coarse axes and the ends of the bin of ratios.

        Raises:
            InputError: A ratio beyond the bins (E_NOTHING_TO_DO).
        """
        if not EDGES[0] <= self.ratio <= EDGES[-1]:
            raise InputError(
                f"Expected a ratio from {EDGES[0]:g} to {EDGES[-1]:g}, got {self.ratio:.3g} by {self.case.protocol}. "
                "Choose other protocols.",
                "E_NOTHING_TO_DO",
            )
        index = min(int(np.searchsorted(EDGES, self.ratio, side="right")), len(EDGES) - 1)
        return self.axes, EDGES[index - 1], EDGES[index]


def score(case: Case, evidence: Evidence, truth: Array, foreground: Array, scale: ScaleConfig) -> Scores:
    """Score a restoration against its truth.

    Args:
        case: Which it is.
        evidence: The restoration.
        truth: Shape of its output.
        foreground: Of the truth.
        scale: The scale that is calibrated.

    Raises:
        InputError: If shapes differ or the foreground is empty (E_PIXELS).
    """
    check_truth(evidence, truth, foreground)
    error = np.abs(np.subtract(truth, evidence.output, dtype=np.float32))
    s = scale_map(evidence, scale)
    regions = {FOREGROUND: foreground, BOUNDARY: find_boundary(truth, foreground)}
    some = slice(None, None, max(np.count_nonzero(foreground) // VOXELS, 1))
    inside, of_scale = error[foreground][some], s[foreground][some]
    tenths = np.array_split(np.argsort(of_scale, kind="stable"), TENTHS)
    agrees = agreement(truth, evidence.baseline, evidence.acquisition.slice_axis)[foreground]
    return Scores(
        case,
        len(evidence.coarse_axes),
        evidence.ratio,
        regions={name: quantiles(error[region] / s[region]) for name, region in regions.items()},
        constant={name: quantiles(error[region] / evidence.unit) for name, region in regions.items()},
        scale=float(np.mean(s[foreground], dtype=np.float64)) / evidence.unit,
        correlation=float(spearmanr(of_scale, inside)[0]) if np.ptp(inside) > 0 < np.ptp(of_scale) else 0.0,
        tenths=np.stack([quantiles(inside[part] / of_scale[part]) for part in tenths]),
        errors=np.array([np.mean(inside[part], dtype=np.float64) for part in tenths]) / max(inside.mean(), 1e-30),
        agreement=float(np.quantile(agrees, DISAGREEING)),
    )


def covered_shares(
    truth: Array, output: Array, half_width: Array, foreground: Array, lesions: Array | None = None
) -> dict[str, float]:
    """Share of the "foreground", of its "boundary" and of "lesions" whose truth lies within `half_width` of the output.

    For tables that hold finished half-widths: all arrays are on one grid, the first three in one unit; `lesions` is
    true in them, and without any they have no share.

    Raises:
        InputError: If shapes differ or the foreground is empty (E_PIXELS).
    """
    if not truth.shape == output.shape == half_width.shape == foreground.shape or not foreground.any():
        raise InputError(
            f"Expected truth, output, half-width and a foreground that is not empty on one grid, got {truth.shape}, "
            f"{output.shape}, {half_width.shape} and {foreground.shape}.",
            "E_PIXELS",
        )
    within = np.abs(np.subtract(truth, output, dtype=np.float32)) <= half_width
    regions = {FOREGROUND: foreground, BOUNDARY: find_boundary(truth, foreground)}
    if lesions is not None and lesions.any():
        regions[LESIONS] = lesions
    return {name: float(np.mean(within[region])) for name, region in regions.items()}


def find_boundary(truth: Array, foreground: Array) -> Array:
    """The steepest tenth of the foreground, bool."""
    steep = np.asarray(gaussian_gradient_magnitude(truth.astype(np.float32, copy=False), 1.0, mode="nearest"))
    return np.asarray(foreground & (steep >= np.quantile(steep[foreground], 0.9)))


def quantiles(values: Array) -> Array:
    """The least of the values that k/2000 of them do not exceed, k = 1 to 2000."""
    ordered = np.sort(np.ravel(values).astype(np.float64))
    index = np.ceil(np.arange(1, QUANTILES + 1) / QUANTILES * len(ordered) - 1e-9).astype(int) - 1
    return np.asarray(ordered[np.maximum(index, 0)])


def share_below(scores: Array, factor: float) -> float:
    """Share of a region that a factor covers."""
    return float(np.searchsorted(scores, factor, side="right")) / len(scores)


@dataclass(frozen=True)
class Row:
    """One line of the table of coverage; widths in parts of the scan's unit, `factor` as `conformal` found it."""

    case: Case
    subjects: int
    """That calibrated."""
    factor: float
    covered: Mapping[str, float]
    half_width: float
    constant: Mapping[str, float]
    constant_half_width: float
    correlation: float
    errors: tuple[float, ...]
    tenths: tuple[float, ...]


def judge(test: Scores, calibrators: Sequence[Scores], level: float = LEVEL) -> Row:
    """A restoration by the factor that other subjects give.

    Args:
        test: The restoration.
        calibrators: Those of its bin, of other subjects.
        level: Share of the foreground that is to be covered.

    Raises:
        CohortError: There is no other subject.
    """
    groups = by_subject(calibrators)
    assert test.case.subject not in groups, "nobody is tested with what they calibrated"
    factor = _factor([[one.regions for one in group] for group in groups.values()], level)
    constant = _factor([[one.constant for one in group] for group in groups.values()], level)
    return Row(
        test.case,
        len(groups),
        factor,
        {name: share_below(values, factor) for name, values in test.regions.items()},
        factor * test.scale,
        {name: share_below(values, constant) for name, values in test.constant.items()},
        constant,
        test.correlation,
        tuple(test.errors.tolist()),
        tuple(share_below(values, factor) for values in test.tenths),
    )


def _factor(subjects: Sequence[Sequence[Mapping[str, Array]]], level: float) -> float:
    """The factor from the scores of the foreground of each subject's scans."""
    return find_factor([factors_of([regions[FOREGROUND] for regions in scans]) for scans in subjects], level)


def leave_one_out(tests: Sequence[Scores], calibrators: Sequence[Scores], level: float = LEVEL) -> list[Row]:
    """Every restoration by the factor that other subjects of its bin give: those of its contrast if there are any.

    Raises:
        CohortError: There is no other subject in one of the bins.
    """
    rows = []
    for test in tests:
        others = [one for one in calibrators if one.bin == test.bin and one.case.subject != test.case.subject]
        own = [one for one in others if one.case.contrast == test.case.contrast]
        rows.append(judge(test, own or others, level))
    return rows


def by_subject(scores: Sequence[Scores]) -> dict[str, list[Scores]]:
    """The restorations of each subject, subjects in the order of their names."""
    groups: dict[str, list[Scores]] = {}
    for one in sorted(scores, key=lambda one: one.case.subject):
        groups.setdefault(one.case.subject, []).append(one)
    return groups
