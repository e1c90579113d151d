"""DICOM studies through `medld data` and `medld finetune`: what is said and made, and that nobody is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_factory import leaks, make_series, set_tag

from medld.cli import main
from medld.dataset import load

FINE = {"slices": 12, "shape": (12, 14), "pixel_spacing": (1.0, 1.0), "spacing": 1.0, "thickness": 1.0}


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Two patients' fine series, thick slices of one, and a series with a gap."""
    folder = tmp_path / "cohort"
    for number, patient in ((1, "PID-1"), (2, "PID-2")):
        rng = np.random.default_rng(number)
        paths = make_series(folder / f"Xylander {patient}" / "a", study=number, series=number, rng=rng, **FINE)  # type: ignore[arg-type]
        set_tag(paths, "PatientID", patient)
    thick = make_series(folder / "Xylander PID-1" / "b", study=1, series=3)
    set_tag(thick, "PatientID", "PID-1")
    gap = make_series(folder / "Xylander PID-2" / "c", study=2, series=4)
    set_tag(gap, "PatientID", "PID-2")
    gap[5].unlink()
    return folder


def named(text: str, folder: Path) -> list[str]:
    """Who is named, the folder that the caller named apart."""
    text = text.replace(str(folder), "")
    return [*leaks(text), *(patient for patient in ("PID-1", "PID-2") if patient in text)]


def test_inspect_lists_series_with_their_codes(studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(studies)]) == 2
    printed = capsys.readouterr().out
    assert "4 readable" not in printed
    assert "2 MR T1w at 1.00x1.00x1.00 mm" in printed
    assert "E_COHORT: thick slices: 4 mm" in printed
    assert "E_GAP: " in printed
    assert named(printed, studies) == []


def test_pack_takes_the_usable_series(studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "pack", str(studies), "--out", str(tmp_path / "pack")]) == 0
    printed = capsys.readouterr().out
    assert "3 volumes" in printed
    assert named(printed, studies) == []
    assert len(load([tmp_path / "pack"])) == 3


def test_finetune_refuses_a_cohort_by_the_names_of_its_series(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", str(studies), "--out", str(tmp_path / "model")]) == 2
    printed = capsys.readouterr()
    assert "E_COHORT" in printed.err
    assert "series-" in printed.err
    assert named(printed.out + printed.err, studies) == []
    assert not (tmp_path / "model").exists()


def test_pack_of_a_card_says_where_its_data_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "BraTS2021_00002").mkdir()
    (tmp_path / "BraTS2021_00002" / "BraTS2021_00002_t1.nii.gz").touch()
    for folder, words in ((tmp_path, "It looks like brats"), (tmp_path / "nowhere", "found none")):
        assert main(["data", "pack", "ixi", "--data", str(folder), "--out", str(tmp_path / "pack")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
        for text in ("https://brain-development.org/ixi-dataset/", "Open download", "CC BY-SA 3.0"):
            assert text in line
