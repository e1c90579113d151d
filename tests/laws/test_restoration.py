"""What holds for every restoration, seen on the baseline: nothing moves, turns or tilts."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from medld.geometry import Grid, choose_target
from medld.superres import Request, SuperResolver
from medld.volume import Volume

SINGLE = 3e-6
"""Share of the range: float32 through two inverses, summed in another order."""

SUBVOXEL = 0.01
"""Slice spacings; half a target voxel would be a tenth or more."""

THICK = Grid((15, 14, 13), np.diag([1.0, 1.0, 4.0, 1.0]))
ISOTROPIC = Grid((13, 14, 15), np.diag([2.0, 2.0, 2.0, 1.0]))
AXES = list(permutations(range(3)))


@pytest.fixture(scope="module")
def resolver() -> SuperResolver:
    """Without a model: the baseline B."""
    return SuperResolver(None, device="cpu")


@pytest.fixture(params=["thick", "oblique", "isotropic"])
def grid(request: pytest.FixtureRequest, oblique: Grid) -> Grid:
    """One coarse axis, one on an oblique grid with odd sizes, three."""
    return {"thick": THICK, "oblique": Grid((11, 8, 13), oblique.affine), "isotropic": ISOTROPIC}[request.param]


def request_for(volume: Volume) -> Request:
    """The default target, consistent exactly: what noise is found does not matter then."""
    return Request(choose_target(volume.grid), consistency="exact")


def restored(resolver: SuperResolver, volume: Volume) -> Volume:
    """The volume on its default target."""
    return resolver.restore(volume, request_for(volume)).volume


def positions(grid: Grid) -> np.ndarray:
    """World mm of every voxel centre, (I, J, K, 3)."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def random_volume(grid: Grid, rng: np.random.Generator) -> Volume:
    """Values of a scan that has no symmetry at all."""
    return Volume(rng.uniform(100, 1000, grid.shape).astype(np.float32), grid, "mr")


def test_the_result_lies_on_the_target_in_the_scans_units(
    resolver: SuperResolver, grid: Grid, rng: np.random.Generator
) -> None:
    scan = random_volume(grid, rng)
    result = resolver.restore(scan, request_for(scan))
    assert result.volume.grid.is_close(choose_target(grid).grid, 0)
    assert result.volume.array.dtype == np.float32
    assert result.volume.array.mean() == pytest.approx(scan.array.mean(), rel=0.02)
    assert result.method == "baseline B"
    assert "No model" in result.warnings[0]


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_a_permuted_scan_gives_the_permuted_result(
    resolver: SuperResolver, grid: Grid, axes: tuple[int, int, int], rng: np.random.Generator
) -> None:
    scan = random_volume(grid, rng)
    expected, got = restored(resolver, scan).permuted(axes), restored(resolver, scan.permuted(axes))
    assert got.grid.is_close(expected.grid, 1e-9)
    assert np.abs(got.array - expected.array).max() <= SINGLE * np.ptp(scan.array)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_scan_gives_the_flipped_result(
    resolver: SuperResolver, grid: Grid, axis: int, rng: np.random.Generator
) -> None:
    scan = random_volume(grid, rng)
    expected, got = restored(resolver, scan).flipped(axis), restored(resolver, scan.flipped(axis))
    assert got.grid.is_close(expected.grid, 1e-9)
    assert np.abs(got.array - expected.array).max() <= SINGLE * np.ptp(scan.array)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ramp_comes_back_in_its_place(resolver: SuperResolver, grid: Grid, axis: int) -> None:
    """Each voxel's value is its own world position, in slice spacings, before and after."""
    unit = max(grid.spacing)
    scan = Volume((positions(grid)[..., axis] / unit).astype(np.float32), grid, "mr")
    fine = restored(resolver, scan)
    difference = fine.array - positions(fine.grid)[..., axis] / unit
    # The spline is level at the outer faces; what that costs falls fourfold a slice.
    inner = [slice(int(4 * f / c), -int(4 * f / c)) for f, c in zip(fine.grid.shape, grid.shape, strict=True)]
    coarse = [a for a in range(3) if fine.grid.shape[a] != grid.shape[a]]
    window = tuple(inner[a] if a in coarse else slice(None) for a in range(3))
    assert difference[window].size > 100
    assert np.abs(difference[window]).max() < SUBVOXEL


def test_a_point_stays_in_its_place(resolver: SuperResolver, grid: Grid) -> None:
    centre = tuple(n // 2 for n in grid.shape)
    array = np.zeros(grid.shape, np.float32)
    array[centre] = 1000
    fine = restored(resolver, Volume(array, grid, "mr"))
    place = positions(grid)[centre]
    got = (fine.array[..., None] * positions(fine.grid)).sum((0, 1, 2)) / fine.array.sum()
    assert np.linalg.norm(got - place) < SUBVOXEL * min(grid.spacing)
    peak = positions(fine.grid)[np.unravel_index(fine.array.argmax(), fine.array.shape)]
    assert np.linalg.norm(peak - place) <= np.linalg.norm(fine.grid.spacing) / 2 + 1e-6


def test_a_constant_stays_constant(resolver: SuperResolver, grid: Grid) -> None:
    scan = Volume(np.full(grid.shape, 300.0, np.float32), grid, "mr")
    fine = restored(resolver, scan)
    assert np.allclose(fine.array, 300, rtol=10 * SINGLE)


def test_the_result_images_to_the_scan(resolver: SuperResolver, grid: Grid, rng: np.random.Generator) -> None:
    promised = 1e-3  # of the range; two slices at each end left out
    scan = random_volume(grid, rng)
    request = request_for(scan)
    residual = resolver.residual(resolver.restore(scan, request).volume, scan, request)
    assert residual.largest <= promised * np.ptp(scan.array)
    shifted = Volume(np.roll(restored(resolver, scan).array, 1, 2), request.target.grid)
    assert resolver.residual(shifted, scan, request).relative_to_range > 10 * promised


def test_the_result_scales_with_the_scan(resolver: SuperResolver, grid: Grid, rng: np.random.Generator) -> None:
    scan = random_volume(grid, rng)
    loud = restored(resolver, scan.with_array(scan.array * 4096))
    assert np.allclose(loud.array, restored(resolver, scan).array * 4096, rtol=10 * SINGLE)


@pytest.mark.parametrize("axes", [(2, 1, 0), (2, 0, 1)])
def test_a_permuted_noisy_isotropic_scan_gives_the_permuted_result(
    resolver: SuperResolver, axes: tuple[int, int, int], rng: np.random.Generator
) -> None:
    grid = Grid((20, 22, 24), np.diag([2.0, 2.0, 2.0, 1.0]))
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in grid.shape), indexing="ij")
    tissue = 500 + 400 * np.sign(np.sin(3 * i) * np.cos(2 * j) + 0.2 * k - 0.3 * (k > 0.3))
    scan = Volume((tissue + rng.normal(0, 20, grid.shape)).astype(np.float32), grid, "mr")
    expected, got = (resolver.restore(v, Request(choose_target(v.grid))).volume for v in (scan, scan.permuted(axes)))
    assert np.abs(got.array - expected.array.transpose(axes)).max() <= 10 * SINGLE * np.ptp(scan.array)
