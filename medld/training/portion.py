"""Which items of a batch are computed at once, so that neither processes nor micro-batches change a result.

A batch is drawn as a whole from (seed, step). Of W processes with A micro-batches each, process r takes in its
micro-batch m the items p with p mod W A = r + W m: what the first items of a batch are for is spread evenly. Random
numbers are drawn for the whole batch as well, and each portion keeps its own, so a number belongs to an item.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from medld.errors import ConfigError
from medld.training.draw import Draw
from medld.training.plan import Plan, make_plan

T = TypeVar("T")


@dataclass(frozen=True)
class Portion:
    """The places `items` of a batch of `whole` items."""

    whole: int
    items: range

    @classmethod
    def all_of(cls, whole: int) -> Portion:
        """The whole batch."""
        return cls(whole, range(whole))

    def pick(self, values: tuple[T, ...]) -> tuple[T, ...]:
        """Those of one value per item of the whole batch that belong here."""
        return tuple(values[place] for place in self.items)

    def first(self, count: int) -> Portion:
        """Its own first `count` items."""
        return replace(self, items=self.items[:count])

    def count_of_first(self, count: int) -> int:
        """How many of the whole batch's first `count` items are here; here, too, they come first."""
        return sum(place < count for place in self.items)

    def normal(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Standard normal numbers (len(items), *shape) on the generator's device."""
        return self._own(torch.randn((self.whole, *shape), generator=generator, device=generator.device))

    def uniform(self, generator: torch.Generator) -> Tensor:
        """Numbers in [0, 1), one per item, on the generator's device."""
        return self._own(torch.rand(self.whole, generator=generator, device=generator.device))

    def _own(self, values: Tensor) -> Tensor:
        return values[self.items.start : self.items.stop : self.items.step]


def split(batch: int, accumulate: int, rank: int = 0, processes: int = 1) -> tuple[Portion, ...]:
    """The portions of one process, one per micro-batch, all of one size: means over them average to the whole's.

    Raises:
        ConfigError: The batch does not divide.
    """
    parts = processes * accumulate
    if batch % parts:
        raise ConfigError(
            f"Expected a batch that divides into {processes} processes x {accumulate} micro-batches, got {batch}. "
            f"Use other numbers of those, or --set batch={parts * max(1, round(batch / parts))}."
        )
    return tuple(Portion(batch, range(rank + processes * micro, batch, parts)) for micro in range(accumulate))


@dataclass(frozen=True)
class Share:
    """A portion and its plan."""

    portion: Portion
    plan: Plan


class Draws(Protocol):
    """Where batches come from; a `Drawer` is one."""

    def draw(self, seed: int, step: int, progress: float) -> Draw:
        """The batch of `step`, always the same."""


class Planner(Dataset[tuple[Share, ...]]):
    """Steps to what one process does in them, a share per micro-batch; `len` is the number of steps of the run.

    Drawing takes a seventh of the time of planning, so a process draws the whole batch and plans its own portions.
    """

    def __init__(self, drawer: Draws, in_plane: int, seed: int, steps: int, portions: tuple[Portion, ...]) -> None:
        self.drawer, self.in_plane, self.seed, self.steps, self.portions = drawer, in_plane, seed, steps, portions

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Share, ...]:
        draw = self.drawer.draw(self.seed, step, step / self.steps)
        plans = (make_plan(replace(draw, items=part.pick(draw.items)), self.in_plane) for part in self.portions)
        return tuple(Share(part, plan) for part, plan in zip(self.portions, plans, strict=True))
