from __future__ import annotations

import json
from pathlib import Path

import pytest

from medld.errors import ConfigError
from medld.evaluation.participants import (
    TRAITS,
    age_band,
    field_of,
    find_participants,
    read_participants,
    sex_of,
    vendor_of,
)


def test_bids_tables_speak_of_subjects(tmp_path: Path) -> None:
    path = tmp_path / "participants.tsv"
    path.write_text("participant_id\tage\tsex\tgroup\nsub-01\t34\tFemale\tpatient\nsub-02\tn/a\tm\tn/a\n")
    table = read_participants(find_participants(tmp_path))
    first = table.traits(tmp_path / "sub-01_T1w.nii.gz", "sub-01")
    assert first == dict(zip(TRAITS, ("F", "18-39", "patient", "", ""), strict=True))
    assert table.traits(tmp_path / "sub-02_T1w.nii.gz", "02")["sex"] == "M"
    assert table.traits(tmp_path / "sub-02_T1w.nii.gz", "sub-02")["age_band"] == ""


def test_a_row_with_a_file_speaks_of_that_scan_alone(tmp_path: Path) -> None:
    path = tmp_path / "participants.csv"
    path.write_text(
        "\ufefffile,subject,vendor,field_strength_T\n"
        "val/sub-01_ses-1_T1w.nii.gz,01,Siemens Trio (paper),3\n"
        "val/sub-01_ses-2_T1w.nii.gz,01,GE Discovery STE,1.494\n",
        encoding="utf-8",
    )
    table = read_participants(path)
    told = [table.traits(Path(f"sub-01_ses-{n}_T1w.nii.gz"), "sub-01") for n in (1, 2, 3)]
    assert [one["vendor"] for one in told] == ["Siemens", "GE", ""]
    assert [one["field_strength"] for one in told] == ["3 T", "1.5 T", ""]


def test_a_sidecar_tells_the_scanner_where_the_table_does_not(tmp_path: Path) -> None:
    (tmp_path / "sub-01_T1w.json").write_text(json.dumps({"Manufacturer": "SIEMENS", "MagneticFieldStrength": 2.89}))
    scan = tmp_path / "sub-01_T1w.nii.gz"
    found = read_participants(None).traits(scan, "sub-01")
    assert (found["vendor"], found["field_strength"]) == ("Siemens", "3 T")
    path = tmp_path / "participants.csv"
    path.write_text("subject,vendor\nsub-01,Philips\n")
    assert read_participants(path).traits(scan, "sub-01")["vendor"] == "Philips"


@pytest.mark.data
def test_the_shared_table_is_read(data: Path) -> None:
    table = read_participants(find_participants(data))
    found = table.traits(data / "val" / "sub-ds002748s02_T1w.nii.gz", "sub-ds002748s02")
    assert list(found.values()) == ["M", "40-64", "depr", "", "3 T"]


def test_a_table_without_names_or_none_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "participants.csv"
    path.write_text("age,sex\n3,F\n")
    with pytest.raises(ConfigError, match="participant_id"):
        read_participants(path)
    with pytest.raises(ConfigError, match="participants"):
        read_participants(tmp_path / "missing.csv")
    assert find_participants(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("told", "band"),
    [("0", "0-17"), ("17.9", "0-17"), ("18", "18-39"), ("40", "40-64"), ("65", "65+"), ("89+", "65+"), ("old", "")],
)
def test_ages_become_bands(told: str, band: str) -> None:
    assert age_band(told) == band


def test_what_tables_call_things_is_brought_together() -> None:
    assert [sex_of(text) for text in ("F", "female", "M", "Male", "other")] == ["F", "F", "M", "M", "other"]
    assert [vendor_of(text) for text in ("GE MEDICAL SYSTEMS", "Siemens Healthineers", "wiped", "large")] == [
        "GE",
        "Siemens",
        "",
        "",
    ]
    assert [field_of(text) for text in ("1.5T", "3", "2.89", "9.4", "")] == ["1.5 T", "3 T", "3 T", "9.4 T", ""]
