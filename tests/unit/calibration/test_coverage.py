from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from calibration_heads import SCALE, Head, make_head
from scipy.stats import spearmanr

from medld.calibration import (
    LEVELS,
    Case,
    Scores,
    covered_shares,
    gather_bins,
    judge,
    leave_one_out,
    scale_map,
    score,
)
from medld.calibration.coverage import find_boundary, quantiles, share_below
from medld.errors import CohortError, InputError


def scores_of(subjects: Sequence[str], contrast: str = "T1w", slices: int = 8) -> list[Scores]:
    """One restoration of each subject."""
    scores = []
    for number, name in enumerate(subjects):
        head = make_head(number, slices)
        case = Case(f"{name}_{contrast}_{slices}", name, contrast, "some", f"{number:064x}")
        scores.append(score(case, head.evidence, head.truth, head.foreground, SCALE))
    return scores


@pytest.fixture(scope="module")
def six() -> list[Scores]:
    """Six subjects."""
    return scores_of([f"sub-{letter}" for letter in "abcdef"])


def test_a_score_is_the_error_in_scales(head: Head) -> None:
    one = score(Case("a", "a", "T1w", "some"), head.evidence, head.truth, head.foreground, SCALE)
    inside = head.foreground
    error, scale = np.abs(head.truth - head.evidence.output)[inside], scale_map(head.evidence, SCALE)[inside]
    for factor in (0.1, 0.5, 1.0, 3.0):
        assert share_below(one.regions["foreground"], factor) == pytest.approx(
            np.mean(error <= factor * scale), abs=1e-3
        )
        width = factor * head.evidence.unit / 10
        assert share_below(one.constant["foreground"], factor / 10) == pytest.approx(np.mean(error <= width), abs=1e-3)
    assert one.correlation == pytest.approx(spearmanr(error, scale)[0])
    assert one.scale == pytest.approx(scale.mean() / head.evidence.unit, rel=1e-5)
    assert one.errors.mean() == pytest.approx(1, abs=1e-3)
    assert np.sort(one.tenths.ravel()).mean() == pytest.approx(one.regions["foreground"].mean(), rel=1e-2)


def test_who_is_left_out_has_no_part_in_the_factor(six: list[Scores]) -> None:
    rows = {row.case.subject: row for row in leave_one_out(six, six)}
    others = set()
    for times in (0.01, 100.0):
        changed = replace(six[0], regions={name: times * values for name, values in six[0].regions.items()})
        both = [changed, *six[1:]]
        again = {row.case.subject: row for row in leave_one_out(both, both)}
        assert again["sub-a"].factor == rows["sub-a"].factor
        others |= {name for name in rows if again[name].factor != rows[name].factor}
    assert again["sub-a"].covered["foreground"] < 0.5 < rows["sub-a"].covered["foreground"]
    assert len(others) >= 3, "in one direction or the other the middle of the rest moves"
    assert all(row.subjects == 5 for row in rows.values())


def test_subjects_that_are_alike_are_covered_as_promised(six: list[Scores]) -> None:
    covered = [row.covered["foreground"] for row in leave_one_out(six, six, 0.8)]
    assert np.mean(covered) == pytest.approx(0.8, abs=0.03)
    constant = [row.constant["foreground"] for row in leave_one_out(six, six, 0.8)]
    assert np.mean(constant) == pytest.approx(0.8, abs=0.03)


def test_a_higher_level_covers_more_of_every_region(six: list[Scores]) -> None:
    low, high = leave_one_out(six, six, 0.68), leave_one_out(six, six, 0.95)
    for before, after in zip(low, high, strict=True):
        assert all(after.covered[region] > before.covered[region] for region in ("foreground", "boundary"))
        assert after.half_width > before.half_width


def test_contrasts_and_ratios_do_not_calibrate_each_other(six: list[Scores]) -> None:
    names = [one.case.subject for one in six]
    mixed = [*six, *scores_of(names, "T2w"), *scores_of(names, "T1w", slices=16)]
    alone = {row.case.name: row.factor for row in leave_one_out(six, six)}
    assert all(row.factor == alone[row.case.name] for row in leave_one_out(six, mixed))


def test_a_contrast_that_nobody_else_has_is_judged_by_the_others(six: list[Scores]) -> None:
    (row,) = leave_one_out(scores_of(["sub-x"], "FLAIR"), six)
    assert row.subjects == 6
    with pytest.raises(CohortError, match="held-out subjects"):
        leave_one_out(six[:1], six[:1])


