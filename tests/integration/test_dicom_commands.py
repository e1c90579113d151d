"""DICOM through `medld enhance`, `inspect` and `convert`: what is written where, what is said, and what never is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_factory import PATIENT, edit, leaks, make_enhanced, make_series, set_tag, truth
from tiny_model import save_tiny_model

import medld
from medld.cli import main
from medld.io import read_header, read_volume
from medld.io.dicom import list_series, read_series

SMALL: dict[str, Any] = {"slices": 6, "shape": (10, 12)}
SERIES = re.compile(r"series-\d+-[0-9a-f]{12}_desc-sr")

Capture = pytest.CaptureFixture[str]


def enhance(*arguments: object, model: object = "baseline") -> int:
    """One `medld enhance`."""
    return main(["enhance", "--model", str(model), "--device", "cpu", *map(str, arguments)])


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too, with their bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def only_series(folder: Path) -> Path:
    """The one series folder below a folder."""
    (found,) = [p for p in folder.rglob("*") if p.is_dir() and SERIES.fullmatch(p.name)]
    return found


def record_of(folder: Path) -> Any:
    """The record beside a series folder."""
    return json.loads(folder.with_name(folder.name + ".json").read_text(encoding="utf-8"))


def read_back(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values and affine of a series folder, by the tags alone."""
    return truth(sorted(folder.iterdir()))


def as_read(path: Path, number: int = 0) -> Any:
    """A usable volume of a folder, as the reader gives it."""
    return read_series(list_series(path).usable[number], allow_output=True)[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose networks do something, if nothing sensible."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", summary="random")


