"""Folders of DICOM studies as scans: who they are of without naming them, and what is left out and why."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_factory import PATIENT, leaks, make_enhanced, make_series, set_tag, truth

from medld.batch.survey import survey as inspect
from medld.dataset import (
    INDEX,
    ScanFile,
    find_scans,
    find_thick,
    hash_scan,
    holds_dicom,
    list_studies,
    load,
    read_scan,
    survey,
    to_bytes,
    write_pack,
)
from medld.dataset.scanfile import check_names
from medld.errors import CardError, InputError

FINE = {"slices": 9, "shape": (10, 11), "pixel_spacing": (1.0, 1.0), "spacing": 1.0, "thickness": 1.0}


def add(folder: Path, number: int, patient: str = "", **changes: object) -> list[Path]:
    """A series of its own content; of its own patient, where one is named."""
    settings: dict[str, object] = {**FINE, "rng": np.random.default_rng(number), **changes}
    paths = make_series(folder, study=number, series=number, **settings)  # type: ignore[arg-type]
    return set_tag(paths, "PatientID", patient) if patient else paths


def convert(paths: list[Path], path: Path, dtype: type = np.int16) -> Path:
    """The NIfTI file that a converter would write, rows turned round."""
    values, affine = truth(paths)
    turned = affine.copy()
    turned[:3, 3] += affine[:3, 1] * (values.shape[1] - 1)
    turned[:3, 1] *= -1
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values[:, ::-1].astype(dtype), turned), path)
    return path


def test_every_usable_series_is_a_scan_of_its_patient(tmp_path: Path) -> None:
    add(tmp_path / "Xylander" / "a", 1, "P-1")
    add(tmp_path / "Xylander" / "b", 2, " p-1 ")  # blanks and capitals do not make another person
    add(tmp_path / "Operschall", 3, "P-2", modality="CT")
    scans = find_scans(tmp_path)
    assert len(scans) == len({scan.name for scan in scans}) == 3
    first, second = ({scan.subject for scan in scans if scan.modality == kind} for kind in ("mr", "ct"))
    assert len(first) == len(second) == 1
    assert first != second
    assert {scan.contrast for scan in scans} == {"T1w", "CT"}
    assert leaks(repr([(scan.name, scan.subject, scan.session, scan.label) for scan in scans])) == []
    assert "P-1" not in repr([(scan.name, scan.subject, scan.session) for scan in scans])


def test_a_series_is_read_as_the_tags_have_it(tmp_path: Path) -> None:
    paths = add(tmp_path, 1)
    (scan,) = find_scans(tmp_path)
    values, affine = truth(paths)
    volume = read_scan(scan)
    assert np.array_equal(volume.array, values.astype(np.float32))
    assert np.allclose(volume.grid.affine, affine)
    assert (volume.modality, volume.contrast) == ("mr", "T1w")


def test_a_series_is_called_as_inspect_calls_it(tmp_path: Path) -> None:
    add(tmp_path / "a", 1)
    make_enhanced(tmp_path / "b.dcm", study=2, series=2, echo_times=(4.6, 9.2))
    add(tmp_path / "c", 3)[4].unlink()
    assert sorted(entry.scan.name for entry in list_studies(tmp_path)) == sorted(
        entry.name for entry in inspect(tmp_path).entries
    )


def test_names_and_hashes_stay_where_files_move(tmp_path: Path) -> None:
    paths = add(tmp_path / "before", 1)
    (scan,) = find_scans(tmp_path / "before")
    digest = hash_scan(scan)
    (tmp_path / "after" / "deep").mkdir(parents=True)
    for number, path in enumerate(reversed(paths)):
        path.rename(tmp_path / "after" / "deep" / f"IM{number}")
    (moved,) = find_scans(tmp_path / "after")
    assert (moved.name, moved.subject, moved.session) == (scan.name, scan.subject, scan.session)
    assert hash_scan(moved) == digest
    with pytest.raises(InputError, match="not there any more") as caught:
        read_scan(scan)
    assert leaks(str(caught.value)) == []


def test_a_site_key_hides_patients_from_whoever_guesses_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path, 1)
    monkeypatch.delenv("MEDLD_SITE_KEY", raising=False)
    (plain,) = find_scans(tmp_path)
    monkeypatch.setenv("MEDLD_SITE_KEY", "of this hospital")
    (keyed,) = find_scans(tmp_path)
    assert keyed.subject != plain.subject
    assert keyed.name != plain.name


def test_without_patient_id_a_folder_is_a_person_and_else_all_are_one(tmp_path: Path) -> None:
    for number, name in enumerate(("Jaspersen", "Wilhelmina", "")):
        for series in (1, 2):
            paths = add(tmp_path / "named" / name / str(series), 10 * number + series)
            set_tag(paths, "PatientID", None)
    scans = find_scans(tmp_path / "named")
    subjects = [scan.subject for scan in scans]
    assert len(scans) == 6
    assert sorted(subjects.count(subject) for subject in set(subjects)) == [1, 1, 2, 2]
    assert leaks(str(subjects)) == []
    flat = set_tag(add(tmp_path / "flat", 1) + add(tmp_path / "flat", 2), "PatientID", "")
    assert len(flat) == 18
    assert {scan.subject for scan in find_scans(tmp_path / "flat")} == {"patient-unknown"}


def plant_unusable(folder: Path) -> dict[str, str]:
    """Series that make no volume, each in a folder called after its code."""
    add(folder / "E_GAP", 2)[4].unlink()
    add(folder / "E_TILT", 3, step=(0.0, 0.4, 1.0))
    make_enhanced(folder / "E_4D" / "times.dcm", times=3, study=4, series=4)
    add(folder / "E_TOO_FEW", 5, slices=2)
    return {code: code for code in ("E_GAP", "E_TILT", "E_4D", "E_TOO_FEW")}


def test_what_cannot_be_used_is_listed_with_its_code_and_names_nobody(tmp_path: Path) -> None:
    add(tmp_path / "good", 1)
    codes = plant_unusable(tmp_path)
    lines: list[str] = []
    (scan,) = find_scans(tmp_path, report=lines.append)
    assert scan.path == tmp_path
    assert len(lines) == len(codes)
    for code in codes:
        assert sum(f"left out, {code}: " in line for line in lines) == 1
    assert leaks("\n".join(lines)) == []
    assert {entry.code for entry in list_studies(tmp_path)} == {"", *codes}


def test_files_and_series_of_one_folder_are_found_together(tmp_path: Path) -> None:
    convert(add(tmp_path / "study", 1), tmp_path / "sub-a_T1w.nii.gz")
    add(tmp_path / "sourcedata", 2)
    names = [scan.name for scan in find_scans(tmp_path)]
    assert len(names) == 2
    assert "sub-a_T1w" in names
    assert not holds_dicom(tmp_path / "sourcedata" / "nothing")
    assert [scan.name for scan in find_scans(tmp_path, "flat")] == ["sub-a_T1w"]


def test_a_bids_tree_beside_its_own_dicom_holds_no_dicom(tmp_path: Path) -> None:
    convert(add(tmp_path / "sourcedata" / "sub-a", 1), tmp_path / "sub-a" / "anat" / "sub-a_T1w.nii.gz")
    assert [scan.name for scan in find_scans(tmp_path)] == ["sub-a_T1w"]
    assert holds_dicom(tmp_path)
    assert not holds_dicom(tmp_path, ("sourcedata",))


def test_a_pack_of_studies_holds_their_voxels_and_no_patient(tmp_path: Path) -> None:
    for number in (1, 2):
        add(tmp_path / "Xylander" / str(number), number, f"PID-{number}")
    add(tmp_path / "Xylander" / "ct", 3, "PID-3", modality="CT")
    scans = find_scans(tmp_path / "Xylander")
    write_pack(scans, tmp_path / "pack")
    packed = {fine.name: fine for fine in load([tmp_path / "pack"])}
    direct = {fine.name: fine for fine in load([tmp_path / "Xylander"])}
    assert set(packed) == set(direct) == {scan.name for scan in scans}
    for scan in scans:
        fine, volume = packed[scan.name], read_scan(scan)
        assert np.array_equal(fine.array, to_bytes(volume.array, fine.modality))
        assert np.array_equal(fine.array, direct[scan.name].array)
        assert (fine.spacing, fine.modality) == (volume.grid.spacing, volume.modality)
    index = (tmp_path / "pack" / INDEX).read_text()
    assert leaks(index) == []
    assert "PID-" not in index
    assert len({entry["subject"] for entry in json.loads(index)["volumes"]}) == 3


def test_two_scans_of_one_name_are_refused_without_their_folders(tmp_path: Path) -> None:
    scan = ScanFile(tmp_path / "Xylander", "series-1-abc", "patient-1", "T1w", series="series-1-abc")
    with pytest.raises(CardError, match="every name once") as caught:
        check_names([scan, scan])
    assert leaks(str(caught.value)) == []


# Surveys


def test_a_survey_tells_of_series_what_it_tells_of_files(tmp_path: Path) -> None:
    paths = add(tmp_path / "Xylander", 1)
    codes = plant_unusable(tmp_path)
    found = list(survey(tmp_path))
    good = next(scan for scan in found if not scan.problems)
    assert (good.modality, good.contrast, good.shape) == ("mr", "T1w", (11, 10, 9))
    assert good.spacing == pytest.approx((1.0, 1.0, 1.0))
    assert good.bytes == sum(path.stat().st_size for path in paths)
    assert good.noise is not None
    assert {problem.code for scan in found for problem in scan.problems} == set(codes)
    assert leaks(repr(found)) == []


def test_a_survey_sees_the_file_that_was_made_of_a_series(tmp_path: Path) -> None:
    convert(add(tmp_path / "study", 1), tmp_path / "sub-a_T1w.nii.gz")
    file, series = survey(tmp_path)
    assert file.problems == ()
    (problem,) = series.problems
    assert problem.code == "E_COHORT"
    assert problem.text == "the same voxels as sub-a_T1w.nii.gz; keep one of them"


def test_a_series_that_is_damaged_behind_its_header_is_told_by_its_name(tmp_path: Path) -> None:
    add(tmp_path, 1, values=np.full((9, 10, 11), 7.0))
    (scan,) = survey(tmp_path)
    (problem,) = scan.problems
    assert problem.code == "E_PIXELS"
    assert not problem.text.startswith(scan.name)
    assert scan.shape == (11, 10, 9)
    with pytest.raises(InputError, match=scan.name) as caught:
        load([tmp_path])
    assert leaks(str(caught.value)) == []


def test_slices_that_overlap_are_as_coarse_as_they_are_thick(tmp_path: Path) -> None:
    add(tmp_path, 1, thickness=2.5)
    (scan,) = survey(tmp_path)
    (problem,) = scan.problems
    assert problem.text.startswith("thick slices: 2.5 mm beside 1 mm")
    assert find_thick((1.0, 1.0, 1.0), 2.5) == (2,)
    assert find_thick((1.0, 1.0, 1.0), 1.2) == find_thick((1.0, 1.0, 1.0)) == ()
    assert find_thick((4.0, 1.0, 1.0), 1.0) == (0,)


def test_the_factory_s_patient_is_nowhere_in_what_is_told(tmp_path: Path) -> None:
    add(tmp_path / PATIENT["PatientID"], 1)
    text = repr([(scan.name, scan.subject, scan.problems) for scan in survey(tmp_path)])
    assert leaks(text) == []
