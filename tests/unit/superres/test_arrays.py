"""Arrays of a volume's size: what leaves a GPU keeps its values and lies as files have it, in memory or on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medld import scratch
from medld.scratch import Scratch
from medld.superres.arrays import SLICES, to_host

SHAPES = [(3, 4, 5), (7, 5, SLICES), (4, 6, 2 * SLICES + 1), (1, 1, 1)]
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_host_gets_the_same_values_first_axis_densest(
    shape: tuple[int, int, int], mapped: bool, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mapped:
        monkeypatch.setattr(scratch, "MAPPED_VOXELS", 10)
    values = torch.randn((1, 1, *shape), device=device)
    array = to_host(values, Scratch(tmp_path))
    assert array.flags.f_contiguous
    assert np.array_equal(array, values[0, 0].cpu().numpy())
