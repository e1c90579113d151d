from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medld.errors import InputError
from medld.metrics import Lesion, insert_lesions, lesion_map, lesion_weights, plan_lesions
from medld.metrics.lesions import EVEN, RING, face_width

SPACING = (0.8, 0.9, 1.5)
SHAPE = (48, 46, 30)

LESIONS = [
    Lesion((20.3, 21.7, 14.2), 2.0, 50),
    Lesion((20.0, 21.0, 14.0), 8.0, 50),
    Lesion((22.5, 20.1, 15.4), 4.0, 50, 8.0, (1, 0, 0)),
    Lesion((22.5, 20.1, 15.4), 3.0, 50, 9.0, (1, -2, 0.5)),
]
NAMES = ["small-sphere", "large-sphere", "rod", "oblique-rod"]


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """Even tissue with a little noise in a box of air, 110 x 110 x 100 mm."""
    rng = np.random.default_rng(0)
    array = np.zeros((110, 110, 50), dtype=np.float32)
    array[5:-5, 5:-5, 3:-3] = rng.normal(500, 20, (100, 100, 44))
    return array


@pytest.mark.parametrize("lesion", LESIONS, ids=NAMES)
def test_weights_hold_the_lesions_volume_centre_and_extent(lesion: Lesion) -> None:
    box, weights = lesion_weights(SHAPE, SPACING, lesion)
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert weights.sum() * np.prod(SPACING) == pytest.approx(lesion.volume, rel=0.03)
    index = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), -1)
    centre = np.average(index.reshape(-1, 3), axis=0, weights=weights.ravel())
    assert centre == pytest.approx(lesion.centre, abs=0.05)
    mm = (index - lesion.centre) * SPACING
    direction = np.array(lesion.direction) / np.linalg.norm(lesion.direction)
    along = np.average((mm @ direction) ** 2, weights=weights)
    radius, half = lesion.diameter / 2, lesion.length / 2
    ends = np.pi * radius**3 * (4 / 3 * half**2 + radius * half + 4 / 15 * radius**2)
    expected = (np.pi * radius**2 * 2 * half**3 / 3 + ends) / lesion.volume
    voxel = (direction**2) @ np.square(SPACING) / 12  # Sheppard's correction for values put at voxel centres
    assert along - voxel == pytest.approx(expected, rel=0.04, abs=0.05)


def test_a_voxel_is_filled_by_as_much_as_a_fine_grid_says() -> None:
    lesion = Lesion((4.3, 4.8, 4.1), 5.0, 1, 3.0, (1, 1, 0))
    box, weights = lesion_weights((9, 9, 9), (1, 1, 1), lesion)
    fine = 20
    points = (np.arange(9 * fine) + 0.5) / fine - 0.5
    i, j, k = np.meshgrid(*(points - c for c in lesion.centre), indexing="ij", sparse=True)
    along = np.clip((i + j) / np.sqrt(2), -1.5, 1.5) / np.sqrt(2)
    inside = (i - along) ** 2 + (j - along) ** 2 + k**2 <= 2.5**2
    expected = inside.reshape(9, fine, 9, fine, 9, fine).mean((1, 3, 5))
    whole = np.zeros((9, 9, 9))
    whole[box] = weights
    assert np.abs(whole - expected).max() < 0.05


@pytest.mark.parametrize("contrast", [80.0, -80.0], ids=["bright", "dark"])
def test_a_lesion_is_even_inside_and_stands_out_by_its_contrast(tissue: np.ndarray, contrast: float) -> None:
    lesion = Lesion((50.0, 50.0, 25.0), 8.0, contrast)
    spacing = (1.0, 1.0, 2.0)
    result = insert_lesions(tissue, [lesion], spacing)
    box, weights = lesion_weights(tissue.shape, spacing, lesion)
    inside = result[box][weights == 1]
    assert np.ptp(inside) < 1e-3
    i, j, k = np.meshgrid(*(np.arange(n) for n in tissue.shape), indexing="ij", sparse=True)
    distance = np.sqrt((i - 50) ** 2 + (j - 50) ** 2 + (2 * (k - 25)) ** 2) - 4
    ring = (distance > face_width(spacing)) & (distance <= face_width(spacing) + RING)
    assert inside.mean() - tissue[ring].mean() == pytest.approx(contrast, abs=0.01)
    changed = np.argwhere(result != tissue)
    assert len(changed) == np.count_nonzero(weights)


def test_the_input_is_left_alone_and_whole_numbers_become_float() -> None:
    array = np.random.default_rng(1).integers(0, 100, SHAPE).astype(np.int16)
    before = array.copy()
    result = insert_lesions(array, LESIONS[:1], SPACING)
    assert result.dtype == np.float32
    assert np.array_equal(array, before)
    assert insert_lesions(array.astype(np.float64), LESIONS[:1], SPACING).dtype == np.float64


def test_the_map_numbers_the_voxels_that_are_half_filled() -> None:
    apart = [Lesion((10, 10, 8), 4, 1), Lesion((30, 30, 20), 6, -1)]
    numbers = lesion_map(SHAPE, SPACING, apart)
    for number, lesion in enumerate(apart, start=1):
        box, weights = lesion_weights(SHAPE, SPACING, lesion)
        assert np.array_equal(numbers[box] == number, weights >= 0.5)
    assert set(np.unique(numbers)) == {0, 1, 2}


def test_a_lesion_smaller_than_a_voxel_keeps_one() -> None:
    numbers = lesion_map((9, 9, 9), (2, 2, 2), [Lesion((4.1, 4.2, 4.0), 1.0, 1)])
    assert np.argwhere(numbers).tolist() == [[4, 4, 4]]


