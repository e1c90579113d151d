"""A run's state on disk: one safetensors file that appears whole or not at all, and the one before it.

Exact resume needs weights, their average, the optimiser's moments and how far the run has come; every random draw is
a function of seed and step, so no generator's state is kept. The file carries a checksum: one that was cut or changed
is told from one that is whole, and the one before takes its place.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from medld.errors import CheckpointError
from medld.training.muon import KEPT

STATE = "state.safetensors"
PREVIOUS = "state.previous.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""Of AdamW; Muon keeps less."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come: `step` steps.

    `best_gain` (dB) is that of the best validation so far, after `best_step` steps, and `stale` counts the validations
    since.
    """

    step: int = 0
    best_gain: float | None = None
    best_step: int = 0
    stale: int = 0


class _DamagedError(Exception):
    """A state file that is not whole."""


def has_state(run_dir: Path) -> bool:
    """Whether a folder holds a run that could be gone on with."""
    return any((run_dir / name).exists() for name in (STATE, PREVIOUS))


def save_state(
    run_dir: Path, progress: Progress, modules: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write the state after some steps; the one before is kept beside it."""
    tensors = {f"model/{name}": value for name, value in modules.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.state_dict().items()}
    names = {id(parameter): name for name, parameter in modules.named_parameters()}
    for parameter, moments in optimiser.state.items():
        tensors |= {f"{key}/{names[id(parameter)]}": torch.as_tensor(moments[key]) for key in MOMENTS if key in moments}
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    told = json.dumps({"progress": asdict(progress), "crc32": _checksum(plain)})
    path = run_dir / STATE
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        stream.write(save(plain, metadata={"run": told}))
        stream.flush()
        os.fsync(stream.fileno())  # the bytes are on the disk before their name is: power may fail too
    if path.exists():
        os.replace(path, run_dir / PREVIOUS)
    os.replace(temporary, path)


def load_state(
    run_dir: Path,
    modules: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    report: Callable[[str], None] = lambda _: None,
) -> Progress:
    """Restore a run from its last whole state; `report` is told if that is not the last one written.

    Raises:
        CheckpointError: There is no state, none is whole, or it is that of another network.
    """
    problems: list[str] = []
    for path in (run_dir / STATE, run_dir / PREVIOUS):
        try:
            progress, tensors = _read(path)
        except _DamagedError as error:
            problems.append(f"{path.name} {error}")
            continue
        if problems:
            report(f"{problems[0]}; going on from {path.name}, step {progress.step}")
        _restore(path, tensors, modules, average, optimiser)
        return progress
    if not has_state(run_dir):
        raise CheckpointError(f"Expected the state of a run at {run_dir / STATE}, found none. Start without --resume.")
    raise CheckpointError(f"No state in {run_dir} is whole: {'; '.join(problems)}. Start without --resume.")


def _read(path: Path) -> tuple[Progress, dict[str, Tensor]]:
    if not path.is_file():
        raise _DamagedError("is missing")
    try:
        with safe_open(path, framework="pt") as file:
            told: dict[str, Any] = json.loads(file.metadata()["run"])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        progress = Progress(**told["progress"])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise _DamagedError(f"is damaged ({error})") from error
    if _checksum(tensors) != told["crc32"]:
        raise _DamagedError("is damaged (its checksum differs)")
    return progress, tensors


def _restore(
    path: Path, tensors: dict[str, Tensor], modules: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    named = dict(modules.named_parameters())
    groups = optimiser.param_groups
    order = [id(p) for group in groups for p in group["params"]]
    kept = {id(p): KEPT if group.get("kernels") else MOMENTS for group in groups for p in group["params"]}
    moments = {key: _under(tensors, f"{key}/") for key in MOMENTS}
    try:
        modules.load_state_dict(_under(tensors, "model/"))
        average.load_state_dict(_under(tensors, "average/"))
        state = {
            order.index(id(named[name])): {key: moments[key][name] for key in kept[id(named[name])]}
            for name in moments["exp_avg"]
        }
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is of another network or optimiser: {error}. Start without --resume.") from error
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    _lay_out(optimiser)


def _lay_out(optimiser: torch.optim.Optimizer) -> None:
    """Moments with the strides of their weights, as before a file held them: a fused update refuses others."""
    for parameter, moments in optimiser.state.items():
        for key in moments.keys() - {"step"}:
            moments[key] = torch.empty_like(parameter).copy_(moments[key])


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _checksum(tensors: dict[str, Tensor]) -> int:
    """CRC-32 of names, shapes and bytes, in the order of the names."""
    crc = 0
    for name in sorted(tensors):
        value = tensors[name]
        crc = zlib.crc32(f"{name} {tuple(value.shape)}".encode(), crc)
        crc = zlib.crc32(value.flatten().view(torch.uint8).numpy().data, crc)
    return crc
