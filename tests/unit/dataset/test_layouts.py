"""Public sets under their real names: who and what is found, and what is said where nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
import yaml
from dicom_factory import make_series, set_tag

from medld.cards import FOLDER, DataCard, known, list_cards, read_card, split_of
from medld.cards.schema import Layout
from medld.dataset import LAYOUTS, card_scans, find_scans, load, read_scan, recognise, write_pack
from medld.errors import CardError

Expected = tuple[str, str, str, str]

TREES: dict[str, dict[str, Expected | None]] = {
    "flat": {
        "sub-a_T1w.nii.gz": ("sub-a_T1w", "sub-a", "T1w", ""),
        "b_PDw.nii": ("b_PDw", "b_PDw", "PDw", ""),
        "c_ct.nii": ("c_ct", "c_ct", "CT", ""),
        "._sub-a_T1w.nii.gz": None,
        "deep/sub-d_T1w.nii.gz": None,
    },
    "bids": {
        "sub-01/anat/sub-01_T1w.nii.gz": ("sub-01_T1w", "sub-01", "T1w", ""),
        "sub-01/anat/sub-01_ce-gad_T1w.nii.gz": ("sub-01_ce-gad_T1w", "sub-01", "ce-T1w", ""),
        "sub-02/ses-a/anat/sub-02_ses-a_T2w.nii": ("sub-02_ses-a_T2w", "sub-02", "T2w", "a"),
        "sub-02/ses-a/anat/sub-02_ses-a_T2starw.nii": ("sub-02_ses-a_T2starw", "sub-02", "T2starw", "a"),
        "sub-03/ct/sub-03_ct.nii.gz": ("sub-03_ct", "sub-03", "CT", ""),
        "sub-02/ses-a/anat/sub-02_ses-a_dseg.nii.gz": None,
        "sub-02/ses-a/anat/sub-02_ses-a_T2w_defacemask.nii.gz": None,
        "sub-02/ses-a/func/sub-02_ses-a_bold.nii.gz": None,
        "derivatives/fast/sub-01/anat/sub-01_T1w.nii.gz": None,
    },
    "ixi": {
        "IXI-T1/IXI002-Guys-0828-T1.nii.gz": ("IXI002-Guys-0828-T1", "IXI002", "T1w", ""),
        "IXI-T2/IXI002-Guys-0828-T2.nii.gz": ("IXI002-Guys-0828-T2", "IXI002", "T2w", ""),
        "IXI013-HH-1212-PD.nii.gz": ("IXI013-HH-1212-PD", "IXI013", "PDw", ""),
        "download/IXI-T1/IXI035-IOP-0873-T1.nii.gz": ("IXI035-IOP-0873-T1", "IXI035", "T1w", ""),
        "IXI-MRA/IXI002-Guys-0828-MRA.nii.gz": None,
    },
    "hcp": {
        "100307/unprocessed/3T/T1w_MPR1/100307_3T_T1w_MPR1.nii.gz": ("100307_3T_T1w_MPR1", "100307", "T1w", ""),
        "100307/unprocessed/3T/T2w_SPC1/100307_3T_T2w_SPC1.nii.gz": ("100307_3T_T2w_SPC1", "100307", "T2w", ""),
        "HCP_1200/100408/unprocessed/3T/T1w_MPR2/100408_3T_T1w_MPR2.nii.gz": (
            "100408_3T_T1w_MPR2",
            "100408",
            "T1w",
            "",
        ),
        "100307/unprocessed/3T/T1w_MPR1/100307_3T_BIAS_32CH.nii.gz": None,
        "100307/T1w/T1w_acpc_dc.nii.gz": None,
    },
    "oasis1": {
        "disc1/OAS1_0001_MR1/RAW/OAS1_0001_MR1_mpr-1_anon.nii.gz": (
            "OAS1_0001_MR1_mpr-1_anon",
            "OAS1_0001",
            "T1w",
            "MR1",
        ),
        "OAS1_0061_MR2/RAW/OAS1_0061_MR2_mpr-3_anon.nii": ("OAS1_0061_MR2_mpr-3_anon", "OAS1_0061", "T1w", "MR2"),
        "OAS1_0002_MR1_mpr-1_anon.nii.gz": ("OAS1_0002_MR1_mpr-1_anon", "OAS1_0002", "T1w", "MR1"),
        "OAS1_0002_MR1/RAW/OAS1_0002_MR1_mpr-1_anon.hdr": None,
        "OAS1_0001_MR1/PROCESSED/MPRAGE/SUBJ_111/OAS1_0001_MR1_mpr_n4_anon_sbj_111.nii.gz": None,
        "OAS1_0001_MR1/PROCESSED/MPRAGE/T88_111/OAS1_0001_MR1_mpr_n4_anon_111_t88_gfc.nii.gz": None,
    },
    "oasis3": {
        "sub-OAS30001/ses-d0129/anat/sub-OAS30001_ses-d0129_run-01_T1w.nii.gz": (
            "sub-OAS30001_ses-d0129_run-01_T1w",
            "OAS30001",
            "T1w",
            "d0129",
        ),
        "OAS30001_MR_d0757/anat1/sub-OAS30001_sess-d0757_acq-TSE_T2w.nii.gz": (
            "sub-OAS30001_sess-d0757_acq-TSE_T2w",
            "OAS30001",
            "T2w",
            "d0757",
        ),
        "OAS30002_MR_d0653/anat4/NIFTI/sub-OAS30002_ses-d0653_FLAIR.nii.gz": (
            "sub-OAS30002_ses-d0653_FLAIR",
            "OAS30002",
            "FLAIR",
            "d0653",
        ),
        "sub-OAS30001/ses-d0129/func/sub-OAS30001_ses-d0129_task-rest_run-01_bold.nii.gz": None,
        "OAS30001_MR_d0757/anat3/sub-OAS30001_ses-d0757_angio.nii.gz": None,
    },
    "kirby21": {
        "KKI2009-33-MPRAGE.nii": ("KKI2009-33-MPRAGE", "113", "T1w", ""),
        "KKI2009-25/KKI2009-25-FLAIR.nii.gz": ("KKI2009-25-FLAIR", "113", "FLAIR", ""),
        "visit_1/505/505-01-T2w.nii.gz": ("505-01-T2w", "505", "T2w", "01"),
        "KKI2009-33-DTI.nii": None,
    },
    "brats": {
        "BraTS2021_00002/BraTS2021_00002_t1ce.nii.gz": ("BraTS2021_00002_t1ce", "BraTS2021_00002", "ce-T1w", ""),
        "BraTS2021_00002/BraTS2021_00002_flair.nii.gz": ("BraTS2021_00002_flair", "BraTS2021_00002", "FLAIR", ""),
        "BraTS2021_00002/BraTS2021_00002_seg.nii.gz": None,
        "MICCAI_BraTS2020_TrainingData/BraTS20_Training_001/BraTS20_Training_001_t1.nii": (
            "BraTS20_Training_001_t1",
            "BraTS20_Training_001",
            "T1w",
            "",
        ),
        "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/BraTS-GLI-00008-001/BraTS-GLI-00008-001-t2f.nii.gz": (
            "BraTS-GLI-00008-001-t2f",
            "BraTS-GLI-00008",
            "FLAIR",
            "001",
        ),
        "BraTS-MEN-00004-000/BraTS-MEN-00004-000-t1n.nii.gz": (
            "BraTS-MEN-00004-000-t1n",
            "BraTS-MEN-00004",
            "T1w",
            "000",
        ),
        "BraTS-GLI-00008-001/BraTS-GLI-00008-001-seg.nii.gz": None,
    },
    "fastmri": {
        "multicoil_train/file_brain_AXT2_200_2000019.nii.gz": (
            "file_brain_AXT2_200_2000019",
            "200_2000019",
            "T2w",
            "",
        ),
        "multicoil_val/file_brain_AXFLAIR_201_6002725.nii": (
            "file_brain_AXFLAIR_201_6002725",
            "201_6002725",
            "FLAIR",
            "",
        ),
        "multicoil_test_full/file_brain_AXT1POST_201_6002780.nii.gz": (
            "file_brain_AXT1POST_201_6002780",
            "201_6002780",
            "ce-T1w",
            "",
        ),
        "multicoil_train/file_brain_AXT1_201_6002779.h5": None,
    },
    "adni": {
        "ADNI/002_S_0295/MP-RAGE/2006-04-18_08_20_30.0/I13722/"
        "ADNI_002_S_0295_MR_MP-RAGE__br_raw_20060418193713091_1_S13408_I13722.nii": (
            "002_S_0295_I13722",
            "002_S_0295",
            "T1w",
            "2006-04-18_08_20_30.0",
        ),
        "002_S_0413/Sagittal_3D_FLAIR/2017-06-21_13_23_38.0/I863060/I863060_Sagittal_3D_FLAIR.nii.gz": (
            "002_S_0413_I863060",
            "002_S_0413",
            "FLAIR",
            "2017-06-21_13_23_38.0",
        ),
        "002_S_0413/Accelerated_SAG_IR-SPGR/2012-05-15_09_00_00.0/S150697/a.nii": (
            "002_S_0413_S150697",
            "002_S_0413",
            "T1w",
            "2012-05-15_09_00_00.0",
        ),
        "002_S_0295/MPR__GradWarp__B1_Correction__N3__Scaled/2006-11-02_08_16_44.0/I40966/b.nii": None,
        "002_S_0413/Axial_rsfMRI__Eyes_Open_/2017-06-21_13_23_38.0/I863064/c.nii": None,
        "002_S_0413/B1-Calibration_Body/2017-06-21_13_23_38.0/I863065/d.nii": None,
    },
    "rplhr": {
        "train/1mm/CT00000000.nii.gz": ("CT00000000", "CT00000000", "CT", ""),
        "data/test/1mm/CT00000150.nii.gz": ("CT00000150", "CT00000150", "CT", ""),
        "train/5mm/CT00000000.nii.gz": None,
    },
    "totalsegmentator": {
        "s0011/ct.nii.gz": ("s0011_CT", "s0011", "CT", ""),
        "s0011/segmentations/liver.nii.gz": None,
        "Totalsegmentator_dataset_v201/s0012/ct.nii.gz": ("s0012_CT", "s0012", "CT", ""),
    },
}
WHO = "scan,subject\nKKI2009-33,113\nKKI2009-25,113\n"


def make_tree(folder: Path, layout: str) -> None:
    """Empty files of a set's names."""
    for path in TREES[layout]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    if layout == "kirby21":
        (folder / "subjects.csv").write_text(WHO)


