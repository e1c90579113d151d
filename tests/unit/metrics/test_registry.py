from __future__ import annotations

import tracemalloc
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from medld.errors import InputError
from medld.metrics import METRICS, Facts, Lesion, Reference, insert_lesions, lesion_map

SPACING = (0.9, 0.9, 1.0)
RATIO = 4.0
LESIONS = (Lesion((17, 23, 22), 4.0, 400), Lesion((31, 23, 22), 4.0, -400))
CONTROLS = (Lesion((17, 23, 36), 4.0, 400), Lesion((31, 23, 36), 4.0, -400))


def _image(fine: np.ndarray) -> np.ndarray:
    """Slices that are the mean of four voxels."""
    return np.asarray(fine.reshape(*fine.shape[:2], -1, 4).mean(-1))


@pytest.fixture(scope="module")
def reference(head: np.ndarray) -> Reference:
    return Reference(insert_lesions(head, LESIONS, SPACING))


def _facts(reference: Reference, output: np.ndarray) -> Facts:
    """All facts; the samples differ in detail alone, the labels are three levels of brightness."""
    truth = reference.truth
    rng = np.random.default_rng(0)
    samples = [output + d - _image(d).repeat(4, axis=2) for d in rng.normal(0, 9, (3, *truth.shape))]
    return Facts(
        spacing=SPACING,
        ratios=(1.0, 1.0, RATIO),
        scan=_image(truth),
        reimaged=_image(output),
        noise=5.0,
        samples=samples,
        reimaged_samples=[_image(sample) for sample in samples],
        unseen_samples=[sample - _image(sample).repeat(4, axis=2) for sample in samples],
        lesions=lesion_map(truth.shape, SPACING, LESIONS),
        diameters=(4.0, 4.0),
        controls=lesion_map(truth.shape, SPACING, CONTROLS),
        truth_labels=np.digitize(truth, (300, 600)),
        output_labels=np.digitize(output, (300, 600)),
    )


def _row(reference: Reference, output: np.ndarray) -> dict[str, float]:
    """All columns of one output."""
    facts = _facts(reference, output)
    return {k: v for m in METRICS.values() for k, v in m.columns(reference, output, facts).items()}


@pytest.fixture(scope="module")
def perfect(reference: Reference) -> dict[str, float]:
    return _row(reference, reference.truth.copy())


def test_a_perfect_output_has_perfect_scores(reference: Reference, perfect: dict[str, float]) -> None:
    for name, metric in METRICS.items():
        columns = {k: v for k, v in perfect.items() if k == name or k.startswith(f"{name}_")}
        assert columns
        for column, value in columns.items():
            if metric.better == "zero":
                assert value == pytest.approx(0, abs=1e-9), column
            elif name == "stripes":
                assert value == pytest.approx(1, abs=0.5), column  # what the truth has there by chance
            elif metric.better == "one" or name == "ssim":
                assert value == pytest.approx(1, abs=1e-9), column
            elif name == "psnr":
                assert value == np.inf
            elif name == "spread":
                # White noise less its means of four, over the truth's range: what the samples were given.
                expected = 9 * (3 / 4 * 2 / 3) ** 0.5 / np.ptp(reference.truth)
                assert value == pytest.approx(expected, rel=0.02), column
            else:
                grid = {"through_plane": 2.0, "in_plane": 1.8, "shells": 1.8}[column.removeprefix("resolution_")]
                assert value == pytest.approx(grid, rel=0.05), column


def _striped(truth: np.ndarray) -> np.ndarray:
    return truth * (1 + 0.06 * np.cos(2 * np.pi * np.arange(truth.shape[2]) / RATIO))


