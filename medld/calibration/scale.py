"""Scale: how large an error is to be expected at each voxel, up to one factor.

With features f_0, f_1, ... of `evidence`, rho = log2(ratio / 4), n coarse axes, the scan's noise nu and the phase phi
of a voxel,

    log s = log f_0 + sum_j (a_j + b_j rho) (log f_j - log f_0)
            + c_0 + c_1 rho + c_2 rho^2 + g (n - 1) + phi (d_0 + d_1 rho) + nu (e_0 + e_1 rho + e_2 rho^2)

The exponents of the features sum to one, so s has the unit of the scan and nothing else in it has: twice the gain,
twice the scale. A feature counts as at least 1/1000 of the scan's brightest tissue; nu is the noise in percent of it,
and counts as at most 3: texture holds the noise too, of which less is missing than of the anatomy. Without samples the
features are texture and bend, and s needs nothing but one scan and its restoration.

The coefficients make errors of a Laplace distribution of deviation s most likely,

    mean over voxels of log s + |truth - output| / s    ->  least

on scans that are neither used to calibrate nor to test. Whether s is right does not matter for coverage, which
`conformal` gives; it matters for how narrow intervals are and how well they tell large errors from small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.optimize import minimize

from medld.calibration.evidence import Evidence
from medld.config import Schema
from medld.errors import CohortError, InputError

Array = NDArray[Any]
Feature = Literal["texture", "bend", "spread"]

WITHOUT_SAMPLES: tuple[Feature, ...] = ("texture", "bend")
FLOOR = 1e-3
"""Of the scan's brightest tissue."""
VOXELS = 20_000
"""Drawn from the foreground of each scan for the fit."""
MOST = 20.0
"""|log s| in parts of the brightest tissue, where the fit is kept from running off."""


class ScaleConfig(Schema):
    """The coefficients of the formula above."""

    features: tuple[Feature, ...] = Field(min_length=1)
    exponents: tuple[tuple[float, float], ...]
    """(a_j, b_j) of every feature but the first."""
    level: tuple[float, float, float]
    """c_0, c_1, c_2."""
    phase: tuple[float, float]
    """d_0, d_1."""
    axes: float = 0.0
    """g."""
    noise: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """e_0, e_1, e_2."""

    @model_validator(mode="after")
    def _exponents_for_features(self) -> ScaleConfig:
        if len(set(self.features)) < len(self.features) or len(self.exponents) != len(self.features) - 1:
            raise ValueError("expected each feature once and exponents for all but the first")
        return self


def scale_map(evidence: Evidence, config: ScaleConfig) -> Array:
    """s of every voxel, float32, in the unit of the scan, shape of the output.

    Raises:
        InputError: If it rests on samples and none were drawn (E_PIXELS).
    """
    rho = evidence.log_ratio
    first, *others = config.features
    base = _log(evidence, first)
    total = base.copy()
    for name, (a, b) in zip(others, config.exponents, strict=True):
        total += np.float32(a + b * rho) * (_log(evidence, name) - base)
    total += np.float32(config.phase[0] + config.phase[1] * rho) * evidence.phase
    constant = np.polyval(config.level[::-1], rho) + evidence.noise_percent * np.polyval(config.noise[::-1], rho)
    total += np.float32(constant + config.axes * (len(evidence.coarse_axes) - 1))
    return np.asarray(np.exp(total, out=total))


def _log(evidence: Evidence, name: str) -> Array:
    """Logarithm of a feature with its floor."""
    return np.asarray(np.log(evidence.feature(name) + np.float32(FLOOR * evidence.unit)))


@dataclass(frozen=True, eq=False)
class Sample:
    """Voxels of one scan for the fit: |error| and log features in parts of the scan's unit, phases; rho, nu, n - 1."""

    error: Array
    """(N,)."""
    logs: Array
    """(features, N)."""
    phase: Array
    """(N,)."""
    log_ratio: float
    noise: float
    more_axes: int


