"""Muon: what equal singular values mean for a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medld.config import TrainConfig
from medld.errors import CheckpointError
from medld.training.loop import Run
from medld.training.muon import MOMENTUM, STEP_SIZE, Muon, equalised
from medld.training.optimise import make_optimiser
from medld.training.state import STATE

Config = Callable[..., TrainConfig]
CPU = torch.device("cpu")
WIDE = {"one_step": {"channels": [24, 24, 32], "blocks": [1, 1, 1], "embedding": 8}}
SHAPES = [(24, 24 * 27), (64, 48), (40, 40), (96, 64 * 4)]


def made(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_singular_values_become_about_one_and_their_vectors_stay(shape: tuple[int, int], scale: float) -> None:
    u, _, vh = torch.linalg.svd(made(shape), full_matrices=False)
    values = torch.logspace(0, -1.5, len(vh))
    got = equalised((scale * (u * values) @ vh)[None])[0]
    inner = u.T @ got @ vh.T
    assert inner.diagonal().min() > 0.6
    assert inner.diagonal().max() < 1.3
    assert (inner - inner.diagonal().diag()).abs().max() < 0.05
    assert (got - u @ inner @ vh).abs().max() < 0.02  # bfloat16


def test_of_nothing_nothing_is_made() -> None:
    assert torch.equal(equalised(torch.zeros(2, 20, 30)), torch.zeros(2, 20, 30))


@pytest.fixture(params=[(32, 24, 3), (24, 96, 1)], ids=["wide", "tall"])
def net(request: pytest.FixtureRequest) -> nn.Conv3d:
    """A kernel between two wide layers, as memory has it on a GPU."""
    torch.manual_seed(0)
    return nn.Conv3d(*request.param).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def stepped(net: nn.Conv3d, gradients: list[Tensor], config: TrainConfig) -> Tensor:
    """How far a copy of the kernel is moved by these gradients."""
    optimiser = make_optimiser(net, config, CPU)
    before = net.weight.detach().clone()
    for gradient in gradients:
        net.weight.grad = gradient.clone()
        optimiser.step()
    moved = net.weight.detach() - before
    with torch.no_grad():
        net.weight.copy_(before)
    return moved


def test_a_step_has_a_size_and_a_direction_and_no_scale(net: nn.Conv3d, train_config: Config) -> None:
    config = train_config("one-step", muon_rate=0.01, weight_decay=0.0)
    gradient = made(tuple(net.weight.shape))
    moved = stepped(net, [gradient], config)
    assert moved.square().mean().sqrt() == pytest.approx(0.01 * STEP_SIZE, rel=0.25)
    assert (moved * gradient).sum() < 0
    assert torch.allclose(stepped(net, [1e-5 * gradient], config), moved, atol=0.02 * 0.01)
    contiguous = stepped(net, [gradient.contiguous(memory_format=torch.channels_last_3d)], config)
    assert torch.equal(contiguous, moved)


def test_the_average_outlasts_a_gradient(net: nn.Conv3d, train_config: Config) -> None:
    config = train_config("one-step", muon_rate=0.01, weight_decay=0.0)
    shape = tuple(net.weight.shape)
    first, second = made(shape), 0.1 * (1 - MOMENTUM) * made(shape, 1)
    alone, both = stepped(net, [first], config), stepped(net, [first, second], config)
    assert torch.nn.functional.cosine_similarity((both - alone).flatten(), alone.flatten(), dim=0) > 0.9


def test_what_is_no_hidden_kernel_is_adamws(train_config: Config) -> None:
    parts = {"stem": nn.Conv3d(2, 24, 3), "hidden": nn.Conv3d(24, 24, 3), "head": nn.Conv3d(24, 8, 3)}
    net = nn.ModuleDict({**parts, "steer": nn.Linear(24, 96)})
    start = {name: value.detach().clone() for name, value in net.named_parameters()}
    ends = []
    for rate in (0.0, 0.01):
        net.load_state_dict(start)
        optimiser = make_optimiser(net, train_config("one-step", muon_rate=rate), CPU)
        assert isinstance(optimiser, Muon) == (rate > 0)
        for index, parameter in enumerate(net.parameters()):
            parameter.grad = made(tuple(parameter.shape), index)
        optimiser.step()
        ends.append({name: value.detach().clone() for name, value in net.named_parameters()})
    differing = [name for name, value in ends[0].items() if not torch.equal(value, ends[1][name])]
    assert differing == ["hidden.weight"]


def test_a_resume_is_exact(train_config: Config) -> None:
    runs = {name: train_config("one-step", name, muon_rate=1e-3, model=WIDE, trackers=[]) for name in ("whole", "cut")}

    def go(name: str, *, resume: bool = False, until: int | None = None) -> Path:
        runs[name].run_dir.mkdir(exist_ok=True)
        Run(runs[name], lambda _: None).go(resume=resume, until=until)
        return runs[name].run_dir / STATE

    whole = go("whole").read_bytes()
    assert go("cut", until=2).read_bytes() != whole
    names = load_file(runs["cut"].run_dir / STATE).keys()
    averaged, squared = ({n for n in names if n.startswith(f"{key}/")} for key in ("exp_avg", "exp_avg_sq"))
    assert len(averaged) > len(squared) > 0  # both kinds were at work
    with pytest.raises(CheckpointError, match="another network or optimiser"):
        Run(runs["cut"].model_copy(update={"muon_rate": 0.0}), lambda _: None).go(resume=True)
    assert go("cut", resume=True).read_bytes() == whole
