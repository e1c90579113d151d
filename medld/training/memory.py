"""Running out of memory, told as what would fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from medld.errors import ResourceError

ALLOCATORS = ("DefaultCPUAllocator", "CUDA out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
"""Named in torch's RuntimeErrors where memory that could not be had is not told by their class."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(name in str(error) for name in ALLOCATORS)


def runs_out(attempt: Callable[[], object]) -> bool:
    """Whether an attempt ends for want of memory; what it held is free again afterwards."""
    try:
        attempt()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        out = True  # the error holds on to all that was computed until this block is left
    else:
        out = False
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return out


def largest_that_fits(sizes: Iterable[int], attempt: Callable[[int], object]) -> int | None:
    """The first of `sizes`, largest first, with which an attempt does not run out of memory; None if all do."""
    return next((size for size in sizes if not runs_out(partial(attempt, size))), None)


@contextmanager
def explained(device: torch.device | str) -> Iterator[None]:
    """Turn what runs out of memory within into a ResourceError that says where."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"Expected the volumes, samples and validation to fit into the memory of {device}, they do not: "
            f"{_first_line(error)}. Use fewer or smaller volumes, a smaller validation_crop, or another device."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
