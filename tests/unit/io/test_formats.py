"""Names, suffixes and the files beside a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medld.errors import InputError
from medld.io import SUFFIXES, Storage, sidecar_path, split_suffix
from medld.io.formats import format_of


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_name_is_its_stem_and_suffix(suffix: str) -> None:
    assert split_suffix(f"/a.b/sub-01_run-1.5_T1w{suffix}") == ("sub-01_run-1.5_T1w", suffix)
    assert split_suffix(f"SCAN{suffix.upper()}") == ("SCAN", suffix.upper())
    assert format_of(f"a{suffix.upper()}") == format_of(f"a{suffix}")


@pytest.mark.parametrize("name", ["scan", "scan.gz", "scan.dcm", ".nii", "nii.gz"])
def test_other_names_have_no_suffix_and_are_refused(name: str) -> None:
    assert split_suffix(name) == (name, "")
    with pytest.raises(InputError) as caught:
        format_of(name)
    assert caught.value.code == "E_NOT_IMAGE"


def test_the_sidecar_has_the_name_of_the_image() -> None:
    assert sidecar_path("/x/scan_desc-sr.nii.gz") == Path("/x/scan_desc-sr.json")
    assert sidecar_path(Path("a.b.mha")) == Path("a.b.json")


def test_formats_that_can_scale_keep_the_scaling() -> None:
    storage = Storage(format="nifti2", dtype=np.dtype("i2"), slope=2.0)
    assert storage.converted_to("nifti1") is storage
    assert storage.converted_to("nrrd").dtype == np.float32
    plain = Storage(dtype=np.dtype("i2")).converted_to("metaimage")
    assert (plain.dtype, plain.format, plain.warnings) == (np.dtype("i2"), "metaimage", ())
    assert Storage(format="nrrd", dtype=np.dtype("i2")).converted_to("nifti1").dtype == np.int16
