"""Records are JSON for every parser, and previews show the same places in both rows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medld.geometry import Grid
from medld.report import (
    CAPTION,
    MARGIN,
    describe_file,
    describe_grid,
    describe_versions,
    measure_peak_gib,
    save_preview,
    write_json,
)
from medld.volume import Volume


def test_write_json_takes_numpy_and_nulls_what_is_not_finite(tmp_path: Path) -> None:
    record = {
        "a": np.float32(0.5),
        "b": (np.int64(1), float("nan")),
        "c": {"d": np.inf, "e": Path("/ward/jane.nii")},
        "f": "Überschrift",
        "g": np.bool_(True),
    }
    write_json(tmp_path / "r.json", record)
    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    back = json.loads(text)
    assert back == {
        "a": 0.5,
        "b": [1, None],
        "c": {"d": None, "e": "jane.nii"},
        "f": "Überschrift",
        "g": True,
    }
    assert text.endswith("}\n")


def test_describe_file_hashes_the_bytes_and_drops_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"medld" * 1000)
    assert describe_file(path) == {"file": "x.bin", "sha256": hashlib.sha256(b"medld" * 1000).hexdigest()}


def test_describe_grid_is_complete(oblique: Grid) -> None:
    plain = json.loads(json.dumps(describe_grid(oblique)))
    assert Grid(tuple(plain["shape"]), np.array(plain["affine"])).is_close(oblique, 0.0)
    assert plain["spacing_mm"] == pytest.approx(oblique.spacing, abs=1e-6)
    assert plain["orientation"] == oblique.orientation


def test_versions_name_what_values_depend_on() -> None:
    assert {"medld", "torch", "numpy"} <= describe_versions().keys()


def test_peak_memory_is_that_of_a_program_with_numpy() -> None:
    peak = measure_peak_gib()
    assert peak is not None
    assert 0.01 < peak < 1e3


def _halves(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The two rows of a preview, without captions."""
    with Image.open(path) as image:
        pixels = np.asarray(image).astype(int)
    height = (pixels.shape[0] - MARGIN) // 2
    return pixels[CAPTION:height], pixels[height + MARGIN + CAPTION :]


def test_preview_shows_the_same_places_in_both_rows(tmp_path: Path, oblique: Grid) -> None:
    # The same constant slices on both grids: nearest neighbours must draw the same picture.
    values = np.broadcast_to(np.arange(7.0, dtype=np.float32), oblique.shape)
    fine = oblique.with_shape((11, 8, 28))
    after = Volume(np.repeat(values, 4, axis=2), fine)
    save_preview(tmp_path / "p.png", Volume(values, oblique), after)
    before_row, after_row = _halves(tmp_path / "p.png")
    assert (before_row == after_row).mean() > 0.99  # all but the letters of the axes
    assert len(np.unique(before_row)) >= 7


def test_preview_does_not_depend_on_the_order_of_axes(tmp_path: Path, rng: np.random.Generator) -> None:
    grid = Grid((9, 11, 7), np.diag([1.0, 1.5, 2.0, 1.0]))
    volume = Volume(rng.random(grid.shape).astype(np.float32), grid)
    turned = volume.permuted((2, 0, 1)).flipped(0).flipped(1)
    for name, shown in (("a.png", volume), ("b.png", turned)):
        save_preview(tmp_path / name, shown, shown)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_preview_puts_the_right_side_left_and_the_head_up(tmp_path: Path) -> None:
    grid = Grid((9, 9, 9), np.eye(4))
    right = np.zeros(grid.shape, np.float32)
    right[5:, :, 5:] = 1  # right and head
    save_preview(tmp_path / "p.png", Volume(right, grid), Volume(right, grid))
    top, _ = _halves(tmp_path / "p.png")
    side = (top.shape[1] - 2 * MARGIN) // 3
    coronal = top[:, side + MARGIN : 2 * side + MARGIN]
    assert coronal[side // 4, side // 3] == 255
    assert coronal[side // 4, 3 * side // 4] == 0
    assert coronal[3 * side // 4, side // 3] == 0
