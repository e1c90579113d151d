"""Results as tables: what is chosen, and what is said where there is no number."""

from __future__ import annotations

from typing import Any

import pytest
from small_evaluation import make_results

from medld.report.paper import CHARACTERS, LINES, Block, paginate, set_tables
from medld.report.results import choose_cases, main_tables, more_tables, subgroup_table
from medld.report.tables import NOTHING, Table, interval, number, text


def rows(*gains: Any) -> list[dict[str, Any]]:
    """Rows of these gains, files named in this order."""
    return [{"file": f"f{place}", "gain": gain} for place, gain in enumerate(gains)]


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ((2.0, 0.0, 1.0), {"best": "f0", "median": "f2", "worst": "f1"}),
        ((3.0, 0.0, 1.0, 2.0), {"best": "f0", "median": "f2", "worst": "f1"}),
        ((1.0, 1.0, 1.0), {"best": "f2", "median": "f1", "worst": "f0"}),
        ((None, 1.0, "-inf", "inf", 0.5), {"best": "f3", "median": "f4", "worst": "f2"}),
        ((1.0, 2.0), {"best": "f1", "median and worst": "f0"}),
        ((1.0,), {"the only scan": "f0"}),
        ((None,), {}),
    ],
)
def test_cases_are_chosen_by_gain_then_name(gains: tuple[Any, ...], expected: dict[str, str]) -> None:
    assert {what: row["file"] for what, row in choose_cases(rows(*gains))} == expected
    assert {what: row["file"] for what, row in choose_cases(rows(*gains)[::-1])} == expected


def test_cells_keep_the_number_and_show_a_rounded_one() -> None:
    assert (number(1 / 3, ".2f").shown, number(1 / 3, ".2f").value) == ("0.33", 1 / 3)
    assert (number("-inf", "+.2f").shown, number("inf").value) == ("-inf", "inf")
    assert (number(None).shown, number(None).value) == (NOTHING, None)
    assert number(7, "d").shown == "7"
    assert (number(-0.001, "+.2f").shown, number(-0.001, "+.2f").value) == ("0.00", -0.001)
    assert interval({"low": -0.001, "high": 0.01}, "+.2f").shown == "[0.00, +0.01]"
    assert interval({"low": -1.0, "high": 2.0}, "+.1f").shown == "[-1.0, +2.0]"
    assert interval({"low": None, "high": None}).shown == interval(None).shown == NOTHING
    assert text({"a": True, "b": [1, None]}).shown == "a yes, b 1, -"


def test_a_figure_of_several_columns_has_the_unit_of_its_metric() -> None:
    record = make_results()
    record["metrics"] = [{"name": "nrmse", "unit": "mm", "better": "lower"}, {"name": "n", "unit": "no"}]
    (table,) = more_tables(record)
    assert table.columns == ("figure", "unit", "better", "cubic", "B", "medld")
    assert [cell.shown for cell in table.rows[0]] == ["nrmse_euclidean", "mm", "lower", *["0.0625"] * 3]


def test_subgroups_are_of_leading_methods_and_the_base() -> None:
    record = make_results()
    record["subgroups"] = [{**record["subgroups"][0], "method": name} for name in ("cubic", "B", "medld")]
    shown = [row[4].shown for row in subgroup_table(record, ("medld",)).rows]
    assert shown == ["B", "medld"]


def test_there_is_a_table_for_each_protocol_and_the_leading_methods_stand_out() -> None:
    record = make_results()
    record["summary"] += [{**line, "protocol": "isotropic-2x"} for line in record["summary"]]
    first, second = main_tables(record, ("medld",))
    assert (first.title, second.title) == ("through-plane-4x", "isotropic-2x")
    for table in (first, second):
        assert [table.rows[place][1].shown for place in table.strong] == ["medld"]
        assert [row[1].shown for row in table.rows] == record["methods"]
    assert "Wilcoxon" in second.note
    assert not first.note


def test_on_paper_no_line_is_wider_than_the_page_and_no_word_is_lost() -> None:
    words = " ".join(f"word{n}" for n in range(200))
    wide = Table("t", ("number", "words", "hash"), ((number(1.5), text(words), text("ab" * 300)),), words)
    for block in set_tables([*main_tables(make_results()), wide]):
        lines = [line for line, _ in (*block.head, *block.lines)]
        assert max(map(len, lines)) <= CHARACTERS
    together = " ".join(lines)
    assert all(together.count(f"word{n} ") + together.endswith(f"word{n}") >= 2 for n in (0, 9, 99))
    assert sum(line.count("ab") for line in lines) >= 290


def block(name: str, lines: int) -> Block:
    """A heading and numbered lines."""
    return Block(((name, True),), tuple((f"{name} {n}", False) for n in range(lines)))


@pytest.mark.parametrize("sizes", [(3, 4), (LINES - 1, 1), (LINES // 2, LINES // 2), (3 * LINES,), (LINES - 5, 300, 2)])
@pytest.mark.parametrize("leave", [0, 7])
def test_on_paper_every_line_stands_once_below_its_heading(sizes: tuple[int, ...], leave: int) -> None:
    blocks = [block(f"t{place}", size) for place, size in enumerate(sizes)]
    pages = [[line for line, _ in page] for page in paginate([("", False)] * leave, blocks)]
    assert pages[0][:leave] == [""] * leave
    assert all(len(page) <= LINES for page in pages)
    assert [line for page in pages for line in page if " " in line] == [line for b in blocks for line, _ in b.lines]
    for page in pages:
        for place, line in enumerate(page):
            if " " in line:
                assert line.split()[0] in page[:place]  # its heading, on the same page
    for one in blocks:  # what fits on a page is not cut
        if len(one.head) + len(one.lines) <= LINES:
            assert sum(one.lines[0][0] in page or one.lines[-1][0] in page for page in pages) == 1
