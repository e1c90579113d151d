"""Volumes to learn from, out of NIfTI folders and packs."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medld.dataset import INDEX, Source, load, pack, to_bytes
from medld.errors import CardError

SPACING = (1.0, 1.2, 0.9)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three small volumes of random values."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("sub-b_T2w", "sub-a_T1w", "sub-c_FLAIR"):
        array = rng.gamma(2.0, 300.0, (10, 9, 8)).astype(np.float32)
        nib.save(nib.Nifti1Image(array, np.diag([*SPACING, 1.0])), folder / f"{name}.nii.gz")
    return folder


def test_a_folder_is_read_in_the_order_of_names(folder: Path) -> None:
    volumes = load([folder])
    assert [v.name for v in volumes] == ["sub-a_T1w", "sub-b_T2w", "sub-c_FLAIR"]
    assert [v.contrast for v in volumes] == ["T1w", "T2w", "FLAIR"]
    for fine in volumes:
        assert fine.array.dtype == np.uint8
        assert fine.spacing == pytest.approx(SPACING)
        expected = to_bytes(nib.load(folder / f"{fine.name}.nii.gz").get_fdata(dtype=np.float32))
        assert np.array_equal(fine.array, expected)


def test_a_pack_holds_the_same_volumes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    size = pack(folder, out)
    assert size == sum(path.stat().st_size for path in out.glob("*.xz"))
    for direct, packed in zip(load([folder]), load([out]), strict=True):
        assert (direct.name, direct.contrast) == (packed.name, packed.contrast)
        assert direct.spacing == packed.spacing
        assert np.array_equal(direct.array, packed.array)


def test_a_pack_may_hold_a_part(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "pack", ["*_T1w", "*_FLAIR"])
    assert [v.name for v in load([tmp_path / "pack"])] == ["sub-a_T1w", "sub-c_FLAIR"]


def test_the_first_source_that_matches_counts(folder: Path) -> None:
    sources = [Source("*_T1w", 5.0, (2,)), Source("sub-[ab]*", 2.0)]
    first, second = load([folder], sources)
    assert (first.name, first.weight, first.axes) == ("sub-a_T1w", 5.0, (2,))
    assert (second.name, second.weight, second.axes) == ("sub-b_T2w", 2.0, (0, 1, 2))


def test_a_name_in_two_folders_is_one_volume(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "pack")
    assert len(load([folder, tmp_path / "pack"])) == 3


def test_a_missing_folder_and_an_empty_choice_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CardError, match="found none"):
        load([tmp_path / "nowhere"])
    with pytest.raises(CardError, match=r"data\.sources"):
        load([folder], [Source("nothing*")])


def test_a_damaged_pack_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    pack(folder, out)
    file = out / json.loads((out / INDEX).read_text())[1]["file"]
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(CardError, match=f"{file.name} .*damaged"):
        load([out])


def test_eight_bits_span_the_tissue(rng: np.random.Generator) -> None:
    array = rng.uniform(0, 700, (20, 20, 20))
    array[:10] = 0
    array[0, 0, :3] = -50, 1e6, 1e6
    stored = to_bytes(array)
    top = np.percentile(array[array > 0], 99.9)
    inside = (array >= 0) & (array <= top)
    assert np.abs(stored[inside] / 255 * top - array[inside]).max() <= 0.5 / 255 * top * (1 + 1e-9)
    assert stored[0, 0, 0] == 0
    assert stored[0, 0, 1] == 255


def test_a_gain_does_not_change_the_bytes(rng: np.random.Generator) -> None:
    array = rng.uniform(0, 700, (12, 12, 12)).astype(np.float32)
    assert np.array_equal(to_bytes(array), to_bytes(array * 4))
    assert not to_bytes(np.zeros((2, 2, 2))).any()
