"""Thickness: how thick a scan's slices are, and where that is known from."""

from __future__ import annotations

from dataclasses import dataclass

from medld.geometry import Grid, Target, coarsest_first

__all__ = ["Thickness", "choose_thickness"]

TRAINED_THICKNESS = (0.6, 2.0)
"""Slice thickness over slice spacing that the networks were trained on."""


@dataclass(frozen=True)
class Thickness:
    """Slice thickness of a scan, and where it comes from.

    Args:
        per_axis: mm per array axis, None for the spacing.
        source: "option", "sidecar", "header" (of DICOM), "spacing" or "estimated".
        warnings: Sentences for the report.
    """

    per_axis: tuple[float | None, float | None, float | None] = (None, None, None)
    source: str = "spacing"
    warnings: tuple[str, ...] = ()


def choose_thickness(
    grid: Grid, target: Target, option: float | None, stated: float | None, stated_by: str = "sidecar"
) -> Thickness:
    """Slice thickness from the option, else as the scan's sidecar or header states it, else the spacing.

    It belongs to the slice axis, the coarsest one. An isotropic scan has none: there an option
    holds for every restored axis, and a stated value is left alone.

    Args:
        grid: The scan's grid.
        target: What it is brought to.
        option: Thickness (mm) that the caller names, or None.
        stated: `SliceThickness` (mm) of the scan, or None.
        stated_by: Who states it, "sidecar" or "header".
    """
    if option is None and (stated is None or target.isotropic):
        if stated is not None and abs(stated / max(grid.spacing) - 1) > 0.01:
            unused = f"the {stated_by}'s SliceThickness of {stated:g} mm is not used: the scan is isotropic"
            return Thickness(warnings=(unused,))
        return Thickness()
    value, source = (option, "option") if option is not None else (stated, stated_by)
    assert value is not None
    slice_axis = coarsest_first(grid)[0]
    axes = target.axes if target.isotropic else tuple(a for a in target.axes if a == slice_axis)
    if not axes:
        unused = f"the slice thickness of {value:g} mm is not used: the slice axis stays as it is"
        return Thickness(warnings=(unused,) if source == "option" else ())
    i, j, k = (value if axis in axes else None for axis in range(3))
    low, high = TRAINED_THICKNESS
    spacing = max(grid.spacing[axis] for axis in axes)
    if low * (1 - 1e-4) <= value / spacing <= high * (1 + 1e-4):
        return Thickness((i, j, k), source)
    unusual = (
        f"slice thickness {value:g} mm ({source}) is {value / spacing:.2g} times the spacing: used as it is, "
        f"but the networks know {low:g} to {high:g} times and are told the nearest of these"
    )
    return Thickness((i, j, k), source, (unusual,))
