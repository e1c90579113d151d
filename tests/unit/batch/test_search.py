"""Inputs are told by content, each is taken once, and nothing that is said names a patient."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import pytest
from dicom_factory import PATIENT, leaks, make_series

from medld.batch.names import name_folder
from medld.batch.plan import make_plan
from medld.batch.search import discreet, find_inputs, is_archive, is_dicom
from medld.batch.settings import EnhanceSettings
from medld.batch.survey import clean_text
from medld.errors import InputError, MedldError

SMALL: dict[str, Any] = {"slices": 5, "shape": (8, 9)}


def plan(*paths: Path, **options: Any) -> Any:
    """A plan with these options."""
    return make_plan(paths, EnhanceSettings(**options))


def test_dicom_is_told_by_content(tmp_path: Path) -> None:
    (path,) = make_series(tmp_path / "a", slices=1, shape=(8, 9))
    names = ["no suffix", "x.pdf", "x.nii", "x.nii.gz"]
    for name in names:
        (tmp_path / name).write_bytes(path.read_bytes())
    (tmp_path / "x.dcm").write_text("no DICOM at all, whatever its name")
    (tmp_path / "empty").write_text("")
    assert [name for name in [*names, "x.dcm", "empty", "none"] if is_dicom(tmp_path / name)] == names


def test_archives_are_told_by_content_or_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("a.txt", "a")
    (tmp_path / "x.zip").write_text("damaged")
    (tmp_path / "y").write_text("none")
    assert [is_archive(tmp_path / name) for name in ("x", "x.zip", "y", "none")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("study", "study_desc-sr"), ("im.dcm", "im_desc-sr"), ("a.zip", "a_desc-sr"), ("1.2.840.5", "1.2.840.5_desc-sr")],
)
def test_outputs_go_beside_the_input(tmp_path: Path, name: str, expected: str) -> None:
    assert name_folder(tmp_path / name) == tmp_path / expected


def test_the_folder_of_outputs_is_found_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study.v2").mkdir()
    monkeypatch.chdir(tmp_path / "study.v2")
    assert name_folder(Path(".")) == tmp_path / "study.v2_desc-sr"


def test_a_series_has_one_name_wherever_it_lies(tmp_path: Path) -> None:
    for name in "ab":
        make_series(tmp_path / name, **SMALL)
    (first,), (second,) = (find_inputs([tmp_path / name], EnhanceSettings()).inputs for name in "ab")
    assert first.part == second.part
    assert first.home != second.home
    # In one folder of outputs they would be one; apart they are two.
    assert len(plan(tmp_path / "a", tmp_path / "b").jobs) == 2
    refused = plan(tmp_path / "a", tmp_path / "b", output=tmp_path / "out")
    assert [o.code for o in refused.outcomes] == ["E_EXISTS", "E_EXISTS"]


def test_a_folder_of_archives_is_no_dicom(tmp_path: Path) -> None:
    (path,) = make_series(tmp_path / "a", slices=1, shape=(8, 9))
    (tmp_path / "b").mkdir()
    with zipfile.ZipFile(tmp_path / "b" / "study.zip", "w") as archive:
        archive.write(path, "x")
    assert not find_inputs([tmp_path / "b"], EnhanceSettings()).dicom


@pytest.mark.parametrize("option", ["output", "preview", "report"])
def test_dicom_is_never_replaced(tmp_path: Path, option: str) -> None:
    paths = make_series(tmp_path / "in", **SMALL)
    (job,) = plan(tmp_path / "in").jobs
    # Files of the series, put where the series folder or a picture would be written.
    target = tmp_path / "in" / job.output.name
    target.mkdir()
    for number, path in enumerate(paths, 1):
        path.rename(target / f"IM-000{number}.dcm")
    (tmp_path / "in" / "link.png").symlink_to(target / "IM-0001.dcm")
    options: dict[str, Any] = {
        "output": {"output": tmp_path / "in"},
        "preview": {"preview": str(tmp_path / "in" / "link.png")},
        "report": {"report": target / "IM-0001.dcm"},
    }[option]
    if option == "report":
        with pytest.raises(MedldError, match="never replaced"):
            plan(tmp_path / "in", overwrite=True, **options)
    else:
        (outcome,) = plan(tmp_path / "in", overwrite=True, **options).outcomes
        assert outcome.code == "E_EXISTS"
        assert "never replaced" in outcome.reason


def test_nothing_is_written_into_a_series_folder(tmp_path: Path) -> None:
    make_series(tmp_path / "in", **SMALL)
    (job,) = plan(tmp_path / "in", output=tmp_path / "out").jobs
    (outcome,) = plan(tmp_path / "in", output=tmp_path / "out", preview=str(job.output / "look.png")).outcomes
    assert "another output" in outcome.reason


def test_unforeseen_errors_quote_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "medld")

    def stumble() -> None:
        with discreet():
            try:
                raise KeyError(PATIENT["PatientID"])
            except KeyError as error:
                raise ValueError(PATIENT["PatientName"]) from error

    with pytest.raises(MedldError) as caught:
        stumble()
    assert caught.value.code == "E_INTERNAL"
    assert leaks(f"{caught.value} {caught.getrepr(chain=True)}".replace("PATIENT[", "")) == []
    assert leaks(caplog.text) == []
    assert "KeyError" in caplog.text
    assert "test_search.py" in caplog.text


def test_foreseen_errors_pass_unchanged() -> None:
    error = InputError("expected something else", "E_GAP")
    with pytest.raises(InputError) as caught, discreet():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nb", "a\u202eb", "a\x9bb", "a\x00b", "a\u2028b"])
def test_what_is_printed_cannot_steer_a_terminal(text: str) -> None:
    assert all(character.isprintable() for character in clean_text(text))
    assert clean_text(text)[0] + clean_text(text)[-1] == "ab"


def test_what_is_printed_is_cut() -> None:
    assert len(clean_text("x" * 1000)) < 64
    assert clean_text("x" * 1000).endswith("...")
    assert clean_text("T2 ax Größe") == "T2 ax Größe"
