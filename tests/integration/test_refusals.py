"""Every input that must be refused: its code, exit 2, no traceback, nothing written."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medld.cli import main
from medld.io import OUTPUT_MARK

BASELINE = ["--model", "baseline", "--device", "cpu"]
THICK = np.diag([1.0, 1.0, 4.0, 1.0])


def ramp(shape: tuple[int, ...] = (8, 8, 6), dtype: type = np.float32) -> np.ndarray:
    """Rising values, more than a label map holds."""
    return np.linspace(0, 1000, int(np.prod(shape))).reshape(shape).astype(dtype)


def save(path: Path, values: np.ndarray, affine: np.ndarray = THICK) -> Path:
    """A NIfTI file."""
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def cut(folder: Path, name: str, keep: float) -> Path:
    """A file that ends too early."""
    path = save(folder / name, np.random.default_rng(0).random((16, 16, 6), dtype=np.float32))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def with_header(folder: Path, offset: int, content: bytes) -> Path:
    """A scan with some bytes of its header replaced."""
    path = save(folder / "scan.nii", ramp())
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(bytes(raw))
    return path


def bomb(folder: Path) -> Path:
    """Some hundred bytes that claim to be 4 TB."""
    header = save(folder / "scan.nii", ramp()).read_bytes()[:352]
    claimed = bytearray(header)
    claimed[40:56] = struct.pack("<8h", 3, 10_000, 10_000, 10_000, 1, 1, 1, 1)
    path = folder / "bomb.nii.gz"
    path.write_bytes(gzip.compress(bytes(claimed)))
    (folder / "scan.nii").unlink()
    return path


def text(folder: Path, name: str, content: str) -> Path:
    """A file that is no image."""
    (folder / name).write_text(content)
    return folder / name


def rgb(folder: Path) -> Path:
    """Three bytes a voxel."""
    colours = np.zeros((8, 8, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return save(folder / "rgb.nii", colours)


def own(folder: Path) -> Path:
    """What an earlier run left, by its header alone."""
    image = nib.Nifti1Image(ramp(), THICK)
    image.header["descrip"] = f"{OUTPUT_MARK} 0.1.0 sr"
    nib.save(image, folder / "x.nii")
    return folder / "x.nii"


def misnamed(folder: Path) -> Path:
    """A plain file under a compressed one's name."""
    return save(folder / "scan.nii", ramp()).rename(folder / "scan.nii.gz")


def filled(value: float) -> Callable[[Path], Path]:
    """A scan with one such voxel."""

    def make(folder: Path) -> Path:
        values = ramp()
        values[3, 3, 3] = value
        return save(folder / "scan.nii", values)

    return make


def sheared() -> np.ndarray:
    """Two axes that do not stand upright on each other."""
    affine = THICK.copy()
    affine[1, 2] = 1.0
    return affine


def placed(affine: np.ndarray) -> Callable[[Path], Path]:
    """A scan with this sform."""

    def make(folder: Path) -> Path:
        rows = struct.pack("<12f", *affine[:3].ravel())
        path = with_header(folder, 280, rows)
        raw = bytearray(path.read_bytes())
        raw[252:256] = struct.pack("<2h", 0, 1)  # qform code, sform code
        path.write_bytes(bytes(raw))
        return path

    return make


REFUSALS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "cut gzip": ("E_TRUNC", lambda f: cut(f, "scan.nii.gz", 0.5)),
    "cut plain": ("E_TRUNC", lambda f: cut(f, "scan.nii", 0.9)),
    "bomb": ("E_TOO_BIG", bomb),
    "sheared": ("E_NO_GEOM", placed(sheared())),
    "singular": ("E_NO_GEOM", placed(np.diag([1.0, 0.0, 4.0, 1.0]))),
    "not finite": ("E_NO_GEOM", placed(np.diag([1.0, np.nan, 4.0, 1.0]))),
    "text": ("E_NOT_IMAGE", lambda f: text(f, "scan.nii", "not an image, but long enough to be one" * 99)),
    "text named gz": ("E_NOT_IMAGE", lambda f: text(f, "scan.nii.gz", "no gzip")),
    "other suffix": ("E_NOT_IMAGE", lambda f: text(f, "scan.pdf", "%PDF")),
    "empty": ("E_NOT_IMAGE", lambda f: text(f, "scan.nii.gz", "")),
    "misnamed": ("E_NOT_IMAGE", misnamed),
    "missing": ("E_NOT_IMAGE", lambda f: f / "none.nii"),
    "colours": ("E_NOT_IMAGE", rgb),
    "complex": ("E_NOT_IMAGE", lambda f: save(f / "scan.nii", ramp().astype(np.complex64))),
    "labels": ("E_NOT_IMAGE", lambda f: save(f / "scan.nii", (ramp() // 100).astype(np.uint8))),
    "named labels": ("E_NOT_IMAGE", lambda f: save(f / "sub-01_dseg.nii", ramp())),
    "NaN": ("E_PIXELS", filled(np.nan)),
    "infinite": ("E_PIXELS", filled(np.inf)),
    "constant": ("E_PIXELS", lambda f: save(f / "scan.nii", np.full((8, 8, 6), 7, np.float32))),
    "time series": ("E_4D", lambda f: save(f / "scan.nii", ramp((8, 8, 6, 2)))),
    "two slices": ("E_TOO_FEW", lambda f: save(f / "scan.nii", ramp((8, 8, 2)))),
    "fine already": ("E_NOTHING_TO_DO", lambda f: save(f / "scan.nii", ramp(), np.eye(4))),
    "own output": ("E_SECOND_PASS", own),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_refused_by_code_with_nothing_written(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, make = REFUSALS[kind]
    scan = make(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*")}
    assert main(["enhance", str(scan), "-o", str(tmp_path / "out" / "x.nii"), *BASELINE]) == 2
    assert {p: p.read_bytes() for p in tmp_path.rglob("*")} == before
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{scan}: refused, {code}: ")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--memory", "0.001"], "E_TOO_BIG"),
        (["--spacing", "5"], "E_NOTHING_TO_DO"),
        (["--spacing", "1", "1", "3.9"], "E_NOTHING_TO_DO"),
        (["--spacing", "0.4"], "E_NOTHING_TO_DO"),
        (["--factor", "9"], "E_NOTHING_TO_DO"),
        (["--factor", "1.1"], "E_NOTHING_TO_DO"),
    ],
)
def test_impossible_wishes_are_refused(
    options: list[str], code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = save(tmp_path / "scan.nii", ramp())
    assert main(["enhance", str(scan), *options, *BASELINE]) == 2
    assert code in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [scan]


def test_odd_but_sound_inputs_are_processed(tmp_path: Path) -> None:
    left_handed = np.diag([-1.0, 1.0, 4.0, 1.0])
    scans = [
        save(tmp_path / "left.nii", ramp(), left_handed),
        save(tmp_path / "single4d.nii", ramp((8, 8, 6, 1))),
        with_header(tmp_path, 112, struct.pack("<2f", 0.0, 0.0)),  # scl_slope
    ]
    wide = nib.Nifti1Image(ramp(dtype=np.int64), THICK, dtype=np.int64)
    nib.save(wide, tmp_path / "wide.nii")
    scans.append(tmp_path / "wide.nii")
    assert main(["enhance", *map(str, scans), "-o", str(tmp_path / "out"), *BASELINE]) == 0
    assert nib.load(tmp_path / "out" / "wide_desc-sr.nii").get_data_dtype() == np.int32
    assert nib.load(tmp_path / "out" / "left_desc-sr.nii").affine[0, 0] == -1
