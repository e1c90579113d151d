"""What is decided before a restoration: slice thickness, modality, memory, and the order of refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medld.batch.inputs import ImageFile
from medld.batch.prepare import choose_thickness, find_memory_limit, prepare_scan
from medld.batch.settings import EnhanceSettings
from medld.errors import InputError
from medld.geometry import Grid, choose_target
from medld.scratch import Scratch
from medld.superres import SuperResolver

THICK = Grid((8, 8, 6), np.diag([1.0, 1.0, 4.0, 1.0]))
ISOTROPIC = Grid((6, 6, 6), np.diag([2.0, 2.0, 2.0, 1.0]))
AMPLE_GIB = 1e3


def save(path: Path, values: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 4)) -> Path:
    """A scan of these values."""
    nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1])), path)
    return path


def ramp(low: float = 0.0, shape: tuple[int, int, int] = (8, 8, 6)) -> np.ndarray:
    """Rising values from `low`, more than a label map holds."""
    return np.linspace(low, low + 1000, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def prepare(path: Path, limit_gib: float = AMPLE_GIB, **options: Any) -> Any:
    """Prepare with the baseline."""
    resolver = SuperResolver(None, device="cpu")
    return prepare_scan(ImageFile(path, True), EnhanceSettings(**options), resolver, limit_gib, Scratch(path.parent))


class TestThickness:
    def test_option_then_sidecar_then_spacing(self) -> None:
        target = choose_target(THICK)
        assert choose_thickness(THICK, target, 5.0, 3.0).per_axis == (None, None, 5.0)
        assert choose_thickness(THICK, target, 5.0, 3.0).source == "option"
        assert choose_thickness(THICK, target, None, 3.0).per_axis == (None, None, 3.0)
        assert choose_thickness(THICK, target, None, 3.0).source == "sidecar"
        assert choose_thickness(THICK, target, None, None).per_axis == (None, None, None)

    @pytest.mark.parametrize(("thickness", "warned"), [(2.3, True), (2.4, False), (8.0, False), (8.1, True)])
    def test_unusual_values_are_used_and_warned_of(self, thickness: float, warned: bool) -> None:
        result = choose_thickness(THICK, choose_target(THICK), thickness, None)
        assert result.per_axis[2] == thickness
        assert bool(result.warnings) == warned

    def test_belongs_to_the_slice_axis_alone(self) -> None:
        every = choose_target(THICK, spacing=(0.5, 0.5, 1))
        assert choose_thickness(THICK, every, 5.0, None).per_axis == (None, None, 5.0)
        in_plane = choose_target(THICK, spacing=(0.5, 0.5, 4))
        unused = choose_thickness(THICK, in_plane, 5.0, None)
        assert unused.per_axis == (None, None, None)
        assert "not used" in unused.warnings[0]

    def test_isotropic_scans_take_the_option_on_all_axes(self) -> None:
        target = choose_target(ISOTROPIC)
        assert choose_thickness(ISOTROPIC, target, 2.5, None).per_axis == (2.5, 2.5, 2.5)
        assert choose_thickness(ISOTROPIC, target, None, 2.0).warnings == ()
        ignored = choose_thickness(ISOTROPIC, target, None, 3.0)
        assert ignored.per_axis == (None, None, None)
        assert "isotropic" in ignored.warnings[0]

    def test_follows_the_slices_to_another_array_axis(self) -> None:
        turned = THICK.permuted((2, 0, 1))
        assert choose_thickness(turned, choose_target(turned), 5.0, None).per_axis == (5.0, None, None)


@pytest.mark.parametrize("value", [0, -3, "5", True, [5]])
def test_an_unusable_sidecar_value_is_warned_of(tmp_path: Path, value: object) -> None:
    scan = save(tmp_path / "scan.nii", ramp())
    (tmp_path / "scan.json").write_text(json.dumps({"SliceThickness": value}))
    prepared = prepare(scan)
    assert prepared.thickness.source == "spacing"
    assert any("SliceThickness" in warning for warning in prepared.warnings)


def test_the_sidecars_thickness_reaches_the_request(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii.gz", ramp())
    (tmp_path / "scan.json").write_text(json.dumps({"SliceThickness": 5}))
    assert prepare(scan).request.thickness == (None, None, 5.0)
    assert prepare(scan, slice_thickness=6.0).request.thickness == (None, None, 6.0)


@pytest.mark.parametrize(
    ("name", "low", "modality"),
    [
        ("scan.nii", 0, "mr"),
        ("scan.nii", -1000, "ct"),
        ("sub-01_T2w.nii", -1000, "mr"),
        ("sub-01_ct.nii", 0, "ct"),
    ],
)
def test_modality_by_name_then_values(tmp_path: Path, name: str, low: float, modality: str) -> None:
    assert prepare(save(tmp_path / name, ramp(low))).volume.modality == modality


def test_modality_by_sidecar_and_option(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii", ramp())
    (tmp_path / "scan.json").write_text(json.dumps({"Modality": "CT"}))
    assert prepare(scan).volume.modality == "ct"
    prepared = prepare(scan, modality="mr")
    assert prepared.volume.modality == "mr"
    assert "--modality" in prepared.volume.provenance["modality_from"]


def test_a_modality_that_nobody_knows_is_warned_of(tmp_path: Path) -> None:
    assert any("--modality" in w for w in prepare(save(tmp_path / "sub-01_pet.nii", ramp())).warnings)


def test_a_too_large_estimate_is_refused_before_reading(tmp_path: Path) -> None:
    # The voxels are NaN: only if they are never looked at does the size speak first.
    scan = save(tmp_path / "scan.nii", np.full((8, 8, 6), np.nan, np.float32))
    with pytest.raises(InputError) as caught:
        prepare(scan, limit_gib=1e-3)
    assert caught.value.code == "E_TOO_BIG"
    assert "--memory" in str(caught.value)


def test_bad_voxels_are_refused_before_a_useless_target(tmp_path: Path) -> None:
    fine = {"spacing": (1.0, 1.0, 1.0)}
    with pytest.raises(InputError) as caught:
        prepare(save(tmp_path / "nan.nii", np.full((8, 8, 8), np.nan, np.float32), **fine))
    assert caught.value.code == "E_PIXELS"
    with pytest.raises(InputError) as caught:
        prepare(save(tmp_path / "fine.nii", ramp(shape=(8, 8, 8)), **fine))
    assert caught.value.code == "E_NOTHING_TO_DO"


def test_memory_limit_is_the_option_or_less_than_the_machines(tmp_path: Path) -> None:
    settings = EnhanceSettings(memory_gib=3.5)
    assert find_memory_limit(settings) == 3.5
    default = find_memory_limit(replace(settings, memory_gib=None))
    assert default > 0
    assert prepare(save(tmp_path / "scan.nii", ramp()), limit_gib=default).request.memory_gib == default
