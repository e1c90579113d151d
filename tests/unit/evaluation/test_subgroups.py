from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medld.evaluation.compare import with_gains
from medld.evaluation.subgroups import ALL, NOT_GIVEN, find_subgroups, format_subgroups, format_warnings
from medld.evaluation.table import Row, summarise


def _rows(subject: str, gain: float, *, group: str = "T1w", ratio: float = 4.0, **traits: str) -> tuple[Row, ...]:
    base = 30 + 5 * np.sin(sum(map(ord, subject)))
    rows = [
        Row("p", group, subject, f"{subject}.nii", "0", "1x1x1", ratio, method, method, values, traits=traits)
        for method, psnr in (("B", base), ("medld", base + gain))
        for values in [{"psnr": psnr, "ssim": psnr / 100, "detail_share": 0.5}]
    ]
    return with_gains(rows, "B")


def _cohort(women: int, men: int, worse_by: float = 1.0) -> list[Row]:
    """Gains of about 3 dB for women, less for men."""
    told = [("F", 3.0)] * women + [("M", 3.0 - worse_by)] * men
    return [row for n, (sex, gain) in enumerate(told) for row in _rows(f"s{n:02}", gain + 0.1 * (n % 3), sex=sex)]


def test_a_group_that_gains_less_shows_it_with_an_interval_that_leaves_out_zero() -> None:
    women, men = (s for s in find_subgroups(_cohort(9, 9)) if s.method == "medld")
    assert (women.factor, women.level, men.level, men.subjects) == ("sex", "F", "M", 9)
    difference = men.difference["gain"]
    assert difference.mean == pytest.approx(-1)
    assert difference.high is not None
    assert difference.high < 0
    assert women.difference["gain"].mean == pytest.approx(-difference.mean)
    assert men.note == ""


def test_a_subgroup_is_the_summary_of_its_rows() -> None:
    rows = _cohort(7, 6)
    men = next(s for s in find_subgroups(rows) if (s.level, s.method) == ("M", "medld"))
    alone = next(s for s in summarise(r for r in rows if r.traits["sex"] == "M") if s.method == "medld")
    assert men.values["psnr"] == alone.statistics["psnr"].value
    assert men.values["gain"].mean == pytest.approx(alone.gain)


def test_small_groups_get_a_warning_and_no_interval() -> None:
    found = find_subgroups(_cohort(9, 4))
    men = next(s for s in found if (s.level, s.method) == ("M", "medld"))
    assert men.difference["gain"].low is None
    assert format_warnings(found) == (
        "T1w, sex F: 4 subjects in the other groups (fewer than 5): too small to say anything",
        "T1w, sex M: 4 subjects (fewer than 5): too small to say anything",
    )


def test_what_is_not_given_is_a_line_without_a_difference() -> None:
    rows = [*_cohort(6, 6), *(row for n in range(6) for row in _rows(f"x{n}", 9.0, sex=""))]
    found = {s.level: s for s in find_subgroups(rows) if s.method == "medld"}
    assert set(found) == {"F", "M", NOT_GIVEN}
    assert not found[NOT_GIVEN].difference
    assert found["F"].difference["gain"].mean == pytest.approx(1)  # those with a gain of 9 are no comparison


def test_a_factor_with_one_level_says_nothing() -> None:
    assert find_subgroups(_cohort(6, 0)) == ()
    assert format_subgroups(()) == ()


def test_contrasts_are_compared_with_each_other_and_other_factors_within_them() -> None:
    rows = [*_cohort(3, 3), *(row for n in range(3) for row in _rows(f"y{n}", 1.0, group="FLAIR", sex="F"))]
    found = find_subgroups(rows)
    assert {(s.group, s.level) for s in found if s.factor == "contrast"} == {(ALL, "T1w"), (ALL, "FLAIR")}
    assert {s.group for s in found if s.factor == "sex"} == {"T1w"}


def test_ratios_are_told_in_halves() -> None:
    rows = [row for n, ratio in enumerate((4.98, 5.05, 7.14, 3.488)) for row in _rows(f"r{n}", 2.0, ratio=ratio)]
    assert {s.level: s.subjects for s in find_subgroups(rows) if s.method == "B"} == {"5x": 2, "7x": 1, "3.5x": 1}


def test_scans_of_one_subject_count_once() -> None:
    rows = _cohort(6, 6)
    doubled = [*rows, *(replace(row, file=f"again-{row.file}") for row in rows)]
    for once, twice in zip(find_subgroups(rows), find_subgroups(doubled), strict=True):
        assert once.values == twice.values
        assert once.difference == twice.difference
        assert (once.subjects, 2 * once.scans) == (twice.subjects, twice.scans)


def test_lines_are_of_one_length() -> None:
    assert len({len(line) for line in format_subgroups(find_subgroups(_cohort(6, 6)))}) == 1
