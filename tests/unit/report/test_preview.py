"""Previews show the same places in both rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medld.geometry import Grid
from medld.report import save_preview
from medld.report.preview import CAPTION, MARGIN
from medld.volume import Volume


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
