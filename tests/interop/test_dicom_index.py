"""Real series of many scanners: exactly the volume that their index says, or refused as it says."""

from __future__ import annotations

import csv
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medld.cli import main

pytestmark = pytest.mark.data

Row = dict[str, str]
REFUSALS = ("refuse", "4d")
AFFINE_TOLERANCE = 2e-3  # dcm2niix rounds, and tags have few digits
ROUNDED_TAGS = {"siemens_xa_jpeglossless_fragmented": 1e-2}  # of the README: its cosines are rounded
CORNER_TOLERANCE = 0.02  # mm: what dcm2niix's single precision makes of 100 slices
# Rescaling in float32 rounds in the last digit of the largest value.
VALUE_TOLERANCE = 1e-5


def read_rows() -> list[Row]:
    """The index, or nothing where there are no data."""
    index = Path(os.environ.get("MEDLD_DATA", "")) / "dicom" / "index.csv"
    return list(csv.DictReader(index.read_text(encoding="utf-8").splitlines())) if index.is_file() else []


ROWS = read_rows()
CASES = list({row["case"]: row for row in ROWS}.values())


def by_name(rows: list[Row]) -> list[object]:
    """Parameters named after case and volume; one that is skipped where there are no data."""
    if not rows:
        return [pytest.param({}, id="no-data")]
    return [pytest.param(row, id=f"{row['case']}-{row['volume']}") for row in rows]


def unpack(data: Path, row: Row, folder: Path) -> Path:
    """The folder with the DICOM files of a case."""
    with tarfile.open(data / "dicom" / row["file"]) as archive:
        archive.extractall(folder, filter="data")
    return folder / row["case"]


def to_ras(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values in scanner units and affine, in the nearest RAS+ order of axes."""
    image = nib.as_closest_canonical(nib.load(path))
    values = np.asanyarray(image.dataobj)
    return values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values, image.affine


def sha256_of(values: np.ndarray) -> str:
    """As the README has it: int16 where all values are whole and fit, else float32; C order, little-endian."""
    whole = bool(np.all(values == np.rint(values))) and values.min() >= -32768 and values.max() <= 32767
    stored = np.ascontiguousarray(values.astype("<i2" if whole else "<f4"))
    return hashlib.sha256(stored.tobytes()).hexdigest()


def stored_affine(affine: np.ndarray, shape: tuple[int, ...], orientation: str) -> np.ndarray:
    """The affine of a RAS+ volume with its axes in another order, as they are stored: "PSR"."""
    ras = nib.orientations.axcodes2ornt("RAS")
    change = nib.orientations.ornt_transform(ras, nib.orientations.axcodes2ornt(orientation))
    placed: np.ndarray = affine @ nib.orientations.inv_ornt_aff(change, shape)
    return placed


def assert_is_row(path: Path, row: Row) -> None:
    """The file holds the volume of a row.

    Affines are compared in the order of axes in which dcm2niix stored the volume. It takes the
    step between slices from two of them in single precision, which over 40 slices is 0.005 mm;
    where the nearest RAS+ order turns the slices round, that would be the difference of origins.
    """
    values, affine = to_ras(path)
    assert "x".join(map(str, values.shape)) == row["shape"]
    expected = np.vstack([np.array(row["affine_ras"].split(), dtype=float).reshape(3, 4), [0, 0, 0, 1]])
    ours, theirs = (stored_affine(one, values.shape, row["orientation"]) for one in (affine, expected))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ROUNDED_TAGS.get(row["case"], AFFINE_TOLERANCE))
    if row["hash_exact"] == "yes":
        assert sha256_of(values) == row["sha256_ras"]
    low, high = float(row["value_min"]), float(row["value_max"])
    scale = max(abs(low), abs(high))
    # The row's numbers have six digits.
    np.testing.assert_allclose((values.min(), values.max()), (low, high), rtol=0, atol=VALUE_TOLERANCE * scale)


def corners(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(8, 3) mm: the centres of a volume's outermost voxels."""
    ends = np.array(list(itertools.product(*[(0, n - 1) for n in shape])))
    placed: np.ndarray = ends @ affine[:3, :3].T + affine[:3, 3]
    return placed


def assert_same_voxels(values: np.ndarray, expected: np.ndarray) -> None:
    """Equal to rounding."""
    tolerance = VALUE_TOLERANCE * float(np.abs(expected).max())
    np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance)


