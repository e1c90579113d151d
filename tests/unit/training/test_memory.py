"""Out of memory is told as what would fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medld.config import TrainConfig
from medld.errors import ResourceError
from medld.training.apply import Sample
from medld.training.loop import Run
from medld.training.memory import explained, is_out_of_memory, largest_that_fits, runs_out
from medld.training.stages import STAGES, OneStep

Config = Callable[..., TrainConfig]
FITTING = 3
BEYOND_ANY_ADDRESS = 2**52


def ask_for_too_much() -> Tensor:
    """What an allocator says to more memory than there can be."""
    return torch.empty(BEYOND_ANY_ADDRESS)


class Greedy(OneStep):
    """A one-step stage whose device has room for `FITTING` crops at once."""

    def loss(self, sample: Sample, generator: torch.Generator, *, figures: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, if it fits."""
        if len(sample.low_res) > FITTING:
            ask_for_too_much()
        return super().loss(sample, generator, figures=figures)


class Hopeless(OneStep):
    """A one-step stage for which no memory is enough."""

    def loss(self, sample: Sample, generator: torch.Generator, *, figures: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Never a loss."""
        raise torch.OutOfMemoryError(f"CUDA out of memory, {len(sample.low_res)} crops.\nA page of statistics.")


class Broken(OneStep):
    """A one-step stage with a mistake that has nothing to do with memory."""

    def loss(self, sample: Sample, generator: torch.Generator, *, figures: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Never a loss."""
        raise RuntimeError("shapes do not match")


def run(config: TrainConfig) -> Path:
    """Run in this process; the run's folder."""
    config.run_dir.mkdir(exist_ok=True)
    Run(config, lambda _: None).go()
    return config.run_dir


@pytest.mark.parametrize(
    ("batch", "accumulate", "fits", "proposed"), [(12, 1, 3, 4), (12, 2, 3, 4), (10, 1, 2, 5), (5, 1, 1, 5)]
)
def test_the_largest_batch_that_fits_and_divides_is_named(
    batch: int, accumulate: int, fits: int, proposed: int, train_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STAGES, "one-step", Greedy)
    at_once = batch // accumulate
    with pytest.raises(ResourceError, match=rf"{at_once} crops at once .* {fits} fit: --set accumulate={proposed} "):
        run(train_config("one-step", batch=batch, accumulate=accumulate))


def test_the_proposal_runs(train_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "one-step", Greedy)
    assert (run(train_config("one-step", batch=12, accumulate=4, steps=1)) / "model" / "model.json").exists()


def test_where_nothing_fits_that_is_said_in_one_line(train_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "one-step", Hopeless)
    with pytest.raises(ResourceError, match=r"2 crops at once .*Not even one does: .*data\.in_plane") as refusal:
        run(train_config("one-step"))
    assert refusal.value.code == "E_MEMORY"
    assert "statistics" not in str(refusal.value)
    assert refusal.value.__context__ is None  # what was computed is not held on to


def test_another_mistake_is_not_taken_for_want_of_memory(train_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "one-step", Broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(train_config("one-step"))


def test_allocators_are_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as refusal:
        ask_for_too_much()
    assert is_out_of_memory(refusal.value)
    assert is_out_of_memory(torch.OutOfMemoryError("full"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("CUDA out of memory"))


def test_the_first_size_that_fits_is_taken_and_no_further_one_tried() -> None:
    tried = []

    def attempt(size: int) -> None:
        tried.append(size)
        if size > FITTING:
            raise MemoryError

    assert largest_that_fits([6, 4, 3, 2, 1], attempt) == 3
    assert tried == [6, 4, 3]
    assert largest_that_fits([5, 4], attempt) is None


def test_an_attempt_that_fails_otherwise_is_not_called_a_want_of_memory() -> None:
    with pytest.raises(ZeroDivisionError):
        runs_out(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="must match"):
        runs_out(lambda: torch.zeros(2) + torch.zeros(3))


def test_memory_that_runs_out_anywhere_else_is_told_in_a_sentence() -> None:
    with pytest.raises(ResourceError, match=r"memory of cpu.*validation_crop"), explained("cpu"):
        ask_for_too_much()
    with pytest.raises(ResourceError, match="3 fit"), explained("cpu"):
        raise ResourceError("3 fit")
    with pytest.raises(KeyError), explained("cpu"):
        raise KeyError
