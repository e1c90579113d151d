"""Prepare: everything that is decided about one scan before it is restored.

The order matters: what the header tells (our own output, too big) is refused before any voxel is
read, what the voxels tell (a label map, NaN) before the target is discussed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from medld.batch.inputs import Head, Input
from medld.batch.profile import SliceProfile, choose_profile
from medld.batch.settings import EnhanceSettings
from medld.batch.thickness import Thickness, choose_thickness
from medld.errors import InputError
from medld.geometry import Grid, choose_target
from medld.io import Storage
from medld.scratch import Scratch
from medld.superres import Request, SuperResolver
from medld.volume import Volume

__all__ = ["Prepared", "Thickness", "choose_thickness", "find_memory_limit", "prepare_scan"]

GIB = 2**30
DOUBT_VOLUMES = 8
"""What calibrated maps of doubt hold on the target grid while they are made, always in memory; 7.0 were seen."""
MEMORY_SHARE = 0.8
"""Of the machine's memory, by default: the rest is for the system and whoever else works there."""


@dataclass(frozen=True)
class Prepared:
    """A scan that is ready to be restored.

    Args:
        volume: Its voxels, with the modality settled.
        storage: How to write the restoration back in the scan's own form.
        request: What is wanted.
        thickness: Slice thickness.
        profile: Slice profile.
        memory_gib: Estimate of what the restoration needs (GiB).
        mapped_gib: What it will hold in files of its scratch folder (GiB).
        warnings: Sentences for the report.
    """

    volume: Volume
    storage: Storage
    request: Request
    thickness: Thickness
    profile: SliceProfile
    memory_gib: float
    mapped_gib: float
    warnings: tuple[str, ...]


def prepare_scan(
    item: Input, settings: EnhanceSettings, resolver: SuperResolver, limit_gib: float, scratch: Scratch
) -> Prepared:
    """Read a scan and settle its modality, slice thickness, target and memory.

    Args:
        item: The scan.
        settings: The options.
        resolver: Says how much memory a restoration needs.
        limit_gib: Most memory it may need (GiB).
        scratch: Where arrays lie that are too large for memory.

    Raises:
        InputError: If the scan cannot be restored; the code says why.
        GridError: If its header holds no usable geometry.
        ConfigError: If the options do not fit the scan.
    """
    head = item.examine()
    if not head.second_pass:  # else reading refuses it for that, whatever its size
        _refuse_too_big(head, settings, resolver, limit_gib, scratch)
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
    request, thickness, profile = _build_request(volume.grid, settings, head, limit_gib, scratch, volume)
    need, mapped = _check_needs(volume.grid, request, settings, resolver, limit_gib)
    warnings = tuple(dict.fromkeys((*storage.warnings, *notes, *thickness.warnings)))
    return Prepared(volume, storage, request, thickness, profile, need, mapped, warnings)


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


def _build_request(
    grid: Grid,
    settings: EnhanceSettings,
    head: Head,
    limit_gib: float,
    scratch: Scratch,
    volume: Volume | None = None,
) -> tuple[Request, Thickness, SliceProfile]:
    """What is wanted of a scan on `grid`, its slice thickness and profile; these by its voxels, once there are any."""
    target = choose_target(grid, spacing=settings.spacing, factor=settings.factor)
    thickness = choose_thickness(grid, target, settings.slice_thickness, head.slice_thickness, head.stated_by)
    profile = SliceProfile()
    if volume is not None:
        profile, thickness = choose_profile(settings.slice_profile, thickness, volume)
    request = Request(
        target=target,
        thickness=thickness.per_axis,
        profile=profile.shape,
        consistency=settings.consistency,  # type: ignore[arg-type]  # checked by EnhanceSettings
        mode=settings.mode,  # type: ignore[arg-type]
        realism=settings.realism,
        steps=settings.steps,
        samples=settings.samples,
        flips=settings.flips,
        seed=settings.seed,
        memory_gib=limit_gib,
        scratch=scratch,
    )
    return request, thickness, profile


def _refuse_too_big(
    head: Head, settings: EnhanceSettings, resolver: SuperResolver, limit_gib: float, scratch: Scratch
) -> None:
    """Refuse by the header alone, so that nothing large is allocated."""
    _check_memory(head.read_bytes / GIB, limit_gib)
    try:
        request, _, _ = _build_request(head.grid, settings, head, limit_gib, scratch)
    except InputError:
        return  # nothing to do: said once the voxels have shown that this is a scan at all
    _check_needs(head.grid, request, settings, resolver, limit_gib)


def _check_needs(
    grid: Grid, request: Request, settings: EnhanceSettings, resolver: SuperResolver, limit_gib: float
) -> tuple[float, float]:
    """Memory and room on the disk (GiB) that a restoration needs; refused where it may not have them."""
    doubted = settings.uncertainty is not None or settings.trust is not None or settings.interval
    need = resolver.estimate_memory_gib(grid, request, besides=DOUBT_VOLUMES if doubted else 0)
    mapped = resolver.estimate_mapped_gib(grid, request)
    _check_memory(need, limit_gib)
    request.scratch.check_room(mapped * GIB)
    return need, mapped


def _check_memory(need_gib: float, limit_gib: float) -> None:
    """Refuse a restoration that needs more memory than it may."""
    if need_gib > limit_gib:
        raise InputError(
            f"expected to need at most {limit_gib:.3g} GiB of memory, needs about {need_gib:.3g} GiB; "
            "raise --memory if the machine has more, or ask for a coarser --spacing",
            "E_TOO_BIG",
        )