def convert(folder: Path, goal: Path, *options: str) -> int:
    """`medld convert`; its exit code."""
    return main(["convert", str(folder), "-o", str(goal), *options])


def assert_refused(code: int, error: str, goal: Path, allowed: str) -> None:
    """Exit 2, one of the codes, no traceback, nothing written."""
    assert code == 2, error
    assert any(f"{name}:" in error for name in allowed.split("|")), error
    assert "Traceback" not in error
    assert list(goal.parent.iterdir()) == []


@pytest.mark.parametrize("row", by_name(ROWS))
def test_real_series_is_exactly_its_row_or_refused(
    row: Row, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unpack(data, row, tmp_path / "in")
    goal = tmp_path / "out" / "x.nii"
    goal.parent.mkdir()
    outcome = row["outcome"]
    code = convert(folder, goal)
    error = capsys.readouterr().err
    if outcome == "volumes":
        assert_refused(code, error, goal, row["code"])
        code = convert(folder, goal, "--series", row["volume"])
        error = capsys.readouterr().err
    if outcome in REFUSALS:
        assert_refused(code, error, goal, row["code"])
        # A time series is no choice of volumes either.
        assert convert(folder, goal, "--series", "1") == 2
        assert list(goal.parent.iterdir()) == []
    elif outcome == "volume_or_refuse" and code != 0:
        assert_refused(code, error, goal, row["code"])
    else:
        assert code == 0, error
        assert_is_row(goal, row)
        if row["packed_expected"]:
            expected, _ = to_ras(tmp_path / "in" / f"{row['case']}-expected" / row["packed_expected"])
            assert_same_voxels(to_ras(goal)[0], expected)


def dcm2niix_program() -> str | None:
    """The converter beside this Python, or anywhere on the path."""
    return shutil.which("dcm2niix", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.mark.skipif(dcm2niix_program() is None, reason="needs dcm2niix: pip install dcm2niix")
@pytest.mark.parametrize("row", by_name([row for row in ROWS if row["outcome"] in ("volume", "volumes")]))
def test_real_series_is_what_dcm2niix_makes_of_it(
    row: Row, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unpack(data, row, tmp_path / "in")
    goal = tmp_path / "x.nii"
    several = ["--series", row["volume"]] if row["outcome"] == "volumes" else []
    assert convert(folder, goal, *several) == 0, capsys.readouterr().err
    values, affine = to_ras(goal)
    (tmp_path / "other").mkdir()
    command = [dcm2niix_program(), "-p", "n", "-z", "n", "-b", "n", "-o", str(tmp_path / "other"), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    others = [to_ras(path) for path in sorted((tmp_path / "other").glob("*.nii"))]
    assert len(others) == int(row["n_volumes"])
    place = corners(affine, values.shape)
    others = [
        other
        for other in others
        if other[0].shape == values.shape
        and np.allclose(other[1][:3, :3], affine[:3, :3], rtol=0, atol=AFFINE_TOLERANCE)
        and np.allclose(corners(other[1], other[0].shape), place, rtol=0, atol=CORNER_TOLERANCE)
    ]
    assert others, "no volume of dcm2niix lies where ours does"
    if "dcm2niix applies those of one slice to all" in row["special"]:
        return  # its values are wrong there, as the row says; the other test compares with the right ones
    scale = float(np.abs(values).max())
    same = [np.allclose(values, other[0], rtol=0, atol=VALUE_TOLERANCE * scale) for other in others]
    assert sum(same) == 1, "exactly one volume of dcm2niix holds these values"
