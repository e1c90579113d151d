"""Needs: how much memory and how much of a disk a restoration takes, told before it starts.

    mean         a network on the slab: its feature maps, the slab, the answer
    projection   arrays of the slab's size beside the answer, and a few strips
    sample       the mean, a sample's correction and what it is added to, latents, feature maps
    writing      the answer, and what a reader of the file will see

What `Scratch` maps counts for the disk alone. Figures are those of a CPU; on a GPU less lies in the machine's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from medld.geometry import Grid, Target
from medld.nn.networks import Networks
from medld.scratch import FLOAT_BYTES, is_mapped
from medld.superres.pieces import held_voxels
from medld.superres.projection import STRIP_VOXELS
from medld.superres.values import Request

BYTES_PER_VOXEL = {"float32": 64 * 4 * 5.5, "bfloat16": 64 * 2 * 5.5}
"""Peak of the networks per acquired voxel: live feature maps of 64 channels; 4.2 of them were seen, in bfloat16."""

WHOLE_SHARE = 2.0
"""Networks that cannot be tiled keep copies for their norms and skips: 1.6 to 1.9 times these bytes were seen."""

GAPS = 1.2
"""Feature maps come and go: the same restoration took so much more at times, in gaps between them."""

KERNEL_BYTES = 0.05 * 2**30
"""Of each network that is run: what its kernels keep."""

PROGRAM_BYTES = 0.38 * 2**30
"""Of the interpreter and the libraries."""

SCAN_ARRAYS = 6
"""Arrays of the scan's size while it is compared with those that the model learned from."""

SLAB_ARRAYS = 3.4
"""Arrays of a slab's size that a projection holds beside the slab: three, and gaps; seen at 640^3 from 320^3."""

STRIP_ARRAYS = 2
"""Arrays of a strip's size that a projection holds at a time; a writer holds one."""

SAMPLE_VOLUMES = 3
"""What is on the target grid besides while samples are drawn: the answer, and the samples' mean and moment."""

CODEC_SHARE = 0.8
"""An autoencoder's feature maps, of a U-Net's per voxel; it is not rolled, and what it takes in one piece is larger."""

LATENT_ARRAYS = 8
"""Arrays of a latent's size that a sampler and a denoiser hold."""


@dataclass(frozen=True)
class Needs:
    """Bytes of memory at the peak, program included, and of the disk."""

    memory: float
    disk: float


def find_needs(
    grid: Grid, request: Request, networks: Networks | None, precision: str, room: int, besides: int
) -> Needs:
    """What a scan on `grid` takes, in `precision`, if networks may take `room` voxels in one piece.

    `besides` are volumes on the target grid that are held in memory while the result is written.
    """
    fine, scan, slabs = prod(request.target.grid.shape), prod(grid.shape), slab_shapes(grid, request.target)
    slab, strip = max(map(prod, slabs), default=0), min(fine, STRIP_VOXELS)
    copied = 0 if request.target.axes == (2,) else slab  # else the slab is the scan itself
    # Volumes on the target grid, and what else there is in memory, in floats.
    stages: dict[str, tuple[int, float]] = {
        "projection": (1, SLAB_ARRAYS * slab + STRIP_ARRAYS * strip),
        "writing": (2, 2 * scan + strip + besides * fine),
    }
    constant = PROGRAM_BYTES
    if networks is not None:
        maps = _map_bytes(networks, precision, room, slabs)
        mirrored = slab if request.flips > 1 else 0
        stages |= {"before": (0, (SCAN_ARRAYS - 2) * scan), "mean": (1, maps / FLOAT_BYTES + mirrored)}
        constant += KERNEL_BYTES + _weight_bytes(networks, precision)
        if _is_sampled(request, networks):
            assert networks.autoencoder is not None, "where there is a denoiser"
            constant += 2 * KERNEL_BYTES
            latents = LATENT_ARRAYS * networks.autoencoder.latent_channels * slab
            codec = CODEC_SHARE * BYTES_PER_VOXEL[precision] * GAPS * min(room, slab)
            stages["sample"] = (3, latents + max(maps, codec) / FLOAT_BYTES)
    in_memory, on_disk = (0, 1) if is_mapped(fine) else (1, 0)
    kept = SAMPLE_VOLUMES if request.samples > 1 else 0
    floats = max(in_memory * (count + kept) * fine + other for count, other in stages.values())
    disk = on_disk * (max(count for count, _ in stages.values()) + kept) * fine + is_mapped(copied) * copied
    return Needs(constant + FLOAT_BYTES * (2 * scan + copied + floats), FLOAT_BYTES * float(disk))


def slab_shapes(grid: Grid, target: Target) -> list[tuple[int, int, int]]:
    """Rows, columns and slices of each pass of a restoration."""
    shape, shapes = list(grid.shape), []
    for axis in target.axes:
        rows, columns = (size for other, size in enumerate(shape) if other != axis)
        shapes.append((rows, columns, shape[axis]))
        shape[axis] = target.grid.shape[axis]
    return shapes


def _map_bytes(networks: Networks, precision: str, room: int, slabs: list[tuple[int, int, int]]) -> float:
    """Of feature maps, and of the gaps between them."""
    held = max((held_voxels(room, shape, networks) for shape in slabs), default=0)
    return BYTES_PER_VOXEL[precision] * held * (GAPS if networks.tileable else WHOLE_SHARE)


def _weight_bytes(networks: Networks, precision: str) -> float:
    """Of the model's weights, as they were read and as they are used."""
    parts = (networks.one_step, networks.autoencoder, networks.denoiser)
    weights = sum(p.numel() for part in parts if part is not None for p in part.parameters())
    return float(weights * (FLOAT_BYTES + getattr(torch, precision).itemsize))


def _is_sampled(request: Request, networks: Networks) -> bool:
    """Whether anything is made of latents: a sample, or a mean where no other network gives it."""
    if networks.denoiser is None:
        return False
    realism, _ = networks.position(request.mode, request.realism, request.steps, drawn=request.samples > 1)
    return realism > 0 or request.samples > 1 or networks.one_step is None or networks.fidelity == "latent"
