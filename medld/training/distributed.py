"""Several processes, one training run: started by torchrun on one or many nodes, joined here.

Every process holds the whole model, learns from its own portion of each batch, and makes the same update.
Gradients are averaged by hand, in one piece: DistributedDataParallel hooks into the forward of the one module that
it wraps, while a stage calls several modules, some of them frozen, through methods such as `encode` and `decode`, and
not all of them in every micro-batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

# Unused here, and imported by the optimiser otherwise: its functions take the process group of the moment of import for
# a default and keep it alive with its threads, one of which may then abort the process at its end.
import torch.distributed.nn
from torch import nn

from medld.errors import ConfigError

T = TypeVar("T")

LONGEST_WAIT = timedelta(hours=6)
"""The first process validates while the others wait; torchrun ends them all if one dies."""

TOLD_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """The processes of a run: number `rank` of `size`, and `local_rank` on its own node; by default this one alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes, logs and validates."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process for a config's `auto`, `cpu`, `cuda` or `cuda:i`.

        Raises:
            ConfigError: Several processes would share a GPU, or there are fewer GPUs than processes.
        """
        if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return torch.device("cpu")
        device = torch.device("cuda", self.local_rank) if name in ("auto", "cuda") else torch.device(name)
        if self.size > 1 and device.index != self.local_rank:
            raise ConfigError(f"Expected device auto, cuda or cpu for {self.size} processes, got {name}.")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"Expected at least {(device.index or 0) + 1} GPUs on this machine, found {torch.cuda.device_count()}. "
                "Start fewer processes (torchrun --nproc-per-node), or choose another device."
            )
        return device

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes; one that is missing counts as zero."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        # Copied into place, since views of the flat buffer would lack the memory format of their parameters.
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view(gradient.shape))

    def make_equal(self, module: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        if self.size > 1:
            for value in module.state_dict().values():
                plain = value.contiguous()
                dist.broadcast(plain, src=0)
                value.copy_(plain)

    def most(self, number: int) -> int:
        """The largest of the numbers that the processes give: all of them learn it, all of them must ask."""
        if self.size == 1:
            return number
        largest = torch.tensor(number)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def gather(self, value: T) -> list[T]:
        """What each process gives, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value)
        return values


ALONE = World()


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The processes that torchrun started together, or this one alone.

    Args:
        device: The config's. Gradients of GPUs travel over NCCL; all else goes over Gloo between the CPUs, so that what
            is decided or counted does not wait for a GPU's queue.

    Raises:
        ConfigError: The environment names several processes but does not say how to reach them.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    missing = [name for name in TOLD_BY_TORCHRUN if name not in os.environ]
    if missing:
        raise ConfigError(f"Expected {', '.join(missing)} beside WORLD_SIZE. Start several processes with torchrun.")
    rank, local_rank, size = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    own = World(rank, size, local_rank).device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    dist.init_process_group("cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    yield World(rank, size, local_rank)
    # Only after success: with the others in the middle of a step, leaving would wait for them. torchrun ends them.
    dist.destroy_process_group()