@pytest.mark.parametrize(
    ("damage", "caught"),
    [
        (lambda x: shift(x, [0, 0, 0.5], order=3), {"shift_axis2": 0.45, "psnr_whole": -40.0, "hfen_whole": 0.1}),
        (lambda x: shift(x, [-0.5, 0, 0], order=3), {"shift_axis0": -0.4, "ssim_whole": -0.99}),
        (
            lambda x: gaussian_filter(x, [0, 0, 1.2]),
            {"sharpness_through_plane": -0.6, "detail_share": -0.8, "hfen_foreground": 0.2, "ssim_multiscale": -0.99},
        ),
        (_striped, {"stripes_axis2": 2.0}),
        (lambda x: x + 30, {"tissue_shift_middle": 0.015, "residual_rms": 29.9, "residual_relative_to_noise": 5.9}),
        (lambda x: x * 1.05, {"tissue_shift_bright": 0.02, "sharpness_all": 1.09, "nrmse_euclidean": 0.049}),
    ],
    ids=["shifted", "shifted-in-plane", "blurred", "striped", "biased", "scaled"],
)
def test_damage_is_caught_by_the_metric_meant_for_it(
    reference: Reference, perfect: dict[str, float], damage: object, caught: dict[str, float]
) -> None:
    """A bound is a least value; a negative one a largest value of a number that should be high, or of a shift."""
    assert callable(damage)
    row = _row(reference, np.asarray(damage(reference.truth), dtype=np.float32))
    for column, bound in caught.items():
        if bound > 0:
            assert row[column] > bound, column
            assert not perfect[column] > bound, column
        elif column.startswith("shift"):
            assert row[column] < bound, column
        else:
            assert row[column] < -bound < perfect[column], column


@pytest.mark.parametrize("axis", [0, 1])
def test_the_coarse_axis_may_be_any(reference: Reference, axis: int) -> None:
    output = gaussian_filter(reference.truth, [0, 0, 1.0])
    moved, truth = (np.moveaxis(array, 2, axis) for array in (output, reference.truth))
    spacing, ratios = [0.9, 0.9], [1.0, 1.0]
    spacing.insert(axis, 1.0)
    ratios.insert(axis, RATIO)
    facts = Facts(spacing=tuple(spacing), ratios=tuple(ratios))
    straight = Facts(spacing=SPACING, ratios=(1.0, 1.0, RATIO))
    for name in ("detail_share", "resolution", "sharpness", "stripes"):
        columns = METRICS[name].columns(Reference(truth), moved, facts)
        expected = METRICS[name].columns(reference, output, straight)
        assert list(columns.values()) == pytest.approx(list(expected.values()), rel=1e-6), name


def test_detail_that_is_not_the_truths_costs_resolution(reference: Reference, perfect: dict[str, float]) -> None:
    fine = np.random.default_rng(1).normal(0, 200, reference.truth.shape)
    invented = fine - _image(fine).repeat(4, axis=2)
    output = _image(reference.truth).repeat(4, axis=2) + invented * reference.foreground
    row = _row(reference, output.astype(np.float32))
    assert row["resolution_through_plane"] > 2 * perfect["resolution_through_plane"]
    assert row["residual_rms"] < 100


def test_an_erased_and_an_invented_lesion_are_counted(head: np.ndarray, reference: Reference) -> None:
    row = _row(reference, head)
    assert (row["lesions_wrong_erased"], row["lesions_wrong_invented"]) == (2, 0)
    assert abs(row["lesions_kept_contrast"]) < 0.25
    elsewhere = _row(reference, insert_lesions(reference.truth, [Lesion((24, 23, 33), 4.0, 700)], SPACING))
    assert [elsewhere[f"lesions_wrong_{name}"] for name in ("erased", "invented", "spots")] == [0, 0, 1]
    at_controls = _row(reference, insert_lesions(reference.truth, CONTROLS, SPACING))
    assert [at_controls[f"lesions_wrong_{name}"] for name in ("erased", "invented")] == [0, 2]


def test_samples_that_the_scan_could_have_settled_disagree(reference: Reference) -> None:
    facts = _facts(reference, reference.truth)
    whole = [reference.truth, reference.truth + 10]
    facts = replace(facts, samples=whole, reimaged_samples=[_image(sample) for sample in whole])
    columns = METRICS["disagreement"].columns(reference, reference.truth, facts)
    assert columns["disagreement_share"] == pytest.approx(1, abs=1e-5)
    assert columns["disagreement_relative_to_noise"] == pytest.approx(5 / facts.noise)  # +5 and -5 from their mean
    assert columns["disagreement_relative_to_range"] == pytest.approx(5 / np.ptp(facts.scan))


