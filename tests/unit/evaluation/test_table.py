from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from medld.evaluation.compare import with_gains
from medld.evaluation.table import (
    Row,
    by_subject,
    differ,
    format_csv,
    format_more,
    format_notes,
    format_table,
    summarise,
)

NOTHING = float("nan")


def _row(method: str, psnr: float, subject: str = "s", file: str = "", group: str = "T1w", **more: float) -> Row:
    values = {"psnr": psnr, "ssim": psnr / 128, "detail_share": 0.5, **more}
    return Row("p", group, subject, file or f"{subject}.nii", "0", "1x1x1", 4.0, method, method, values)


def _pair(subject: str, ours: float, base: float, file: str = "", **more: float) -> tuple[Row, ...]:
    rows = [_row("B", base, subject, file, **more), _row("medld", ours, subject, file, **more)]
    return with_gains(rows, "B")


def test_a_summary_holds_mean_and_lowest_gain() -> None:
    rows = [*_pair("a", 33, 30), *_pair("b", 31, 32), *with_gains([_row("medld", 39, group="FLAIR")], "B")]
    flair, b, medld = summarise(rows)
    assert (flair.group, b.method, medld.method, medld.scans, medld.subjects) == ("FLAIR", "B", "medld", 2, 2)
    assert (medld.gain, medld.lowest_gain, medld.psnr) == (1.0, -1.0, 32.0)
    assert medld.lowest_ssim_gain == -1 / 128
    assert np.isnan(flair.gain)  # there is nothing to count from


def test_a_subject_counts_once_however_many_scans_there_are_of_it() -> None:
    once = [row for name in "abcdef" for row in _pair(name, 33 + ord(name) % 5, 30)]
    again = [row for n in range(5) for row in _pair("a", 33 + ord("a") % 5, 30, file=f"again{n}.nii")]
    few, many = summarise(once)[1], summarise([*once, *again])[1]
    assert (few.scans, many.scans, many.subjects) == (6, 11, 6)
    assert few.statistics == many.statistics
    assert few.gain == many.gain


def test_means_over_subjects_are_of_the_means_over_their_scans() -> None:
    rows = [*_pair("a", 31, 30, "1"), *_pair("a", 33, 30, "2"), *_pair("b", 36, 30)]
    assert summarise(rows)[1].psnr == 34


def test_differences_are_paired_and_count_from_the_chosen_method() -> None:
    rows = [row for n, name in enumerate("abcdefgh") for row in _pair(name, 33 + 10 * n + n / 10, 30 + 10 * n)]
    ours = next(s for s in summarise(rows, "B") if s.method == "medld").statistics["psnr"]
    assert ours.difference is not None
    assert ours.difference.mean == pytest.approx(3.35)
    assert ours.difference.p == pytest.approx(2 / 2**8)  # all eight improve, though subjects differ far more
    base = next(s for s in summarise(rows, "medld") if s.method == "B")
    assert base.gain == pytest.approx(-3.35)
    itself = next(s for s in summarise(rows, "B") if s.method == "B")
    assert (itself.gain, itself.statistics["psnr"].difference) == (0, None)


def test_what_a_scan_lacks_is_left_out_of_the_mean() -> None:
    rows = [_row("B", 30, "a", hfen=0.2), _row("B", 30, "b", hfen=NOTHING), _row("B", 30, "c")]
    hfen = summarise(rows)[0].statistics["hfen"]
    assert (hfen.value.mean, hfen.value.subjects) == (0.2, 1)
    np.testing.assert_array_equal(by_subject([("a", {"x": NOTHING}), ("a", {})], ["x"]), [[NOTHING]])
    assert np.isnan(differ(rows[0], None)["psnr"])


def test_a_perfect_output_is_infinitely_good_and_breaks_nothing() -> None:
    rows = [row for name in "abcdef" for row in _pair(name, float("inf"), 30)]
    best = summarise(rows)[1]
    assert (best.psnr, best.gain, best.lowest_gain) == (float("inf"),) * 3
    assert best.statistics["psnr"].value.low is None
    assert len(format_table(summarise(rows))) == 3


def test_few_subjects_are_said_once() -> None:
    rows = [row for name in "ab" for row in _pair(name, 33, 30)]
    (note,) = format_notes(summarise(rows))
    assert note.startswith("T1w: 2 subjects, too few")


def test_tables_line_up() -> None:
    rows = [row for n, name in enumerate("abcdefg") for row in _pair(name, 33 + n, 30, hfen=0.25)]
    summaries = [*summarise(rows), *summarise([*_pair("z", 40, 30)])]
    assert len({len(line) for line in format_table(summaries)}) == 1
    assert "[" in format_table(summaries)[2]
    assert len({len(line) for line in format_more(summarise(rows))}) == 1
    assert format_more(summarise([*_pair("z", 40, 30)])) == ()


def test_the_csv_keeps_every_digit_and_leaves_nothing_for_nan() -> None:
    rows = [*_pair("a", 30 + 1 / 3, 30, hfen=NOTHING), *with_gains([_row("B", float("inf"), "b")], "x")]
    table = list(csv.DictReader(io.StringIO(format_csv(rows))))
    assert float(table[1]["psnr"]) == 30 + 1 / 3
    assert [(line["hfen"], line["gain"]) for line in table[1:]] == [("", repr(rows[1].gain)), ("", "")]
    assert table[2]["psnr"] == "inf"
