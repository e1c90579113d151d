"""Domain: the ranges of a model's training scans, and what of a scan lies outside of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medld.errors import CheckpointError
from medld.scope.fingerprint import MEANINGS

__all__ = ["DOMAIN", "Domain", "load_domain"]

DOMAIN = "scope.json"
"""Lies beside the weights; holds ranges over many scans, nothing of a single one."""

MARGIN = 0.5
"""A range is widened by this part of itself at either end: training scans are few."""

SLACK: dict[str, float] = {
    "pixel_mm": 1.6,
    "slice_mm": 1.3,
    "spacing_ratio": 1.3,
    "tissue_mm": 1.3,
    "tissue_litres": 1.3,
    "pixel_step": 1.0,
    "detail": 1.0,
    "slice_step": 1.0,
    "corner": 0.1,
    "symmetry": 0.1,
    "noise": 0.02,
}
"""And by this, a factor for sizes and ratios: what training varies itself (zoom, noise), and air and necks, which the
public scans had removed."""

MARGINS = {"slice_mm": 0.0, "spacing_ratio": 0.0, "pixel_step": 0.25}
"""Instead of `MARGIN`: the slices are made by the training itself, over the range that it means; smooth scans would
pass otherwise."""

FACTORS = frozenset(SLACK) - {"corner", "noise", "symmetry"}
"""Numbers on a logarithmic scale."""


@dataclass(frozen=True)
class Domain:
    """Ranges `low` to `high` of the numbers of `medld.scope.fingerprint` over `scans` training scans."""

    ranges: Mapping[str, tuple[float, float]]
    scans: int

    @classmethod
    def of(cls, fingerprints: Iterable[Mapping[str, float]]) -> Domain:
        """The ranges of some scans, widened at their ends."""
        taken = list(fingerprints)
        names = [name for name in MEANINGS if all(name in f for f in taken)]
        return cls({n: _widened(n, [f[n] for f in taken]) for n in names}, len(taken))

    def outside(self, fingerprint: Mapping[str, float]) -> tuple[str, ...]:
        """What of a scan is unlike the training scans, one clause each; empty if nothing is."""
        return tuple(
            f"{MEANINGS[name]} is {fingerprint[name]:.3g}, expected {low:.3g} to {high:.3g}"
            for name, (low, high) in self.ranges.items()
            if name in fingerprint and not low <= fingerprint[name] <= high
        )

    def as_json(self) -> str:
        """The text of `scope.json`."""
        ranges = {name: [round(low, 5), round(high, 5)] for name, (low, high) in self.ranges.items()}
        return json.dumps({"scans": self.scans, "ranges": ranges}, indent=1) + "\n"


def _widened(name: str, values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    slack, margin = SLACK.get(name, 0.0), MARGINS.get(name, MARGIN)
    if name in FACTORS:
        factor = (high / low) ** margin * slack
        return low / factor, high * factor
    added = margin * (high - low) + slack
    most = 1.0 if name == "symmetry" else float("inf")
    return max(low - added, 0.0) if low >= 0 else low - added, min(high + added, most)


def load_domain(folder: Path) -> Domain | None:
    """The domain in a model's folder, None if it has none.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = folder / DOMAIN
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        ranges = {name: (float(low), float(high)) for name, (low, high) in content["ranges"].items()}
        return Domain({name: ends for name, ends in ranges.items() if name in MEANINGS}, int(content["scans"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Expected ranges and scans in {path.name}, got another file. Copy the model again."
        ) from error
