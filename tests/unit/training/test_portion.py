"""Portions make up the batch, and what belongs to an item belongs to it in whatever portion it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch

from medld.config import DataConfig
from medld.dataset import Fine
from medld.errors import ConfigError
from medld.training.apply import Applier, Sample
from medld.training.draw import Drawer
from medld.training.portion import Planner, Portion, split

SPLITS = [(12, 1, 1), (12, 2, 1), (12, 1, 3), (12, 2, 3), (4, 4, 1)]
ROUNDING = 1e-5
"""A batch pads the source windows of its crops to the longest, which changes the order of sums."""


def all_portions(batch: int, accumulate: int, processes: int) -> list[Portion]:
    """The portions of all processes."""
    return [part for rank in range(processes) for part in split(batch, accumulate, rank, processes)]


@pytest.mark.parametrize(("batch", "accumulate", "processes"), SPLITS)
def test_portions_are_of_one_size_and_make_up_the_batch(batch: int, accumulate: int, processes: int) -> None:
    portions = all_portions(batch, accumulate, processes)
    assert {len(part.items) for part in portions} == {batch // (accumulate * processes)}
    assert sorted(place for part in portions for place in part.items) == list(range(batch))


@pytest.mark.parametrize(("batch", "accumulate", "processes"), [(12, 5, 1), (12, 1, 5), (12, 4, 2), (2, 1, 3)])
def test_a_batch_that_does_not_divide_is_refused_with_one_that_does(
    batch: int, accumulate: int, processes: int
) -> None:
    with pytest.raises(ConfigError, match="divides into") as refusal:
        split(batch, accumulate, 0, processes)
    proposed = int(str(refusal.value).rpartition("batch=")[2].rstrip("."))
    assert len(all_portions(proposed, accumulate, processes)) == accumulate * processes


@pytest.mark.parametrize(("batch", "accumulate", "processes"), SPLITS)
@pytest.mark.parametrize("count", [0, 1, 5, 12])
def test_the_first_items_are_spread_evenly_and_come_first(
    batch: int, accumulate: int, processes: int, count: int
) -> None:
    portions = all_portions(batch, accumulate, processes)
    counts = [part.count_of_first(count) for part in portions]
    assert sum(counts) == min(count, batch)
    assert max(counts) - min(counts) <= 1
    for part, here in zip(portions, counts, strict=True):
        assert [place < count for place in part.items] == [n < here for n in range(len(part.items))]


@pytest.mark.parametrize(("batch", "accumulate", "processes"), SPLITS)
def test_random_numbers_belong_to_items(batch: int, accumulate: int, processes: int) -> None:
    def numbers(part: Portion) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        return [part.uniform(generator), part.normal((2, 3), generator)]

    whole = numbers(Portion.all_of(batch))
    assert whole[1].shape == (batch, 2, 3)
    assert len(whole[0].unique()) == batch
    for part in all_portions(batch, accumulate, processes):
        for own, of_all in zip(numbers(part), whole, strict=True):
            assert torch.equal(own, of_all[list(part.items)])


def test_a_portion_of_a_sample_is_what_the_whole_has_there(
    volumes: list[Fine], data_config: Callable[..., DataConfig]
) -> None:
    config = data_config(noise_share=1.0)
    applier = Applier(volumes, torch.device("cpu"), "inverse", latents=True)

    def samples(portions: tuple[Portion, ...]) -> list[Sample]:
        planner = Planner(Drawer(volumes, config, 4), config.in_plane, 5, 10, portions)
        return [applier.apply(share.plan, share.portion) for share in planner[7]]

    (whole,) = samples((Portion.all_of(4),))
    portions = tuple(all_portions(4, 2, 1))
    for part, sample in zip(portions, samples(portions), strict=True):
        assert sample.portion == part
        assert sample.first(1).portion == replace(part, items=part.items[:1])
        places = list(part.items)
        for field in fields(Sample):
            own, of_all = getattr(sample, field.name), getattr(whole, field.name)
            if isinstance(own, torch.Tensor) and field.name != "to_target":
                assert torch.allclose(own, of_all[places], atol=ROUNDING), field.name
        assert not torch.allclose(sample.low_res, whole.low_res[[p - 1 for p in places]], atol=ROUNDING)


def test_planned_steps_are_those_of_the_run(volumes: list[Fine], data_config: Callable[..., DataConfig]) -> None:
    planner = Planner(Drawer(volumes, data_config(), 2), 16, 0, 9, split(2, 1))
    assert len(planner) == 9
    first, second = (planner[step][0].plan.draw.seed for step in (0, 1))
    assert first != second
