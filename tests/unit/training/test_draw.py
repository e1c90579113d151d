"""Draws are functions of seed, rank and step, and stay within what the config allows."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from medld.config import DataConfig
from medld.dataset import Fine
from medld.training.draw import CURVE_POINTS, CURVE_TOP, Draw, Drawer

Config = Callable[..., DataConfig]
MANY = 150


def same(one: Draw, other: Draw) -> bool:
    """Whether two draws are equal to the last bit."""
    return pickle.dumps(one) == pickle.dumps(other)


def many(volumes: list[Fine], config: DataConfig, progress: float = 1.0) -> list[Draw]:
    """The draws of the first steps of a run."""
    drawer = Drawer(volumes, config, 2)
    return [drawer.draw(0, step, progress) for step in range(MANY)]


def test_a_draw_can_be_made_again(volumes: list[Fine], data_config: Config) -> None:
    first, second = (Drawer(volumes, data_config(), 3) for _ in range(2))
    assert same(first.draw(5, 17, 0.4), second.draw(5, 17, 0.4))


def test_a_draw_does_not_depend_on_those_before(volumes: list[Fine], data_config: Config) -> None:
    drawer = Drawer(volumes, data_config(), 3)
    forwards = [drawer.draw(0, step, 0.5) for step in range(6)]
    backwards = [drawer.draw(0, step, 0.5) for step in reversed(range(6))]
    assert all(same(one, other) for one, other in zip(forwards, reversed(backwards), strict=True))


def test_seed_rank_and_step_each_give_another_draw(volumes: list[Fine], data_config: Config) -> None:
    drawer = Drawer(volumes, data_config(), 2)
    draws = [drawer.draw(0, 0, 1.0), drawer.draw(1, 0, 1.0), drawer.draw(0, 1, 1.0), drawer.draw(0, 0, 1.0, rank=1)]
    assert len({draw.seed for draw in draws}) == 4
    assert len({draw.items[0].centre for draw in draws}) == 4


def test_items_of_a_batch_are_drawn_apart(volumes: list[Fine], data_config: Config) -> None:
    items = Drawer(volumes, data_config(), 8).draw(0, 0, 1.0).items
    assert len({item.centre for item in items}) == 8


def test_the_range_of_ratios_opens(volumes: list[Fine], data_config: Config) -> None:
    config = data_config(slices=16)
    ratios = {p: [draw.acquisition.ratio for draw in many(volumes, config, p)] for p in (0.0, 0.2, 1.0)}
    rounding = 0.5 / 16  # whole voxels
    assert set(ratios[0.0]) == {4.0}
    assert min(ratios[1.0]) >= 1.25 - rounding
    assert max(ratios[1.0]) <= 8 + rounding
    assert np.ptp(ratios[1.0]) > 5
    assert 0 < np.ptp(ratios[0.2]) < np.ptp(ratios[1.0])


def test_thickness_and_profile_open_with_it(volumes: list[Fine], data_config: Config) -> None:
    start = many(volumes, data_config(), 0.0)
    assert {(draw.acquisition.thickness, draw.acquisition.profile) for draw in start} == {(1.0, "gaussian")}
    late = many(volumes, data_config(), 1.0)
    assert {draw.acquisition.profile for draw in late} == {"gaussian", "box", "slr"}
    thickness = np.array([draw.acquisition.thickness for draw in late])
    assert 0.3 < np.mean(thickness == 1) < 0.7
    assert 0.6 <= thickness.min() < 0.8
    assert 1.6 < thickness.max() <= 2


def test_degrading_may_stay_gaussian(volumes: list[Fine], data_config: Config) -> None:
    draws = many(volumes, data_config(degrade="gaussian"))
    assert {(draw.acquisition.thickness, draw.acquisition.profile) for draw in draws} == {(1.0, "gaussian")}


@pytest.mark.parametrize("ratio", [1.25, 3.5, 8.0])
def test_a_ratio_may_be_fixed(volumes: list[Fine], data_config: Config, ratio: float) -> None:
    drawer = Drawer(volumes, data_config(), 1)
    assert {drawer.draw(0, step, 0.0, ratio=ratio).acquisition.ratio for step in range(20)} == {ratio}


def test_whole_ratios_come_as_often_as_asked(volumes: list[Fine], data_config: Config) -> None:
    draws = many(volumes, data_config(slices=16, integer_share=1.0))
    assert {draw.acquisition.ratio for draw in draws} == {2, 3, 4, 5, 6}


@pytest.mark.parametrize(("share", "found"), [(0.0, {False}), (1.0, {True}), (0.5, {True, False})])
def test_noise_comes_as_often_as_asked(
    volumes: list[Fine], data_config: Config, share: float, found: set[bool]
) -> None:
    draws = many(volumes, data_config(noise_share=share, noise_high=0.03))
    noise = [item.noise for draw in draws for item in draw.items]
    assert {value > 0 for value in noise} == found
    assert max(noise) <= 0.03


@pytest.mark.parametrize(("share", "found"), [(0.0, {False}), (1.0, {True})])
def test_softness_comes_as_often_as_asked(
    volumes: list[Fine], data_config: Config, share: float, found: set[bool]
) -> None:
    draws = many(volumes, data_config(soft_share=share))
    assert {any(width > 0 for width in item.blur) for draw in draws for item in draw.items} == found


@pytest.mark.parametrize(("share", "found"), [(0.0, {False}), (1.0, {True})])
def test_receive_fields_and_lost_frequencies_come_as_often_as_asked(
    volumes: list[Fine], data_config: Config, share: float, found: set[bool]
) -> None:
    draws = many(volumes, data_config(bias_share=share, truncated_share=share))
    items = [item for draw in draws for item in draw.items]
    assert {item.bias is not None for item in items} == found
    assert {min(item.kept) < 1 for item in items} == found
    assert all(item.bias is None or item.bias[0, 0, 0] == 0 for item in items)


@pytest.mark.parametrize(("share", "found"), [(0.0, {False}), (1.0, {True}), (0.5, {True, False})])
def test_blends_come_as_often_as_asked_and_leave_the_rest_as_it_is(
    volumes: list[Fine], data_config: Config, share: float, found: set[bool]
) -> None:
    plain = [item for draw in many(volumes, data_config()) for item in draw.items]
    blended = [item for draw in many(volumes, data_config(blend_share=share)) for item in draw.items]
    assert {item.other is not None for item in blended} == found
    for one, item in zip(plain, blended, strict=True):
        without = replace(item, other=None, field=None, contrast=one.contrast)
        assert pickle.dumps(without) == pickle.dumps(one)
        assert item.other is None or (item.contrast == 0 and item.other.blur == item.blur)


def test_volumes_come_by_weight_and_are_degraded_along_their_axes(volumes: list[Fine], data_config: Config) -> None:
    rare = replace(volumes[0], weight=1.0, axes=(2,))
    often = replace(volumes[1], weight=4.0)
    items = [item for draw in many([rare, often], data_config()) for item in draw.items]
    scatter = 0.08  # three deviations of a share of 300 draws
    assert np.mean([item.volume for item in items]) == pytest.approx(0.8, abs=scatter)
    assert {item.axes[2] for item in items if item.volume == 0} == {2}
    assert {item.axes[2] for item in items if item.volume == 1} == {0, 1, 2}
    assert all(sorted(item.axes) == [0, 1, 2] for item in items)


def test_crops_hold_tissue(volumes: list[Fine], data_config: Config) -> None:
    """A crop's centre lies in the volume, and on air alone only where the volume offers no better."""
    for draw in many(volumes, data_config()):
        for item in draw.items:
            shape = [volumes[item.volume].array.shape[axis] for axis in item.axes]
            assert all(0 <= c < n for c, n in zip(item.centre, shape, strict=True))


