"""Adapt: the one-step network tuned on a scan, kept where it does better on slices held out of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from medld.adapt.judge import IN_PLANE, THROUGH_PLANE, Gains, Judgement, judge
from medld.adapt.lessons import Lessons
from medld.adapt.parts import Cut, cut
from medld.adapt.settings import AdaptConfig
from medld.adapt.tune import blended, tune
from medld.intensity import intensity_map
from medld.nn.networks import Networks
from medld.superres import Request, Restoration, SuperResolver
from medld.training.validation import Trained
from medld.volume import Volume


@dataclass(frozen=True)
class Adapted:
    """What came of it.

    Args:
        networks: The start's, or those that did better.
        blend: How far from the start (0) to the tuned (1) these are.
        held_out: What the slices held out say; None where they were not asked.
        reason: Why these networks, in a sentence.
        candidates: The networks of every blend that was tried.
        seconds: What it took.
    """

    networks: Networks
    blend: float
    held_out: Judgement | None
    reason: str
    candidates: Mapping[float, Networks] = field(default_factory=dict)
    seconds: float = 0.0

    def record(self, config: AdaptConfig) -> dict[str, Any]:
        """What a report says of it."""
        return {
            "steps": config.steps if self.candidates else 0,
            "blend": self.blend,
            "reason": self.reason,
            "held_out": self.held_out and self.held_out.record(),
            "config": config.model_dump(mode="json"),
        }


def adapt(
    scan: Volume,
    request: Request,
    networks: Networks,
    config: AdaptConfig,
    *,
    device: str = "auto",
    progress: Callable[[float], None] = lambda _: None,
) -> Adapted:
    """Tune the one-step network of `networks` on `scan`, which `request` is to restore, and keep the better.

    Args:
        scan: In scanner units.
        request: What is wanted of it.
        networks: The start; not touched.
        config: Steps and more.
        device: As `SuperResolver` takes it.
        progress: Told the share of the steps that are done.

    Raises:
        MedldError: E_NUMERIC, the loss or the gradient stopped being finite.
        ResourceError: The device's memory ran out.
    """
    began = time.perf_counter()
    request = replace(request, flips=1)
    place = _fit(scan, request, networks, config)
    if isinstance(place, str):
        return Adapted(networks, 0.0, None, place)
    engine = SuperResolver(Trained(networks), device=device)
    restoration = engine.restore(scan, replace(request, mode="fidelity", realism=0.0, steps=1, samples=1))
    lessons = _lessons(scan, restoration, request, place, config)
    if lessons.too_small:
        return Adapted(networks, 0.0, None, f"too small to teach: {lessons.too_small}")
    tuned = tune(networks, lessons, config, torch.device(engine.device), engine.precision, progress)
    candidates = {blend: blended(networks, tuned, blend) for blend in config.blends}
    held_out = judge(place, scan, restoration.volume, request, networks, candidates, engine.device)
    blend, reason = _choose(held_out, config)
    kept = candidates[blend] if blend else networks
    return Adapted(kept, blend, held_out, reason, candidates, time.perf_counter() - began)


def _fit(scan: Volume, request: Request, networks: Networks, config: AdaptConfig) -> Cut | str:
    """Where to cut the scan, or why it is not adapted to."""
    if config.steps == 0:
        return "no steps were asked for"
    if networks.one_step is None or networks.fidelity != "one-step":
        return "the model does not answer by a one-step network, which alone is tuned"
    if scan.modality not in (*networks.modalities, "unknown"):
        return f"the model does not cover {scan.modality.upper()}"
    if len(request.target.axes) != 1:
        return "every axis is coarse: nothing in the scan is fine enough to teach"
    found = cut(scan, request.target.axes[0])
    return f"too small: {found}" if isinstance(found, str) else found


def _lessons(scan: Volume, restoration: Restoration, request: Request, place: Cut, config: AdaptConfig) -> Lessons:
    """What the teaching part of the scan teaches."""
    acquisition = request.acquisition_of(scan.grid, place.axis)
    assert acquisition is not None, "the one axis that the target restores"
    units = intensity_map(scan.array, scan.modality)
    noise = restoration.noise / units.scale
    return Lessons(place.teaching(restoration.volume), place.axis, units, acquisition, noise, config)


def _choose(held_out: Judgement | None, config: AdaptConfig) -> tuple[float, str]:
    """The blend to keep, 0 for the start, and why."""
    if held_out is None:
        return 0.0, "the part held out is all air: the start was kept"
    better = {blend: _gain(gains) for blend, gains in held_out.blends.items() if _is_better(gains, config)}
    if not better:
        return 0.0, "on what was held out of the scan tuning did not gain enough: the start was kept"
    best = max(better, key=lambda blend: better[blend])
    in_plane, through_plane = (held_out.blends[best][test]["gain_db"] for test in (IN_PLANE, THROUGH_PLANE))
    return best, f"held out of the scan, tuning gains {in_plane:+.2f} dB in-plane, {through_plane:+.2f} through-plane"


def _is_better(gains: Gains, config: AdaptConfig) -> bool:
    """In-plane clearly so, through-plane no worse, and neither by a few places alone."""
    return (
        gains[IN_PLANE]["gain_db"] >= config.least_gain
        and gains[THROUGH_PLANE]["gain_db"] >= 0
        and all(gains[test]["blocks_won"] > 0.5 for test in (THROUGH_PLANE, IN_PLANE))
    )


def _gain(gains: Gains) -> float:
    return gains[THROUGH_PLANE]["gain_db"] + gains[IN_PLANE]["gain_db"]