def test_a_lesion_at_the_border_is_cut_off() -> None:
    box, weights = lesion_weights((20, 20, 20), (1, 1, 1), Lesion((-0.5, 10, 10), 8, 1))
    assert box[0].start == 0
    assert weights.sum() == pytest.approx(Lesion((0, 0, 0), 8, 1).volume / 2, rel=0.02)


@pytest.mark.parametrize(
    ("centre", "diameter", "says"),
    [((-30.0, 5, 5), 4.0, "inside"), ((5.0, 5, 60), 4.0, "inside"), ((5.5, 5.5, 5.5), 0.01, "too small|larger one")],
)
def test_refuses_a_lesion_that_fills_no_voxel(centre: tuple[float, float, float], diameter: float, says: str) -> None:
    with pytest.raises(InputError, match=says):
        lesion_weights((12, 12, 12), (1, 1, 1), Lesion(centre, diameter, 1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"diameter": 0.0},
        {"length": -1.0},
        {"contrast": 0.0},
        {"contrast": float("nan")},
        {"direction": (0.0, 0.0, 0.0)},
    ],
)
def test_refuses_a_lesion_that_is_none(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="Expected a lesion with"):
        replace(LESIONS[0], **wrong)


def test_a_plan_has_every_kind_clear_of_air_and_of_each_other(tissue: np.ndarray) -> None:
    spacing = (1.0, 1.0, 2.0)
    foreground = tissue > 100
    lesions = plan_lesions(tissue, foreground, spacing, diameters=(2, 4), copies=2)
    kinds = sorted((lesion.diameter, lesion.length > 0, lesion.contrast > 0) for lesion in lesions)
    assert kinds == sorted([(d, rod, bright) for d in (2, 4) for rod in (0, 1) for bright in (0, 1)] * 2)
    for one, other in combinations(lesions, 2):
        between = np.linalg.norm((np.array(one.centre) - other.centre) * spacing)
        assert between - one.reach - other.reach > face_width(spacing) + RING
    step = 0.3 * float(np.subtract(*np.percentile(tissue[foreground], [99.5, 0.5])))
    assert [abs(lesion.contrast) for lesion in lesions] == pytest.approx([step] * len(lesions))
    assert foreground[lesion_map(tissue.shape, spacing, lesions) > 0].all()


def test_a_plan_chooses_places_that_show_nothing_by_themselves(head: np.ndarray) -> None:
    spacing = (1.0, 1.0, 1.0)
    lesions = plan_lesions(head, head > 50, spacing, diameters=(4,), contrast=0.5)
    assert len(lesions) == 4
    for lesion in lesions:
        box, weights = lesion_weights(head.shape, spacing, lesion)
        level = insert_lesions(head, [lesion], spacing)[box][weights == 1].mean() - lesion.contrast
        assert abs(np.average(head[box], weights=weights) - level) <= (EVEN + 1e-3) * abs(lesion.contrast)


def test_a_plan_keeps_to_even_tissue_when_there_is_other() -> None:
    rng = np.random.default_rng(3)
    array = rng.normal(500, 5, (60, 60, 120))
    array[:, :, 60:] += 4000 * gaussian_filter(rng.standard_normal((60, 60, 60)), 2)
    lesions = plan_lesions(array, np.ones(array.shape, dtype=bool), (1, 1, 1), diameters=(3, 4), contrast=0.05)
    assert sum(lesion.centre[2] < 60 for lesion in lesions) >= 7


def test_a_plan_keeps_rings_in_tissue() -> None:
    foreground = np.zeros((60, 60, 60), dtype=bool)
    foreground[:, :, 20:36] = True
    array = np.random.default_rng(4).normal(500, 5, foreground.shape)
    for lesion in plan_lesions(array, foreground, (1, 1, 1), diameters=(3,)):
        i, j, k = (np.arange(60) - c for c in lesion.centre)
        near = lesion.distance(i[:, None, None], j[:, None], k) <= face_width((1, 1, 1)) + RING
        assert foreground[near].mean() > 0.88


def test_the_same_seed_plans_the_same_places(tissue: np.ndarray) -> None:
    plans = [plan_lesions(tissue, tissue > 100, (1, 1, 2), diameters=(2, 3), seed=seed) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


def test_noise_leaves_holes_in_a_foreground_that_are_closed(tissue: np.ndarray) -> None:
    holes = np.random.default_rng(2).random(tissue.shape) < 0.2
    assert len(plan_lesions(tissue, (tissue > 100) & ~holes, (1, 1, 2), diameters=(3,))) == 4


def test_a_dark_lesion_goes_no_lower_than_the_volume(tissue: np.ndarray) -> None:
    lesions = plan_lesions(tissue, tissue > 100, (1, 1, 2), diameters=(4,), contrast=20)
    result = insert_lesions(tissue, lesions, (1, 1, 2))
    assert min(lesion.contrast for lesion in lesions) > -600
    assert result.min() >= -1e-3


@pytest.mark.parametrize(("foreground", "says"), [(False, "empty"), (True, "room")], ids=["empty", "too-small"])
def test_refuses_a_foreground_without_room(tissue: np.ndarray, foreground: bool, says: str) -> None:
    mask = np.zeros(tissue.shape, dtype=bool)
    mask[50:56, 50:56, 20:26] = foreground
    with pytest.raises(InputError, match=says) as caught:
        plan_lesions(tissue, mask, (1, 1, 2))
    assert caught.value.code == "E_PIXELS"
