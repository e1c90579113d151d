from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from medld.errors import InputError
from medld.metrics import Reference, detail_closed, find_foreground, power_above, psnr, ssim

SAME_DEFINITION = 1e-6
"""scikit-image convolves in the same order; only rounding may differ."""


def _head(seed: int = 0, shape: tuple[int, int, int] = (40, 37, 30), dtype: type = np.float32) -> np.ndarray:
    """A textured ellipsoid in empty air that does not touch the borders."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1.2, 1.2, n) for n in shape]
    i, j, k = np.meshgrid(*axes, indexing="ij")
    texture = gaussian_filter(rng.standard_normal(shape), 1.0)
    return np.where(i**2 + j**2 + k**2 < 1, 600 + 800 * texture, 0).clip(0).astype(dtype)


def _skimage(truth: np.ndarray, output: np.ndarray) -> tuple[float, float]:
    """PSNR and SSIM by scikit-image on the whole box, averaged over the foreground."""
    foreground = truth > 0.05 * np.percentile(truth, 99.5)
    data_range = float(truth.max() - truth.min())
    output = np.clip(output, truth.min(), truth.max())
    _, likeness = structural_similarity(
        truth.astype(np.float64),
        output.astype(np.float64),
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    in_foreground = peak_signal_noise_ratio(
        truth[foreground].astype(np.float64), output[foreground].astype(np.float64), data_range=data_range
    )
    return float(in_foreground), float(likeness[foreground].mean())


@pytest.mark.parametrize("offset", [0, -1024], ids=["mr", "ct"])
@pytest.mark.parametrize("spread", [20, 400], ids=["small-errors", "clipped-errors"])
def test_agrees_with_scikit_image(offset: int, spread: int) -> None:
    truth = _head() * (3 if offset else 1) + offset
    output = truth + np.random.default_rng(1).normal(0, spread, truth.shape).astype(np.float32)
    expected_psnr, expected_ssim = _skimage(truth, output)
    assert psnr(truth, output) == pytest.approx(expected_psnr, abs=SAME_DEFINITION)
    assert ssim(truth, output) == pytest.approx(expected_ssim, abs=SAME_DEFINITION)


def test_agrees_with_scikit_image_where_tissue_touches_the_border() -> None:
    truth = _head()[8:30, 10:, :17]
    output = gaussian_filter(truth, 0.8)
    _, expected = _skimage(truth, output)
    assert ssim(truth, output) == pytest.approx(expected, abs=SAME_DEFINITION)


@pytest.mark.data
def test_agrees_with_scikit_image_on_a_real_scan(data: Path) -> None:
    truth = nibabel.load(data / "val" / "sub-ds002748s07_T1w.nii.gz").get_fdata(dtype=np.float32)
    output = gaussian_filter(truth, [0, 0, 1.0]) + np.random.default_rng(4).normal(0, 5, truth.shape)
    assert (psnr(truth, output), ssim(truth, output)) == pytest.approx(_skimage(truth, output), abs=SAME_DEFINITION)


@pytest.mark.parametrize("offset", [0, -1024], ids=["mr", "ct"])
def test_the_error_of_the_whole_volume_is_scikit_images(offset: int) -> None:
    truth = _head() * (3 if offset else 1) + offset
    output = truth + np.random.default_rng(1).normal(3, 90, truth.shape).astype(np.float32)
    x, y, data_range = truth.astype(np.float64), output.astype(np.float64), float(np.ptp(truth))
    reference = Reference(truth)
    expected = peak_signal_noise_ratio(x, y.clip(x.min(), x.max()), data_range=data_range)
    assert reference.psnrs(output)["whole"] == pytest.approx(expected, abs=SAME_DEFINITION)
    for name in ("euclidean", "min_max", "mean"):
        expected = normalized_root_mse(x, y, normalization=name.replace("_", "-"))
        assert reference.nrmse(output, name) == pytest.approx(expected, abs=SAME_DEFINITION)


def test_air_counts_in_the_whole() -> None:
    truth = _head()
    output = np.where(find_foreground(truth), truth, 30)
    values = Reference(truth).psnrs(output)
    assert values["foreground"] == float("inf")
    assert values["whole"] < 40


def test_an_error_over_a_mean_of_zero_is_refused() -> None:
    truth = np.where(np.arange(1000) % 2, 1.0, -1.0)
    with pytest.raises(InputError, match="mean is not 0"):
        Reference(truth).nrmse(truth, "mean")


def test_the_stored_type_does_not_change_the_numbers() -> None:
    truth = _head(dtype=np.int16)
    output = gaussian_filter(truth.astype(np.float64), 0.6)
    single = psnr(truth, output.astype(np.float32)), ssim(truth, output.astype(np.float32))
    assert single == pytest.approx((psnr(truth, output), ssim(truth, output)), abs=SAME_DEFINITION)


def test_an_equal_output_is_perfect() -> None:
    truth = _head()
    assert psnr(truth, truth.copy()) == float("inf")
    assert ssim(truth, truth.copy()) == pytest.approx(1.0, abs=1e-12)
    assert Reference(truth).detail_share(truth, 4.0) == 1.0


def test_a_known_error_gives_the_known_psnr() -> None:
    truth = _head()
    inside = find_foreground(truth)
    output = np.where(inside, truth + np.where(truth > truth.max() / 2, -10, 10), truth)
    assert psnr(truth, output) == pytest.approx(20 * np.log10((truth.max() - truth.min()) / 10), abs=1e-3)


def test_air_does_not_count() -> None:
    truth = _head()
    output = np.where(find_foreground(truth), truth, 300)
    assert psnr(truth, output) == float("inf")


def test_values_the_truth_cannot_have_are_clipped() -> None:
    truth = _head()
    brightest = truth == truth.max()
    assert psnr(truth, np.where(brightest, truth + 1e6, truth)) == float("inf")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_a_voxel_of_shift_is_caught_on_every_axis(axis: int) -> None:
    truth = gaussian_filter(_head(), 1.0)
    moved = [shift(truth, [step * (a == axis) for a in range(3)], order=3) for step in (0.1, 0.5, 1.0)]
    assert psnr(truth, moved[0]) > psnr(truth, moved[1]) + 10 > psnr(truth, moved[2]) + 10
    assert ssim(truth, moved[0]) > ssim(truth, moved[1]) > ssim(truth, moved[2])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blur_is_caught_on_every_axis(axis: int) -> None:
    truth = _head()
    blurred = [gaussian_filter(truth, [width * (a == axis) for a in range(3)]) for width in (0.4, 0.8, 1.6)]
    reference = Reference(truth)
    for measure in (reference.psnr, reference.ssim, lambda array: reference.detail_share(array, 2.0, axis)):
        values = [measure(array) for array in blurred]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == len(values)


def test_power_obeys_parseval() -> None:
    for length in (30, 31):
        array = np.random.default_rng(2).standard_normal((5, 6, length))
        for axis in range(3):
            assert power_above(array, -1.0, axis) == pytest.approx(np.sum(array**2), rel=1e-12)


@pytest.mark.parametrize(("cycles", "above"), [(3, False), (4, False), (5, True), (16, True)])
def test_power_of_a_wave_lies_on_its_side_of_the_scans_nyquist(cycles: int, above: bool) -> None:
    ratio, length = 4.0, 32  # eight slices resolve four cycles
    wave = np.cos(2 * np.pi * cycles * (np.arange(length) + 0.25) / length) * np.ones((3, 3, 1))
    total = np.sum(wave**2)
    assert power_above(wave, 1 / (2 * ratio)) == pytest.approx(total if above else 0, abs=1e-9 * total)


def test_detail_share_counts_the_foreground_alone() -> None:
    truth = _head()
    noise = np.random.default_rng(3).normal(0, 50, truth.shape)
    noisy_air = truth + np.where(find_foreground(truth), 0, noise)
    noisy_head = truth + np.where(find_foreground(truth), noise, 0)
    assert Reference(truth).detail_share(noisy_air, 4.0) == pytest.approx(1.0, abs=1e-12)
    assert Reference(truth).detail_share(noisy_head, 4.0) > 1.0


def test_detail_closed_is_a_share_of_what_is_missing() -> None:
    assert detail_closed(0.4, 0.4) == 0
    assert detail_closed(1.0, 0.4) == 1
    assert detail_closed(0.7, 0.4) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("truth", "output"),
    [
        (np.zeros((12, 12, 12)), np.zeros((12, 12, 12))),
        (np.full((12, 12, 12), np.nan), np.zeros((12, 12, 12))),
        (-_head(), -_head()),
        (_head(), _head()[1:]),
        (_head(), np.full_like(_head(), np.inf)),
    ],
    ids=["constant", "nan", "no-foreground", "other-shape", "not-finite-output"],
)
def test_refuses_what_a_number_would_hide(truth: np.ndarray, output: np.ndarray) -> None:
    with pytest.raises(InputError) as caught:
        ssim(truth, output)
    assert caught.value.code == "E_PIXELS"