class TestOneSeries:
    def test_becomes_a_series_in_a_folder_beside_its_own(self, tmp_path: Path, capsys: Capture) -> None:
        make_series(tmp_path / "study" / "deep", **SMALL)
        before = tree(tmp_path / "study")
        assert enhance(tmp_path / "study") == 0
        assert tree(tmp_path / "study") == before
        assert sorted(p.name for p in tmp_path.iterdir()) == ["study", "study_desc-sr"]
        folder = only_series(tmp_path)
        assert folder.parent == tmp_path / "study_desc-sr"
        assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name, folder.name + ".json"]
        values, affine = read_back(folder)
        assert min(p.name for p in folder.iterdir()) == "IM-0001.dcm"
        assert values.shape == (12, 10, 30)
        source = truth(sorted((tmp_path / "study" / "deep").iterdir()))[1]
        # The outer faces of the box stay where they were.
        assert (affine @ (-0.5, -0.5, -0.5, 1))[:3] == pytest.approx((source @ (-0.5, -0.5, -0.5, 1))[:3], abs=1e-4)
        assert (affine @ (0, 0, 29.5, 1))[2] == pytest.approx((source @ (0, 0, 5.5, 1))[2], abs=1e-4)
        assert folder.name.removesuffix("_desc-sr") in capsys.readouterr().out

    def test_goes_where_o_says(self, tmp_path: Path) -> None:
        make_series(tmp_path / "study", **SMALL)
        assert enhance(tmp_path / "study", "-o", tmp_path / "out") == 0
        assert only_series(tmp_path / "out").parent == tmp_path / "out"
        assert not (tmp_path / "study_desc-sr").exists()

    def test_a_file_an_archive_and_a_folder_are_one_input(self, tmp_path: Path) -> None:
        single = make_enhanced(tmp_path / "in" / "object", **SMALL)
        with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
            archive.write(single, "DEEP/IM1")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "other name").write_bytes(single.read_bytes())
        results = []
        for number, source in enumerate((single, tmp_path / "study.zip", tmp_path / "folder")):
            assert enhance(source, "-o", tmp_path / str(number)) == 0
            folder = only_series(tmp_path / str(number))
            results.append((folder.name, tree(folder), record_of(folder)["input"]))
        assert results[0] == results[1] == results[2]
        assert enhance(single, tmp_path / "study.zip") == 0
        assert only_series(tmp_path / "in" / "object_desc-sr").name == only_series(tmp_path / "study_desc-sr").name

    def test_may_become_nifti(self, tmp_path: Path) -> None:
        make_series(tmp_path / "study", orientation="oblique", **SMALL)
        assert enhance(tmp_path / "study", "-o", tmp_path / "out") == 0
        assert enhance(tmp_path / "study", "-o", tmp_path / "nifti", "--format", "nifti") == 0
        assert enhance(tmp_path / "study", "-o", tmp_path / "x.nii.gz") == 0
        folder = only_series(tmp_path / "out")
        named = tmp_path / "nifti" / f"{folder.name}.nii.gz"
        assert set(tree(tmp_path / "nifti")) == {named.name, f"{folder.name}.json"}
        values, affine = read_back(folder)
        for path in (named, tmp_path / "x.nii.gz"):
            image = nib.load(path)
            assert image.get_fdata() == pytest.approx(values, abs=1)  # its pixels are rounded, and scaled otherwise
            assert image.affine == pytest.approx(affine, abs=1e-4)
            assert read_header(path).second_pass

    def test_gives_the_same_bytes_again(self, tmp_path: Path) -> None:
        make_series(tmp_path / "study", **SMALL)
        for name in "ab":
            assert enhance(tmp_path / "study", "-o", tmp_path / name) == 0
        assert tree(only_series(tmp_path / "a")) == tree(only_series(tmp_path / "b"))

    def test_is_replaced_whole_and_only_when_told(self, tmp_path: Path, capsys: Capture) -> None:
        make_series(tmp_path / "study", **SMALL)
        assert enhance(tmp_path / "study", "--factor", 4) == 0
        before = tree(tmp_path)
        assert enhance(tmp_path / "study") == 2
        assert "E_EXISTS" in capsys.readouterr().err
        assert tree(tmp_path) == before
        assert enhance(tmp_path / "study", "--factor", 2, "--overwrite") == 0
        assert len(list(only_series(tmp_path).iterdir())) == 12
        assert not list(tmp_path.rglob(".*"))
        # A folder with anything else in it was not made by us alone.
        (only_series(tmp_path) / "notes.txt").write_text("someone's")
        before = tree(tmp_path)
        assert enhance(tmp_path / "study", "--factor", 2, "--overwrite") == 2
        assert tree(tmp_path) == before

    def test_is_told_in_a_record_without_the_patient(self, tmp_path: Path) -> None:
        paths = make_series(tmp_path / PATIENT["PatientID"], thickness=5.0, **SMALL)
        assert enhance(paths[0].parent, "-o", tmp_path / "out") == 0
        folder = only_series(tmp_path / "out")
        record = record_of(folder)
        assert leaks(json.dumps(record)) == []
        hashes = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
        assert record["input"]["sha256"] == hashlib.sha256("".join(f"{h}\n" for h in hashes).encode()).hexdigest()
        assert record["input"]["instances"] == 6
        assert record["output"]["instances"] == 30
        assert record["output"]["file"] == folder.name
        assert record["scan"]["slice_thickness_mm"] == [None, None, 5.0]
        assert record["scan"]["slice_thickness_from"] == "header"
        assert record["scan"]["modality"] == "mr"
        assert 0 < record["consistency"]["residual_relative_to_range"] < 0.05

    def test_has_a_report_without_the_patient_even_when_refused(self, tmp_path: Path) -> None:
        paths = make_series(tmp_path / PATIENT["PatientName"], **SMALL)
        assert enhance(paths[0].parent) == 0
        assert enhance(paths[0].parent, "--report", tmp_path / "run.json") == 2
        text = (tmp_path / "run.json").read_text(encoding="utf-8")
        assert "E_EXISTS" in text
        assert leaks(text) == []

    def test_needs_more_than_one_of_its_images(self, tmp_path: Path, capsys: Capture) -> None:
        assert enhance(make_series(tmp_path / "study", **SMALL)[0], "-o", tmp_path / "out") == 2
        err = capsys.readouterr().err
        assert "refused, E_TOO_FEW" in err
        assert "folder" in err

    def test_keeps_to_its_dry_run(self, tmp_path: Path, capsys: Capture) -> None:
        make_series(tmp_path / "study", **SMALL)
        before = tree(tmp_path)
        assert enhance(tmp_path / "study", "--dry-run") == 0
        assert "would write" in capsys.readouterr().out
        assert tree(tmp_path) == before

    def test_is_one_input_to_preview_and_memory(self, tmp_path: Path, capsys: Capture) -> None:
        make_series(tmp_path / "study", modality="CT", **SMALL)
        options = ("-o", tmp_path / "out", "--preview", tmp_path / "look.png")
        assert enhance(tmp_path / "study", *options, "--memory", "1e-6") == 2
        assert "E_TOO_BIG" in capsys.readouterr().err
        assert enhance(tmp_path / "study", *options) == 0
        assert (tmp_path / "look.png").read_bytes()[1:4] == b"PNG"
        assert record_of(only_series(tmp_path / "out"))["scan"]["modality"] == "ct"

    def test_gets_a_map_of_its_uncertainty(self, tmp_path: Path, model: Path) -> None:
        make_series(tmp_path / "study", **SMALL)
        options = ("--mode", "detail", "--steps", 2, "--samples", 2, "-o", tmp_path / "out")
        assert enhance(tmp_path / "study", *options, "--uncertainty", "spread.txt", model=model) == 2
        assert enhance(tmp_path / "study", *options, "--uncertainty", tmp_path / "sd.dcm", model=model) == 0
        spread = pydicom.dcmread(tmp_path / "sd.dcm")
        assert spread.SOPClassUID.name == "Parametric Map Storage"
        assert int(spread.NumberOfFrames) == len(list(only_series(tmp_path / "out").iterdir()))
        assert record_of(only_series(tmp_path / "out"))["model"]["name"] == "tiny"

    @pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
    def test_interrupted_it_leaves_nothing(self, tmp_path: Path) -> None:
        make_series(tmp_path / "study", slices=16, shape=(192, 192), spacing=8.0)
        environment = os.environ | {"PYTHONPATH": str(Path(medld.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "medld.cli", "enhance", "study", "--model", "baseline", "-o", "out"]
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=tmp_path, env=environment, **streams) as process:
            assert process.stdout is not None
            process.stdout.readline()  # printed when the restoration begins
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
        assert process.returncode == 128 + signal.SIGINT, err
        assert "Traceback" not in err
        assert [p.name for p in tmp_path.iterdir()] == ["study"]


class TestSeveralSeries:
    @pytest.fixture
    def study(self, tmp_path: Path) -> Path:
        """An MR and a CT series, with one Series Number."""
        make_series(tmp_path / "study" / "a", series=3, **SMALL)
        paths = make_series(tmp_path / "study" / "b", series=4, modality="CT", **SMALL)
        set_tag(paths, "SeriesNumber", 3)
        set_tag(paths, "SeriesDescription", "thorax KERNEL")
        return tmp_path / "study"

    def test_are_refused_with_a_list_unless_chosen(self, study: Path, capsys: Capture) -> None:
        before = tree(study.parent)
        assert enhance(study) == 2
        err = capsys.readouterr().err
        assert "E_SEVERAL" in err
        assert re.search(r"^ *1: .*MR, 12 x 10 x 6", err, re.MULTILINE)
        assert re.search(r"^ *2: .*CT, 12 x 10 x 6", err, re.MULTILINE)
        assert leaks(err.replace(str(study), "")) == []
        assert tree(study.parent) == before

    @pytest.mark.parametrize("wanted", ["2", "*kernel", "Thorax", "UID"])
    def test_one_is_chosen(self, study: Path, wanted: str, capsys: Capture) -> None:
        if wanted == "UID":
            wanted = str(pydicom.dcmread(next((study / "b").iterdir())).SeriesInstanceUID)
        assert enhance(study, "--series", wanted) == 0
        assert record_of(only_series(study.parent))["scan"]["modality"] == "ct"
        assert "1 done" in capsys.readouterr().out

    def test_all_are_chosen_and_never_collide(self, study: Path) -> None:
        assert enhance(study, "--series", "all", "-o", study.parent / "out", "--preview", "look") == 0
        made = sorted(p.name for p in (study.parent / "out").iterdir())
        assert len(made) == 6
        assert {re.sub("[0-9a-f]{12}", "HASH", name) for name in made} == {
            "series-3-HASH_desc-sr",
            "series-3-HASH_desc-sr.json",
            "series-3-HASH_desc-srlook.png",
        }

    def test_echoes_of_one_series_never_collide(self, tmp_path: Path) -> None:
        path = make_enhanced(tmp_path / "x", echo_times=(4.6, 92.0), **SMALL)
        assert enhance(path, "--series", "all", "-o", tmp_path / "out") == 0
        assert len([p for p in (tmp_path / "out").iterdir() if p.is_dir()]) == 2

    def test_a_choice_that_is_not_there_is_refused(self, study: Path, capsys: Capture) -> None:
        assert enhance(study, "--series", "7") == 2
        assert "medld inspect" in capsys.readouterr().err

    def test_a_series_named_twice_is_done_once(self, study: Path) -> None:
        assert enhance(study, study / "b", "--series", "all", "-o", study.parent / "out") == 0
        assert len([p for p in (study.parent / "out").iterdir() if p.is_dir()]) == 2


class TestMixedFolder:
    @pytest.fixture
    def study(self, tmp_path: Path) -> Path:
        """Beside a sound series: one with a gap, a NIfTI scan with its sidecar, notes named after the patient."""
        study = tmp_path / f"{PATIENT['PatientName']} {PATIENT['PatientBirthDate']}"
        make_series(study / "good", **SMALL)
        make_series(study / "gap", series=2, **SMALL)[2].unlink()
        values = np.round(np.linspace(0, 900, 720)).reshape(12, 10, 6).astype(np.int16)
        nib.save(nib.Nifti1Image(values, np.diag([1, 1, 4, 1])), study / "scan.nii.gz")
        (study / "scan.json").write_text('{"SliceThickness": 4}')
        for number in range(3):
            (study / f"{PATIENT['PatientID']} {number}.txt").write_text(PATIENT["PatientName"])
        return study

    def test_everything_is_done_or_listed(self, study: Path, capsys: Capture) -> None:
        assert enhance(study, "-o", study.parent / "out", "--report", study.parent / "run.json", "--verbose") == 2
        folder = only_series(study.parent / "out")
        made = {p.name for p in (study.parent / "out").iterdir()}
        assert made == {folder.name, folder.name + ".json", "scan_desc-sr.nii.gz", "scan_desc-sr.json"}
        text = (study.parent / "run.json").read_text(encoding="utf-8")
        entries = {(e["file"], e["status"], e["code"]) for e in json.loads(text)["inputs"]}
        assert {status for _, status, _ in entries} == {"done", "refused", "skipped"}
        assert (folder.name.removesuffix("_desc-sr"), "done", "") in entries
        assert ("scan.nii.gz", "done", "") in entries
        assert ("3 files", "skipped", "E_NOT_IMAGE") in entries
        (refused,) = [entry for entry in entries if entry[1] == "refused"]
        assert refused[2] == "E_GAP"
        (skipped,) = [e for e in json.loads(text)["inputs"] if e["status"] == "skipped"]
        assert len(set(skipped["files"])) == 3
        # The caller's own path is the caller's; nothing else may tell who it is.
        printed = capsys.readouterr()
        assert leaks(text) == []
        assert leaks((printed.out + printed.err).replace(str(study), "")) == []
        assert printed.err.count("E_GAP") == 1
        assert printed.out.count("E_NOT_IMAGE") == 1

    def test_a_chosen_series_is_not_held_up_by_another(self, study: Path, capsys: Capture) -> None:
        assert enhance(study, "--series", 1, "-o", study.parent / "out") == 0
        assert "E_GAP" in capsys.readouterr().out

    def test_dicom_alone_may_be_asked_for(self, study: Path, capsys: Capture) -> None:
        (study / "gap" / "s2-0001.dcm").parent.rename(study.parent / "gap")
        assert enhance(study, "--format", "dicom", "-o", study.parent / "out") == 0
        assert only_series(study.parent / "out")
        assert "scan.nii.gz: skipped, E_CONFIG" in capsys.readouterr().out

    def test_nifti_for_all(self, study: Path) -> None:
        assert enhance(study, "--format", "nifti", "--series", 1, "-o", study.parent / "out") == 0
        assert len(list((study.parent / "out").glob("*.nii.gz"))) == 2


def test_a_localiser_in_a_study_is_no_failure(tmp_path: Path, capsys: Capture) -> None:
    make_series(tmp_path / "study" / "good", **SMALL)
    for number, plane in enumerate(("axial", "sagittal", "coronal")):
        paths = make_series(tmp_path / "study" / plane, series=9, orientation=plane, slices=1, shape=(12, 12))
        edit(paths, lambda d, _, n=number: setattr(d, "SOPInstanceUID", f"{d.SOPInstanceUID}.{n}"))
        set_tag(paths, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert enhance(tmp_path / "study", "-o", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "skipped, E_MIXED" in printed.out
    assert "E_MIXED" not in printed.err


def test_an_output_is_not_restored_again(tmp_path: Path, capsys: Capture) -> None:
    make_series(tmp_path / "study", **SMALL)
    assert enhance(tmp_path / "study", "-o", tmp_path / "study" / "out") == 0
    before = tree(tmp_path)
    assert enhance(tmp_path / "study" / "out", "-o", tmp_path / "again") == 2
    assert enhance(next(only_series(tmp_path).iterdir()), "-o", tmp_path / "again") == 2
    assert "E_SECOND_PASS" in capsys.readouterr().out
    assert tree(tmp_path) == before
    # Beside its original it is passed over.
    assert enhance(tmp_path / "study", "-o", tmp_path / "again") == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--format", "dicom"], "E_CONFIG"),
        (["--series", "1"], "E_CONFIG"),
        (["--format", "nifti", "-o", "x.mha"], "E_CONFIG"),
    ],
)
def test_options_for_dicom_do_not_fit_an_image(tmp_path: Path, options: list[str], code: str, capsys: Capture) -> None:
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(720, dtype=np.int16).reshape(12, 10, 6), np.diag([1, 1, 4, 1])), scan)
    assert enhance(scan, *options) == 2
    assert code in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [scan]


