"""What counts as a label map, and which modality a scan is taken for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medld.io import guess_modality, is_label_name
from medld.io.checks import MAX_LABELS, is_label_map


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_dseg.nii.gz",
        "sub-01_space-T1w_desc-brain_mask.nii.gz",
        "aseg.nii.gz",
        "aparc+aseg.nii.gz",
        "brain_mask.nii.gz",
        "lesion-seg.nrrd",
        "labels.mha",
        "sub-01_label-GM_probseg_roi.nii.gz",
        "T1_brainmask.nii",
        "wmparc.nii.gz",
        "Mask.NII.GZ",
    ],
)
def test_names_that_say_label_map(name: str) -> None:
    assert is_label_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "sub-seg3d01_T1w.nii.gz",
        "sub-01_desc-mask_T1w.nii.gz",
        "scan.nii.gz",
        "sub-mask_ses-seg_CT.nii.gz",
        "masked.nii.gz",
        "segal.nii.gz",
        "sub-01_T2w.nrrd",
        "atlasing.mha",
    ],
)
def test_names_that_do_not(name: str) -> None:
    assert not is_label_name(name)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
def test_whole_numbers_with_at_most_64_distinct_values_are_labels(dtype: str, rng: np.random.Generator) -> None:
    labels = rng.integers(0, MAX_LABELS, (20, 21, 22)).astype(dtype)
    labels.ravel()[:MAX_LABELS] = np.arange(MAX_LABELS)
    assert is_label_map(labels)
    labels[7, 7, 7] = MAX_LABELS
    assert not is_label_map(labels)


def test_one_fraction_makes_a_scan(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 5, (120, 110, 100)).astype(np.float32)
    assert is_label_map(labels)
    labels[119, 3, 50] += 0.5
    assert not is_label_map(labels)


def test_labels_far_apart_are_still_labels(rng: np.random.Generator) -> None:
    labels = rng.choice([0, 17, 2035, 1_000_000], (30, 40, 50)).astype(np.float32)
    assert is_label_map(labels)
    labels[0, 0, 0] = -3e8
    assert is_label_map(labels)
    labels.ravel()[:100] = np.arange(100) * 1e5
    assert not is_label_map(labels)


def test_a_rare_value_outside_the_sparse_look_is_found(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 3, (200, 200, 40)).astype(np.int16)
    labels[1::2, 1, 1] = np.arange(100)
    assert not is_label_map(labels)


@pytest.mark.parametrize(
    ("name", "modality", "contrast"),
    [
        ("sub-01_T1w.nii.gz", "mr", "T1w"),
        ("sub-01_T2w.nii.gz", "mr", "T2w"),
        ("sub-01_acq-3d_FLAIR.nii", "mr", "FLAIR"),
        ("sub-01_ce-gad_T1w.nii.gz", "mr", "ce-T1w"),
        ("sub-01_ce-gad_T2w.nii.gz", "mr", "T2w"),
        ("sub-01_PDw.nii.gz", "mr", "unknown"),
        ("sub-ce-1_T1w.nii.gz", "mr", "T1w"),
        ("sub-01_CT.nii.gz", "ct", "unknown"),
        ("sub-01_ct.nrrd", "ct", "unknown"),
        ("sub-01_pet.nii.gz", "unknown", "unknown"),
        ("scan.nii.gz", "mr", "unknown"),
    ],
)
def test_the_name_says_the_modality(name: str, modality: str, contrast: str, tmp_path: Path) -> None:
    guess = guess_modality(tmp_path / name, 0.0)
    assert (guess.modality, guess.contrast) == (modality, contrast)


@pytest.mark.parametrize(("stated", "modality"), [("MR", "mr"), ("CT", "ct"), ("PT", "unknown")])
def test_then_the_sidecar(stated: str, modality: str, tmp_path: Path) -> None:
    (tmp_path / "scan.json").write_text(json.dumps({"Modality": stated}))
    guess = guess_modality(tmp_path / "scan.nii.gz", -1000.0)
    assert guess.modality == modality
    assert "sidecar" in guess.reason


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"Modality": 3}', "{", '{"Modality": "US"}'])
def test_then_the_values_also_beside_an_unusable_sidecar(text: str, tmp_path: Path) -> None:
    (tmp_path / "scan.json").write_text(text)
    assert guess_modality(tmp_path / "scan.nii.gz", -1000.0).modality == "ct"
    assert guess_modality(tmp_path / "scan.nii.gz", -200.0).modality == "mr"