def test_contrast_is_told_at_times_and_never_when_it_was_altered(volumes: list[Fine], data_config: Config) -> None:
    items = [item for draw in many(volumes, data_config()) for item in draw.items]
    told = [item.contrast for item in items]
    assert set(told) == {0, 1, 2}
    assert 0.2 < np.mean(np.array(told) > 0) < 0.5
    for item in items:
        if item.contrast:
            assert item.contrast == 1 + item.volume  # T1w, T2w
            assert (np.diff(item.curve) >= 0).all()


def test_curves_keep_air_dark(volumes: list[Fine], data_config: Config) -> None:
    for draw in many(volumes, data_config()):
        for item in draw.items:
            assert item.curve[0] == 0
            assert item.curve.min() >= 0
            assert 0.3 < item.curve.max() <= CURVE_TOP**1.7 * 1.05


def test_thick_slices_in_plane_are_stretched_and_told_as_soft(volumes: list[Fine], data_config: Config) -> None:
    thick = replace(volumes[0], spacing=(0.8, 0.8, 4.0), axes=(0, 1))
    items = [item for draw in many([thick], data_config(soft_share=0.0, zoom_out_share=0.0)) for item in draw.items]
    for item in items:
        assert item.axes[2] != 2
        where = item.axes.index(2)
        assert item.stretched == (where == 0, where == 1)
        assert item.soft == 0.5
        assert item.zoom[where] < 0.6 * item.zoom[1 - where]
    assert {item.soft for draw in many(volumes, data_config(soft_share=0.0)) for item in draw.items} == {0.0}


def test_hounsfield_units_stay_what_they_are(volumes: list[Fine], data_config: Config) -> None:
    ct = [replace(volume, modality="ct") for volume in volumes]
    config = data_config(bias_share=1.0, truncated_share=1.0, blend_share=1.0)
    items = [item for draw in many(ct, config) for item in draw.items]
    identity = np.linspace(0, CURVE_TOP, CURVE_POINTS)
    assert all(np.allclose(item.curve, identity) for item in items)
    assert all(item.bias is None and item.kept == (1.0, 1.0) and not item.rician for item in items)
    assert all(item.other is None for item in items)
