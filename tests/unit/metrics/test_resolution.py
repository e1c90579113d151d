from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from medld.metrics import plane_correlation, resolution_at, shell_correlation
from medld.metrics.resolution import resolution_of_planes, shift_along

SPACING = (0.8, 0.9, 1.5)
SHAPE = (40, 37, 30)


def _noise(seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _fade(n: int) -> np.ndarray:
    position = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / (n / 8)
    return np.sin(np.pi / 2 * position.clip(0, 1)) ** 2


def _faded(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Mean off, then each of `axes` faded."""
    array = array - array.mean()
    for axis in axes:
        array = np.moveaxis(np.moveaxis(array, axis, -1) * _fade(array.shape[axis]), -1, axis)
    return array


def _mixed(below: np.ndarray, above: np.ndarray, distance: np.ndarray, cut: float) -> np.ndarray:
    """One volume's frequencies up to `cut`, another's beyond."""
    return np.asarray(np.fft.ifftn(np.where(distance <= cut, np.fft.fftn(below), np.fft.fftn(above))).real)


def _frequencies(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> list[np.ndarray]:
    components = [np.fft.fftfreq(n, h) for n, h in zip(shape, spacing, strict=True)]
    return np.meshgrid(*components, indexing="ij", sparse=True)


@pytest.mark.parametrize("shape", [SHAPE, (39, 36, 31)], ids=["even", "odd"])
def test_shells_are_those_of_the_whole_transform(shape: tuple[int, int, int]) -> None:
    truth, output = _noise(0, shape) + 3, _noise(0, shape) + _noise(1, shape)
    f, g = (np.fft.fftn(_faded(array, (0, 1, 2))) for array in (truth, output))
    width = 1 / max(n * h for n, h in zip(shape, SPACING, strict=True))
    shell = np.rint(np.sqrt(sum(c**2 for c in _frequencies(shape, SPACING))) / width).astype(int)
    frequency, correlation = shell_correlation(truth, output, SPACING)
    assert frequency[-1] <= 0.5 / 0.8 < frequency[-1] + width
    for s in range(len(frequency)):
        at = shell == s
        expected = np.sum(f[at].conj() * g[at]).real / np.sqrt(np.sum(np.abs(f[at]) ** 2) * np.sum(np.abs(g[at]) ** 2))
        assert correlation[s] == pytest.approx(expected, abs=1e-9)
        assert frequency[s] == pytest.approx(s * width)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_are_those_of_the_whole_transform(axis: int) -> None:
    truth, output = _noise(0) + 3, _noise(0) + _noise(1)
    f, g = (np.fft.fftn(_faded(array, (axis,))) for array in (truth, output))
    others = tuple(a for a in range(3) if a != axis)
    cross = np.sum(f.conj() * g, others).real
    expected = cross / np.sqrt(np.sum(np.abs(f) ** 2, others) * np.sum(np.abs(g) ** 2, others))
    frequency, correlation = plane_correlation(truth, output, SPACING[axis], axis)
    assert frequency == pytest.approx(np.fft.rfftfreq(SHAPE[axis], SPACING[axis]))
    assert correlation == pytest.approx(expected[: len(frequency)], abs=1e-9)


def test_an_equal_output_is_resolved_down_to_the_grid(head: np.ndarray) -> None:
    _, shells = shell_correlation(head, head.copy(), SPACING)
    assert shells == pytest.approx(np.ones_like(shells), abs=1e-12)
    for axis, mm in enumerate(SPACING):
        assert resolution_of_planes(head, head.copy(), mm, axis) == pytest.approx(2 * mm, rel=0.03)


def test_unrelated_volumes_agree_nowhere() -> None:
    shape = (64, 60, 56)
    _, correlation = shell_correlation(_noise(0, shape), _noise(1, shape), (1, 1, 1))
    assert np.abs(correlation[4:]).max() < 0.15
    assert resolution_of_planes(_noise(0, shape), _noise(1, shape), 1.0, 2) == pytest.approx(56)


@pytest.mark.parametrize("cut", [0.15, 0.3])
def test_the_resolution_is_where_agreement_ends(cut: float) -> None:
    shape, spacing = (64, 60, 56), (1.0, 1.0, 1.2)
    i, j, k = _frequencies(shape, spacing)
    truth = _noise(0, shape)
    mixed = _mixed(truth, _noise(1, shape), np.sqrt(i**2 + j**2 + k**2), cut)
    shells = 1 / resolution_at(*shell_correlation(truth, mixed, spacing))
    assert shells == pytest.approx(cut, abs=1.5 / 64)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_tell_the_coarse_axis_from_the_others(axis: int) -> None:
    shape, spacing = (64, 60, 56), (1.0, 1.1, 0.9)
    component = np.abs(_frequencies(shape, spacing)[axis])
    truth = _noise(0, shape)
    mixed = _mixed(truth, _noise(1, shape), component, 0.2)
    for other in range(3):
        found = resolution_of_planes(truth, mixed, spacing[other], other)
        if other == axis:
            assert 1 / found == pytest.approx(0.2, abs=1.5 / 56)
        else:
            assert found == pytest.approx(2 * spacing[other], rel=0.02)


def test_the_threshold_is_crossed_along_a_straight_line() -> None:
    frequency = np.array([0, 0.1, 0.2, 0.3, 0.4])
    correlation = np.array([1, 0.9, 0.5, 0.1, 0.9])
    assert resolution_at(frequency, correlation, 0.3) == pytest.approx(1 / 0.25)
    assert resolution_at(frequency, correlation, 0.05) == pytest.approx(1 / 0.4)
    assert resolution_at(frequency, correlation, 0.95) == pytest.approx(1 / 0.1)
    assert resolution_at(frequency, correlation) == pytest.approx(1 / (0.2 + 0.1 * (0.5 - 1 / 7) / 0.4))


def test_a_shift_of_half_a_voxel_costs_resolution(head: np.ndarray) -> None:
    moved = shift(head, [0, 0, 0.5], order=3)
    _, still = plane_correlation(head, head, 1.0, 2)
    _, after = plane_correlation(head, moved, 1.0, 2)
    assert after[-1] < 0.3 < still[-1]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [-0.5, 0.1, 0.5, 1.5])
def test_a_shift_is_measured_on_its_axis(head: np.ndarray, axis: int, voxels: float) -> None:
    moved = shift(head, [voxels * (a == axis) for a in range(3)], order=3)
    for other in range(3):
        found = shift_along(head, moved, other)
        assert found == pytest.approx(voxels * (other == axis), abs=0.06 * abs(voxels) + 0.01)


def test_a_blur_is_no_shift(head: np.ndarray) -> None:
    moved = gaussian_filter(shift(head, [0, 0, 0.5], order=3), 1.0)
    assert shift_along(head, moved, 2) == pytest.approx(0.5, abs=0.05)
    assert shift_along(head, gaussian_filter(head, 1.5), 2) == pytest.approx(0, abs=0.01)


def test_an_empty_output_has_no_shift_and_no_correlation(head: np.ndarray) -> None:
    assert shift_along(head, np.zeros_like(head), 0) == 0.0
    _, correlation = plane_correlation(head, np.zeros_like(head), 1.0, 0)
    assert correlation.tolist() == [0.0] * len(correlation)
