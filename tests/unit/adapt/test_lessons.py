"""What a scan teaches is imaged as the scan was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from medld.acquisition import Acquisition, AxisAcquisition
from medld.adapt.lessons import Lessons
from medld.adapt.settings import settings_for
from medld.intensity import IntensityMap, intensity_map
from medld.superres import Request, SuperResolver
from medld.training.apply import Applier
from medld.training.plan import make_plan
from medld.volume import Volume

THICK = AxisAcquisition(64, 16, 1.2, "slr")
Make = Callable[..., Lessons]


@pytest.fixture(scope="module")
def make(scan: Volume, request_for_scan: Request) -> Make:
    """Lessons of the whole scan, with some settings."""
    restored = SuperResolver(device="cpu").restore(scan, request_for_scan).volume

    def make(noise: float = 0.0, units: IntensityMap | None = None, **settings: object) -> Lessons:
        config = settings_for("cpu", in_plane=32, slices=8, batch=3, **settings)
        return Lessons(restored, 2, units or intensity_map(scan.array, "mr"), THICK, noise, config)

    return make


def test_a_draw_is_a_function_of_seed_and_step(make: Make) -> None:
    def places(seed: int, step: int) -> list[object]:
        draw = make().draw(seed, step, 0.0)
        return [draw.seed, draw.acquisition, *((i.volume, i.axes, i.flips, i.zoom, i.centre) for i in draw.items)]

    assert places(1, 5) == places(1, 5)
    assert places(1, 5) != places(1, 6)
    assert places(1, 5) != places(2, 5)


def test_pixels_are_restored_from_slices_like_those_of_the_scan(make: Make) -> None:
    lessons = make(noise=0.01)
    for step in range(8):
        draw = lessons.draw(0, step, 0.0)
        assert draw.acquisition.ratio == THICK.ratio
        assert (draw.acquisition.thickness, draw.acquisition.profile) == (THICK.thickness, THICK.profile)
        for item in draw.items:
            assert item.axes[2] != 2
            assert item.noise == 0.01
            assert item.soft == 0.5
            assert item.stretched[item.axes.index(2)]


def test_crops_lie_inside_the_volume(make: Make) -> None:
    lessons = make()
    for step in range(6):
        draw = lessons.draw(0, step, 0.0)
        for item in draw.items:
            size = (32, 32, draw.acquisition.fine + 2 * draw.acquisition.margin)
            shape = lessons.volumes[0].array.transpose(item.axes).shape
            for centre, n, whole in zip(item.centre, size, shape, strict=True):
                assert 0 <= centre - (n - 1) / 2 <= centre + (n - 1) / 2 <= whole - 1


def test_a_crop_is_the_volume_itself(make: Make) -> None:
    """No air beyond the volume is in it, its values are those of the scan, and it is imaged by its acquisition."""
    lessons = make(units=IntensityMap(4000.0))
    draw = lessons.draw(0, 0, 0.0)
    sample = Applier(lessons.volumes, torch.device("cpu"), "inverse", latents=False).apply(make_plan(draw, 32))
    margin, fine = draw.acquisition.margin, draw.acquisition.fine
    for item, crop, low_res in zip(draw.items, sample.high_res, sample.low_res, strict=True):
        whole = lessons.volumes[0].array.transpose(item.axes) / 255
        starts = [round(c - (n - 1) / 2) for c, n in zip(item.centre, (32, 32, fine + 2 * margin), strict=True)]
        i, j, k = (slice(s, s + n) for s, n in zip(starts, (32, 32, fine + 2 * margin), strict=True))
        flipped = [axis for axis in range(3) if item.flips[axis]]
        source = np.flip(whole[i, j, k], flipped)
        np.testing.assert_allclose(crop[0].numpy(), source[..., margin:-margin], atol=1e-5)
        imaged = Acquisition((None, None, draw.acquisition)).apply(source.astype(np.float32))
        np.testing.assert_allclose(low_res[0].numpy(), imaged, atol=1e-5)


def test_what_is_too_small_says_so(make: Make, scan: Volume, request_for_scan: Request) -> None:
    assert make().too_small is None
    few = scan.cropped((0, 0, 0), (100, 64, 6))
    target = replace(request_for_scan.target, grid=request_for_scan.target.grid.with_shape((100, 64, 24)))
    restored = SuperResolver(device="cpu").restore(few, replace(request_for_scan, target=target)).volume
    lessons = Lessons(restored, 2, IntensityMap(1.0), AxisAcquisition(24, 6), 0.0, settings_for("cpu"))
    assert lessons.too_small is not None
