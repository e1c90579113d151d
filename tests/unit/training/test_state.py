"""A run's state appears whole or not at all, and the one before stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from medld.errors import CheckpointError
from medld.training.state import PREVIOUS, STATE, Progress, has_state, load_state, save_state

Parts = tuple[nn.Module, AveragedModel, torch.optim.AdamW]
TEMPORARY = "state.tmp"


def parts(seed: int, steps: int = 0) -> Parts:
    """A small net with a frozen layer, its average and its optimiser of two groups, some steps on."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.Linear(4, 2))
    average = AveragedModel(net)
    trained = [p for p in net.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if (p.ndim > 1) == large]} for large in (True, False)]
    optimiser = torch.optim.AdamW(groups, 0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        net(torch.ones(1, 3)).square().sum().backward()
        optimiser.step()
        average.update_parameters(net)
    return net, average, optimiser


def saved(folder: Path, *steps: int) -> Path:
    """A folder with the states after some numbers of steps, saved one after another."""
    for count in steps:
        save_state(folder, Progress(count), *parts(0, count))
    return folder


def flat(state: object) -> dict[str, torch.Tensor]:
    """Every tensor of a nested state by its path."""
    if isinstance(state, torch.Tensor):
        return {"": state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {f"{key}/{path}": value for key, part in items for path, value in flat(part).items()}


def same(first: Parts, second: Parts) -> bool:
    """Whether nets, averages and optimisers hold the same numbers."""
    pairs = [(flat(a.state_dict()), flat(b.state_dict())) for a, b in zip(first, second, strict=True)]
    assert all(a.keys() == b.keys() and len(a) >= 4 for a, b in pairs)
    return all(torch.equal(a[key], b[key]) for a, b in pairs for key in a)


def cut(path: Path) -> None:
    """Lose the end of a file."""
    path.write_bytes(path.read_bytes()[:-8])


def flip(path: Path) -> None:
    """Change one bit of the last number, which no header tells of."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def overwrite(path: Path) -> None:
    """Leave text in a file's place."""
    path.write_text("a quota was exceeded")


@pytest.mark.parametrize("progress", [Progress(3), Progress(3, best_gain=0.1 + 0.2, best_step=2, stale=1)])
def test_weights_average_moments_and_progress_come_back(progress: Progress, tmp_path: Path) -> None:
    before, after = parts(0, steps=3), parts(1)
    save_state(tmp_path, progress, *before)
    assert not same(before, parts(0, steps=2))
    assert load_state(tmp_path, *after) == progress
    assert same(before, after)


def test_moments_come_back_in_the_layout_of_their_weights(tmp_path: Path) -> None:
    """A fused update on a GPU takes no others."""

    def convolution() -> Parts:
        layers = nn.Sequential(nn.Conv3d(3, 4, 3), nn.Conv3d(4, 2, 3))
        net = layers.to(memory_format=torch.channels_last_3d)
        optimiser = torch.optim.AdamW(net.parameters(), 0.01)
        net(torch.ones(1, 3, 5, 5, 5)).square().sum().backward()
        optimiser.step()
        return net, AveragedModel(net), optimiser

    before, after = convolution(), convolution()
    save_state(tmp_path, Progress(1), *before)
    load_state(tmp_path, *after)
    assert same(before, after)
    for weight, moments in after[2].state.items():
        assert {moments[key].stride() for key in ("exp_avg", "exp_avg_sq")} == {weight.stride()}


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        contents.append((saved(tmp_path / folder, 2) / STATE).read_bytes())
    assert contents[0] == contents[1]


def test_the_state_before_is_kept_and_nothing_else(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    first = (tmp_path / STATE).read_bytes()
    saved(tmp_path, 2, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([STATE, PREVIOUS])
    assert (tmp_path / PREVIOUS).read_bytes() not in (first, (tmp_path / STATE).read_bytes())
    assert load_state(tmp_path, *parts(1)).step == 3


def test_a_write_that_fails_leaves_the_state_before(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    before = (tmp_path / STATE).read_bytes()
    (tmp_path / TEMPORARY).mkdir()  # the file cannot be written
    with pytest.raises(OSError, match=TEMPORARY):
        saved(tmp_path, 2)
    assert (tmp_path / STATE).read_bytes() == before
    assert load_state(tmp_path, *parts(1)).step == 1


def test_without_a_state_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert not has_state(tmp_path)
    with pytest.raises(CheckpointError, match="without --resume"):
        load_state(tmp_path, *parts(0))


@pytest.mark.parametrize("damage", [cut, flip, overwrite, Path.unlink])
def test_a_damaged_state_falls_back_on_the_one_before_and_says_so(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    damage(saved(tmp_path, 1, 2) / STATE)
    assert has_state(tmp_path)
    said: list[str] = []
    after = parts(1)
    assert load_state(tmp_path, *after, said.append).step == 1
    assert same(after, parts(0, steps=1))
    assert len(said) == 1
    assert said[0].startswith(f"{STATE} is {'missing' if damage is Path.unlink else 'damaged'}")
    assert said[0].endswith(f"going on from {PREVIOUS}, step 1")


def test_a_whole_state_is_taken_in_silence(tmp_path: Path) -> None:
    said: list[str] = []
    load_state(saved(tmp_path, 1, 2), *parts(1), said.append)
    assert said == []


@pytest.mark.parametrize("damage", [cut, flip, overwrite])
def test_with_no_whole_state_left_a_resume_is_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    for name in (STATE, PREVIOUS):
        damage(tmp_path / name)
    net, average, optimiser = parts(1)
    before = flat(net.state_dict())
    with pytest.raises(CheckpointError, match=r"No state in .* is whole.*Start without --resume"):
        load_state(tmp_path, net, average, optimiser)
    assert all(torch.equal(value, before[name]) for name, value in flat(net.state_dict()).items())


def test_the_state_of_another_network_is_refused_without_a_look_at_the_one_before(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    _, average, optimiser = parts(1)
    with pytest.raises(CheckpointError, match=rf"{STATE} is of another network"):
        load_state(tmp_path, nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)), average, optimiser)
