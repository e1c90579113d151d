"""`medld enhance` from file to file, with the baseline: outputs, records, folders, reruns."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medld import __version__
from medld.cli import main
from medld.io import read_volume
from medld.report import RESEARCH_USE

SHAPE = (12, 10, 6)
SPACING = (1.0, 1.25, 4.0)


def phantom(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A smooth ball of whole numbers, more of them than a label map has."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return np.round(900 * np.exp(-2 * sum(a**2 for a in axes)))


def save(path: Path, values: np.ndarray | None = None, spacing: tuple[float, ...] = SPACING) -> Path:
    """An int16 scan, oblique and left-handed as scanners make them."""
    turn = np.array([[-0.8, -0.6, 0], [-0.6, 0.8, 0], [0, 0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = (20, -30, 5)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image((phantom() if values is None else values).astype(np.int16), affine), path)
    return path


def run(*arguments: object) -> int:
    """One `medld enhance` with the baseline."""
    return main(["enhance", "--model", "baseline", "--device", "cpu", *map(str, arguments)])


def names(folder: Path) -> set[str]:
    """All files below a folder, hidden ones too."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def record_of(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def test_restores_beside_the_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = save(tmp_path / "sub-01_T2w.nii.gz")
    before = scan.read_bytes()
    assert run(scan) == 0
    assert names(tmp_path) == {scan.name, "sub-01_desc-sr_T2w.nii.gz", "sub-01_desc-sr_T2w.json"}
    assert scan.read_bytes() == before
    source, output = nib.load(scan), nib.load(tmp_path / "sub-01_desc-sr_T2w.nii.gz")
    assert output.shape == (12, 10, 24)
    assert output.get_data_dtype() == source.get_data_dtype()
    faces = [image.affine @ (-0.5, -0.5, -0.5, 1) for image in (source, output)]
    assert faces[0] == pytest.approx(faces[1], abs=1e-4)
    assert RESEARCH_USE in capsys.readouterr().out


