"""Arrays of a volume's size as tensors, made where `Scratch` says."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medld.scratch import Scratch, is_mapped

SLICES = 64
"""That are turned round at once: what a GPU holds besides."""


def make_empty(scratch: Scratch, shape: Sequence[int], device: torch.device) -> Tensor:
    """A float32 tensor whose values are undefined; not on the CPU it lies in the device's memory.

    Raises:
        InputError: The disk has no room for it (E_TOO_BIG).
    """
    if device.type != "cpu" or not is_mapped(prod(shape)):
        return torch.empty(tuple(shape), dtype=torch.float32, device=device)
    return torch.from_numpy(scratch.empty(shape))


def as_slab(scratch: Scratch, array: Tensor, axis: int) -> Tensor:
    """What is on (1, 1, I, J, K) with the voxel axis `axis` last, contiguous; a copy only where it has to be.

    Raises:
        InputError: As `make_empty`.
    """
    moved = array.movedim(axis + 2, -1)
    return moved if moved.is_contiguous() else make_empty(scratch, moved.shape, array.device).copy_(moved)


def to_host(array: Tensor, scratch: Scratch) -> NDArray[np.float32]:
    """What is on (1, 1, I, J, K) of a GPU as (I, J, K), the first axis densest, as files have it.

    To turn 7 million voxels round when they are written takes a CPU core 60 ms.

    Raises:
        InputError: As `make_empty`.
    """
    turned = array[0, 0].permute(2, 1, 0)
    host = make_empty(scratch, turned.shape, torch.device("cpu"))
    for kept, part in zip(host.split(SLICES), turned.split(SLICES), strict=True):
        kept.copy_(part.contiguous())
    return host.permute(2, 1, 0).numpy()
