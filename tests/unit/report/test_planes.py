"""Planes and colours: the same places, as large as they are, in colours that say what they should."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from medld.geometry import Grid
from medld.report.colours import diverging, grey, png_uri, sequential
from medld.report.planes import Plane, cut_planes, nearest
from medld.volume import Volume


def test_planes_are_as_large_as_the_box_and_show_the_patient_as_radiologists_do() -> None:
    grid = Grid((6, 8, 10), np.diag([1.0, 2.0, 3.0, 1.0]))
    i, j, k = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    axial, coronal, sagittal = cut_planes(Volume((100.0 * i + 10 * j + k).astype(np.float32), grid))
    assert [plane.extent for plane in (axial, coronal, sagittal)] == [(16, 6), (30, 6), (30, 16)]
    # The first pixel is the right front, the right head, the front head.
    assert (axial.values[0, 0], coronal.values[0, 0], sagittal.values[0, 0]) == (575, 549, 379)
    assert axial.values[0, -1] == 75  # the patient's left, on the right


def test_planes_of_a_coarse_and_a_fine_volume_show_the_same_place(oblique: Grid) -> None:
    coarse = np.broadcast_to(np.arange(7.0, dtype=np.float32), oblique.shape)
    fine = Volume(np.repeat(coarse, 4, axis=2), oblique.with_shape((11, 8, 28)))
    for one, other in zip(cut_planes(Volume(coarse, oblique), fine.grid), cut_planes(fine), strict=True):
        assert one.extent == pytest.approx(other.extent)
        rows, columns = (nearest(n, m) for n, m in zip(one.values.shape, other.values.shape, strict=True))
        assert np.array_equal(one.values[np.ix_(rows, columns)], other.values)


def test_a_square_picture_repeats_voxels_and_mixes_none(rng: np.random.Generator) -> None:
    plane = Plane("coronal", rng.random((5, 12)).astype(np.float32), (3.0, 1.0), "R")
    square = plane.square()
    assert square.values.shape == (15, 12)
    assert np.array_equal(square.values[1::3], plane.values)
    assert square.extent == pytest.approx(plane.extent)
    assert square.spacing == pytest.approx((1.0, 1.0))


def test_colours_say_zero_sign_and_size() -> None:
    values = np.array([[-2.0, -1.0, 0.0, 1.0, 2.0, np.nan]])
    assert grey(values, (-1, 1)).tolist() == [[0, 0, 128, 255, 255, 0]]
    below, at_limit, zero, above, beyond, unknown = diverging(values, 1.0)[0].tolist()
    assert zero == unknown == [255, 255, 255]
    assert below == at_limit
    assert above == beyond
    assert at_limit[2] > at_limit[0]  # blue
    assert above[0] > above[2]  # red
    brightness = sequential(np.linspace(0, 1, 11)[None], 1.0)[0].sum(axis=1).tolist()
    assert brightness == sorted(brightness, reverse=True)
    assert diverging(np.zeros((2, 2)), 0.0).min() == 255


def picture(pixels: np.ndarray) -> Image.Image:
    """Pixels as a page has them."""
    return Image.open(io.BytesIO(base64.b64decode(png_uri(pixels).partition("base64,")[2])))


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3), (30, 40, 3)])
def test_a_picture_in_a_page_is_the_pixels(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, shape).astype(np.uint8)
    with picture(pixels) as image:
        assert np.array_equal(np.asarray(image.convert("L" if pixels.ndim == 2 else "RGB")), pixels)


def test_a_map_needs_a_byte_a_pixel(rng: np.random.Generator) -> None:
    values = rng.standard_normal((200, 200))
    for pixels in (diverging(values, 2.0), sequential(values, 2.0)):
        with picture(pixels) as image:
            assert image.mode == "P"
