"""The report of an evaluation: its numbers are the record's, it needs nothing but itself, and it repeats."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_evaluation import make_evaluation, make_results, sketch_all

from medld.report import EvaluationReport, SketchStore, render_evaluation_report, write_evaluation_report

FILES = ("report.html", "report.pdf")


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.rows: list[list[str | None]] = []
        """Of tables: full numbers, None for words."""
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note it; a row begins, or a cell, or the number of a cell."""
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append(None)
        elif tag == "data":
            self.rows[-1][-1] = dict(attributes)["value"]

    def handle_data(self, data: str) -> None:
        """Note it."""
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All that a reader sees."""
        return "\n".join(self.texts)

    def values(self, attribute: str) -> list[str]:
        """Of an attribute, wherever it stands."""
        return [found[attribute] or "" for _, found in self.tags if attribute in found]


def write(data: EvaluationReport, out: Path) -> Page:
    """A report; returns its page."""
    out.mkdir()
    write_evaluation_report(out, data)
    return Page((out / "report.html").read_bytes())


def look(data: EvaluationReport) -> Page:
    """The page alone."""
    return Page(render_evaluation_report(data))


@pytest.fixture
def evaluation(tmp_path: Path) -> EvaluationReport:
    """Small, and to be changed."""
    return make_evaluation(tmp_path / "sketches")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a report that is only looked at."""
    folder = tmp_path_factory.mktemp("evaluation")
    write(make_evaluation(folder / "sketches"), folder / "out")
    return folder / "out"


@pytest.fixture
def page(out: Path) -> Page:
    """Its page."""
    return Page((out / "report.html").read_bytes())


def test_leaves_two_files_and_nothing_else(out: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)


def test_the_page_holds_everything_inside_itself(page: Page) -> None:
    assert page.values("href") == []
    sources = page.values("src")
    assert len(sources) > 9
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for source in sources)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"} == set()
    assert "url(" not in "".join(page.texts)
    for source in sources:
        if "svg" in source:
            content = base64.b64decode(source.partition(",")[2]).decode()
            links = re.findall(r'(?:href|src)="([^"]*)"', content)
            assert all(link.startswith(("#", "data:")) for link in links)


def test_the_policy_lets_a_browser_load_and_run_nothing(page: Page) -> None:
    places = [n for n, (tag, a) in enumerate(page.tags) if a.get("http-equiv") == "Content-Security-Policy"]
    policy = page.tags[places[0]][1]["content"] or ""
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert allowed.pop("default-src") == "'none'"
    assert allowed.pop("img-src") == "data:"
    assert "script-src" not in allowed
    # Before anything that it is to rule over.
    assert [tag for tag, _ in page.tags[: places[0]]] == ["html", "head", "meta"]


def test_every_number_of_the_table_is_the_records(page: Page) -> None:
    numbers = [[value for value in row if value is not None] for row in page.rows]
    for line in make_results()["summary"]:
        own = [repr(line[key]) for key in ("scans", "subjects", "psnr", "gain", "lowest_gain", "ssim", "detail_share")]
        psnr = line["statistics"]["psnr"]
        own += [repr(psnr["value"]["sd"]), f"{psnr['value']['low']!r} {psnr['value']['high']!r}"]
        if line["method"] != "B":
            difference = psnr["difference"]
            own += [repr(difference["p"]), f"{difference['low']!r} {difference['high']!r}"]
        assert any(set(own) <= set(row) for row in numbers), own
    assert json.loads("[" + ", ".join(v for row in numbers for v in row if " " not in v) + "]")


def test_the_base_has_no_interval_of_its_gain(page: Page) -> None:
    lines = [row for row in page.rows if len(row) == 16 and row[2] is not None]
    by_method = dict(zip(make_results()["methods"], lines, strict=True))
    assert [by_method["B"][place] is None for place in (8, 10)] == [True, True]
    assert [by_method["medld"][place] is None for place in (8, 10)] == [False, False]


def test_what_is_missing_infinite_or_too_few_is_said(evaluation: EvaluationReport) -> None:
    summary = evaluation.record["summary"][2]
    summary.update(psnr="inf", gain=None)
    summary["statistics"]["psnr"]["value"].update(sd=None, low=None, high=None)
    evaluation.record["subjects"][2]["gain"] = None
    evaluation.record["subjects"][5]["gain"] = "inf"
    page = look(evaluation)
    assert "inf" in [value for row in page.rows for value in row]
    assert "nan" not in page.text.lower()


