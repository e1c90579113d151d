"""Profile: which slice profile a scan is restored with, and where that is known from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from medld.acquisition import Profile
from medld.batch.thickness import Thickness
from medld.geometry import coarsest_first
from medld.superres.profile import estimate_profile
from medld.volume import Volume

__all__ = ["SliceProfile", "choose_profile"]

AUTO = "auto"
UNKNOWN: Profile = "gaussian"
"""What is taken where nothing is known: the profile that the networks saw most."""


@dataclass(frozen=True)
class SliceProfile:
    """Shape of the slice profile.

    Args:
        shape: "gaussian", "box" or "slr".
        source: "option", or "estimated" by `--slice-profile auto`.
        estimate: What the estimate says, for the record; None without one.
    """

    shape: Profile = UNKNOWN
    source: str = "option"
    estimate: dict[str, Any] | None = None


def choose_profile(option: str, thickness: Thickness, volume: Volume) -> tuple[SliceProfile, Thickness]:
    """The shape by the option; with "auto" the shape, and a thickness that nobody states, by the voxels.

    Args:
        option: "gaussian", "box", "slr" or "auto".
        thickness: The slice thickness as far as it is known without voxels.
        volume: The scan.
    """
    if option != AUTO:
        return SliceProfile(option), thickness  # type: ignore[arg-type]  # checked by EnhanceSettings
    axis = coarsest_first(volume.grid)[0]
    spacing = volume.grid.spacing[axis]
    stated = thickness.per_axis[axis]
    found = estimate_profile(volume, axis, None if stated is None else stated / spacing)
    if found is None:
        unsaid = (
            "the slice profile cannot be told from this scan (CT, too few slices, or slices hardly thicker than the "
            f"pixels are wide): a {UNKNOWN} one is taken, its thickness from the {thickness.source}"
        )
        return SliceProfile(), replace(thickness, warnings=(*thickness.warnings, unsaid))
    estimate = {
        "thickness_mm": round(found.thickness * spacing, 4),
        "thickness_10_to_90_percent_mm": [round(found.low * spacing, 4), round(found.high * spacing, 4)],
        "shape_weight": round(found.share, 3),
        "why": "in-plane axes, imaged again with this profile, have the spectrum that the scan has across its slices",
    }
    if stated is None:
        i, j, k = (found.thickness * spacing if a == axis else None for a in range(3))
        thickness = Thickness((i, j, k), "estimated", thickness.warnings)
    return SliceProfile(found.profile, "estimated", estimate), thickness
