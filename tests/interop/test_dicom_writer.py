"""Written DICOM against other tools: two validators, dcm2niix, highdicom, and our own reader.

    dciodvfy    says nothing of a result that it does not say of its source
    dcentvfy    finds patient, study, series and frame of reference consistent
    dcm2niix    finds the same places and values
    highdicom   finds the same places and values

Exit codes of the validators mean nothing; their lines do.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_factory import (
    BIG_ENDIAN,
    EXPLICIT,
    J2K,
    J2K_LOSSY,
    JPEG_LOSSLESS,
    JPEG_LS,
    RLE,
    edit,
    make_enhanced,
    make_series,
    set_tag,
)
from dicom_result import derivation, only_series, read_all, shortened, write_finer
from highdicom import get_volume_from_series
from pydicom import Dataset

from medld.geometry import Grid
from medld.io.dicom import Series, list_series, read_series, write_map
from medld.volume import Volume

SLICES = 4  # of a source, from its middle: the validators take their time
OWN_AFFINE_MM = 1e-9  # 16 characters of a position allow 1e-11
NIFTI_AFFINE_MM = 2e-3  # float32; and the slice axis is made perpendicular
NIFTI_CORNER_MM = 0.02
NIFTI_VALUE = 1e-6  # of the largest: dcm2niix scales in float32

VALIDATOR = pytest.mark.skipif(
    shutil.which("dciodvfy") is None or shutil.which("dcentvfy") is None,
    reason="needs dciodvfy and dcentvfy of Debian's dicom3tools; .ci/run installs them where it may",
)
DCM2NIIX = shutil.which("dcm2niix", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
CONVERTER = pytest.mark.skipif(DCM2NIIX is None, reason="needs dcm2niix; pip install dcm2niix")


def usable_cases() -> list[object]:
    """Names of the index's series that are volumes; one that is skipped where there are no data.

    The first of each vendor, modality and transfer syntax is always run, more of the same with `-m slow`.
    """
    index = Path(os.environ.get("MEDLD_DATA", "")) / "dicom" / "index.csv"
    if not index.is_file():
        return [pytest.param("none", id="no-data")]
    rows = csv.DictReader(index.read_text(encoding="utf-8").splitlines())
    cases = {row["case"]: row for row in rows if row["outcome"] in ("volume", "volumes")}
    kinds = set[tuple[str, ...]]()
    result: list[object] = []
    for case, row in cases.items():
        kind = (row["vendor"].lower().split(" ")[0], row["modality"], row["transfer_syntax"], row["n_files"] == "1")
        result.append(pytest.param(case, marks=[pytest.mark.slow] if kind in kinds else [], id=case))
        kinds.add(kind)
    return result


def unpack(data: Path, case: str, folder: Path) -> Path:
    """The folder with the DICOM files of a case."""
    with tarfile.open(data / "dicom" / f"{case}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / case


def errors(paths: Iterable[Path]) -> set[str]:
    """What dciodvfy finds wrong with files."""
    lines: set[str] = set()
    for path in paths:
        run = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace", check=False)
        output = run.stdout + run.stderr
        assert "Image" in output or "Map" in output, output  # it names the object that it took the file for
        lines |= {line for line in output.splitlines() if line.startswith("Error - ")}
    return lines


def contradictions(folder: Path) -> str:
    """What dcentvfy finds inconsistent in a folder."""
    run = subprocess.run(["dcentvfy", *sorted(folder.iterdir())], capture_output=True, text=True, check=False)
    return (run.stdout + run.stderr).strip()


def sources_of(series: Series) -> list[Path]:
    return list(dict.fromkeys(source.path for source in series.sources))


def some(folder: Path) -> list[Path]:
    """The first, a middle and the last file of a folder."""
    paths = sorted(folder.iterdir())
    return [paths[0], paths[len(paths) // 2], paths[-1]]


def check_readers(folder: Path, seen: np.ndarray, grid: Grid) -> None:
    """Our reader and highdicom find these values, exactly, and this affine."""
    volume, _ = read_series(only_series(folder), force=True, allow_output=True)
    assert np.array_equal(volume.array, seen)
    assert np.abs(volume.grid.affine - grid.affine).max() < OWN_AFFINE_MM
    raw = get_volume_from_series(
        read_all(folder),
        rtol=0.02,
        orientation_tol=1e-3,
        apply_real_world_transform=False,
        apply_presentation_lut=False,
        dtype=np.float64,
    )
    affine = np.diag((-1, -1, 1, 1)) @ raw.affine[:, [2, 1, 0, 3]]
    found = Volume(raw.array.transpose(2, 1, 0), Grid((raw.shape[2], raw.shape[1], raw.shape[0]), affine))
    if found.grid.affine[:3, 2] @ grid.affine[:3, 2] < 0:  # it counts slices against row x column
        found = found.flipped(2)
    assert np.array_equal(found.array.astype(np.float32), seen)
    assert np.abs(found.grid.affine - grid.affine)[:, :2].max() < OWN_AFFINE_MM
    assert found.grid.is_close(grid, NIFTI_CORNER_MM)


def check_nifti(folder: Path, work: Path, seen: np.ndarray, grid: Grid) -> None:
    """dcm2niix finds these values and this affine."""
    work.mkdir()
    command = [str(DCM2NIIX), "-p", "n", "-z", "n", "-f", "out", "-o", str(work), str(folder)]
    subprocess.run(command, capture_output=True, check=True)
    (path,) = work.glob("*.nii")
    found = nib.as_closest_canonical(nib.load(path))
    wanted = nib.as_closest_canonical(nib.Nifti1Image(seen, grid.affine))
    assert found.shape == wanted.shape
    assert np.abs(found.affine - wanted.affine)[:3, :3].max() < NIFTI_AFFINE_MM
    assert Grid(found.shape, found.affine).is_close(Grid(wanted.shape, wanted.affine), NIFTI_CORNER_MM)
    assert np.abs(found.get_fdata() - wanted.get_fdata()).max() <= NIFTI_VALUE * np.abs(seen).max()


@pytest.mark.data
@VALIDATOR
@CONVERTER
@pytest.mark.parametrize("case", usable_cases())
def test_real_sources_gain_no_error_and_are_read_back_by_all(case: str, data: Path, tmp_path: Path) -> None:
    folder = unpack(data, case, tmp_path)
    for number, whole in enumerate(list_series(folder).usable):
        series, result = shortened(whole, SLICES), tmp_path / f"result-{number}"
        volume, _, seen = write_finer(series, result)
        path = tmp_path / f"map-{number}.dcm"
        write_map(path, volume, series, derivation(volume, volume))
        known = errors(sources_of(series))
        assert not errors([*some(result), path]) - known
        assert not contradictions(result)
        check_readers(result, seen, volume.grid)
        check_nifti(result, tmp_path / f"nifti-{number}", seen, volume.grid)


@VALIDATOR
@CONVERTER
@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize(
    ("orientation", "syntax"),
    [("axial", EXPLICIT), ("sagittal", RLE), ("coronal", BIG_ENDIAN), ("oblique", J2K), ("axial", JPEG_LS)],
)
def test_synthetic_series_pass_every_tool(modality: str, orientation: str, syntax: str, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "in", modality=modality, orientation=orientation, syntax=syntax, slices=SLICES)
    series = only_series(tmp_path / "in")
    volume, _, seen = write_finer(series, tmp_path / "out")
    assert not errors(some(tmp_path / "out")) - errors(paths)
    assert not contradictions(tmp_path / "out")
    check_readers(tmp_path / "out", seen, volume.grid)
    check_nifti(tmp_path / "out", tmp_path / "nifti", seen, volume.grid)


@VALIDATOR
@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG_LOSSLESS])
def test_classic_images_of_an_enhanced_object_have_no_error_at_all(syntax: str, tmp_path: Path) -> None:
    make_enhanced(tmp_path / "in.dcm", slices=SLICES, syntax=syntax, slopes=[0.5, 0.5, 0.75, 2.0])
    volume, _, seen = write_finer(only_series(tmp_path / "in.dcm"), tmp_path / "out")
    assert not errors(some(tmp_path / "out"))
    assert not contradictions(tmp_path / "out")
    check_readers(tmp_path / "out", seen, volume.grid)


@VALIDATOR
def test_lossy_padded_and_dated_sources_gain_no_error(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "in", modality="CT", slices=SLICES, syntax=J2K_LOSSY)

    def declare(dataset: Dataset, index: int) -> None:
        dataset.add_new(0x00280120, "SS", -2000)
        dataset.BurnedInAnnotation = "YES"

    edit(paths, declare)
    set_tag(paths, "LossyImageCompression", "01")
    set_tag(paths, "LossyImageCompressionRatio", "8")
    set_tag(paths, "LossyImageCompressionMethod", "ISO_15444_1")
    series = only_series(tmp_path / "in")
    when = datetime(2031, 5, 6, 7, 8, 9, 500)
    volume, _, _ = write_finer(series, tmp_path / "out", when=when)
    write_map(tmp_path / "map.dcm", volume, series, derivation(volume, volume, when=when))
    known = errors(paths)
    assert not errors(some(tmp_path / "out")) - known
    assert not errors([tmp_path / "map.dcm"]) - known
    assert not contradictions(tmp_path / "out")


@VALIDATOR
def test_the_tools_would_notice(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "in", slices=SLICES)
    write_finer(only_series(tmp_path / "in"), tmp_path / "out")
    known = errors(paths)
    results = sorted((tmp_path / "out").iterdir())
    set_tag(results[:1], "StudyInstanceUID", "1.2.3")
    set_tag(results[1:2], "ImageType", None)
    assert contradictions(tmp_path / "out")
    assert errors(results[1:2]) - known
