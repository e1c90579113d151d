from __future__ import annotations

import numpy as np
import pytest
from fine_scans import make_head, make_volume

from medld.errors import ConfigError, InputError
from medld.evaluation.baselines import upsample_cubic
from medld.evaluation.figures import choose_metrics, measure, reimage
from medld.evaluation.methods import Case, make_methods
from medld.evaluation.protocol import ProtocolConfig, load_protocol
from medld.evaluation.simulate import Simulated, image
from medld.metrics import METRICS, Metric, Reference


def _fail(name: str, error: InputError) -> None:
    raise AssertionError(name) from error


def _measure(made: Simulated, protocol: ProtocolConfig, output: np.ndarray, *metrics: Metric) -> dict[str, float]:
    return measure(Reference(made.truth.array), output, made, protocol, metrics, _fail)


@pytest.fixture(scope="module")
def made() -> Simulated:
    return image(make_volume(make_head()), load_protocol("through-plane-4x"))


@pytest.mark.parametrize("name", ["through-plane-3.5x", "through-plane-5mm-gap", "kspace-2x", "blockmean-2x"])
def test_the_truth_imaged_again_is_the_scan(name: str) -> None:
    made = image(make_volume(make_head()), load_protocol(name))
    again = reimage(made.truth.array, made, load_protocol(name))
    np.testing.assert_array_equal(again, made.scan.array)


def test_the_headline_is_what_medld_metrics_says(made: Simulated) -> None:
    output = made.truth.array * 0.9
    reference = Reference(made.truth.array)
    assert _measure(made, load_protocol("through-plane-4x"), output) == {
        "psnr": reference.psnr(output),
        "ssim": reference.ssim(output),
        "detail_share": reference.detail_share(output, 4.0),
    }


def test_the_share_of_detail_is_along_the_slices() -> None:
    head = make_head(shape=(32, 26, 24))
    protocol = ProtocolConfig(name="p", axes="through-plane", ratio=4, axis=0)
    made = image(make_volume(head), protocol)
    blurred = np.repeat(made.truth.array[:, :, ::4], 4, axis=2)  # detail is lost along another axis than the slices'
    share = _measure(made, protocol, blurred)["detail_share"]
    assert share == Reference(made.truth.array).detail_share(blurred, 4.0, 0)


def test_all_metrics_that_a_simulation_allows_are_computed_and_a_perfect_output_is_perfect(made: Simulated) -> None:
    metrics = choose_metrics(["all"])
    found = _measure(made, load_protocol("through-plane-4x"), made.truth.array, *metrics)
    columns = {name.partition("_")[0] for name in found}
    assert {metric.name.partition("_")[0] for metric in metrics} <= columns
    assert found["residual_rms"] == 0
    assert found["psnr_whole"] == float("inf")
    assert found["ssim"] == pytest.approx(1)
    assert "psnr_foreground" not in found  # the headline's own
    assert list(found)[:3] == ["psnr", "ssim", "detail_share"]


def test_only_what_is_asked_for_is_computed(made: Simulated) -> None:
    assert choose_metrics(None) == ()
    (residual,) = choose_metrics(["residual"])
    found = _measure(made, load_protocol("through-plane-4x"), made.truth.array * 0.9, residual)
    assert set(found) == {"psnr", "ssim", "detail_share", "residual_rms", "residual_relative_to_range"}


def test_a_residual_is_told_over_the_noise_where_there_is_some() -> None:
    protocol = load_protocol("through-plane-4x-noise2")
    made = image(make_volume(make_head()), protocol, "a")
    found = _measure(made, protocol, made.truth.array, *choose_metrics(["residual"]))
    assert found["residual_relative_to_noise"] == pytest.approx(1, rel=0.3)  # the truth leaves the noise, Rician in air


@pytest.mark.parametrize("name", ["through-plane-3.5x", "through-plane-5mm-gap", "isotropic-2x"])
def test_b_leaves_no_residual_where_its_profile_is_the_scans(name: str) -> None:
    protocol = load_protocol(name)
    made = image(make_volume(make_head(shape=(34, 36, 48))), protocol)
    (b,) = make_methods(["B"], {}, [], device="cpu")
    output = b.restore(Case(made, protocol, "a", ("a",), True)).array
    residual, cubic = (
        _measure(made, protocol, array, *choose_metrics(["residual"]))["residual_relative_to_range"]
        for array in (output, upsample_cubic(made.scan, made.truth.grid.shape))
    )
    assert residual < 1e-3 < 3e-3 < cubic


def test_unknown_metrics_and_those_that_need_more_are_refused() -> None:
    with pytest.raises(ConfigError, match="residual"):
        choose_metrics(["sharpnes"])
    with pytest.raises(ConfigError, match="labels"):
        choose_metrics(["dice"])
    assert {"dice", "disagreement"} <= set(METRICS)
    assert not {"dice", "disagreement"} & {metric.name for metric in choose_metrics(["all"])}


def test_a_figure_that_cannot_be_computed_is_named_and_the_others_stay(made: Simulated) -> None:
    smooth = Simulated(make_volume(np.repeat(make_head()[:, :, 16:17], 32, axis=2)), made.scan, 0.0)
    failed: list[str] = []
    protocol = load_protocol("through-plane-4x")
    reference = Reference(smooth.truth.array)
    found = measure(reference, smooth.truth.array * 0.9, smooth, protocol, (), lambda name, error: failed.append(name))
    assert (failed, np.isnan(found["detail_share"]), np.isfinite(found["psnr"])) == (["detail_share"], True, True)


def test_an_output_that_is_not_finite_or_of_another_shape_is_refused(made: Simulated) -> None:
    broken = made.truth.array.copy()
    broken[2, 2, 2] = np.inf
    for output in (broken, made.truth.array[:-1]):
        with pytest.raises(InputError):
            _measure(made, load_protocol("through-plane-4x"), output)
