"""`--uncertainty`, `--trust`, `--interval`, `--samples`: what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from calibration_heads import SCALE
from dicom_factory import make_series
from scipy.ndimage import gaussian_filter
from tiny_model import save_tiny_model

from medld.calibration import (
    LEVELS,
    BinConfig,
    CalibrationConfig,
    ModeConfig,
    ScaleConfig,
    SubjectConfig,
    write_calibration,
)
from medld.checkpoint import load_model
from medld.cli import main
from medld.evaluation import evaluate
from medld.intensity import intensity_map
from medld.io import file_sha256

SAMPLED = ("--mode", "detail", "--steps", 2, "--samples")


def calibrate(folder: Path, factor: float = 2.0, *, contrast: str = "T2w", samples: int = 1, scan: str = "") -> None:
    """A calibration that was never measured: fidelity and, with samples, detail in two steps."""
    own = SubjectConfig(
        scans=(scan[:12] or "0" * 12,), ratios=(3.0,), factors=tuple(factor * p for p in LEVELS), agreement=0.5
    )
    other = own.model_copy(update={"scans": ("1" * 12,)})
    bins = (BinConfig(axes=1, low=2.5, high=3.4, contrast=contrast, subjects=(own, other)),)
    weights = dict(load_model(folder).sha256)
    modes = [ModeConfig(weights=weights, realism=0.0, steps=1, samples=1, scale=SCALE, bins=bins)]
    if samples > 1:
        scale = ScaleConfig(features=("spread",), exponents=(), level=(0, 0, 0), phase=(0, 0))
        modes.append(ModeConfig(weights=weights, realism=0.8, steps=2, samples=samples, scale=scale, bins=bins))
    write_calibration(folder, CalibrationConfig(cohort="two who never were", modes=tuple(modes)))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder whose networks do something, if nothing sensible; not calibrated."""
    return save_tiny_model(tmp_path / "models" / "tiny", summary="random")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A small T2w scan of whole numbers."""
    axes = np.meshgrid(np.linspace(-1, 0.9, 18), np.linspace(-0.8, 1, 18), np.linspace(-1, 0.7, 6), indexing="ij")
    texture = 60 * np.random.default_rng(0).standard_normal(axes[0].shape)
    values = np.round(900 * np.exp(-2 * sum(a**2 for a in axes)) + texture).clip(0).astype(np.int16)
    path = tmp_path / "sub-01_T2w.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])), path)
    return path


def enhance(scan: Path, model: Path, *options: object) -> tuple[int, dict[str, Any]]:
    """The exit code and, where it is 0, the record."""
    output = scan.with_name("x.nii")
    command = ["enhance", scan, "--model", model, "--device", "cpu", "-o", output, "--overwrite", *options]
    code = main([str(part) for part in command])
    return code, json.loads(output.with_suffix(".json").read_text()) if code == 0 else {}


def values_of(path: Path) -> np.ndarray:
    """As stored."""
    return np.asarray(nib.load(path).dataobj)


def test_the_half_width_is_written_and_its_record_says_what_it_promises(scan: Path, model: Path) -> None:
    calibrate(model)
    path = scan.with_name("hw.nii.gz")
    code, record = enhance(scan, model, "--uncertainty", path)
    assert code == 0
    image, output = nib.load(path), nib.load(scan.with_name("x.nii"))
    assert image.get_data_dtype() == np.float32
    assert image.shape == output.shape
    assert np.allclose(image.affine, output.affine)
    said = record["uncertainty"]
    assert (said["level"], said["kind"]) == (0.9, "half-width of a calibrated interval")
    assert said["calibrated_on"] == "two who never were"
    assert said["calibration_sha256"] == file_sha256(model / "calibration.json")
    assert said["bin"] == {"axes": 1, "ratio_from": 3.0, "ratio_to": 3.0, "contrast": "T2w", "subjects": 2}
    assert said["warnings"] == []
    assert "trust" not in record
    once = values_of(path)
    assert once.min() > 0
    calibrate(model, 4.0)
    enhance(scan, model, "--uncertainty", path)
    assert np.allclose(values_of(path), 2 * once, rtol=1e-5), "twice the factor, twice the width"
    assert main(["enhance", str(path), "--model", str(model)]) == 2, "it is an output too"


def test_a_scan_unlike_those_of_the_calibration_is_warned_of(
    scan: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate(model, contrast="T1w")
    code, record = enhance(scan, model, "--uncertainty", scan.with_name("hw.nii"), "--factor", 2)
    assert code == 0
    warnings = record["uncertainty"]["warnings"]
    assert "calibrated on T1w: on a scan of contrast T2w" in warnings[0]
    assert "this scan is restored by 2x" in warnings[1]
    assert set(warnings) <= set(record["warnings"])
    assert "calibrated on T1w" in capsys.readouterr().err


def test_samples_give_their_spread_to_a_scale_that_was_calibrated_with_it(scan: Path, model: Path) -> None:
    path = scan.with_name("hw.nii")
    code, record = enhance(scan, model, *SAMPLED, 2, "--uncertainty", path)
    assert code == 0
    assert record["uncertainty"] == {"kind": "standard deviation over samples, not calibrated", "samples": 2}
    spread = values_of(path)
    calibrate(model, samples=2)
    code, record = enhance(scan, model, *SAMPLED, 2, "--uncertainty", path)
    assert (record["uncertainty"]["samples"], record["uncertainty"]["warnings"]) == (2, [])
    floor = 1e-3 * intensity_map(values_of(scan), "mr").scale
    smooth = np.sqrt(gaussian_filter(np.square(spread), 1.0, mode="nearest"))
    assert np.allclose(values_of(path), 0.9 * 2.0 * (smooth + floor), rtol=1e-3)
    code, record = enhance(scan, model, *SAMPLED, 3, "--uncertainty", path)
    assert any("use --samples 2" in warning for warning in record["warnings"])


def test_samples_leave_their_mean_and_deviation_beside_the_output(scan: Path, model: Path) -> None:
    code, record = enhance(scan, model, *SAMPLED, 3, "--seed", 5, "--uncertainty", scan.with_name("sd.nii"))
    assert code == 0
    assert (record["samples"]["number"], record["samples"]["seeds"]) == (3, [5, 7])
    mean, std = (nib.load(scan.with_name(f"x_desc-{kind}.nii")) for kind in ("mean", "std"))
    output = nib.load(scan.with_name("x.nii"))
    for image in (mean, std):
        assert image.get_data_dtype() == np.float32
        assert np.allclose(image.affine, output.affine)
    assert np.array_equal(values_of(scan.with_name("sd.nii")), std.dataobj), "for want of a calibration"
    alone = []
    for seed in (5, 6, 7):
        assert enhance(scan, model, "--realism", 1, "--steps", 2, "--seed", seed)[0] == 0
        alone.append(values_of(scan.with_name("x.nii")).astype(np.float64))
    # Outputs are whole numbers, as the scan is.
    assert np.allclose(mean.dataobj, np.mean(alone, 0), rtol=0, atol=0.51)
    assert np.allclose(std.dataobj, np.std(alone, 0, ddof=1), rtol=0, atol=0.51 * 1.5**0.5)


@pytest.mark.parametrize("shift", [0, -300])
def test_the_interval_holds_the_output_and_is_its_half_width_wide(scan: Path, model: Path, shift: int) -> None:
    if shift:
        image = nib.load(scan)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + np.int16(shift), image.affine), scan)
    calibrate(model)
    code, record = enhance(scan, model, "--uncertainty", scan.with_name("hw.nii"), "--interval")
    assert code == 0
    assert record["uncertainty"]["level"] == 0.9
    lower, upper = (values_of(scan.with_name(f"x_desc-{end}.nii")) for end in ("lower", "upper"))
    output, width = values_of(scan.with_name("x.nii")), values_of(scan.with_name("hw.nii"))
    assert lower.dtype == upper.dtype == np.float32
    assert (lower <= output).all()
    assert (output <= upper).all()
    assert np.allclose(upper, output + width, rtol=1e-5)
    floor = output - width if shift else np.maximum(output - width, 0)
    assert np.allclose(lower, floor, rtol=1e-5, atol=1e-3)
    assert (lower.min() < 0) == bool(shift)


def test_a_map_that_cannot_be_written_leaves_nothing(scan: Path, model: Path) -> None:
    calibrate(model)
    scan.with_name("x_desc-upper.nii").mkdir()
    before = sorted(scan.parent.iterdir())
    assert enhance(scan, model, "--interval")[0] == 2
    assert sorted(scan.parent.iterdir()) == before


def test_a_mode_without_calibration_or_samples_is_refused_at_once(
    scan: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (("--uncertainty", "u.nii"), (*SAMPLED, 2, "--trust", "t.nii"), (*SAMPLED, 2, "--interval")):
        assert enhance(scan, model, *options)[0] == 2
        assert "was not calibrated for what is asked" in capsys.readouterr().err
    calibrate(model)
    assert enhance(scan, model, "--mode", "detail", "--uncertainty", "u.nii")[0] == 2
    assert enhance(scan, model, "--modality", "ct", "--uncertainty", "u.nii")[0] == 2
    assert "not trained for CT" in capsys.readouterr().err
    assert enhance(scan, model, "--modality", "ct", *SAMPLED, 2)[0] == 2
    assert "--samples: tiny was not trained for CT" in capsys.readouterr().err
    assert enhance(scan, Path("baseline"), *SAMPLED, 2)[0] == 2
    assert "--samples needs a model" in capsys.readouterr().err
    assert [path.name for path in scan.parent.iterdir() if path.is_file()] == [scan.name]


def test_a_calibration_of_other_weights_is_refused(scan: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate(model)
    text = (model / "calibration.json").read_text()
    (model / "calibration.json").write_text(text.replace(load_model(model).sha256["denoiser.safetensors"], "0" * 64))
    assert enhance(scan, model, "--uncertainty", "u.nii")[0] == 2
    assert "belongs to others" in capsys.readouterr().err
    assert enhance(scan, model)[0] == 0, "who does not ask is not bothered"


def test_the_mask_is_of_zeros_and_ones_with_its_shares_in_the_record(scan: Path, model: Path) -> None:
    calibrate(model, 1e-3)
    path = scan.with_name("trust.nii.gz")
    code, record = enhance(scan, model, "--trust", path)
    assert code == 0
    mask = values_of(path)
    assert mask.dtype == np.uint8
    assert mask.shape == nib.load(scan.with_name("x.nii")).shape
    assert set(np.unique(mask)) <= {0, 1}
    narrow = record["trust"]["trusted_share"]
    assert 0 < narrow <= 1 - record["trust"]["disagreeing_share"] + 1e-9
    calibrate(model, 1e3)
    _, record = enhance(scan, model, "--trust", path)
    assert record["trust"]["trusted_share"] == 0
    assert values_of(path).sum() == 0


def test_dicom_gets_a_map_that_says_what_it_holds_and_a_mask_as_an_image(tmp_path: Path, model: Path) -> None:
    make_series(tmp_path / "study", slices=6, shape=(18, 20))
    made = []
    for factor in (2.0, 4.0):
        calibrate(model, factor)
        options = ["-o", tmp_path / "out", "--uncertainty", tmp_path / "hw.dcm", "--trust", tmp_path / "mask.nii.gz"]
        command = ["enhance", tmp_path / "study", "--model", model, "--device", "cpu", "--overwrite", *options]
        assert main([str(part) for part in command]) == 0
        made.append(pydicom.dcmread(tmp_path / "hw.dcm"))
    mapping = made[0].SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert (mapping.LUTLabel, mapping.LUTExplanation) == ("hw90", "half-width of the calibrated 90% interval")
    assert made[0].SeriesInstanceUID != made[1].SeriesInstanceUID, "another calibration is another map"
    assert values_of(tmp_path / "mask.nii.gz").dtype == np.uint8


def test_dicom_gets_every_map_as_a_series_of_its_own(tmp_path: Path, model: Path) -> None:
    make_series(tmp_path / "study", slices=6, shape=(18, 20))
    calibrate(model, samples=2)
    command = ["enhance", tmp_path / "study", "--model", model, "--device", "cpu", "-o", tmp_path / "out"]
    command += [*SAMPLED, 2, "--interval", "--uncertainty", tmp_path / "hw.dcm"]
    assert main([str(part) for part in command]) == 0
    maps = [pydicom.dcmread(path) for path in (tmp_path / "hw.dcm", *(tmp_path / "out").glob("*.dcm"))]
    labels = {dataset.ContentLabel: dataset for dataset in maps}
    assert set(labels) == {"UNCERTAINTY", "MEAN", "STD", "LOWER", "UPPER"}
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber", "SeriesDescription"):
        assert len({dataset[keyword].value for dataset in maps}) == len(maps)
    lower, upper = (labels[end].FloatPixelData for end in ("LOWER", "UPPER"))
    assert (np.frombuffer(lower, np.float32) <= np.frombuffer(upper, np.float32)).all()


def test_an_evaluation_says_what_is_covered_without_the_scans_own_subject(tmp_path: Path, model: Path) -> None:
    fine = np.random.default_rng(1).uniform(100, 900, (20, 20, 21)).astype(np.float32)
    (tmp_path / "scans").mkdir()
    path = tmp_path / "scans" / "sub-a_T2w.nii.gz"
    nib.save(nib.Nifti1Image(fine, np.eye(4)), path)

    def columns(out: str, *, pages: bool = False) -> dict[str, Any]:
        protocols = ["through-plane-3x"]
        evaluate(tmp_path / "scans", protocols, tmp_path / out, model=model, baselines=["B"], device="cpu", pages=pages)
        record = json.loads((tmp_path / out / "results.json").read_text())
        own, base = (next(r for r in record["subjects"] if r["method"] == m) for m in ("medld", "B"))
        assert "half_width" not in base
        return {**own, "calibration": record["models"][0].get("calibration_sha256")}

    assert "covered_foreground" not in columns("without")
    calibrate(model, 1e3)
    wide = columns("wide", pages=True)
    assert "uncertainty of medld" in (tmp_path / "wide" / "report.html").read_text()
    assert wide["covered_foreground"] == wide["covered_boundary"] == 1
    assert wide["calibration"] == file_sha256(model / "calibration.json")
    calibrate(model, 2.0, scan=file_sha256(path))
    both = columns("both")
    assert 0 < both["covered_foreground"] < 1
    # Its own factor, a hundred times as large, has no part in it.
    text = (model / "calibration.json").read_text()
    content = json.loads(text)
    subjects = content["modes"][0]["bins"][0]["subjects"]
    subjects[0]["factors"] = [100 * factor for factor in subjects[0]["factors"]]
    (model / "calibration.json").write_text(json.dumps(content))
    assert columns("left out")["half_width"] == both["half_width"]
