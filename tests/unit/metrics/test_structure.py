from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import MultiScaleSSIMMetric, SSIMMetric, regression
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from skimage.metrics import structural_similarity

from medld.errors import InputError
from medld.metrics import Reference
from medld.metrics.structure import WEIGHTS, likeness, multiscale, scales_that_fit

SAME_DEFINITION = 1e-6


@pytest.fixture
def monai_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI as it is but for float64: in float32 its variances, differences of squares, are off by 1e-5."""
    monkeypatch.setattr(regression, "convert_data_type", lambda data, **_: (data.double(), None, None))


@pytest.fixture(scope="module")
def output(head: np.ndarray) -> np.ndarray:
    """Blurred and noisy, beyond the truth's range in places."""
    rng = np.random.default_rng(1)
    return (gaussian_filter(head, [0, 0, 1.2]) + rng.normal(0, 30, head.shape)).astype(np.float32)


def _clipped(truth: np.ndarray, output: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    return truth.astype(np.float64), output.clip(truth.min(), truth.max()).astype(np.float64), float(np.ptp(truth))


def _tensors(truth: np.ndarray, output: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and truth in [0, 1] with batch and channel, in MONAI's order."""
    x, y, data_range = _clipped(truth, output)
    return torch.from_numpy(y / data_range)[None, None], torch.from_numpy(x / data_range)[None, None]


def _multiscale_by_numpy(truth: np.ndarray, output: np.ndarray, scales: int) -> float:
    """MS-SSIM by one dense 3D window, float64."""
    x, y, data_range = _clipped(truth, output)
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.einsum("i,j,k->ijk", taps, taps, taps)
    window /= window.sum()
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    value = 1.0
    for scale in range(scales):
        mean = {name: fftconvolve(a, window, "valid") for name, a in zip("xy", (x, y), strict=True)}
        var_x = fftconvolve(x * x, window, "valid") - mean["x"] ** 2
        var_y = fftconvolve(y * y, window, "valid") - mean["y"] ** 2
        covariance = fftconvolve(x * y, window, "valid") - mean["x"] * mean["y"]
        c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
        factor = (2 * covariance + c2) / (var_x + var_y + c2)
        if scale == scales - 1:
            factor *= (2 * mean["x"] * mean["y"] + c1) / (mean["x"] ** 2 + mean["y"] ** 2 + c1)
        value *= max(factor.mean(), 0) ** weights[scale]
        i, j, k = (n // 2 * 2 for n in x.shape)
        x, y = (a[:i, :j, :k].reshape(i // 2, 2, j // 2, 2, k // 2, 2).mean((1, 3, 5)) for a in (x, y))
    return float(value)


@pytest.mark.usefixtures("monai_in_double")
def test_the_whole_is_the_number_that_scikit_image_and_monai_give(head: np.ndarray, output: np.ndarray) -> None:
    whole = Reference(head).ssims(output)["whole"]
    x, y, data_range = _clipped(head, output)
    expected = structural_similarity(
        x, y, data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert whole == pytest.approx(expected, abs=SAME_DEFINITION)
    by_monai = SSIMMetric(spatial_dims=3, data_range=1.0)(*_tensors(head, output))
    assert whole == pytest.approx(float(by_monai), abs=SAME_DEFINITION)


def test_the_foreground_is_the_same_in_one_pass_as_alone(head: np.ndarray, output: np.ndarray) -> None:
    reference = Reference(head)
    assert reference.ssims(output)["foreground"] == pytest.approx(reference.ssim(output), abs=1e-12)


@pytest.mark.usefixtures("monai_in_double")
def test_multiscale_is_monais_with_three_scales(head: np.ndarray, output: np.ndarray) -> None:
    assert scales_that_fit(head.shape) == 3
    weights = np.array(WEIGHTS[:3]) / sum(WEIGHTS[:3])
    metric = MultiScaleSSIMMetric(spatial_dims=3, data_range=1.0, weights=weights.tolist())
    by_monai = float(metric(*_tensors(head, output)))
    assert Reference(head).ssims(output)["multiscale"] == pytest.approx(by_monai, abs=SAME_DEFINITION)


@pytest.mark.parametrize(("cut", "scales"), [(0, 3), (1, 2), (23, 1)], ids=["three", "two-odd", "one"])
def test_multiscale_is_numpys(head: np.ndarray, output: np.ndarray, cut: int, scales: int) -> None:
    truth, output = head[..., cut:], output[..., cut:]
    _, y, data_range = _clipped(truth, output)
    assert scales_that_fit(truth.shape) == scales
    value = multiscale(truth, y, data_range)
    assert value == pytest.approx(_multiscale_by_numpy(truth, output, scales), abs=1e-9)


@pytest.mark.parametrize(
    ("side", "scales"), [(10, 0), (11, 1), (21, 1), (22, 2), (88, 4), (175, 4), (176, 5), (900, 5)]
)
def test_as_many_scales_as_leave_a_window(side: int, scales: int) -> None:
    assert scales_that_fit((side, 1000, 1000)) == scales


def test_an_equal_output_has_one_everywhere(head: np.ndarray) -> None:
    values = Reference(head).ssims(head.copy())
    assert set(values) == {"foreground", "whole", "multiscale"}
    assert list(values.values()) == pytest.approx([1, 1, 1], abs=1e-12)


def test_more_blur_is_worse_by_every_number(head: np.ndarray) -> None:
    reference = Reference(head)
    values = [reference.ssims(gaussian_filter(head, sigma)) for sigma in (0.5, 1.0, 2.0)]
    for key in ("foreground", "whole", "multiscale"):
        assert values[0][key] > values[1][key] > values[2][key]


def test_an_unrelated_output_has_none_rather_than_a_complex_power(head: np.ndarray) -> None:
    mirrored = float(head.max()) - head
    assert Reference(head).ssims(mirrored)["multiscale"] == 0.0


def test_a_thin_volume_has_no_whole_and_no_scale(head: np.ndarray) -> None:
    thin = head[:, :, 15:25]
    assert set(Reference(thin).ssims(thin)) == {"foreground"}
    assert likeness(thin, thin, 1.0).inner is None
    with pytest.raises(InputError, match="at least 11 voxels") as caught:
        multiscale(thin, thin, 1.0)
    assert caught.value.code == "E_TOO_FEW"