def save(path: Path, seed: int = 0, low: float = 0.0) -> Path:
    """A scan of many different values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).gamma(2.0, 300.0, (10, 9, 8)).astype(np.float32) + low
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


def own_card(**changes: object) -> DataCard:
    """A shipped card with other contents."""
    return DataCard.model_validate({**yaml.safe_load((FOLDER / "ixi.yaml").read_text()), **changes})


def card_of(layout: str) -> str:
    """The shipped card with a layout."""
    return next(name for name in list_cards() if known(read_card(name).layout) == layout)


def test_every_layout_of_the_schema_is_there() -> None:
    assert set(LAYOUTS) == set(get_args(Layout)) - {"convert"}
    assert set(LAYOUTS) == {*TREES, "dicom", "lidc", "ldct"}


@pytest.mark.parametrize("layout", TREES)
def test_names_tell_whose_scan_it_is_and_what_it_shows(layout: str, tmp_path: Path) -> None:
    make_tree(tmp_path, layout)
    found = {
        scan.path.relative_to(tmp_path).as_posix(): (scan.name, scan.subject, scan.contrast, scan.session)
        for scan in find_scans(tmp_path, layout)
    }
    expected = {path: names for path, names in TREES[layout].items() if names is not None}
    assert found == expected
    assert len({name for name, *_ in found.values()}) == len(found)


@pytest.mark.parametrize("layout", [name for name in TREES if name not in ("flat", "bids")])
def test_a_set_is_recognised_by_its_names_and_taken_for_no_other(layout: str, tmp_path: Path) -> None:
    make_tree(tmp_path, layout)
    assert recognise(tmp_path) == layout
    for other in TREES:
        if other not in (layout, "flat", "bids"):
            assert find_scans(tmp_path, other) == []


@pytest.mark.parametrize("layout", ["flat", "bids"])
def test_anybodys_files_are_no_named_set(layout: str, tmp_path: Path) -> None:
    make_tree(tmp_path, layout)
    assert recognise(tmp_path) is None


# By card


def write_lidc(folder: Path) -> None:
    """Three people: one with two scans and a radiograph, one with a gap in the slices."""
    study = folder / "LIDC-IDRI" / "LIDC-IDRI-0314" / "01-01-2000-NA-NA-30178"
    for number, person in ((1, study), (2, study), (3, folder / "LIDC-IDRI" / "LIDC-IDRI-0004" / "1.3.6.1")):
        kept = person / f"{number}000.000000-NA-03192"
        paths = make_series(kept, modality="CT", slices=6, shape=(8, 9), spacing=1.0, study=number, series=number)
        set_tag(paths, "PatientID", person.parent.name)
    gap = folder / "LIDC-IDRI" / "LIDC-IDRI-0002" / "01-01-2000-98329" / "3000522.000000-04919"
    make_series(gap, modality="CT", slices=7, shape=(8, 9), spacing=1.0, study=4, series=4)[3].unlink()
    other = folder / "LIDC-IDRI" / "LIDC-IDRI-0314" / "01-01-2000-35511" / "3000923.000000-62357"
    paths = make_series(other, modality="CT", slices=3, shape=(8, 9), study=5, series=5)
    set_tag(paths, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.1.1")  # digital X-ray


def test_lidc_is_read_through_dicom(tmp_path: Path) -> None:
    write_lidc(tmp_path)
    lines: list[str] = []
    found = find_scans(tmp_path, "lidc", lines.append)
    assert [scan.subject for scan in found] == ["LIDC-IDRI-0004", "LIDC-IDRI-0314", "LIDC-IDRI-0314"]
    assert len({scan.name for scan in found}) == 3
    for scan in found:
        assert scan.name.startswith(f"{scan.subject}_series-")
        assert (scan.contrast, scan.modality) == ("CT", "ct")
        volume = read_scan(scan)
        assert (volume.modality, volume.grid.shape) == ("ct", (9, 8, 6))
        assert volume.array.min() < -900
    (line,) = lines
    assert "E_GAP" in line


def test_both_scans_of_a_person_of_lidc_fall_into_one_split_and_can_be_packed(tmp_path: Path) -> None:
    write_lidc(tmp_path / "data")
    card = read_card("lidc-idri")
    split = split_of("LIDC-IDRI-0314")
    scans = card_scans(card, tmp_path / "data", split)
    assert [scan.subject for scan in scans].count("LIDC-IDRI-0314") == 2
    assert {split_of(scan.subject) for scan in scans} == {split}
    write_pack(scans, tmp_path / "pack", card=card.name, split=split)
    assert {fine.name: fine.modality for fine in load([tmp_path / "pack"])} == {scan.name: "ct" for scan in scans}


def test_of_a_split_without_a_usable_series_the_reason_is_told(tmp_path: Path) -> None:
    gap = tmp_path / "LIDC-IDRI-0002" / "1.2" / "1.3"
    make_series(gap, modality="CT", slices=7, shape=(8, 9), spacing=1.0)[3].unlink()
    with pytest.raises(CardError, match=r"none that can be used.* E_GAP"):
        card_scans(read_card("lidc-idri"), tmp_path, split_of("LIDC-IDRI-0002"))


def test_of_ldct_the_images_at_full_dose_are_taken(tmp_path: Path) -> None:
    for number, name in enumerate(
        (
            "LDCT-and-Projection-data/L004/08-21-2018-84608/1.000000-Full Dose Images-35583",
            "LDCT-and-Projection-data/L004/08-21-2018-84608/1.000000-Low Dose Images-35584",
            "LDCT-and-Projection-data/C296/1.000000-Full dose images-05724",
            "LDCT-and-Projection-data/L004/08-21-2018-84608/1.000000-Full dose projections-77764",
        )
    ):
        make_series(tmp_path / name, modality="CT", slices=4, shape=(8, 9), spacing=1.0, series=number + 1)
    assert recognise(tmp_path) == "ldct"
    found = find_scans(tmp_path, "ldct")
    assert [(scan.subject, scan.contrast) for scan in found] == [("C296", "CT"), ("L004", "CT")]
    assert all("Full" in scan.path.name for scan in found)


def test_adni_comes_as_dicom_too(tmp_path: Path) -> None:
    place = tmp_path / "ADNI" / "137_S_1414" / "MP-RAGE" / "2008-02-26_11_57_53.0" / "S46193"
    make_series(place, slices=6, shape=(8, 9), spacing=1.0)
    (scan,) = find_scans(tmp_path, "adni")
    assert (scan.name, scan.subject, scan.contrast) == ("137_S_1414_S46193", "137_S_1414", "T1w")
    assert read_scan(scan).contrast == "T1w"
    make_series(place, slices=6, shape=(8, 9), spacing=1.0, series=2)
    assert len({scan.name for scan in find_scans(tmp_path, "adni")}) == 2


def test_kirby_needs_to_be_told_who_is_who(tmp_path: Path) -> None:
    make_tree(tmp_path, "kirby21")
    (tmp_path / "subjects.csv").unlink()
    with pytest.raises(CardError, match=r"numbered by scan.*subjects\.csv"):
        find_scans(tmp_path, "kirby21")
    (tmp_path / "subjects.csv").write_text(WHO.replace("KKI2009-25", "KKI2009-26"))
    with pytest.raises(CardError, match="a line for KKI2009-25"):
        find_scans(tmp_path, "kirby21")


@pytest.mark.parametrize(("layout", "splits"), [("fastmri", ("train", "val", "test")), ("rplhr", ("train", "test"))])
def test_a_split_of_the_source_is_kept(layout: str, splits: tuple[str, ...], tmp_path: Path) -> None:
    make_tree(tmp_path, layout)
    card = read_card(card_of(layout))
    found = {split: card_scans(card, tmp_path, split) for split in splits}  # type: ignore[arg-type]
    for split, scans in found.items():
        assert len(scans) == 1
        assert split in scans[0].path.relative_to(tmp_path).as_posix()
        assert scans[0].modality == card.modality


def test_a_folder_named_after_a_split_is_that_split(tmp_path: Path) -> None:
    folder = tmp_path / "multicoil_val"
    folder.mkdir()
    (folder / "file_brain_AXT2_200_2000019.nii.gz").touch()
    card = read_card("fastmri-brain")
    assert len(card_scans(card, folder, "val")) == 1
    with pytest.raises(CardError, match="1 of val"):
        card_scans(card, folder, "train")
    folder.rename(tmp_path / "exported")
    with pytest.raises(CardError, match="one split, not the card"):
        card_scans(card, tmp_path / "exported", "train")


def test_a_card_says_the_modality_of_what_a_layout_finds(tmp_path: Path) -> None:
    save(tmp_path / "s0011" / "ct.nii.gz", low=0.0)  # no value tells it from MR
    card = read_card("totalsegmentator")
    (scan,) = card_scans(card, tmp_path, split_of("s0011"))
    assert read_scan(scan).modality == "ct"


# What is said where nothing is found


@pytest.mark.parametrize("name", list_cards())
def test_a_missing_folder_is_told_with_the_place_and_the_terms_of_the_data(name: str, tmp_path: Path) -> None:
    card = read_card(name)
    with pytest.raises(CardError) as caught:
        card_scans(card, tmp_path / "nowhere", "train")
    message = str(caught.value)
    assert str(tmp_path / "nowhere") in message
    assert (f"medld data show {name}" if card.parts else card.origin[0]) in message
    assert f"access: {card.access}" in message
    assert f"licence: {card.licence}" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", [name for name in list_cards() if not name.startswith("medld-")])
def test_an_empty_folder_and_another_set_are_told_too(name: str, tmp_path: Path) -> None:
    card = read_card(name)
    layout = known(card.layout)
    with pytest.raises(CardError, match="the folder is empty") as caught:
        card_scans(card, tmp_path, "train")
    assert card.origin[0] in str(caught.value)
    other = "brats" if layout == "ixi" else "ixi"
    make_tree(tmp_path, other)
    with pytest.raises(CardError, match=f"It looks like {other}") as caught:
        card_scans(card, tmp_path, "train")
    assert card.origin[0] in str(caught.value)
    assert LAYOUTS[str(layout)].example in str(caught.value)


def test_sets_that_must_be_converted_first_say_so(tmp_path: Path) -> None:
    for name, card in (
        ("OAS1_0001_MR1/RAW/OAS1_0001_MR1_mpr-1_anon.hdr", "oasis1"),
        ("multicoil_train/file_brain_AXT1_201_6002779.h5", "fastmri-brain"),
    ):
        folder = tmp_path / card
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
        with pytest.raises(CardError, match="NIfTI"):
            card_scans(read_card(card), folder, "train")


def test_a_card_that_cannot_find_its_files_says_what_to_do(tmp_path: Path) -> None:
    for layout in ("convert", {"unknown": "nobody wrote the names down"}):
        with pytest.raises(CardError, match="Convert them to NIfTI"):
            card_scans(own_card(layout=layout), tmp_path, "train")


def test_only_another_split_is_there(tmp_path: Path) -> None:
    subject = next(f"IXI{number:03d}" for number in range(500) if split_of(f"IXI{number:03d}") == "val")
    (tmp_path / f"{subject}-Guys-0828-T1.nii.gz").touch()
    with pytest.raises(CardError, match="1 of val"):
        card_scans(read_card("ixi"), tmp_path, "train")
