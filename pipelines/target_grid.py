"""The form that the acquired grid is compared with in ablation.py: the same U-Net on the target grid.

    u = B(y; target)      x^ = u + net(u), projected as ever

It is no part of the package, since the table speaks against it. The network's answer travels as a profile, F net(u),
which S turns back into itself (S F = I): so losses, projection and evaluation are those of every other row. Of the
eight channels of the answer the first one counts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from medld.acquisition import Acquisition, AxisAcquisition, along
from medld.config import TrainConfig
from medld.intensity import intensity_map
from medld.nn.autoencoder import fold
from medld.nn.networks import Networks
from medld.training.apply import Sample
from medld.training.stages import OneStep
from medld.volume import Volume


class TargetGrid(OneStep):
    """The one-step stage, its network on the baseline of the target grid."""

    latents = True  # for the matrix to the profile grid, which is then on the device before a step asks for it

    def __init__(self, networks: Networks, config: TrainConfig) -> None:
        super().__init__(networks, config)
        # Nearly every ratio is a new size here: to search the fastest kernels for each would take longer than it saves.
        torch.backends.cudnn.benchmark = False

    def profile(self, sample: Sample) -> Tensor:
        """The network's answer (B, 8, I, J, k)."""
        answer = self.modules["one_step"](sample.known.to(self.dtype), sample.conditions.features())
        return _as_profile(answer, sample.acquisition)


class OnTarget(nn.Module):
    """A network of the target grid, in the place of one of the acquired grid, for a single scan.

    It keeps that scan's baseline `known` (1, 1, I, J, n), since the scan that it is shown is rounded, which B enlarges.
    """

    tileable = False
    known: Tensor

    def __init__(self, network: nn.Module, known: Tensor, axis: AxisAcquisition) -> None:
        super().__init__()
        self.network, self.axis = network, axis
        self.register_buffer("known", known, persistent=False)

    def forward(self, scan: Tensor, features: Tensor) -> Tensor:
        """(1, 1, I, J, k), of which place and precision count, and (1, F) to (1, 8, I, J, k)."""
        return _as_profile(self.network(self.known.to(scan), features), self.axis)


def for_scan(networks: Networks, truth: Volume, scan: Volume) -> Networks:
    """Networks whose one-step part was trained by `TargetGrid`, made ready for one scan of `truth`."""
    assert networks.one_step is not None, "the stage trains a one-step network"
    values = intensity_map(scan.array, scan.modality).forward(np.ascontiguousarray(scan.array, dtype=np.float32))
    axis = AxisAcquisition(truth.grid.shape[2], scan.grid.shape[2])
    alone = Acquisition((None, None, axis))
    known = alone.crop(alone.baseline(torch.from_numpy(values)[None, None]))
    return replace(networks, one_step=OnTarget(networks.one_step, known, axis))


def _as_profile(answer: Tensor, axis: AxisAcquisition) -> Tensor:
    """An answer (B, 8, I, J, n) on the target grid as a folded profile (B, 8, I, J, k)."""
    fine = answer[:, :1].float()
    return fold(along(axis.like("to_profile", fine), fine, -1))
