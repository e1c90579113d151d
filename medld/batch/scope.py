"""Scope: whether the model should restore a scan, decided on the scan itself.

    numbers of the scan outside the ranges of the training scans     W_SCOPE, the model still restores
    worse than interpolation on slices held out of the scan          W_HELD_OUT, interpolation instead

`--force` keeps the model whatever is found, and the warnings.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from medld.checkpoint import Model
from medld.scope import hold_out, judge_held_out, load_domain, take_fingerprint
from medld.superres import Request, SuperResolver, restore_onto
from medld.volume import Volume

__all__ = ["LEAST_GAIN_DB", "Scope", "check_scope"]

LEAST_GAIN_DB = 0.0
"""On the slices held out; a model that gains less there is not used."""

MOST_REASONS = 3


@dataclass(frozen=True)
class Scope:
    """What was found about a scan.

    Args:
        fallback: Whether interpolation is to restore it.
        warnings: Sentences for the report.
        record: All numbers, for the report.
        seconds: What it took.
    """

    fallback: bool
    warnings: tuple[str, ...]
    record: dict[str, Any]
    seconds: float


def check_scope(
    volume: Volume, request: Request, model: Model, resolver: SuperResolver, *, force: bool = False
) -> Scope:
    """Compare a scan with the training domain, and the model with interpolation on slices held out of it.

    Args:
        volume: The scan.
        request: What is wanted of it.
        model: The model; a modality that it does not cover needs no test, the resolver itself leaves it out.
        resolver: Holds the model.
        force: Keep the model whatever is found.
    """
    start = time.perf_counter()
    if volume.modality not in (*model.networks.modalities, "unknown"):
        sentence = f"W_SCOPE: {volume.modality.upper()}, expected {' or '.join(model.networks.modalities).upper()}"
        return Scope(False, (sentence,), {"outside": ["modality"]}, time.perf_counter() - start)
    domain = None if model.folder is None else load_domain(model.folder)
    fingerprint = take_fingerprint(volume, resolver.device)
    outside = domain.outside(fingerprint) if domain is not None else ()
    warnings = []
    if outside:
        more = f", and {len(outside) - MOST_REASONS} more" if len(outside) > MOST_REASONS else ""
        warnings.append(f"W_SCOPE: unlike the scans of the training: {'; '.join(outside[:MOST_REASONS])}{more}")
    held = measure_held_out(volume, request, resolver)
    worse = held is not None and held["gain_db"] < LEAST_GAIN_DB
    if worse and held is not None:
        what = "the model is kept by --force" if force else "cubic B-spline interpolation is used; --force overrides"
        warnings.append(
            f"W_HELD_OUT: on slices held out of this scan the model is {-held['gain_db']:.2f} dB worse than "
            f"interpolation made consistent with it: {what}"
        )
    record = {
        "fingerprint": {name: round(value, 4) for name, value in fingerprint.items()},
        "outside": list(outside),
        "held_out": held and {name: round(value, 4) for name, value in held.items()},
        "fallback": worse and not force,
    }
    return Scope(worse and not force, tuple(warnings), record, time.perf_counter() - start)


def measure_held_out(volume: Volume, request: Request, resolver: SuperResolver) -> dict[str, float] | None:
    """What the model gains over B on slices held out of the scan; None if it is too small for the test."""
    held = hold_out(volume, request.target.axes[0])
    if held is None:
        return None
    baseline = SuperResolver(device=resolver.device)
    return judge_held_out(held, restore_onto(resolver, request), restore_onto(baseline, request))
