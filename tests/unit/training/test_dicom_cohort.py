"""Cohorts of DICOM studies: who is on which side, what is left out, and that the refusals hold for them too."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_factory import leaks, make_enhanced, make_series, set_tag, truth

from medld.errors import MedldError
from medld.training.cohort import Cohort, read_cohort
from medld.training.members import LEAST_VOXELS

Add = Callable[..., list[Path]]
SIZE = LEAST_VOXELS


@pytest.fixture
def add(tmp_path: Path) -> Add:
    """Adds a series of a patient to the cohort's folder; 1 mm and just large enough, unless told otherwise."""
    count = 0

    def add(patient: str, name: str = "", **changes: object) -> list[Path]:
        nonlocal count
        count += 1
        settings: dict[str, object] = {
            "slices": SIZE,
            "shape": (SIZE, SIZE),
            "pixel_spacing": (1.0, 1.0),
            "spacing": 1.0,
            "thickness": 1.0,
            "study": count,
            "series": count,
            "rng": np.random.default_rng(count),
            **changes,
        }
        paths = make_series(tmp_path / (name or f"{patient}^Zenobia/{count}"), **settings)  # type: ignore[arg-type]
        return set_tag(paths, "PatientID", patient)

    return add


def write_nifti(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
    """A NIfTI file, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.astype(np.float32), np.diag([*spacing, 1.0])), path)


def subjects_of(cohort: Cohort) -> set[str]:
    """Everybody."""
    return {member.subject for member in (*cohort.training, *cohort.validation)}


def test_all_series_of_a_patient_are_on_one_side(tmp_path: Path, add: Add) -> None:
    for patient in ("P1", "P2", "P3"):
        add(patient)
        add(patient)
    cohort = read_cohort(tmp_path)
    training, validation = ({m.subject for m in side} for side in (cohort.training, cohort.validation))
    assert not training & validation
    assert len(training | validation) == 3
    assert len(cohort.training) + len(cohort.validation) == 6
    assert {m.fine.contrast for m in cohort.training} == {"T1w"}
    assert len(cohort.judged_by(1).validation) == 1


def test_nobody_is_named(tmp_path: Path, add: Add) -> None:
    for patient in ("Xylander-4417093", "Operschall-4417094"):
        add(patient)
        add(patient, slices=3)
    lines: list[str] = []
    cohort = read_cohort(tmp_path, report=lines.append)
    told = [*lines, str(cohort.summary()), *(f"{m.name} {m.subject}" for m in (*cohort.training, *cohort.validation))]
    assert len(lines) == 2
    assert leaks("\n".join(told)) == []
    assert "44170" not in "\n".join(told)


def test_files_and_studies_make_one_cohort(tmp_path: Path, add: Add, rng: np.random.Generator) -> None:
    add("P1")
    write_nifti(tmp_path / "sub-a_T2w.nii.gz", rng.normal(500, 90, (SIZE, SIZE, SIZE)))
    cohort = read_cohort(tmp_path)
    assert {m.fine.contrast for m in (*cohort.training, *cohort.validation)} == {"T1w", "T2w"}
    assert len(subjects_of(cohort)) == 2


def test_folders_named_train_and_val_are_the_split(tmp_path: Path, add: Add) -> None:
    add("P1", "train/a")
    add("P2", "train/b")
    add("P3", "val/c")
    cohort = read_cohort(tmp_path)
    assert (len(cohort.training), len(cohort.validation)) == (2, 1)


def test_what_a_study_holds_beside_a_fine_scan_is_left_out_with_its_code(tmp_path: Path, add: Add) -> None:
    for patient in ("P1", "P2"):
        add(patient)
    add("P1", spacing=5.0, thickness=5.0)
    add("P1", slices=SIZE - 1)
    add("P1", step=(0.0, 0.4, 1.0))
    add("P2")[7].unlink()
    add("P2", values=np.full((SIZE, SIZE, SIZE), 7.0))
    make_enhanced(tmp_path / "times.dcm", times=3, study=90, series=90)
    lines: list[str] = []
    cohort = read_cohort(tmp_path, report=lines.append)
    assert len(cohort.training) + len(cohort.validation) == 2
    found = [re.match(r"series-\d+-[0-9a-f]{12}: left out, (E_\w+): \w", line) for line in lines]
    codes = sorted(match[1] for match in found if match)
    assert codes == ["E_4D", "E_COHORT", "E_COHORT", "E_GAP", "E_PIXELS", "E_TILT"]
    assert len(codes) == len(lines)


def test_the_original_dicom_of_a_bids_set_is_left_alone(tmp_path: Path, add: Add, rng: np.random.Generator) -> None:
    for name in ("sub-a", "sub-b"):
        write_nifti(tmp_path / name / "anat" / f"{name}_T1w.nii.gz", rng.normal(500, 90, (SIZE, SIZE, SIZE)))
    add("P1", "sourcedata/sub-a")
    assert subjects_of(read_cohort(tmp_path)) == {"sub-a", "sub-b"}


# Refusals


def one_patient(folder: Path, add: Add) -> str:
    """The same person twice."""
    add("P1")
    add("P1")
    return "at least two subjects.*patient-.*Patient ID"


def no_patient_ids(folder: Path, add: Add) -> str:
    """People whom nothing tells apart."""
    for number in (1, 2):
        set_tag(add("P", str(number)), "PatientID", None)
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        path.rename(folder / f"{number}.dcm")
    return "got 1: patient-unknown"


def mixed(folder: Path, add: Add) -> str:
    """CT among MRI."""
    add("P1")
    add("P2", modality="CT")
    return "one modality, got MR in series-.* and CT in series-"


def mixed_with_files(folder: Path, add: Add) -> str:
    """A CT file among series of MRI."""
    add("P1")
    write_nifti(folder / "b_ct.nii.gz", np.random.default_rng(0).normal(0, 500, (SIZE, SIZE, SIZE)))
    return "one modality, got CT in b_ct.nii.gz and MR in series-"


def thick(folder: Path, add: Add) -> str:
    """A person of whom there are thick slices only."""
    add("P1")
    add("P2", spacing=5.0, thickness=5.0)
    return "series-2-.*expected a fine scan.* 1 x 1 x 5 mm"


def overlapping(folder: Path, add: Add) -> str:
    """Thick slices close together."""
    add("P1")
    add("P2", thickness=2.0)
    return "series-2-.*expected a fine scan.*slices 2 mm thick"


def tiny(folder: Path, add: Add) -> str:
    """Too small for a crop."""
    add("P1")
    add("P2", slices=SIZE - 1)
    return f"series-2-.*at least {SIZE} voxels"


def both_splits(folder: Path, add: Add) -> str:
    """A person to learn from and to judge by."""
    add("P1", "train/a")
    add("P2", "train/b")
    add("P1", "val/c")
    return "every subject in one split, got patient-"


def converted_too(folder: Path, add: Add) -> str:
    """A series and the file that was made of it, under another name."""
    values, _ = truth(add("P1"))
    write_nifti(folder / "sub-a_T1w.nii.gz", values[:, ::-1])
    add("P2")
    return "same voxels in sub-a_T1w.nii.gz and series-1-"


def unusable(folder: Path, add: Add) -> str:
    """Nothing that makes a volume."""
    add("P1")[9].unlink()
    return "found none that can be used.* E_GAP"


@pytest.mark.parametrize(
    "make",
    [
        one_patient,
        no_patient_ids,
        mixed,
        mixed_with_files,
        thick,
        overlapping,
        tiny,
        both_splits,
        converted_too,
        unusable,
    ],
)
def test_a_bad_cohort_is_refused_by_name_and_names_nobody(
    make: Callable[[Path, Add], str], tmp_path: Path, add: Add
) -> None:
    words = make(tmp_path, add)
    with pytest.raises(MedldError, match=words) as refusal:
        read_cohort(tmp_path)
    assert refusal.value.code == "E_COHORT"
    assert leaks(str(refusal.value).replace(str(tmp_path), "")) == []


# Public sets as cohorts


@pytest.mark.parametrize(
    ("names", "people"),
    [
        (("OAS1_0001_MR1/RAW/OAS1_0001_MR1_mpr-1_anon", "OAS1_0001_MR2/RAW/OAS1_0001_MR2_mpr-1_anon"), 1),
        (("BraTS-GLI-00008-000/BraTS-GLI-00008-000-t1n", "BraTS-GLI-00008-001/BraTS-GLI-00008-001-t1n"), 1),
        (("IXI-T1/IXI002-Guys-0828-T1", "IXI-T1/IXI012-HH-1211-T1", "IXI-T2/IXI002-Guys-0828-T2"), 2),
    ],
)
def test_people_of_public_sets_are_told_by_their_names(
    names: tuple[str, ...], people: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    for name in (*names, "other"):
        write_nifti(tmp_path / f"{name}.nii.gz", rng.normal(500, 90, (SIZE, SIZE, SIZE)))
    assert len(subjects_of(read_cohort(tmp_path))) == people + 1


def test_a_set_that_numbers_scans_must_tell_its_people(tmp_path: Path, rng: np.random.Generator) -> None:
    for number in (1, 2, 3):
        write_nifti(tmp_path / f"KKI2009-{number:02d}-MPRAGE.nii.gz", rng.normal(500, 90, (SIZE, SIZE, SIZE)))
    with pytest.raises(MedldError, match=r"subjects\.csv"):
        read_cohort(tmp_path)
    (tmp_path / "subjects.csv").write_text("scan,subject\nKKI2009-01,113\nKKI2009-02,142\nKKI2009-03,113\n")
    assert subjects_of(read_cohort(tmp_path)) == {"113", "142"}