@pytest.mark.parametrize("options", [["--format", "dicom", "-o", "x.nii"], ["--format", "nifti", "-o", "x.mha"]])
def test_a_format_and_a_file_name_must_agree(tmp_path: Path, options: list[str], capsys: Capture) -> None:
    make_series(tmp_path, **SMALL)
    assert enhance(tmp_path, *options) == 2
    assert "E_CONFIG" in capsys.readouterr().err


class TestInspect:
    def test_lists_everything(self, tmp_path: Path, capsys: Capture) -> None:
        paths = make_series(tmp_path / "study" / "a", series=3, thickness=5.0, **SMALL)
        set_tag(paths, "SeriesDescription", "T2 ax\nspin" + 60 * "x")
        make_series(tmp_path / "study" / "b", series=4, **SMALL)[2].unlink()
        (tmp_path / "study" / "notes.txt").write_text("no image")
        nib.save(nib.Nifti1Image(np.zeros((12, 10, 6)), np.diag([1, 1, 4, 1])), tmp_path / "study" / "x.nii")
        before = tree(tmp_path)
        assert main(["inspect", str(tmp_path / "study")]) == 0
        table = capsys.readouterr().out
        row = next(line for line in table.splitlines() if re.match(r"1 +3 ", line))
        for text in ("MR", "12 x 10 x 6", "0.80 x 0.90 x 4.00", "5", "LPS", "usable", "T2 ax spin", "..."):
            assert text in row
        assert "E_GAP: " in table
        assert "1 file skipped: E_NOT_IMAGE" in table
        assert main(["inspect", str(tmp_path / "study"), "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        assert listed["skipped"] == {"E_NOT_IMAGE": 1}
        assert [(e["number"], e["usable"], e["code"], e["format"]) for e in listed["series"]] == [
            (1, True, "", "dicom"),
            (None, False, "E_GAP", "dicom"),
            (None, True, "", "nifti1"),
        ]
        first = listed["series"][0]
        assert first["shape"] == [12, 10, 6]
        assert first["spacing_mm"] == [0.8, 0.9, 4]
        assert first["slice_thickness_mm"] == 5
        assert np.array(first["affine"]) == pytest.approx(truth(paths)[1])
        assert leaks(json.dumps(listed).replace(PATIENT["SeriesDescription"], "")) == []
        assert tree(tmp_path) == before

    def test_says_2_where_nothing_is_usable(self, tmp_path: Path, capsys: Capture) -> None:
        make_series(tmp_path / "a", slices=2, shape=(10, 12))
        assert main(["inspect", str(tmp_path / "a")]) == 2
        assert "E_TOO_FEW" in capsys.readouterr().out
        (tmp_path / "empty").mkdir()
        assert main(["inspect", str(tmp_path / "empty")]) == 2
        assert main(["inspect", str(tmp_path / "none")]) == 2
        assert "E_NOT_IMAGE" in capsys.readouterr().err

    def test_knows_outputs_of_ours(self, tmp_path: Path, capsys: Capture) -> None:
        make_series(tmp_path / "study", **SMALL)
        assert enhance(tmp_path / "study", "-o", tmp_path / "out") == 0
        assert main(["inspect", str(tmp_path / "out")]) == 2
        assert "E_SECOND_PASS" in capsys.readouterr().out


class TestConvert:
    @pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.mha", "x.nrrd"])
    def test_writes_exactly_what_was_read(self, tmp_path: Path, name: str) -> None:
        paths = make_series(tmp_path / "study", modality="CT", orientation="oblique", **SMALL)
        assert main(["convert", str(tmp_path / "study"), "-o", str(tmp_path / "out" / name)]) == 0
        assert [p.name for p in (tmp_path / "out").iterdir()] == [name]
        volume, storage = read_volume(tmp_path / "out" / name)
        values, affine = truth(paths)
        assert storage.dtype == np.int16
        assert np.array_equal(volume.array, values)
        assert volume.grid.affine == pytest.approx(affine, abs=1e-4)

    def test_keeps_fractions(self, tmp_path: Path) -> None:
        paths = make_series(tmp_path / "study", slope=0.37, **SMALL)
        assert main(["convert", str(tmp_path / "study"), "-o", str(tmp_path / "x.nii")]) == 0
        image = nib.load(tmp_path / "x.nii")
        assert image.get_data_dtype() == np.float32
        assert np.asanyarray(image.dataobj) == pytest.approx(truth(paths)[0], rel=1e-6)

    def test_a_converted_scan_can_be_restored_and_a_converted_output_cannot(self, tmp_path: Path) -> None:
        make_series(tmp_path / "study", **SMALL)
        assert main(["convert", str(tmp_path / "study"), "-o", str(tmp_path / "x.nii")]) == 0
        assert enhance(tmp_path / "x.nii") == 0
        assert enhance(tmp_path / "study", "-o", tmp_path / "out") == 0
        assert main(["convert", str(tmp_path / "out"), "-o", str(tmp_path / "y.nii")]) == 0
        assert np.array_equal(nib.load(tmp_path / "y.nii").get_fdata(), as_read(tmp_path / "out").array)
        assert enhance(tmp_path / "y.nii") == 2

    def test_takes_one_of_several(self, tmp_path: Path, capsys: Capture) -> None:
        make_series(tmp_path / "study" / "a", series=1, **SMALL)
        second = make_series(tmp_path / "study" / "b", series=2, modality="CT", **SMALL)
        command = ["convert", str(tmp_path / "study"), "-o", str(tmp_path / "x.nii")]
        for several in ([], ["--series", "all"], ["--series", "*"]):
            assert main([*command, *several]) == 2
            assert "E_SEVERAL" in capsys.readouterr().err
            assert not (tmp_path / "x.nii").exists()
        assert main([*command, "--series", "2"]) == 0
        assert np.array_equal(read_volume(tmp_path / "x.nii")[0].array, truth(second)[0])

    def test_refuses_by_code_and_writes_nothing(self, tmp_path: Path, capsys: Capture) -> None:
        make_series(tmp_path / "study", **SMALL)[3].unlink()
        before = tree(tmp_path)
        assert main(["convert", str(tmp_path / "study"), "-o", str(tmp_path / "out" / "x.nii")]) == 2
        err = capsys.readouterr().err
        assert err.startswith("medld: E_GAP: ")
        assert leaks(err) == []
        assert tree(tmp_path) == before
        assert not (tmp_path / "out").exists()

    def test_between_image_formats(self, tmp_path: Path, capsys: Capture) -> None:
        turn = np.array([[-0.8, -0.6, 0, 20], [-0.6, 0.8, 0, -30], [0, 0, 4, 5], [0, 0, 0, 1]])
        values = np.linspace(-900, 900, 720).reshape(12, 10, 6).round().astype(np.int32)
        nib.save(nib.Nifti1Image(values, turn), tmp_path / "a.nii.gz")
        steps = [tmp_path / name for name in ("a.nii.gz", "b.mha", "c.nrrd", "d.nii")]
        for source, goal in pairwise(steps):
            assert main(["convert", str(source), "-o", str(goal)]) == 0
        image = nib.load(steps[-1])
        assert np.array_equal(np.asanyarray(image.dataobj), values)
        assert image.get_data_dtype() == np.int16
        assert image.affine == pytest.approx(turn, abs=1e-5)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["scan.nii", "-o", "scan.nii", "--overwrite"], "E_EXISTS"),
            (["scan.nii", "-o", "old.nii"], "E_EXISTS"),
            (["scan.nii", "-o", "x.dcm"], "E_CONFIG"),
            (["scan.nii", "-o", "x.mha", "--series", "1"], "E_CONFIG"),
            (["labels.nii", "-o", "x.mha"], "E_NOT_IMAGE"),
            (["none", "-o", "x.mha"], "E_NOT_IMAGE"),
            ([".", "-o", "x.mha"], "E_NOT_IMAGE"),
        ],
    )
    def test_what_it_refuses(
        self, arguments: list[str], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name, values in {"scan.nii": np.arange(720.0), "labels.nii": np.arange(720) % 4}.items():
            nib.save(nib.Nifti1Image(values.reshape(12, 10, 6).astype(np.int16), np.diag([1, 1, 4, 1])), name)
        Path("old.nii").write_text("old")
        before = tree(tmp_path)
        assert main(["convert", *arguments]) == 2
        assert capsys.readouterr().err.startswith(f"medld: {code}: ")
        assert tree(tmp_path) == before

    def test_replaces_when_told(self, tmp_path: Path) -> None:
        make_series(tmp_path / "study", **SMALL)
        (tmp_path / "x.nii").write_text("old")
        assert main(["convert", str(tmp_path / "study"), "-o", str(tmp_path / "x.nii"), "--overwrite"]) == 0
        assert nib.load(tmp_path / "x.nii").shape == (12, 10, 6)
