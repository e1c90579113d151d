"""Network units and the noise of a scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medld.intensity import HIGH_PASS, TEXTURE, estimate_noise, intensity_map

SINGLE = 1e-6
"""Float32 of values of order one."""

NOISE_TOLERANCE = 0.15
"""The quietest tenth of some hundred windows scatters by several percent."""


def head(rows: int = 96, columns: int = 90, slices: int = 5) -> np.ndarray:
    """A smooth ellipse of values .3 to .9 in air that is zero, (rows, columns, slices)."""
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in (rows, columns, slices)), indexing="ij")
    inside = i**2 + j**2 < 0.8
    return np.where(inside, 0.6 + 0.2 * np.sin(2 * i + k) * np.cos(1.5 * j) + 0.1 * k, 0.0).astype(np.float32)


def as_scan(array: np.ndarray) -> torch.Tensor:
    """(I, J, K) as a batch of one."""
    return torch.from_numpy(array.astype(np.float32))[None, None]


@pytest.mark.parametrize("modality", ["mr", "unknown", "ct"])
def test_the_inverse_undoes_the_map(modality: str, rng: np.random.Generator) -> None:
    array = rng.normal(200, 900, (9, 8, 7)).astype(np.float32)
    units = intensity_map(array, modality)
    back = units.inverse(units.forward(array))
    assert np.abs(back - array).max() <= SINGLE * np.abs(array).max()
    assert np.ptp(units.forward(array)) > 0.5  # it is no constant


def test_tissue_lies_near_one_whatever_the_gain(rng: np.random.Generator) -> None:
    array = head() * rng.uniform(0.8, 1.0, head().shape).astype(np.float32)
    for gain in (1e-3, 1.0, 4000.0):
        scaled = intensity_map(array * np.float32(gain), "mr").forward(array * np.float32(gain))
        assert np.percentile(scaled[scaled != 0], 99.9) == pytest.approx(1, rel=1e-5)


def test_air_around_the_head_does_not_count() -> None:
    array = head()
    wide = np.pad(array, 60)
    assert intensity_map(wide, "mr") == intensity_map(array, "mr")


def test_negative_values_count_by_magnitude() -> None:
    assert intensity_map(-head(), "mr") == intensity_map(head(), "mr")


def test_zeros_alone_are_left_as_they_are() -> None:
    units = intensity_map(np.zeros((4, 4, 4), np.float32), "mr")
    assert (units.scale, units.offset) == (1.0, 0.0)


def test_hounsfield_units_do_not_depend_on_the_scan() -> None:
    units = intensity_map(np.full((3, 3, 3), -1024.0, np.float32), "ct")
    assert units == intensity_map(head(), "ct")
    assert units.forward(-1024.0) == 0
    assert units.forward(1024.0) == 1


def test_the_high_pass_keeps_white_noise_and_drops_parabolas() -> None:
    assert np.sum(HIGH_PASS**2) == pytest.approx(1)
    positions = np.arange(5.0)
    for power in range(4):
        assert np.dot(HIGH_PASS, positions**power) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("sigma", [0.01, 0.015, 0.02, 0.03, 0.05])
def test_noise_on_a_smooth_head_is_found(sigma: float, rng: np.random.Generator) -> None:
    noisy = as_scan(head() + rng.normal(0, sigma, head().shape))
    assert float(estimate_noise(noisy, texture=0.0)) == pytest.approx(sigma, rel=NOISE_TOLERANCE)
    expected = (sigma**2 - TEXTURE**2) ** 0.5  # what anatomy may account for is taken off in quadrature
    assert float(estimate_noise(noisy)) == pytest.approx(expected, rel=1.5 * NOISE_TOLERANCE)


def test_the_calibration_holds_for_white_noise(rng: np.random.Generator) -> None:
    calibration = 0.03  # the constant was measured on windows fewer than these
    many = as_scan(1 + rng.normal(0, 0.02, (400, 400, 3)))
    assert float(estimate_noise(many, texture=0.0)) == pytest.approx(0.02, rel=calibration)


@pytest.mark.parametrize("offset", [(0, 0), (3, 5)])
def test_a_smooth_head_without_noise_gives_zero(offset: tuple[int, int]) -> None:
    assert float(estimate_noise(as_scan(head()[offset[0] :, offset[1] :]))) == 0


def test_air_set_to_zero_does_not_hide_noise(rng: np.random.Generator) -> None:
    noise = rng.normal(0, 0.03, head().shape)
    everywhere, masked = as_scan(head() + noise), as_scan((head() + noise) * (head() > 0))
    assert float(estimate_noise(masked)) == pytest.approx(float(estimate_noise(everywhere)), rel=NOISE_TOLERANCE)


def test_edges_do_not_pass_for_noise() -> None:
    array = head()
    array[40:60, 30:50] *= 0.4
    assert float(estimate_noise(as_scan(array))) == 0


def test_an_estimate_does_not_depend_on_its_neighbours(rng: np.random.Generator) -> None:
    alone = as_scan(head() + rng.normal(0, 0.02, head().shape))
    loud, empty = as_scan(head() + rng.normal(0, 0.3, head().shape)), torch.zeros_like(alone)
    together = estimate_noise(torch.cat([loud, alone, empty]))
    assert float(together[1]) == pytest.approx(float(estimate_noise(alone)[0]), rel=SINGLE)
    assert float(together[2]) == 0


def test_slices_do_not_mix(rng: np.random.Generator) -> None:
    noisy = head() + rng.normal(0, 0.02, head().shape)
    order = rng.permutation(noisy.shape[2])
    assert float(estimate_noise(as_scan(noisy[..., order]))) == float(estimate_noise(as_scan(noisy)))


@pytest.mark.parametrize("array", [np.ones((12, 40, 3)), np.full((40, 40, 3), 0.01)], ids=["small", "dark"])
def test_what_holds_no_window_of_tissue_gives_zero(array: np.ndarray, rng: np.random.Generator) -> None:
    assert float(estimate_noise(as_scan(array + rng.normal(0, 0.005, array.shape)))) == 0
