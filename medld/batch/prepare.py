"""Prepare: everything that is decided about one scan before it is restored.

The order matters: what the header tells (our own output, too big) is refused before any voxel is
read, what the voxels tell (a label map, NaN) before the target is discussed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from medld.batch.inputs import Head, Input
from medld.batch.settings import EnhanceSettings
from medld.errors import InputError
from medld.geometry import Grid, Target, choose_target, coarsest_first
from medld.io import Storage
from medld.superres import Request, SuperResolver
from medld.volume import Volume

__all__ = ["Prepared", "Thickness", "choose_thickness", "find_memory_limit", "prepare_scan"]

GIB = 2**30
MEMORY_SHARE = 0.8
"""Of the machine's memory, by default: the rest is for the system and whoever else works there."""
TRAINED_THICKNESS = (0.6, 2.0)
"""Slice thickness over slice spacing that the networks were trained on."""


@dataclass(frozen=True)
class Thickness:
    """Slice thickness of a scan, and where it comes from.

    Args:
        per_axis: mm per array axis, None for the spacing.
        source: "option", "sidecar", "header" (of DICOM) or "spacing".
        warnings: Sentences for the report.
    """

    per_axis: tuple[float | None, float | None, float | None] = (None, None, None)
    source: str = "spacing"
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A scan that is ready to be restored.

    Args:
        volume: Its voxels, with the modality settled.
        storage: How to write the restoration back in the scan's own form.
        request: What is wanted.
        thickness: Slice thickness.
        memory_gib: Estimate of what the restoration needs (GiB).
        warnings: Sentences for the report.
    """

    volume: Volume
    storage: Storage
    request: Request
    thickness: Thickness
    memory_gib: float
    warnings: tuple[str, ...]


def prepare_scan(item: Input, settings: EnhanceSettings, resolver: SuperResolver, limit_gib: float) -> Prepared:
    """Read a scan and settle its modality, slice thickness, target and memory.

    Args:
        item: The scan.
        settings: The options.
        resolver: Says how much memory a restoration needs.
        limit_gib: Most memory it may need (GiB).

    Raises:
        InputError: If the scan cannot be restored; the code says why.
        GridError: If its header holds no usable geometry.
        ConfigError: If the options do not fit the scan.
    """
    head = item.examine()
    if not head.second_pass:  # else reading refuses it for that, whatever its size
        _refuse_too_big(head, settings, resolver, limit_gib)
    volume, storage = item.load(force=settings.force)
    notes = head.warnings
    if settings.modality != "auto":
        volume = replace(
            volume,
            modality=settings.modality,  # type: ignore[arg-type]  # checked by EnhanceSettings
            provenance={**volume.provenance, "modality_from": "the option --modality"},
        )
    elif volume.modality == "unknown":
        where = "its header" if head.stated_by == "header" else "its name or sidecar"
        notes += (f"neither MR nor CT by {where}: restored as MR; see --modality",)
    request, thickness = _build_request(volume.grid, settings, head, limit_gib)
    need = resolver.estimate_memory_gib(volume.grid, request)
    _check_memory(need, limit_gib)
    warnings = tuple(dict.fromkeys((*storage.warnings, *notes, *thickness.warnings)))
    return Prepared(volume, storage, request, thickness, need, warnings)


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


def find_memory_limit(settings: EnhanceSettings) -> float:
    """Most memory (GiB) a restoration may need: the option, else 80 % of the machine's or the container's."""
    if settings.memory_gib is not None:
        return settings.memory_gib
    # In whole tenths of a GiB: it decides about tiles, and a reboot must not change the bytes.
    machine = min(float(psutil.virtual_memory().total), _control_group_limit())
    return max(0.1, round(MEMORY_SHARE * machine / GIB, 1))


def _control_group_limit() -> float:
    """Bytes that a container or a batch system lets this process have; infinite without one."""
    try:
        line = next(x for x in Path("/proc/self/cgroup").read_text().splitlines() if x.startswith("0::"))
    except (OSError, StopIteration):
        return float("inf")
    group = Path("/sys/fs/cgroup") / line[3:].lstrip("/")
    limits = []
    for folder in (group, *group.parents):
        try:
            text = (folder / "memory.max").read_text().strip()
        except OSError:
            continue
        limits.append(float("inf") if text == "max" else float(text))
    return min(limits, default=float("inf"))


def _build_request(grid: Grid, settings: EnhanceSettings, head: Head, limit_gib: float) -> tuple[Request, Thickness]:
    """What is wanted of a scan on `grid`, and its slice thickness."""
    target = choose_target(grid, spacing=settings.spacing, factor=settings.factor)
    thickness = choose_thickness(grid, target, settings.slice_thickness, head.slice_thickness, head.stated_by)
    request = Request(
        target=target,
        thickness=thickness.per_axis,
        profile=settings.slice_profile,  # type: ignore[arg-type]  # checked by EnhanceSettings
        consistency=settings.consistency,  # type: ignore[arg-type]
        mode=settings.mode,  # type: ignore[arg-type]
        realism=settings.realism,
        steps=settings.steps,
        samples=settings.samples,
        seed=settings.seed,
        memory_gib=limit_gib,
    )
    return request, thickness


def _refuse_too_big(head: Head, settings: EnhanceSettings, resolver: SuperResolver, limit_gib: float) -> None:
    """Refuse by the header alone, so that nothing large is allocated."""
    _check_memory(head.read_bytes / GIB, limit_gib)
    try:
        request, _ = _build_request(head.grid, settings, head, limit_gib)
    except InputError:
        return  # nothing to do: said once the voxels have shown that this is a scan at all
    _check_memory(resolver.estimate_memory_gib(head.grid, request), limit_gib)


def _check_memory(need_gib: float, limit_gib: float) -> None:
    """Refuse a restoration that needs more memory than it may."""
    if need_gib > limit_gib:
        raise InputError(
            f"expected to need at most {limit_gib:.3g} GiB of memory, needs about {need_gib:.3g} GiB; "
            "raise --memory if the machine has more, or ask for a coarser --spacing",
            "E_TOO_BIG",
        )