def test_the_record_holds_the_whole_account(tmp_path: Path) -> None:
    scan, output = save(tmp_path / "scan.nii"), tmp_path / "scan_desc-sr.nii"
    (tmp_path / "scan.json").write_text(json.dumps({"SliceThickness": 5}))
    assert run(scan, "--seed", 7, "--report", tmp_path / "copy.json") == 0
    record = record_of(tmp_path / "scan_desc-sr.json")
    assert record == record_of(tmp_path / "copy.json")
    assert record["use"] == RESEARCH_USE
    assert record["versions"]["medld"] == __version__
    assert record["versions"]["torch"]
    for file, entry in ((scan, record["input"]), (output, record["output"])):
        assert entry["file"] == file.name
        assert entry["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert tuple(entry["grid"]["shape"]) == nib.load(file).shape
        assert np.allclose(entry["grid"]["affine"], nib.load(file).affine, atol=1e-4)
    assert record["model"] is None
    assert (record["seed"], record["settings"]["seed"]) == (7, 7)
    assert record["settings"]["mode"] == "fidelity"
    assert record["scan"]["slice_thickness_mm"] == [None, None, 5]
    assert record["scan"]["slice_thickness_from"] == "sidecar"
    assert record["scan"]["modality"] == "mr"
    assert record["device"] == "cpu"
    assert record["precision"] == "float32"
    assert record["timings_s"]["total"] > record["timings_s"]["write"] > 0
    assert 0 < record["memory_gib"]["peak"] < record["memory_gib"]["limit"]
    assert any("spline" in warning for warning in record["warnings"])
    assert str(tmp_path) not in json.dumps(record)


def test_the_residual_is_that_of_the_file(tmp_path: Path) -> None:
    # Rounded to whole numbers of a range of 900, it cannot be nil and must be below one.
    assert run(save(tmp_path / "scan.nii"), "--consistency", "exact") == 0
    consistency = record_of(tmp_path / "scan_desc-sr.json")["consistency"]
    assert 0 < consistency["residual_rms"] < 1
    assert consistency["residual_relative_to_range"] == pytest.approx(
        consistency["residual_rms"] / np.ptp(phantom()), rel=1e-6
    )
    noise, relative = consistency["noise"], consistency["residual_relative_to_noise"]
    assert relative is None if noise == 0 else relative == pytest.approx(consistency["residual_rms"] / noise)


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.mha", "scan.nrrd"])
def test_the_same_command_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    scan = save(tmp_path / "scan.nii.gz")
    for folder in "ab":
        (tmp_path / folder).mkdir()
        assert run(scan, "-o", tmp_path / folder / name) == 0
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_order_of_inputs_changes_nothing(tmp_path: Path) -> None:
    first, second = save(tmp_path / "first.nii"), save(tmp_path / "second.nii", phantom()[::-1])
    assert run(first, second, "-o", tmp_path / "a") == 0
    assert run(second, first, "-o", tmp_path / "b") == 0
    for name in ("first_desc-sr.nii", "second_desc-sr.nii"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_converts(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii.gz")
    output = tmp_path / "new" / "x.mhd"
    assert run(scan, "-o", output) == 0
    assert names(output.parent) == {"x.mhd", "x.raw", "x.json"}
    assert sitk.ReadImage(str(output)).GetSize() == (12, 10, 24)
    assert run(scan, "-o", tmp_path / "x.nii") == 0
    assert read_volume_of_own(output).is_close(read_volume_of_own(tmp_path / "x.nii"))


def read_volume_of_own(path: Path) -> Any:
    """Grid of an output."""
    from medld.io import read_header

    return read_header(path).grid


def test_options_reach_the_result(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii")
    assert run(scan, "--spacing", "0.5", "0.625", "2", "-o", tmp_path / "s.nii") == 0
    assert nib.load(tmp_path / "s.nii").shape == (24, 20, 12)
    assert run(scan, "--factor", "2.5", "-o", tmp_path / "f.nii") == 0
    assert nib.load(tmp_path / "f.nii").shape == (12, 10, 15)
    assert run(scan, "--slice-thickness", "12", "--slice-profile", "box", "-o", tmp_path / "t.nii") == 0
    record = record_of(tmp_path / "t.json")
    assert record["settings"]["slice_profile"] == "box"
    assert record["scan"]["slice_thickness_mm"] == [None, None, 12]
    assert any("slice thickness 12 mm" in warning for warning in record["warnings"])


def test_ct_is_the_baseline_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = save(tmp_path / "scan.nii", phantom() - 1000)
    assert main(["enhance", str(scan), "--device", "cpu"]) == 0
    record = record_of(tmp_path / "scan_desc-sr.json")
    assert record["scan"]["modality"] == "ct"
    assert record["method"] == "baseline B"
    assert "warning" in capsys.readouterr().err


def test_preview_is_a_picture(tmp_path: Path) -> None:
    assert run(save(tmp_path / "scan.nii"), "--preview", tmp_path / "look.png") == 0
    with Image.open(tmp_path / "look.png") as picture:
        assert picture.mode == "L"
        assert len(np.unique(np.asarray(picture))) > 50


def test_a_second_run_skips_outputs_and_refuses_to_replace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = save(tmp_path / "scan.nii.gz")
    assert run(tmp_path) == 0
    written = (tmp_path / "scan_desc-sr.nii.gz").read_bytes()
    capsys.readouterr()
    assert run(tmp_path) == 2
    printed = capsys.readouterr()
    assert "scan_desc-sr.nii.gz: skipped, E_SECOND_PASS" in printed.out
    assert "E_EXISTS" in printed.err
    assert run(tmp_path, "--overwrite") == 0
    assert (tmp_path / "scan_desc-sr.nii.gz").read_bytes() == written
    assert scan.exists()


def test_one_bad_file_does_not_stop_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "study"
    save(folder / "a.nii"), save(folder / "deep" / "c.nii.gz")
    (folder / "b.nii").write_text("no image")
    save(folder / "labels.nii", phantom() > 400)
    save(folder / "x_mask.nii")
    assert run(folder, "-o", tmp_path / "out", "--report", tmp_path / "run.json") == 2
    done = {"a_desc-sr.nii", "a_desc-sr.json", "c_desc-sr.nii.gz", "c_desc-sr.json"}
    assert names(tmp_path / "out") == done
    printed = capsys.readouterr()
    assert "b.nii: refused, E_NOT_IMAGE" in printed.err
    assert "labels.nii: skipped, E_NOT_IMAGE" in printed.out
    assert "2 done" in printed.out
    entries = {entry["file"]: entry for entry in record_of(tmp_path / "run.json")["inputs"]}
    assert {name: entry["status"] for name, entry in entries.items()} == {
        "a.nii": "done",
        "b.nii": "refused",
        "c.nii.gz": "done",
        "labels.nii": "skipped",
        "x_mask.nii": "skipped",
    }
    assert entries["a.nii"]["record"] == record_of(tmp_path / "out" / "a_desc-sr.json")


def test_an_unwritable_place_is_a_failure_not_a_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, other = save(tmp_path / "scan.nii"), save(tmp_path / "other.nii")
    (tmp_path / "file").write_text("not a folder")
    assert run(scan, "-o", tmp_path / "file" / "x.nii") == 1
    assert "failed, E_EXISTS" in capsys.readouterr().err
    assert names(tmp_path) == {"scan.nii", "other.nii", "file"}
    assert other.exists()


def test_dry_run_prints_the_plan_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, bad, report = save(tmp_path / "scan.nii.gz"), tmp_path / "bad.nii", tmp_path / "run.json"
    bad.write_text("no image")
    before = names(tmp_path)
    assert run(scan, bad, "-o", tmp_path / "out", "--dry-run", "--report", report) == 2
    printed = capsys.readouterr()
    assert names(tmp_path) == before
    assert not (tmp_path / "out").exists()
    assert "mode fidelity" in printed.out
    assert "12 x 10 x 6 at 1 x 1.25 x 4 mm -> 12 x 10 x 24 at 1 x 1.25 x 1 mm" in printed.out
    assert "GiB" in printed.out
    assert str(tmp_path / "out" / "scan_desc-sr.json") in printed.out
    assert "E_NOT_IMAGE" in printed.err


def test_quiet_prints_warnings_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(save(tmp_path / "scan.nii"), "--quiet") == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all("warning" in line for line in printed.err.splitlines())


def test_no_bar_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(save(tmp_path / "scan.nii"), "--verbose") == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "write" in printed.out


def test_forced_label_maps_are_restored(tmp_path: Path) -> None:
    labels = save(tmp_path / "dseg.nii", phantom() > 400)
    assert run(labels) == 2
    assert run(labels, "--force") == 0


def test_without_a_scan_there_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 2
    assert "no scan" in capsys.readouterr().err


def test_uncertainty_needs_a_model_that_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = save(tmp_path / "scan.nii")
    sampling = ("--mode", "detail", "--samples", 2, "--uncertainty", tmp_path / "sd.nii")
    assert run(scan, *sampling) == 2
    assert "--uncertainty" in capsys.readouterr().err
    assert names(tmp_path) == {"scan.nii"}


@pytest.mark.parametrize("option", [("--model", "no-such-model"), ("--device", "cuda:99")])
def test_what_is_not_there_is_refused_at_once(tmp_path: Path, option: tuple[str, str]) -> None:
    assert main(["enhance", str(save(tmp_path / "scan.nii")), *option]) == 2
    assert names(tmp_path) == {"scan.nii"}


def test_outputs_can_be_read_but_not_enhanced_again(tmp_path: Path) -> None:
    assert run(save(tmp_path / "scan.nii.gz")) == 0
    output = tmp_path / "scan_desc-sr.nii.gz"
    assert run(output, "--spacing", "0.5") == 2
    with pytest.raises(Exception, match="output of medld"):
        read_volume(output)


@pytest.mark.data
def test_a_real_scan(tmp_path: Path, data: Path) -> None:
    scan = data / "thick" / "sub-ctphantom01_acq-5mm_CT.nii.gz"
    assert run(scan, "-o", tmp_path) == 0
    record = record_of(tmp_path / "sub-ctphantom01_acq-5mm_desc-sr_CT.json")
    assert record["scan"]["modality"] == "ct"
    assert record["output"]["grid"]["spacing_mm"][2] < 1