def draw_sample(
    evidence: Evidence, truth: Array, foreground: Array, features: Sequence[Feature] = WITHOUT_SAMPLES, seed: int = 0
) -> Sample:
    """Voxels of a scan whose truth is known.

    Args:
        evidence: The restoration.
        truth: Shape of its output.
        foreground: Where voxels are drawn, shape of the output.
        features: Those of the scale that is to be fitted.
        seed: The same seed draws the same voxels.

    Raises:
        InputError: If shapes differ or the foreground is empty (E_PIXELS).
    """
    check_truth(evidence, truth, foreground)
    places = np.flatnonzero(foreground)
    chosen = np.random.default_rng(seed).choice(places, min(VOXELS, len(places)), replace=False)

    def take(array: Array) -> Array:
        return np.asarray(np.ravel(array)[chosen], dtype=np.float64)

    logs = [take(_log(evidence, name)) - np.log(evidence.unit) for name in features]
    more = len(evidence.coarse_axes) - 1
    error = np.abs(take(truth) - take(evidence.output)) / evidence.unit
    return Sample(error, np.stack(logs), take(evidence.phase), evidence.log_ratio, evidence.noise_percent, more)


def fit_scale(samples: Sequence[Sample], features: Sequence[Feature] = WITHOUT_SAMPLES) -> ScaleConfig:
    """The coefficients that make the errors of the samples most likely; scans count alike.

    Args:
        samples: Of scans that are not used to calibrate or to test.
        features: Those that the samples were drawn with, in their order.

    Raises:
        CohortError: There is no sample, or the optimiser does not end.
    """
    if not samples:
        raise CohortError("Expected at least one scan to fit the scale on, got none. Name some that only serve this.")
    terms = np.concatenate([_terms(sample) for sample in samples])
    base = np.concatenate([sample.logs[0] for sample in samples])
    error = np.concatenate([sample.error for sample in samples])
    weight = np.concatenate([np.full(s.error.size, 1 / (s.error.size * len(samples))) for s in samples])

    def loss(w: Array) -> tuple[float, Array]:
        log_scale = np.clip(terms @ w + base, -MOST, MOST)
        quotient = error * np.exp(-log_scale)
        return float(weight @ (log_scale + quotient)), terms.T @ (weight * (1 - quotient))

    # Ratios or noise that are all alike leave their terms undetermined: from zero the optimiser does not move them.
    found = minimize(loss, np.zeros(terms.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    if not found.success:
        raise CohortError(f"The fit of the scale did not end: {found.message}. Give other scans.")
    level, phase, noise, exponents = found.x[:3], found.x[3:5], found.x[5:8], found.x[9:].reshape(-1, 2)
    return ScaleConfig(
        features=tuple(features),
        exponents=tuple((float(a), float(b)) for a, b in exponents),
        level=(float(level[0]), float(level[1]), float(level[2])),
        phase=(float(phase[0]), float(phase[1])),
        axes=float(found.x[8]),
        noise=(float(noise[0]), float(noise[1]), float(noise[2])),
    )


def _terms(sample: Sample) -> Array:
    """What c, d, e, g and (a_j, b_j) are multiplied with, shape (N, 9 + 2 (features - 1))."""
    rho, nu, one = sample.log_ratio, sample.noise, np.ones(sample.error.size)
    columns = [one, rho * one, rho**2 * one, sample.phase, rho * sample.phase, nu * one, nu * rho * one]
    columns += [nu * rho**2 * one, sample.more_axes * one]
    for logs in sample.logs[1:]:
        columns += [logs - sample.logs[0], rho * (logs - sample.logs[0])]
    return np.stack(columns, axis=1)


def check_truth(evidence: Evidence, truth: Array, foreground: Array) -> None:
    """Raises: InputError, if truth or foreground have another shape than the output or the latter is empty."""
    if truth.shape != evidence.output.shape or foreground.shape != evidence.output.shape or not foreground.any():
        raise InputError(
            f"Expected a truth and a foreground that is not empty on {evidence.output.shape} voxels, got {truth.shape} "
            f"and {foreground.shape}. Enhance with the truth's spacing as the target.",
            "E_PIXELS",
        )