def test_settings_hashes_skipped_files_and_warnings_are_on_it(page: Page) -> None:
    text = page.text
    for word in ("research use, not for diagnosis", "not a scan at all", "E_NOT_IMAGE", "sub-09_T1w.nii.gz"):
        assert word in text
    for word in ("ab" * 32, "cd" * 32, "fidelity", "numpy", "axes through-plane; ratio 4", "RMS error over RMS"):
        assert word in text
    assert text.count("too small to say anything") == 2  # on top, and beside its subgroup


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    names = ["<script>alert(1)", 'a" onerror="x', "&amp;", "$x$ and $y", "头 \ud83d \n"]
    record = json.loads(json.dumps(make_results()).replace("sub-06_T1w.nii.gz", json.dumps(names[0])[1:-1]))
    record["skipped"][0]["reason"], record["warnings"][0], record["protocols"][0]["axes"] = names[1:4]
    for place in ("summary", "subjects", "subgroups"):
        record[place][0]["group"] = names[4]
    page = write(EvaluationReport(record, ("medld",), sketch_all(record, tmp_path / "sketches")), tmp_path / "out")
    for name in names:
        assert name.encode("utf-8", "replace").decode() in page.text
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.values("onerror") == []
    assert count_pages(tmp_path / "out" / "report.pdf") > 4


def test_the_same_results_give_the_same_bytes_whatever_a_caller_told_matplotlib(
    out: Path, evaluation: EvaluationReport, tmp_path: Path
) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 30}):
        before = dict(matplotlib.rcParams)
        write(evaluation, tmp_path / "again")
        assert dict(matplotlib.rcParams) == before
    for file in FILES:
        assert (out / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def count_pages(path: Path) -> int:
    """Pages of a PDF, by its catalogue; refuses what is none."""
    content = path.read_bytes()
    assert content.startswith(b"%PDF-1.")
    assert content.rstrip().endswith(b"%%EOF")
    start = int(content[content.rindex(b"startxref") :].split()[1])
    assert content[start:].startswith(b"xref")
    (count,) = re.findall(rb"/Type /Pages[^>]*?/Count (\d+)|/Count (\d+)[^>]*?/Type /Pages", content)
    assert content.count(b"/Type /Page ") + content.count(b"/Type /Page\n") == int(max(count))
    return int(max(count))


def test_the_pdf_has_a_page_for_every_case_and_no_date(out: Path, evaluation: EvaluationReport, tmp_path: Path) -> None:
    write(replace(evaluation, sketches=SketchStore()), tmp_path / "without")
    # Three cases and a page of spectra.
    assert count_pages(out / "report.pdf") == count_pages(tmp_path / "without" / "report.pdf") + 4
    assert b"Date" not in (out / "report.pdf").read_bytes()


def test_cases_are_the_best_the_median_and_the_worst(page: Page) -> None:
    shown = [text for text in page.texts if text.startswith("through-plane-4x, medld, ")]
    words = ("best: sub-06", "median: sub-05", "worst: sub-02")
    assert shown == [f"through-plane-4x, medld, {word}_T1w.nii.gz" for word in words]
    # Truth, B, model, two errors, uncertainty; three planes; three cases.
    assert sum(source.startswith("data:image/png") for source in page.values("src")) == 6 * 3 * 3


def test_a_truth_without_fine_detail_has_a_spectrum(evaluation: EvaluationReport) -> None:
    for file in {row["file"] for row in evaluation.record["subjects"]}:
        sketch = evaluation.sketches.find("through-plane-4x", file)
        assert sketch is not None
        assert sketch.truth_spectrum is not None
        fading = np.where(np.arange(len(sketch.truth_spectrum)) < 5, sketch.truth_spectrum, 0)
        evaluation.sketches.save(replace(sketch, truth_spectrum=fading, spectra={"medld": fading}))
    assert look(evaluation).text.count("Spectra, through-plane-4x") == 1


def test_without_a_model_all_gains_are_drawn_and_the_method_they_count_from_is_shown() -> None:
    plain = EvaluationReport(make_results())
    assert (plain.boxed, plain.pictured, plain.lined) == (("cubic", "medld"), ("B",), ("cubic", "B"))
    led = EvaluationReport(make_results(), ("medld",))
    assert (led.boxed, led.pictured, led.lined) == (("medld",), ("medld",), ("cubic", "B", "medld"))


def test_a_failure_leaves_the_old_report_and_no_half_of_a_new_one(evaluation: EvaluationReport, tmp_path: Path) -> None:
    for file in FILES:
        (tmp_path / file).write_text("old")
    with pytest.raises(KeyError):
        write_evaluation_report(tmp_path, replace(evaluation, record={**evaluation.record, "summary": [{}]}))
    assert [(tmp_path / file).read_text() for file in FILES] == ["old", "old"]
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "sketches"}


def test_a_report_of_nothing_but_one_scan_is_written() -> None:
    results = make_results()
    results["subjects"] = results["subjects"][:3]
    results.update(subgroups=[], skipped=[], warnings=[], models=[], metrics=[])
    text = look(EvaluationReport(results)).text
    for word in ("No warnings.", "No factor has two levels.", "Nothing was left out."):
        assert word in text
