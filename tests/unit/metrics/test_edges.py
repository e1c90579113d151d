from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter, shift, sobel

from medld.errors import InputError
from medld.metrics import Reference

SPACING = (0.8, 0.9, 1.5)


def _fspecial_log() -> np.ndarray:
    """MATLAB's fspecial('log', 15, 1.5) with a third dimension: fspecial3."""
    i, j, k = np.mgrid[-7:8, -7:8, -7:8]
    square = i**2 + j**2 + k**2
    gaussian = np.exp(-square / (2 * 1.5**2))
    kernel = gaussian * (square - 3 * 1.5**2) / (1.5**4 * gaussian.sum())
    return np.asarray(kernel - kernel.mean())


@pytest.mark.parametrize("offset", [0, -1024], ids=["mr", "ct"])
def test_hfen_is_that_of_the_papers_kernel_in_three_dimensions(head: np.ndarray, offset: int) -> None:
    truth = head[4:32, 8:34, 10:30] * (3 if offset else 1) + offset
    output = gaussian_filter(truth, [0, 0, 1.0]) + np.random.default_rng(0).normal(0, 20, truth.shape)
    kernel = _fspecial_log()
    of_error, of_truth = (
        convolve(array.astype(np.float64), kernel, mode="reflect") for array in (output - truth, truth)
    )
    reference = Reference(truth)
    inside = reference.foreground
    values = reference.hfen(output)
    assert values["whole"] == pytest.approx(np.linalg.norm(of_error) / np.linalg.norm(of_truth), abs=1e-6)
    expected = np.linalg.norm(of_error[inside]) / np.linalg.norm(of_truth[inside])
    assert values["foreground"] == pytest.approx(expected, abs=1e-6)


def test_hfen_is_none_for_an_equal_output_and_one_for_an_empty_one(head: np.ndarray) -> None:
    reference = Reference(head)
    assert reference.hfen(head.copy()) == {"foreground": 0.0, "whole": 0.0}
    assert reference.hfen(np.zeros_like(head)) == pytest.approx({"foreground": 1.0, "whole": 1.0}, abs=1e-12)


def test_hfen_sees_edges_and_not_a_bias(head: np.ndarray) -> None:
    reference = Reference(head)
    biased = reference.hfen(head + 100)["whole"]
    blurred = [reference.hfen(gaussian_filter(head, sigma))["whole"] for sigma in (0.5, 1.0)]
    moved = reference.hfen(shift(head, [0, 0, 0.5], order=1))["whole"]
    assert biased < 1e-5 < 0.05 < blurred[0] < blurred[1]
    assert moved > 0.1


def test_sharpness_is_the_energy_of_sobel_filters(head: np.ndarray) -> None:
    output = gaussian_filter(head, 0.7)
    reference = Reference(head)

    def energy(array: np.ndarray, axes: tuple[int, ...]) -> float:
        gradients = [sobel(array.astype(np.float64), axis=a, mode="reflect") / SPACING[a] for a in axes]
        return float(sum((g[reference.foreground] ** 2).sum() for g in gradients))

    expected = energy(output, (0, 1, 2)) / energy(head, (0, 1, 2))
    assert reference.sharpness(output, SPACING) == pytest.approx(expected, abs=1e-9)
    for axis in range(3):
        expected = energy(output, (axis,)) / energy(head, (axis,))
        assert reference.sharpness(output, SPACING, axis) == pytest.approx(expected, abs=1e-9)


def test_an_equal_output_is_as_sharp_as_the_truth_and_a_bias_keeps_it_so(head: np.ndarray) -> None:
    reference = Reference(head)
    assert reference.sharpness(head.copy(), SPACING) == 1.0
    assert reference.sharpness(head + np.float32(64), SPACING) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_blur_is_told_by_its_axis(head: np.ndarray, axis: int) -> None:
    blurred = gaussian_filter(head, [1.2 * (a == axis) for a in range(3)])
    reference = Reference(head)
    along = [reference.sharpness(blurred, SPACING, a) for a in range(3)]
    assert along[axis] == min(along)
    assert along[axis] < 0.6
    assert along[axis] < reference.sharpness(blurred, (1, 1, 1)) < 1


def test_noise_counts_as_sharpness(head: np.ndarray) -> None:
    noisy = head + np.random.default_rng(3).normal(0, 100, head.shape)
    assert Reference(head).sharpness(noisy, SPACING) > 1.1


def test_refuses_a_truth_without_edges_along_the_axis() -> None:
    wall = np.repeat(np.arange(12.0)[:, None, None] + 1, 12, axis=1).repeat(12, axis=2)
    with pytest.raises(InputError, match="edges along axis 2"):
        Reference(wall).sharpness(wall, SPACING, 2)
