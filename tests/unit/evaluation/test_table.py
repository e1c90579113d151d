from __future__ import annotations

from medld.evaluation.table import Row, format_csv, format_table, summarise


def _row(method: str, gain: float, group: str = "T1w") -> Row:
    return Row("p", group, "s", "f", "0", "1x1x1", 4.0, method, method, 30 + gain, 0.9, 0.5, gain, gain / 100)


def test_a_summary_holds_mean_and_lowest_gain() -> None:
    rows = [
        _row("medld", 3.0),
        _row("B", 0.0),
        _row("medld", -1.0),
        _row("B", 0.0),
        _row("medld", 9.0, "FLAIR"),
    ]
    flair, b, medld = summarise(rows)
    assert (flair.group, b.method, medld.method, medld.scans) == ("FLAIR", "B", "medld", 2)
    assert (medld.gain, medld.lowest_gain, medld.psnr) == (1.0, -1.0, 31.0)
    assert medld.lowest_ssim_gain == -0.01


def test_tables_line_up_and_the_csv_keeps_every_digit() -> None:
    rows = [_row("B", 0.0), _row("medld", 1 / 3)]
    assert len({len(line) for line in format_table(summarise(rows))}) == 1
    assert repr(1 / 3) in format_csv(rows)
