"""Runs that are cut, resumed, shared out and put together again end as one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fine_scans import make_head, save_cohort, save_scan

from medld.errors import ConfigError, OutputError
from medld.evaluation import evaluate, merge

PROTOCOLS = ["through-plane-4x", "isotropic-2x"]
OPTIONS: Any = {"model": "baseline", "baselines": ("cubic", "B"), "device": "cpu", "pages": False}
FILES = ("results.json", "subjects.csv")
PAGES = ("report.html", "report.pdf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects, one with two contrasts, and a file that is no scan."""
    folder = save_cohort(tmp_path_factory.mktemp("scans"), 3)
    save_scan(folder / "deeper" / "sub-02_T2w.nii.gz", make_head(5).astype(np.float32))
    (folder / "sub-04_T1w.nii.gz").write_text("not an image")
    return folder


def _evaluate(folder: Path, out: Path, protocols: Any = PROTOCOLS, **options: Any) -> int:
    """How many lines the table has."""
    return len(evaluate(folder, protocols, out, **{**OPTIONS, **options}))


def _bytes(out: Path, files: tuple[str, ...] = FILES) -> list[bytes]:
    return [(out / name).read_bytes() for name in files]


class CutError(Exception):
    """A run that is killed."""


def _killer(after: int) -> Callable[[str], None]:
    """A report that ends the run at its n-th line."""
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if len(lines) == after:
            raise CutError

    return report


@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(folder: Path, tmp_path: Path, after: int) -> None:
    _evaluate(folder, tmp_path / "whole")
    with pytest.raises(CutError):
        _evaluate(folder, tmp_path / "cut", report=_killer(after))
    assert not (tmp_path / "cut" / "results.json").exists()
    lines: list[str] = []
    _evaluate(folder, tmp_path / "cut", report=lines.append)
    assert _bytes(tmp_path / "cut") == _bytes(tmp_path / "whole")
    scans = [line for line in lines if line.split("  ")[0] in PROTOCOLS and ".nii.gz" in line]
    assert len(scans) == 10 - after  # five files by two protocols; none is measured twice


def test_a_scan_that_changed_meanwhile_is_measured_again(tmp_path: Path) -> None:
    fine = save_cohort(tmp_path / "fine", 3)
    with pytest.raises(CutError):
        _evaluate(fine, tmp_path / "out", report=_killer(3))
    save_scan(fine / "sub-01_T1w.nii.gz", make_head(9).astype(np.int16))
    _evaluate(fine, tmp_path / "out")
    _evaluate(fine, tmp_path / "whole")
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")


def test_an_unfinished_run_with_other_settings_is_not_gone_on_with(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CutError):
        _evaluate(folder, tmp_path, report=_killer(2))
    with pytest.raises(OutputError, match="differs in protocols"):
        _evaluate(folder, tmp_path, ["isotropic-2x"])
    assert _evaluate(folder, tmp_path, ["isotropic-2x"], overwrite=True) == 4


def test_shards_in_one_folder_end_as_the_whole(folder: Path, tmp_path: Path) -> None:
    _evaluate(folder, tmp_path / "whole")
    lines: list[str] = []
    for shard in ("2/3", "1/3"):
        assert _evaluate(folder, tmp_path / "shards", shard=shard, report=lines.append) == 0
    assert lines[-1].endswith("still to come in " + str(tmp_path / "shards") + ": 3")
    _evaluate(folder, tmp_path / "shards", shard="3/3")
    assert _bytes(tmp_path / "shards") == _bytes(tmp_path / "whole")


def test_shards_of_several_machines_are_merged_into_the_whole(folder: Path, tmp_path: Path) -> None:
    _evaluate(folder, tmp_path / "whole")
    outs = [tmp_path / f"machine{index}" for index in (1, 2)]
    for index, out in enumerate(outs, 1):
        _evaluate(folder, out, shard=(index, 2))
    with pytest.raises(ConfigError, match="each once and complete"):
        merge(outs[:1], tmp_path / "merged", pages=False)
    assert len(merge(outs, tmp_path / "merged", pages=False)) == 8
    assert _bytes(tmp_path / "merged") == _bytes(tmp_path / "whole")
    with pytest.raises(OutputError):
        merge(outs, tmp_path / "merged")


def test_pages_of_a_run_in_parts_are_those_of_the_whole(tmp_path: Path) -> None:
    fine, own = save_cohort(tmp_path / "fine", 2), {"protocols": ["through-plane-4x"], "pages": True}
    _evaluate(fine, tmp_path / "whole", **own)
    outs = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(CutError):
        _evaluate(fine, outs[0], shard="1/2", report=_killer(1), **own)
    _evaluate(fine, outs[0], shard="1/2", **own)
    _evaluate(fine, outs[1], shard="2/2", **own)
    merge(outs, tmp_path / "merged")
    assert _bytes(tmp_path / "merged", PAGES) == _bytes(tmp_path / "whole", PAGES)
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {*FILES, *PAGES}
    # Three planes of B, its error and the truth, for the better and for the other scan.
    assert _bytes(tmp_path / "whole", PAGES)[0].count(b"image/png") == 2 * 9
    _evaluate(fine, tmp_path / "whole", limit=1, overwrite=True)
    assert {path.name for path in (tmp_path / "whole").iterdir()} == set(FILES)  # no pages of other results


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/2/3"])
def test_a_shard_that_is_none_is_refused(folder: Path, tmp_path: Path, shard: str) -> None:
    with pytest.raises(ConfigError, match="2/4"):
        _evaluate(folder, tmp_path, shard=shard)


def test_an_output_that_changed_meanwhile_is_measured_again(tmp_path: Path) -> None:
    fine, made = save_cohort(tmp_path / "fine", 2), tmp_path / "made"
    for number in (1, 2):
        save_scan(made / f"sub-{number:02}_T1w.nii.gz", 0.9 * make_head(number))
    others: Any = {"others": {"x": made}}
    with pytest.raises(CutError):
        _evaluate(fine, tmp_path / "out", ["through-plane-4x"], report=_killer(1), **others)
    save_scan(made / "sub-01_T1w.nii.gz", 0.8 * make_head(1))
    _evaluate(fine, tmp_path / "out", ["through-plane-4x"], **others)
    _evaluate(fine, tmp_path / "whole", ["through-plane-4x"], **others)
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")
