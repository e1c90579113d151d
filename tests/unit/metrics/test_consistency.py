from __future__ import annotations

import numpy as np
import pytest

from medld.errors import InputError
from medld.metrics import consistency_residual, disagreement

RATIO = 4


def _image(fine: np.ndarray) -> np.ndarray:
    """Slices that are the mean of four voxels."""
    return np.asarray(fine.reshape(*fine.shape[:-1], -1, RATIO).mean(-1))


@pytest.fixture(scope="module")
def scan() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 800, (9, 8, 7)).astype(np.float32)


def test_an_output_that_says_what_the_scan_says_leaves_nothing(scan: np.ndarray) -> None:
    assert consistency_residual(scan.copy(), scan, noise=3.0) == {
        "rms": 0.0,
        "relative_to_range": 0.0,
        "relative_to_noise": 0.0,
    }


def test_a_residual_is_told_in_units_of_scan_range_and_noise(scan: np.ndarray) -> None:
    sign = np.where(np.indices(scan.shape).sum(0) % 2, 1, -1)
    values = consistency_residual(scan.astype(np.float64) + 6 * sign, scan, noise=3.0)
    expected = {"rms": 6.0, "relative_to_range": 6 / np.ptp(scan), "relative_to_noise": 2.0}
    assert values == pytest.approx(expected, rel=1e-6)


def test_an_output_free_of_the_scans_noise_leaves_the_noise(scan: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(0, 5, (40, 40, 40))
    assert consistency_residual(np.zeros_like(noise), noise, 5.0)["relative_to_noise"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("noise", [None, 0.0])
def test_nothing_is_said_of_noise_that_is_not_known(scan: np.ndarray, noise: float | None) -> None:
    assert set(consistency_residual(scan, scan, noise)) == {"rms", "relative_to_range"}


@pytest.mark.parametrize("case", ["shape", "nan", "constant", "nan-scan"])
def test_refuses_a_residual_of_nothing(scan: np.ndarray, case: str) -> None:
    reimaged, other = scan.copy(), scan.copy()
    if case == "shape":
        reimaged = reimaged[1:]
    elif case == "nan":
        reimaged[0, 0, 0] = np.nan
    else:
        other[:] = 5 if case == "constant" else np.nan
    with pytest.raises(InputError) as caught:
        consistency_residual(reimaged, other)
    assert caught.value.code == "E_PIXELS"


def test_samples_that_differ_where_the_scan_says_nothing_do_not_disagree() -> None:
    rng = np.random.default_rng(2)
    common = rng.uniform(0, 800, (8, 8, 32))
    details = [rng.normal(0, 30, (8, 8, 8, RATIO)) for _ in range(5)]
    samples = [common + (d - d.mean(-1, keepdims=True)).reshape(common.shape) for d in details]
    assert disagreement(samples, [_image(s) for s in samples]) < 1e-12


def test_samples_that_differ_in_whole_slices_disagree_wholly() -> None:
    rng = np.random.default_rng(3)
    samples = [rng.normal(0, 30, (8, 8, 8)).repeat(RATIO, axis=2) for _ in range(4)]
    assert disagreement(samples, [_image(s) for s in samples]) == pytest.approx(1.0, abs=1e-12)


def test_white_noise_disagrees_by_the_noise_of_a_slice() -> None:
    rng = np.random.default_rng(4)
    samples = [rng.normal(100, 30, (24, 24, 64)).astype(np.float32) for _ in range(4)]
    assert disagreement(samples, [_image(s) for s in samples]) == pytest.approx(RATIO**-0.5, abs=0.01)


@pytest.mark.parametrize(
    ("samples", "reimaged", "says"),
    [
        ([np.zeros(4)], [np.zeros(1)], "at least two"),
        ([np.zeros(4), np.ones(4)], [np.zeros(1)], "at least two"),
        ([np.zeros(4), np.zeros(4)], [np.zeros(1), np.zeros(1)], "the same one"),
        ([np.zeros(4), np.ones(8)], [np.zeros(1), np.zeros(1)], "one shape"),
        ([np.zeros(4), np.full(4, np.nan)], [np.zeros(1), np.zeros(1)], "finite"),
    ],
    ids=["one", "images-missing", "equal", "shapes", "nan"],
)
def test_refuses_samples_that_tell_nothing(samples: list[np.ndarray], reimaged: list[np.ndarray], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        disagreement(samples, reimaged)
    assert caught.value.code == "E_PIXELS"
