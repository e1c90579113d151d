"""Cohorts that can teach, and those that are refused by name."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medld.errors import MedldError
from medld.training.cohort import MOST_VALIDATION_SUBJECTS, read_cohort

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes one more textured head below the cohort's folder; its content depends on its name."""

    def write(
        name: str, spacing: tuple[float, ...] = (1.0, 1.0, 1.0), shape: tuple[int, ...] = (32, 34, 36), low: float = 0.0
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(name.encode()))
        nib.save(nib.Nifti1Image(rng.normal(500, 100, shape).astype(np.float32) + low, np.diag([*spacing, 1])), path)
        return path

    return write


def test_no_subject_is_on_both_sides_and_none_is_lost(tmp_path: Path, write: Write) -> None:
    for subject in range(10):
        for contrast in ("T1w", "T2w"):
            write(f"sub-{subject:02}/anat/sub-{subject:02}_{contrast}.nii.gz")
    cohort = read_cohort(tmp_path)
    training, validation = ({m.subject for m in side} for side in (cohort.training, cohort.validation))
    assert not training & validation
    assert len(training | validation) == 10
    assert len(validation) == 2
    assert len(cohort.training) + len(cohort.validation) == 20
    assert {m.fine.contrast for m in cohort.training} == {"T1w", "T2w"}


def test_a_split_is_that_of_its_seed(tmp_path: Path, write: Write) -> None:
    for subject in range(6):
        write(f"sub-{subject}_T1w.nii.gz")
    splits = [{m.subject for m in read_cohort(tmp_path, seed=seed).validation} for seed in range(8)]
    assert splits[0] == {m.subject for m in read_cohort(tmp_path, seed=0).validation}
    assert len({tuple(split) for split in splits}) > 1


def test_validation_stays_affordable(tmp_path: Path, write: Write) -> None:
    for subject in range(5 * MOST_VALIDATION_SUBJECTS + 5):
        write(f"sub-{subject}_T1w.nii.gz", shape=(32, 32, 32))
    assert len(read_cohort(tmp_path).validation) == MOST_VALIDATION_SUBJECTS


def test_folders_named_train_and_val_are_the_split(tmp_path: Path, write: Write) -> None:
    for name in ("train/sub-a_T1w", "train/sub-b_T1w", "val/sub-c_T1w"):
        write(f"{name}.nii.gz")
    cohort = read_cohort(tmp_path)
    assert [m.subject for m in cohort.training] == ["sub-a", "sub-b"]
    assert [m.subject for m in cohort.validation] == ["sub-c"]


@pytest.mark.parametrize(
    "names",
    [
        ("A01_T1w.nii.gz", "A01_T2.nii.gz", "B02_ses-1_FLAIR.nii.gz"),
        ("A01/t1.nii.gz", "A01/flair.nii.gz", "B02/t1.nii.gz"),
        ("sub-A01_T1w.nii.gz", "deep/sub-A01_ses-2_T1w.nii.gz", "sub-B02_T1w.nii.gz"),
    ],
)
def test_scans_of_one_person_are_told_by_name_or_folder(names: tuple[str, ...], tmp_path: Path, write: Write) -> None:
    for name in names:
        write(name)
    cohort = read_cohort(tmp_path)
    subjects = {m.subject.removeprefix("sub-") for m in (*cohort.training, *cohort.validation)}
    assert subjects == {"A01", "B02"}


def test_label_maps_and_derivatives_are_left_out(tmp_path: Path, write: Write) -> None:
    for name in ("sub-a/anat/sub-a_T1w", "sub-b/anat/sub-b_T1w", "derivatives/sub-a/anat/sub-a_desc-smooth_T1w"):
        write(f"{name}.nii.gz")
    labels = np.random.default_rng(0).integers(0, 4, (32, 32, 32)).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "sub-a/anat/sub-a_dseg.nii.gz")
    lines: list[str] = []
    cohort = read_cohort(tmp_path, report=lines.append)
    assert len(cohort.training) + len(cohort.validation) == 2
    assert [line.split(":")[0] for line in lines] == ["sub-a/anat/sub-a_dseg.nii.gz"]


def test_the_summary_names_nobody(tmp_path: Path, write: Write) -> None:
    for name in ("Mueller_T1w", "Meier_T1w"):
        write(f"{name}.nii.gz")
    text = str(read_cohort(tmp_path).summary())
    assert "Mueller" not in text
    assert "Meier" not in text


def one_subject(folder: Path, write: Write) -> str:
    """The same person twice."""
    write("sub-a_ses-1_T1w.nii.gz")
    write("sub-a_ses-2_T1w.nii.gz")
    return "sub-a"


def mixed(folder: Path, write: Write) -> str:
    """CT among MRI."""
    write("sub-a_T1w.nii.gz")
    write("sub-b_CT.nii.gz", low=-1500)
    return "sub-b_CT"


def thick(folder: Path, write: Write) -> str:
    """5 mm slices among fine ones."""
    write("sub-a_T1w.nii.gz")
    write("sub-b_T1w.nii.gz", spacing=(1, 1, 5))
    return "sub-b_T1w"


def both_splits(folder: Path, write: Write) -> str:
    """A subject to learn from and to judge by."""
    write("train/sub-a_ses-1_T1w.nii.gz")
    write("train/sub-b_T1w.nii.gz")
    write("val/sub-a_ses-2_T1w.nii.gz")
    return "sub-a"


def same_file(folder: Path, write: Write) -> str:
    """One scan under two names."""
    (folder / "val").mkdir(parents=True)
    shutil.copy(write("train/sub-a_T1w.nii.gz"), folder / "val/sub-x_T1w.nii.gz")
    return "sub-x"


def empty_file(folder: Path, write: Write) -> str:
    """No bytes."""
    write("sub-a_T1w.nii.gz")
    (folder / "sub-b_T1w.nii.gz").write_bytes(gzip.compress(b""))
    return "sub-b_T1w"


def series(folder: Path, write: Write) -> str:
    """Volumes over time."""
    write("sub-a_T1w.nii.gz")
    data = np.random.default_rng(0).normal(500, 90, (32, 32, 32, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), folder / "sub-b_bold.nii.gz")
    return "sub-b_bold"


def tiny(folder: Path, write: Write) -> str:
    """Too small for a crop."""
    write("sub-a_T1w.nii.gz")
    write("sub-b_T1w.nii.gz", shape=(32, 32, 8))
    return "sub-b_T1w"


def nothing(folder: Path, write: Write) -> str:
    """No scans at all."""
    (folder / "notes.txt").write_text("none")
    return folder.name


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (one_subject, "E_COHORT"),
        (mixed, "E_COHORT"),
        (thick, "E_COHORT"),
        (both_splits, "E_COHORT"),
        (same_file, "E_COHORT"),
        (tiny, "E_COHORT"),
        (nothing, "E_COHORT"),
        (empty_file, "E_NOT_IMAGE"),
        (series, "E_4D"),
    ],
)
def test_a_bad_cohort_is_refused_by_name(
    make: Callable[[Path, Write], str], code: str, tmp_path: Path, write: Write
) -> None:
    name = make(tmp_path, write)
    with pytest.raises(MedldError) as refusal:
        read_cohort(tmp_path)
    assert refusal.value.code == code
    assert name in str(refusal.value)
