"""The series that is meant is taken, and where that is not clear the choices are listed."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_factory import leaks, make_enhanced, make_series, set_tag

from medld.errors import InputError
from medld.io.dicom import choose_series, list_series
from medld.io.dicom.series import Catalogue


def refusal(catalogue: Catalogue, wanted: str | None = None) -> InputError:
    """The error with which a choice ends; it names no patient."""
    with pytest.raises(InputError) as caught:
        choose_series(catalogue, wanted)
    assert leaks(str(caught.value)) == []
    return caught.value


@pytest.fixture
def study(tmp_path: Path) -> Catalogue:
    """Three usable volumes, of which two are of one series, and a refused series."""
    set_tag(make_series(tmp_path / "a", series=2, slices=4), "SeriesDescription", "t1 mprage SAG")
    make_enhanced(tmp_path / "b.dcm", series=5, slices=5, echo_times=(2.3, 4.6))
    set_tag([tmp_path / "b.dcm"], "SeriesDescription", "gre [field] mapping")
    set_tag(make_series(tmp_path / "c", series=9, slices=2), "SeriesDescription", "t1 scout")
    return list_series(tmp_path)


def test_the_only_one_needs_no_choice(tmp_path: Path) -> None:
    make_series(tmp_path / "a")
    make_series(tmp_path / "b", series=2, slices=1)
    found = list_series(tmp_path)
    assert choose_series(found) == found.usable


def test_several_are_listed_with_what_tells_them_apart(study: Catalogue) -> None:
    error = refusal(study)
    assert error.code == "E_SEVERAL"
    lines = str(error).splitlines()[1:]
    assert [line.strip().split(":")[0] for line in lines] == ["1", "2", "3"]
    assert "series 2, MR, 24 x 20 x 4, 0.8 x 0.9 x 4 mm" in lines[0]
    assert "echo 4.6 ms" in lines[2]
    assert "mprage" not in str(error)


def test_a_number_is_the_number_of_the_list(study: Catalogue) -> None:
    for number in (1, 2, 3):
        (series,) = choose_series(study, str(number))
        assert series.number == number
    for number in ("0", "4"):
        assert "1 to 3" in str(refusal(study, number))


def test_a_uid_is_exact(study: Catalogue) -> None:
    (series,) = choose_series(study, study.usable[0].uid)
    assert series is study.usable[0]
    assert refusal(study, study.usable[1].uid).code == "E_SEVERAL"
    assert refusal(study, study.series[-1].uid).code == "E_TOO_FEW"
    assert refusal(study, "1.2.3").code == "E_NOT_IMAGE"


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        ("MPRAGE", [1]),
        ("t1*", [1]),
        ("*", [1, 2, 3]),
        ("gre", [2, 3]),
        ("[field]", [2, 3]),
        ("all", [1, 2, 3]),
        ("ALL", [1, 2, 3]),
    ],
)
def test_a_description_may_mean_several(study: Catalogue, pattern: str, numbers: list[int]) -> None:
    assert [series.number for series in choose_series(study, pattern)] == numbers


def test_what_is_meant_but_cannot_be_used_says_why(study: Catalogue) -> None:
    assert refusal(study, "scout").code == "E_TOO_FEW"
    assert "medld inspect" in str(refusal(study, "flair"))


def test_without_anything_usable_the_nearest_to_a_volume_speaks(tmp_path: Path) -> None:
    make_series(tmp_path / "a", slices=1)
    set_tag(make_series(tmp_path / "b", series=2)[5:6], "ImagePositionPatient", None)
    (tmp_path / "c.txt").write_text("text")
    assert refusal(list_series(tmp_path)).code == "E_NO_GEOM"
    assert refusal(list_series(tmp_path), "all").code == "E_NO_GEOM"
    assert refusal(list_series(tmp_path / "c.txt")).code == "E_NOT_IMAGE"
    (tmp_path / "empty").mkdir()
    assert refusal(list_series(tmp_path / "empty")).code == "E_NOT_IMAGE"


def test_outputs_are_passed_over_where_there_are_originals(tmp_path: Path) -> None:
    make_series(tmp_path / "a")
    set_tag(make_series(tmp_path / "b", series=101), "DerivationDescription", "medld 0.1")
    found = list_series(tmp_path)
    assert [series.second_pass for series in found.usable] == [False, True]
    assert choose_series(found) == choose_series(found, "all") == found.usable[:1]
    assert choose_series(found, "2") == found.usable[1:]
    alone = list_series(tmp_path / "b")
    assert choose_series(alone) == alone.usable
