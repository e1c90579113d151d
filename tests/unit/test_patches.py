"""Tiles give what the whole would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medld.patches import ALIGN, apply_tiled, tiles

SIZES = [(8, 8), (21, 34), (33, 7), (3, 5), (64, 61)]
SINGLE = 1e-5
"""Convolutions of other sizes may sum in another order."""


def values(rows: int, columns: int, slices: int = 3) -> Tensor:
    """Random (2, 1, rows, columns, slices)."""
    return torch.randn(2, 1, rows, columns, slices, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def stack() -> nn.Module:
    """Four 3x3x3 convolutions: it sees four voxels far and answers with two channels."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 4), (4, 4), (4, 4), (4, 2)):
        layers += [nn.Conv3d(inputs, outputs, 3, padding=1), nn.SiLU()]
    return nn.Sequential(*layers).requires_grad_(False)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize("size", [ALIGN, 12, 64])
def test_cores_cover_the_plane_once(rows: int, columns: int, size: int) -> None:
    count = torch.zeros(rows, columns)
    for i, j in tiles(rows, columns, size):
        assert i.start % ALIGN == 0
        assert j.start % ALIGN == 0
        assert max(i.stop - i.start, j.stop - j.start) <= size
        count[i, j] += 1
    assert (count == 1).all()


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize(("size", "halo"), [(8, 0), (8, 4), (12, 8), (64, 56)])
def test_the_tiled_identity_is_the_identity(rows: int, columns: int, size: int, halo: int) -> None:
    x = values(rows, columns)
    assert torch.equal(apply_tiled(lambda part: part, x, size=size, halo=halo), x)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize("size", [8, 12, 20])
def test_tiled_convolutions_equal_the_whole(stack: nn.Module, rows: int, columns: int, size: int) -> None:
    x = values(rows, columns)
    whole = stack(x)
    tiled = apply_tiled(stack, x, size=size, halo=4)
    assert tiled.shape == whole.shape
    assert torch.allclose(tiled, whole, atol=SINGLE, rtol=0)


def test_a_halo_that_is_too_short_would_show(stack: nn.Module) -> None:
    x = values(24, 24)
    assert not torch.allclose(apply_tiled(stack, x, size=8, halo=0), stack(x), atol=100 * SINGLE, rtol=0)


@pytest.mark.parametrize("size", [8, 64])
def test_progress_adds_up_to_one(size: int) -> None:
    shares: list[float] = []
    apply_tiled(lambda part: part, values(21, 34), size=size, halo=4, progress=shares.append)
    assert sum(shares) == pytest.approx(1)
    assert len(shares) == len(list(tiles(21, 34, size)))


@pytest.mark.parametrize("size", [8, 64])
def test_the_result_is_float32_whatever_the_network_computes_in(size: int) -> None:
    result = apply_tiled(lambda part: part.bfloat16(), values(21, 34), size=size, halo=4)
    assert result.dtype == torch.float32


@pytest.mark.parametrize(("size", "halo"), [(8, 3), (10, 4)])
def test_tiles_off_the_networks_stride_are_a_mistake(size: int, halo: int) -> None:
    with pytest.raises(AssertionError, match="stride"):
        apply_tiled(lambda part: part, values(21, 34), size=size, halo=halo)