def test_what_the_scan_leaves_open_is_told_over_the_range(reference: Reference) -> None:
    wave = 10 * np.cos(np.pi * np.arange(reference.truth.shape[2]))
    facts = replace(
        _facts(reference, reference.truth), unseen_samples=[reference.truth * 0 + s * wave for s in (1, -1)]
    )
    spread = METRICS["spread"].columns(reference, reference.truth, facts)
    assert spread == {"spread": pytest.approx(10 / np.ptp(reference.truth))}


def test_dice_is_told_for_each_label_and_on_average(reference: Reference) -> None:
    row = _row(reference, gaussian_filter(reference.truth, 1.5))
    assert 0 < row["dice_1"] < 1
    assert row["dice_mean"] == pytest.approx((row["dice_1"] + row["dice_2"]) / 2)


def test_what_needs_a_fact_is_left_alone_without_it(reference: Reference) -> None:
    bare = Facts(spacing=SPACING)
    for metric in METRICS.values():
        assert metric.applies(bare) == (not metric.needs)
        if metric.needs:
            with pytest.raises(InputError, match=f"Expected {metric.needs[0]}.* for {metric.name}"):
                metric.columns(reference, reference.truth, bare)
        else:
            assert metric.columns(reference, reference.truth, bare)


@pytest.mark.parametrize("case", ["shape", "nan"])
def test_every_metric_of_an_output_refuses_one_that_cannot_be_used(reference: Reference, case: str) -> None:
    facts = _facts(reference, reference.truth)
    output = reference.truth[:, :, :-1] if case == "shape" else np.full_like(reference.truth, np.nan)
    elsewhere = ("residual", "disagreement", "spread", "dice")  # theirs come with the facts
    for name, metric in METRICS.items():
        if name not in elsewhere:
            with pytest.raises(InputError) as caught:
                metric.columns(reference, output, facts)
            assert caught.value.code == "E_PIXELS"


def test_numbers_do_not_depend_on_the_pieces_they_are_computed_in(
    head: np.ndarray, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = gaussian_filter(reference.truth, [0, 0, 0.8])
    whole = _row(reference, output)
    monkeypatch.setattr("medld.metrics.checks.SLAB_VOXELS", 5 * head[0].size)
    assert _row(Reference(reference.truth), output) == pytest.approx(whole, rel=1e-9, abs=1e-12)


def test_no_metric_holds_more_than_a_few_copies_of_a_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medld.metrics.checks.SLAB_VOXELS", 50_000)
    shape = (96, 92, 88)
    truth = gaussian_filter(np.random.default_rng(0).normal(500, 200, shape), 1).clip(1).astype(np.float32)
    lesions = (Lesion((48, 46, 44), 4.0, 100), Lesion((20, 20, 20), 8.0, 100))
    reference = Reference(insert_lesions(truth, lesions, SPACING))
    facts = replace(_facts(reference, truth), lesions=lesion_map(shape, SPACING, lesions))
    for name, metric in METRICS.items():
        tracemalloc.start()
        metric.columns(reference, truth, facts)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * 8 * truth.size, name


def test_the_slice_axis_is_the_coarsest_and_the_last_of_equals() -> None:
    assert Facts(spacing=(1, 1, 1)).slice_axis == 2
    assert Facts(spacing=(1, 1, 1), ratios=(2, 2, 1)).slice_axis == 1
    assert Facts(spacing=(1, 2, 1), ratios=(4, 1, 2)).slice_axis == 0
    assert Facts(spacing=(1, 1, 1), ratios=(2, 1, 1.5)).axes == (0, 2)


@pytest.mark.parametrize("wrong", [{"spacing": (1, 1, 0)}, {"spacing": (1, 1)}, {"ratios": (1, 1, 0.5)}])
def test_refuses_facts_that_cannot_be(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(InputError) as caught:
        Facts(**({"spacing": (1, 1, 1)} | wrong))
    assert caught.value.code == "E_SPACING"


def test_the_registry_names_facts_that_exist_and_says_what_each_number_means() -> None:
    known = {field.name for field in fields(Facts)} | {"axes"}
    for name, metric in METRICS.items():
        assert metric.name == name
        assert set(metric.needs) <= known
        assert metric.meaning
        assert metric.better in ("higher", "lower", "one", "zero")
