"""A run's state on disk: one safetensors file that appears whole or not at all.

Exact resume needs weights, their average, the optimiser's moments and the step; every random draw is
a function of seed and step, so no generator's state is kept.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medld.errors import CheckpointError

STATE = "state.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_state(
    run_dir: Path, step: int, modules: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write the state after `step` steps."""
    tensors = {f"model/{name}": value for name, value in modules.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.state_dict().items()}
    names = {id(parameter): name for name, parameter in modules.named_parameters()}
    for parameter, moments in optimiser.state.items():
        tensors |= {f"{key}/{names[id(parameter)]}": torch.as_tensor(moments[key]) for key in MOMENTS}
    path = run_dir / STATE
    temporary = path.with_suffix(".tmp")
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(plain, temporary, metadata={"step": str(step)})
    os.replace(temporary, path)


def load_state(run_dir: Path, modules: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Restore a run; returns the number of steps done. Raises: CheckpointError."""
    path = run_dir / STATE
    if not path.is_file():
        raise CheckpointError(f"Expected the state of a run at {path}, found none. Start without --resume.")
    try:
        with safe_open(path, framework="pt") as file:
            step = int(file.metadata()["step"])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        modules.load_state_dict(_under(tensors, "model/"))
        average.load_state_dict(_under(tensors, "average/"))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged or of another network: {error}. Start without --resume.") from error
    named = dict(modules.named_parameters())
    order = [id(p) for group in optimiser.param_groups for p in group["params"]]
    moments = {key: _under(tensors, f"{key}/") for key in MOMENTS}
    state = {order.index(id(named[name])): {key: moments[key][name] for key in MOMENTS} for name in moments["step"]}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return step


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
