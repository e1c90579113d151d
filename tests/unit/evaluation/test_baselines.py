"""Interpolations and least squares, each against an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import lstsq
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from medld.evaluation.baselines import (
    INTERPOLATIONS,
    SMALLEST_SMOOTHNESS,
    interpolate,
    least_squares,
    smooth_inverse,
    smoothness_for,
)
from medld.evaluation.protocol import ProtocolConfig, load_protocol
from medld.evaluation.simulate import simulate
from medld.geometry import Grid
from medld.volume import Volume

SINGLE = 3e-6
"""Of the range: float32 sums of a few dozen terms."""

INVERSE = 2e-4
"""Of the range: float32 slices, through an inverse whose rows add up to a few units of either sign."""

RATIOS = [(48, 24), (49, 14), (48, 12), (48, 8), (37, 29)]
"""Fine voxels and slices."""


def _scan(shape: tuple[int, int, int], seed: int = 0, spacing: float = 4.0) -> Volume:
    array = gaussian_filter(np.random.default_rng(seed).uniform(0, 1000, shape), 0.6).astype(np.float32)
    return Volume(array, Grid(shape, np.diag([1.0, 1.0, spacing, 1.0])), "mr", "T1w")


def _by_scipy(slices: np.ndarray, fine: int, order: int) -> np.ndarray:
    """Along the last axis at the centres of `fine` voxels of the same box, mirrored about the outer faces."""
    positions = (np.arange(fine) + 0.5) * slices.shape[-1] / fine - 0.5
    index = np.meshgrid(*(np.arange(n) for n in slices.shape[:-1]), positions, indexing="ij")
    mode = "nearest" if order < 2 else "reflect"
    return np.asarray(map_coordinates(slices.astype(np.float64), index, order=order, mode=mode))


@pytest.mark.parametrize(("fine", "slices"), RATIOS)
@pytest.mark.parametrize(("kind", "order"), [("linear", 1), ("cubic", 3)])
def test_linear_and_cubic_are_those_of_scipy(kind: str, order: int, fine: int, slices: int) -> None:
    scan = _scan((5, 6, slices))
    expected = _by_scipy(scan.array, fine, order)
    assert np.abs(interpolate(kind, scan, (5, 6, fine)) - expected).max() < SINGLE * np.ptp(scan.array)


@pytest.mark.parametrize(("fine", "slices"), RATIOS)
def test_nearest_is_that_of_scipy_but_on_a_face_between_slices(fine: int, slices: int) -> None:
    scan = _scan((5, 6, slices))
    on_a_face = np.isclose((np.arange(fine) + 0.5) * slices / fine % 1, 0, atol=1e-6)
    ours, expected = interpolate("nearest", scan, (5, 6, fine)), _by_scipy(scan.array, fine, 0)
    np.testing.assert_array_equal(ours[..., ~on_a_face], expected[..., ~on_a_face])
    upper = (np.flatnonzero(on_a_face) + 0.5) * slices / fine
    np.testing.assert_array_equal(ours[..., on_a_face], scan.array[..., np.rint(upper).astype(int)])


@pytest.mark.parametrize("ratio", [2, 3, 4])
@pytest.mark.parametrize(("kind", "order"), [("nearest", 0), ("linear", 1), ("cubic", 3)])
def test_coarse_voxels_are_enlarged_as_by_scipys_zoom(kind: str, order: int, ratio: int) -> None:
    scan = _scan((7, 8, 9), spacing=1.0)
    shape = (7 * ratio, 8 * ratio, 9 * ratio)
    mode = "nearest" if order < 2 else "reflect"
    expected = zoom(scan.array.astype(np.float64), ratio, order=order, mode=mode, grid_mode=True)
    assert np.abs(interpolate(kind, scan, shape) - expected).max() < SINGLE * np.ptp(scan.array)


@pytest.mark.parametrize(("fine", "slices"), RATIOS)
def test_lanczos_is_that_of_pillow(fine: int, slices: int) -> None:
    scan = _scan((5, 6, slices))
    expected = [
        np.asarray(Image.fromarray(plane).resize((fine, plane.shape[0]), Image.Resampling.LANCZOS))
        for plane in scan.array
    ]
    ours = interpolate("lanczos", scan, (5, 6, fine))
    assert np.abs(ours - np.stack(expected)).max() < SINGLE * np.ptp(scan.array)


@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_an_axis_that_is_fine_already_is_left_alone(kind: str) -> None:
    scan = _scan((5, 6, 7))
    np.testing.assert_array_equal(interpolate(kind, scan, (5, 6, 7)), scan.array)


@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_a_symmetric_scan_stays_symmetric(kind: str) -> None:
    scan = _scan((4, 5, 12))
    both = scan.with_array(scan.array + scan.array[..., ::-1])
    output = interpolate(kind, both, (4, 5, 48))
    np.testing.assert_allclose(output, output[..., ::-1], atol=SINGLE * np.ptp(both.array))


def _profile_by_hand(fine: int, slices: int, fwhm: float) -> tuple[np.ndarray, int]:
    """Gaussian slices over the voxels and a margin beyond each face, and the margin."""
    r = fine / slices
    margin = int(np.ceil(max(r, fwhm)))
    voxels = np.arange(-margin, fine + margin)
    a = np.exp(-4 * np.log(2) * ((voxels - ((np.arange(slices) + 0.5) * r - 0.5)[:, None]) / fwhm) ** 2)
    return a / a.sum(1, keepdims=True), margin


def _least_squares_by_scipy(slices: np.ndarray, a: np.ndarray, ratio: float, smoothness: float) -> np.ndarray:
    """|y - A x|^2 + smoothness |x'|^2 along the last axis, x' per slice spacing, as one overdetermined system."""
    steps = np.eye(a.shape[1])[1:] - np.eye(a.shape[1])[:-1]
    system = np.vstack([a, np.sqrt(smoothness * ratio) * steps])
    right = np.vstack([slices.reshape(-1, slices.shape[-1]).T, np.zeros((len(steps), slices[..., 0].size))])
    return np.asarray(lstsq(system, right)[0]).T.reshape(*slices.shape[:-1], -1)


@pytest.mark.parametrize(
    ("name", "thickness"),
    [("through-plane-2x", 2.0), ("through-plane-3.5x", 3.5), ("through-plane-6x", 6.0), ("through-plane-5mm-gap", 4.0)],
)
def test_least_squares_are_those_of_scipy(name: str, thickness: float) -> None:
    protocol = load_protocol(name)
    fine = Volume(_scan((5, 6, 63), 1).array, Grid((5, 6, 63), np.eye(4)), "mr", "T1w")
    truth, scan = simulate(fine, protocol)
    n, k = truth.array.shape[2], scan.array.shape[2]
    a, margin = _profile_by_hand(n, k, thickness if "gap" in name else n / k)
    expected = _least_squares_by_scipy(scan.array.astype(np.float64), a, n / k, SMALLEST_SMOOTHNESS)
    ours = least_squares(scan, truth.grid.shape, protocol)
    assert np.abs(ours - expected[..., margin : margin + n]).max() < INVERSE * np.ptp(scan.array)


def _kspace_by_hand(n: int) -> np.ndarray:
    """Half of the frequencies of n voxels, read at the centres of n / 2 coarse ones: (n / 2, n)."""
    k, f = n // 2, np.fft.fftfreq(n, 1 / n)
    kept = np.where(np.abs(f) < k / 2, 1.0, np.where(np.abs(f) == k / 2, 0.5, 0.0))
    waves = np.exp(2j * np.pi * np.outer((np.arange(k) + 0.5) * 2 - 0.5, f) / n)
    return np.asarray((waves * kept @ np.fft.fft(np.eye(n), axis=0) / n).real)


def test_least_squares_know_k_space_though_nobody_tells_them() -> None:
    protocol = load_protocol("kspace-2x")
    truth, scan = simulate(Volume(_scan((12, 14, 16), 2).array, Grid((12, 14, 16), np.eye(4)), "mr"), protocol)
    expected = scan.array.astype(np.float64)
    for axis, n in enumerate(truth.array.shape):
        moved = np.moveaxis(expected, axis, -1)
        moved = _least_squares_by_scipy(moved, _kspace_by_hand(n), 2.0, SMALLEST_SMOOTHNESS)
        expected = np.moveaxis(moved, -1, axis)
    assert np.abs(least_squares(scan, truth.grid.shape, protocol) - expected).max() < INVERSE * np.ptp(scan.array)


def test_coarse_voxels_are_solved_axis_by_axis() -> None:
    protocol = load_protocol("isotropic-2x")
    truth, scan = simulate(Volume(_scan((12, 14, 16)).array, Grid((12, 14, 16), np.eye(4)), "mr"), protocol)
    expected = scan.array.astype(np.float64)
    for axis, n in enumerate(truth.array.shape):
        a, margin = _profile_by_hand(n, n // 2, 2.0)
        moved = _least_squares_by_scipy(np.moveaxis(expected, axis, -1), a, 2.0, SMALLEST_SMOOTHNESS)
        expected = np.moveaxis(moved[..., margin : margin + n], -1, axis)
    assert np.abs(least_squares(scan, truth.grid.shape, protocol) - expected).max() < 5 * INVERSE * np.ptp(scan.array)


def test_a_constant_is_restored_as_one() -> None:
    a, margin = _profile_by_hand(40, 10, 4.0)
    np.testing.assert_allclose(smooth_inverse(a, 4.0, 0.01)[margin:-margin] @ np.ones(10), 1, rtol=1e-9)


def test_noise_asks_for_smoothness_and_only_where_a_protocol_has_some() -> None:
    head = np.pad(np.full((40, 40, 48), 500.0), 8)
    fine = Volume(head.astype(np.float32), Grid(head.shape, np.eye(4)), "mr")
    noisy = ProtocolConfig(name="p", axes="through-plane", ratio=4, noise=0.03)
    scans = [simulate(fine, p)[1] for p in (load_protocol("through-plane-4x"), noisy)]
    assert smoothness_for(scans[0]) == SMALLEST_SMOOTHNESS
    in_network_units = 0.03 * 500 / np.percentile(scans[1].array, 99.9)
    assert smoothness_for(scans[1]) == pytest.approx(30 * in_network_units**2, rel=0.2)
    rough, smooth = (least_squares(scans[1], (56, 56, 64), p) for p in (load_protocol("through-plane-4x"), noisy))
    assert np.std(np.diff(smooth[20:36, 20:36, 20:44])) < np.std(np.diff(rough[20:36, 20:36, 20:44]))
