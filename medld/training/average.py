"""The moving average of a stage's weights: what is validated, and what a model folder holds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medld.build import build_networks
from medld.calibration.schema import FILE as CALIBRATION
from medld.checkpoint import CARD, PARTS, save_model
from medld.config import ModelConfig
from medld.nn.networks import Networks
from medld.scope import DOMAIN
from medld.training.apply import Applier
from medld.training.draw import Drawer
from medld.training.stages import Stage


class Average:
    """Exponential average of a stage's modules; `model` is torch's, with the state that a resume needs.

    It is there to be used, not to be trained: nothing drops out of it.
    """

    def __init__(self, stage: Stage, decay: float) -> None:
        self.stage = stage
        self.model = AveragedModel(stage.modules, multi_avg_fn=get_ema_multi_avg_fn(decay)).eval()

    def update(self) -> None:
        """Take in the weights of the step that was just made."""
        self.model.update_parameters(self.stage.modules)

    def networks(self, config: ModelConfig) -> Networks:
        """Fresh networks with the averaged weights, and those of parts that the stage does not train."""
        networks = build_networks(config)
        for part, state in self._states().items():
            getattr(networks, part).load_state_dict(state)
        return networks

    def finish(self, drawer: Drawer, applier: Applier) -> None:
        """Let the stage do what is left to do after the last step, to the averaged weights."""
        average = self.model.module
        assert isinstance(average, nn.ModuleDict)
        live, self.stage.modules = self.stage.modules, average
        try:
            self.stage.finish(drawer, applier)
        finally:
            self.stage.modules = live

    def write(self, folder: Path, config: ModelConfig, card: Mapping[str, Any]) -> None:
        """Write a model folder."""
        save_model(folder, config, self._states(), card)

    def _states(self) -> dict[str, dict[str, Tensor]]:
        average = self.model.module
        assert isinstance(average, nn.ModuleDict)
        states = {part: average[part].state_dict() for part in self.stage.parts}
        frozen = {part: getattr(self.stage.networks, part) for part in PARTS if part not in states}
        return states | {part: module.state_dict() for part, module in frozen.items() if module is not None}


def adopt(source: Path, folder: Path) -> None:
    """Make `folder` the same model as `source`; the card comes last: a half-copied model is told by its hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    companions = [source / name for name in (CALIBRATION, DOMAIN) if (source / name).is_file()]
    for path in (*sorted(source.glob("*.safetensors")), *companions, source / CARD):
        temporary = folder / f"{path.name}.tmp"
        shutil.copyfile(path, temporary)
        os.replace(temporary, folder / path.name)
