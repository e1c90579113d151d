from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from medld.errors import InputError
from medld.metrics import power_above, power_along, power_in_bands, stripes

RATIO = 4.0


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """Texture whose power falls with frequency, as tissue's does, 48 x 48 x 128 voxels, about 0 to 1000."""
    rng = np.random.default_rng(5)
    shape = (48, 48, 128)
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij", sparse=True)))
    amplitude = 1 / np.maximum(frequency, 1 / 128) ** 2
    texture = np.fft.ifftn(np.fft.fftn(rng.standard_normal(shape)) * amplitude).real
    return np.asarray(500 + 150 * texture / texture.std(), dtype=np.float32)


def _wave(length: int, cycles: float) -> np.ndarray:
    return np.cos(2 * np.pi * cycles * (np.arange(length) + 0.5) / length)


def test_power_of_a_masked_volume_is_its_sum_of_squares() -> None:
    rng = np.random.default_rng(2)
    for length in (30, 31):
        array, mask = rng.standard_normal((5, 6, length)), rng.random((5, 6, length)) > 0.3
        for axis in range(3):
            power = power_along(array, axis, mask)
            assert len(power) == array.shape[axis] // 2 + 1
            assert power.sum() == pytest.approx(np.sum(array[mask] ** 2), rel=1e-12)
            assert power_above(array, -1.0, axis, mask) == pytest.approx(power.sum(), rel=1e-12)


def test_power_is_that_of_the_whole_transform() -> None:
    array = np.random.default_rng(3).standard_normal((6, 7, 8))
    whole = np.abs(np.fft.fftn(array)) ** 2 / array.size
    for axis in range(3):
        two_sided = whole.sum(tuple(a for a in range(3) if a != axis))
        n = array.shape[axis]
        expected = [two_sided[0], *(two_sided[f] + two_sided[-f] * (2 * f != n) for f in range(1, n // 2 + 1))]
        assert power_along(array, axis) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("cycles", "band"), [(1, 0), (8, 0), (9, 1), (31, 3), (32, 3)])
def test_a_wave_has_its_power_in_its_band_and_nowhere_else(cycles: int, band: int) -> None:
    wave = np.sin(2 * np.pi * cycles * (np.arange(64) + 0.5) / 64)[:, None, None] * np.ones((1, 3, 3)) + 7
    edges, power = power_in_bands(wave, 0.5, axis=0, bands=4)
    assert edges == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert np.flatnonzero(power > 1e-9 * power.max()).tolist() == [band]
    bins = 8 - 0.5 * (band == 3)  # the one at the Nyquist frequency is alone
    assert power[band] * bins == pytest.approx(np.sum((wave - 7) ** 2), rel=1e-9)


def test_white_noise_is_flat() -> None:
    noise = np.random.default_rng(4).standard_normal((40, 40, 60))
    _, power = power_in_bands(noise, 1.0, bands=5)
    assert power / power.mean() == pytest.approx(np.ones(5), abs=0.06)


@pytest.mark.parametrize("bands", [0, 31])
def test_refuses_more_bands_than_bins(bands: int) -> None:
    with pytest.raises(InputError, match="between 1 and 30 bands"):
        power_in_bands(np.ones((3, 3, 60)), 1.0, bands=bands)


def test_tissue_has_no_stripes(tissue: np.ndarray) -> None:
    assert stripes(tissue, RATIO) == pytest.approx(1.0, abs=0.3)
    assert stripes(tissue, RATIO, truth=tissue) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("period", [4.0, 2.0], ids=["slices", "their-half"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_pattern_that_repeats_with_the_slices_is_caught(tissue: np.ndarray, axis: int, period: float) -> None:
    pattern = _wave(128, 128 / period) if period > 2 else np.resize([1.0, -1.0], 128)
    striped = tissue + 10 * pattern
    moved, truth = (np.moveaxis(array, -1, axis) for array in (striped, tissue))
    assert stripes(moved, RATIO, axis, truth) > 5


def test_stripes_that_follow_brightness_or_turn_over_from_place_to_place_are_caught(tissue: np.ndarray) -> None:
    pattern = _wave(128, 32)
    sign = np.sign(gaussian_filter(np.random.default_rng(6).standard_normal((48, 48)), 4))[:, :, None]
    assert stripes(tissue * (1 + 0.02 * pattern), RATIO, truth=tissue) > 5
    assert stripes(tissue + 10 * sign * pattern, RATIO, truth=tissue) > 5


def test_stripes_of_another_period_are_not_the_slices(tissue: np.ndarray) -> None:
    other = tissue + 10 * _wave(128, 43)
    assert stripes(other, RATIO, truth=tissue) < 1.5


def test_stronger_stripes_give_more(tissue: np.ndarray) -> None:
    values = [stripes(tissue + height * _wave(128, 32), RATIO, truth=tissue) for height in (0, 3, 10, 30)]
    assert values == sorted(values)
    assert values[-1] > 8 * values[-2] > 8 * 8 * values[0]


def test_an_interpolation_has_no_stripes(tissue: np.ndarray) -> None:
    slices = tissue.reshape(48, 48, 32, 4).mean(-1)
    for order in (1, 3):
        smooth = zoom(slices, (1, 1, 4), order=order, mode="mirror", grid_mode=False)
        assert stripes(smooth, RATIO, truth=tissue) == pytest.approx(1.0, abs=0.3)


def test_repeated_slices_are_stripes_beside_smooth_tissue() -> None:
    ramp = 5 * np.sin(np.arange(128) / 9) + np.random.default_rng(8).normal(0, 0.01, (16, 16, 128))
    steps = ramp[:, :, ::4].repeat(4, axis=2) + np.resize([0, 0.3, 0.3, 0], 128)
    assert stripes(steps, RATIO, truth=ramp) > 5


@pytest.mark.parametrize(("length", "ratio"), [(128, 1.9), (28, 4.0)], ids=["thin-slices", "few-slices"])
def test_refuses_where_stripes_cannot_be_told(tissue: np.ndarray, length: int, ratio: float) -> None:
    with pytest.raises(InputError, match="Stripes cannot be told") as caught:
        stripes(tissue[:, :, :length], ratio)
    assert caught.value.code == "E_TOO_FEW"


def test_refuses_a_volume_that_does_not_vary_along_the_slices() -> None:
    with pytest.raises(InputError, match="varies along the slices"):
        stripes(np.ones((8, 8, 64)), RATIO)