def test_nobody_is_judged_by_themselves(six: list[Scores]) -> None:
    with pytest.raises(AssertionError, match="nobody"):
        judge(six[0], six)


def test_a_boundary_is_where_the_truth_is_steep() -> None:
    step = np.zeros((40, 20, 20))
    step[20:] = 100
    found = find_boundary(step, np.ones(step.shape, dtype=bool))
    assert found[19:21].all()
    assert not found[:16].any()
    assert not found[24:].any()


def test_shares_of_a_finished_half_width_are_those_of_its_factor(head: Head) -> None:
    output, inside = head.evidence.output, head.foreground
    one = score(Case("a", "a", "T1w", "some"), head.evidence, head.truth, inside, SCALE)
    half_width = 1.5 * scale_map(head.evidence, SCALE)
    shares = covered_shares(head.truth, output, half_width, inside)
    for region in ("foreground", "boundary"):
        assert shares[region] == pytest.approx(share_below(one.regions[region], 1.5), abs=1e-3)
    with pytest.raises(InputError, match="on one grid"):
        covered_shares(head.truth, output[1:], half_width, inside)


def test_lesions_are_covered_by_their_own_voxels_alone(head: Head) -> None:
    inside = head.foreground
    lesions = np.zeros(inside.shape, bool)
    lesions[tuple(np.argwhere(inside)[:4].T)] = True
    output = np.where(lesions, head.truth + 5, head.truth)
    output[tuple(np.argwhere(inside)[0])] = head.truth[tuple(np.argwhere(inside)[0])]
    shares = covered_shares(head.truth, output, np.ones_like(output), inside, lesions)
    assert shares["lesions"] == 0.25
    assert shares["foreground"] > 0.9
    assert "lesions" not in covered_shares(head.truth, output, np.ones_like(output), inside, np.zeros_like(lesions))


def test_quantiles_hold_the_shares_of_few_values_and_of_many(rng: np.random.Generator) -> None:
    for count in (1, 7, 2000, 9999):
        values = rng.standard_normal(count)
        kept = quantiles(values)
        for factor in rng.standard_normal(20):
            assert share_below(kept, factor) == pytest.approx(np.mean(values <= factor), abs=1 / 2000 + 1e-9)


def test_a_perfect_output_is_covered_by_nothing(head: Head) -> None:
    perfect = replace(head.evidence, output=head.truth)
    one = score(Case("a", "a", "T1w", "some"), perfect, head.truth, head.foreground, SCALE)
    assert share_below(one.regions["foreground"], 0.0) == 1
    assert one.correlation == 0


def test_bins_hold_each_contrast_with_enough_subjects_and_all_together(six: list[Scores]) -> None:
    others = scores_of(["sub-a", "sub-y"], "T2w")
    bins = gather_bins([*six, *others])
    assert [(b.contrast, len(b.subjects)) for b in bins] == [("T1w", 6), (None, 7)]
    assert {(b.axes, b.low, b.high) for b in bins} == {(1, 3.4, 4.5)}
    assert [(b.contrast, len(b.subjects)) for b in gather_bins(six)] == [("T1w", 6)]


def test_a_bin_keeps_curves_and_no_names(six: list[Scores]) -> None:
    found = gather_bins(six)[0]
    assert "sub-" not in found.model_dump_json()
    first = next(s for s in found.subjects if s.scans == ("0" * 12,))
    for level, factor in zip(LEVELS, first.factors, strict=True):
        exact = six[0].regions["foreground"][round(2000 * level) - 1]
        assert exact <= factor <= exact * (1 + 1e-4)


def test_too_few_subjects_make_no_bin(six: list[Scores]) -> None:
    with pytest.raises(CohortError, match="at least 5 held-out subjects in a bin of ratios, got 4"):
        gather_bins(six[:4])
    twice = [*six[:4], replace(six[0], case=replace(six[0].case, name="again"))]
    with pytest.raises(CohortError, match="got 4"):
        gather_bins(twice)
    with pytest.raises(CohortError, match="got 0"):
        gather_bins([])


def test_a_ratio_beyond_all_bins_is_refused(six: list[Scores]) -> None:
    with pytest.raises(InputError, match="Choose other protocols"):
        _ = replace(six[0], ratio=9.0).bin
    assert replace(six[0], ratio=8.0).bin == (1, 7.0, 8.0)
