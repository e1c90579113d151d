"""A run's state appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn
from torch.optim.swa_utils import AveragedModel

from medld.errors import CheckpointError
from medld.training.state import STATE, load_state, save_state

Parts = tuple[nn.Module, AveragedModel, torch.optim.AdamW]


def parts(seed: int, steps: int = 0) -> Parts:
    """A small net with a frozen layer, its average and its optimiser, some steps on."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.Linear(4, 2))
    average = AveragedModel(net)
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        net(torch.ones(1, 3)).square().sum().backward()
        optimiser.step()
        average.update_parameters(net)
    return net, average, optimiser


def flat(state: object) -> dict[str, torch.Tensor]:
    """Every tensor of a nested state by its path."""
    if isinstance(state, torch.Tensor):
        return {"": state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {f"{key}/{path}": value for key, part in items for path, value in flat(part).items()}


def test_weights_average_moments_and_step_come_back(tmp_path: Path) -> None:
    before, after = parts(0, steps=3), parts(1)
    save_state(tmp_path, 3, *before)
    assert load_state(tmp_path, *after) == 3
    for old, new in zip(before, after, strict=True):
        kept, loaded = flat(old.state_dict()), flat(new.state_dict())
        assert kept.keys() == loaded.keys()
        assert len(kept) >= 4
        assert all(torch.equal(kept[key], loaded[key]) for key in kept)


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_state(tmp_path / folder, 2, *parts(0, steps=2))
    assert (tmp_path / "a" / STATE).read_bytes() == (tmp_path / "b" / STATE).read_bytes()


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    save_state(tmp_path, 1, *parts(0, steps=1))
    save_state(tmp_path, 2, *parts(0, steps=2))
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_a_write_that_fails_leaves_the_state_before(tmp_path: Path) -> None:
    save_state(tmp_path, 1, *parts(0, steps=1))
    before = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).with_suffix(".tmp").mkdir()  # the file cannot be written
    with pytest.raises((OSError, SafetensorError)):
        save_state(tmp_path, 2, *parts(0, steps=2))
    assert (tmp_path / STATE).read_bytes() == before
    assert load_state(tmp_path, *parts(1)) == 1


def test_without_a_state_there_is_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="without --resume"):
        load_state(tmp_path, *parts(0))


@pytest.mark.parametrize("damage", ["cut", "other network"])
def test_a_state_that_does_not_fit_is_refused(tmp_path: Path, damage: str) -> None:
    save_state(tmp_path, 1, *parts(0, steps=1))
    net, average, optimiser = parts(1)
    if damage == "cut":
        (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:-8])
    else:
        net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    with pytest.raises(CheckpointError):
        load_state(tmp_path, net, average, optimiser)
