from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from medld.errors import InputError
from medld.metrics import (
    Lesion,
    LesionScore,
    count_spots,
    insert_lesions,
    lesion_map,
    score_controls,
    score_lesions,
    summarise_lesions,
)
from medld.metrics.lesion_scores import SEEN

SPACING = (1.0, 1.0, 1.0)
LESIONS = (
    Lesion((20, 20, 20), 4.0, 100),
    Lesion((20, 20, 44), 4.0, -100),
    Lesion((20, 44, 32), 8.0, 100),
    Lesion((44, 32, 32), 3.0, -100, 6.0, (1, 1, 0)),
)


@pytest.fixture(scope="module")
def empty() -> np.ndarray:
    """Tissue with a faint texture, nothing in it."""
    return np.random.default_rng(0).normal(500, 5, (64, 64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def truth(empty: np.ndarray) -> np.ndarray:
    return insert_lesions(empty, LESIONS, SPACING)


@pytest.fixture(scope="module")
def numbers() -> np.ndarray:
    return lesion_map((64, 64, 64), SPACING, LESIONS)


@pytest.fixture(scope="module")
def everywhere() -> np.ndarray:
    return np.ones((64, 64, 64), dtype=bool)


def _scores(truth: np.ndarray, output: np.ndarray, numbers: np.ndarray) -> list[LesionScore]:
    return score_lesions(truth, output, numbers, np.ones(truth.shape, dtype=bool), SPACING)


def test_an_equal_output_keeps_every_lesion(truth: np.ndarray, numbers: np.ndarray, everywhere: np.ndarray) -> None:
    scores = _scores(truth, truth.copy(), numbers)
    assert [s.number for s in scores] == [1, 2, 3, 4]
    assert [(s.contrast_kept, s.size_kept, s.erased) for s in scores] == [(1.0, 1.0, False)] * 4
    assert summarise_lesions(scores) == {"contrast": 1.0, "size": 1.0}
    assert count_spots(truth, truth.copy(), numbers, everywhere, SPACING, 100) == 0


def test_a_lesion_is_reported_with_its_own_contrast_and_volume(truth: np.ndarray, numbers: np.ndarray) -> None:
    for score, lesion in zip(_scores(truth, truth, numbers), LESIONS, strict=True):
        assert score.volume == pytest.approx(lesion.volume, rel=0.25)  # half-filled voxels count wholly or not
        assert score.contrast == pytest.approx(lesion.contrast, rel=0.25)


def test_an_output_without_the_lesions_has_erased_them(
    truth: np.ndarray, empty: np.ndarray, numbers: np.ndarray, everywhere: np.ndarray
) -> None:
    scores = _scores(truth, empty, numbers)
    assert all(s.erased and s.size_kept is None for s in scores)
    summary = summarise_lesions(scores)
    assert set(summary) == {"contrast"}
    assert summary["contrast"] == pytest.approx(0, abs=0.05)
    assert count_spots(truth, empty, numbers, everywhere, SPACING, 100) == 0


def test_one_erased_lesion_is_named(truth: np.ndarray, empty: np.ndarray, numbers: np.ndarray) -> None:
    output = truth.copy()
    output[10:30, 10:30, 34:54] = empty[10:30, 10:30, 34:54]
    assert [s.number for s in _scores(truth, output, numbers) if s.erased] == [2]


def test_a_faded_lesion_keeps_its_size_and_half_of_its_contrast(
    truth: np.ndarray, empty: np.ndarray, numbers: np.ndarray
) -> None:
    for score in _scores(truth, (truth + empty) / 2, numbers):
        assert score.contrast_kept == pytest.approx(0.5, abs=0.02)
        assert score.size_kept == pytest.approx(1, abs=0.1)


def test_a_lesion_that_turned_from_bright_to_dark_is_erased(
    truth: np.ndarray, empty: np.ndarray, numbers: np.ndarray
) -> None:
    scores = _scores(truth, 2 * empty - truth, numbers)
    assert all(s.erased and s.contrast_kept == pytest.approx(-1, abs=0.1) for s in scores)


def test_a_blur_costs_contrast_and_adds_size_most_where_lesions_are_small(
    truth: np.ndarray, numbers: np.ndarray
) -> None:
    bright, dark, large, _ = _scores(truth, gaussian_filter(truth, 1.2), numbers)
    assert bright.contrast_kept == pytest.approx(dark.contrast_kept, abs=0.05)
    assert bright.contrast_kept < large.contrast_kept - 0.1 < 0.9
    assert bright.size_kept is not None
    assert bright.size_kept > 1.2


def test_a_shift_costs_contrast(truth: np.ndarray, numbers: np.ndarray) -> None:
    kept = [
        [s.contrast_kept for s in _scores(truth, shift(truth, [0, 0, by], order=1, mode="nearest"), numbers)]
        for by in (0.5, 1.5)
    ]
    assert all(1 > near > far for near, far in zip(*kept, strict=True))


@pytest.mark.parametrize("contrast", [100.0, -100.0], ids=["bright", "dark"])
@pytest.mark.parametrize("diameter", [4.0, 6.0, 8.0])
def test_each_invented_lesion_is_counted_once(
    truth: np.ndarray, numbers: np.ndarray, everywhere: np.ndarray, contrast: float, diameter: float
) -> None:
    new = [Lesion((46, 12, 50), diameter, contrast), Lesion((48, 52, 14), diameter, contrast)]
    output = insert_lesions(truth, new, SPACING)
    assert count_spots(truth, output, numbers, everywhere, SPACING, 100) == 2
    assert count_spots(truth, output, numbers, np.arange(64) < 32 * everywhere, SPACING, 100) == 1


def test_a_faint_spot_a_lost_spot_and_a_change_at_a_lesion_are_no_inventions(
    truth: np.ndarray, numbers: np.ndarray, everywhere: np.ndarray
) -> None:
    spot = Lesion((46, 12, 50), 5.0, 100)
    faint = insert_lesions(truth, [Lesion(spot.centre, 5.0, 50)], SPACING)
    assert count_spots(truth, faint, numbers, everywhere, SPACING, 100) == 0
    for contrast in (100, -100):
        anatomy = insert_lesions(truth, [Lesion(spot.centre, 5.0, 2 * contrast)], SPACING)
        assert count_spots(anatomy, truth, numbers, everywhere, SPACING, 100) == 0
        assert count_spots(anatomy, anatomy + 1, numbers, everywhere, SPACING, 100) == 0
    brighter = insert_lesions(truth, [Lesion((20, 20, 20), 4.0, 300)], SPACING)
    assert count_spots(truth, brighter, numbers, everywhere, SPACING, 100) == 0


@pytest.mark.parametrize(("share", "size"), [(0.3, 27), (0.8, 27 + 6 * 9)], ids=["below-half", "above-half"])
def test_the_size_is_the_volume_at_half_of_the_contrast(share: float, size: int) -> None:
    """A cube of 27 voxels whose six faces get a layer of a share of its contrast, and a speck that is not joined."""
    truth = np.full((40, 40, 40), 500.0)
    truth[10:13, 10:13, 10:13] = 600
    numbers = (truth > 500).astype(np.uint8)
    output = truth.copy()
    for axis in range(3):
        for side in (9, 13):
            layer = [slice(10, 13)] * 3
            layer[axis] = slice(side, side + 1)
            output[tuple(layer)] = 500 + 100 * share
    output[13, 13, 13] = 600  # meets the cube in a corner alone
    output[11, 11, 7:8] = 600 if share < 0.5 else 500
    score = _scores(truth, output, numbers)[0]
    assert score.contrast_kept == pytest.approx(1, abs=0.02)
    assert score.size_kept == size / 27


def test_a_lesion_beside_another_is_measured_against_tissue_alone(empty: np.ndarray) -> None:
    alone = (Lesion((30, 30, 30), 4.0, 100),)
    both = (*alone, Lesion((30, 30, 34.5), 4.0, 1000))
    of_one, of_two = (
        _scores(truth, truth, lesion_map(truth.shape, SPACING, lesions))[0].contrast
        for lesions, truth in ((alone, insert_lesions(empty, alone, SPACING)), (both, _side_by_side(empty, both)))
    )
    assert of_two == pytest.approx(of_one, rel=0.25)


def _side_by_side(empty: np.ndarray, lesions: tuple[Lesion, ...]) -> np.ndarray:
    """Each lesion put in alone, so that none changes what another's ring holds."""
    return empty + sum(insert_lesions(empty, [lesion], SPACING) - empty for lesion in lesions)


def test_one_lesion_that_joins_a_fold_does_not_decide_the_size() -> None:
    scores = [
        LesionScore(n, 30.0, 100.0, kept, size)
        for n, (kept, size) in enumerate([(0.8, 1.2), (0.9, 1.0), (0.7, 40.0), (0.1, None)], start=1)
    ]
    assert summarise_lesions(scores) == pytest.approx({"contrast": 0.625, "size": 1.2})
    assert [s.erased for s in scores] == [False, False, False, True]


def test_spacing_decides_what_is_near_and_how_large(empty: np.ndarray) -> None:
    spacing = (1.0, 1.0, 2.0)
    lesions = (Lesion((20, 20, 20), 6.0, 100),)
    truth = insert_lesions(empty, lesions, spacing)
    numbers = lesion_map(truth.shape, spacing, lesions)
    everywhere = np.ones(truth.shape, dtype=bool)
    output = insert_lesions(truth, [Lesion((45, 45, 45), 6.0, 100)], spacing)
    assert score_lesions(truth, truth, numbers, everywhere, spacing)[0].volume == pytest.approx(113, rel=0.15)
    assert count_spots(truth, output, numbers, everywhere, spacing, 100) == 1


def test_two_volumes_less_their_tissue_tell_the_lesions_alone(truth: np.ndarray, numbers: np.ndarray) -> None:
    texture = gaussian_filter(np.random.default_rng(1).standard_normal(truth.shape), 2) * 1500
    lesions = truth - 500
    blurred = gaussian_filter(lesions, 1.0)
    clean = [s.contrast_kept for s in _scores(lesions, blurred, numbers)]
    assert clean == pytest.approx([s.contrast_kept for s in _scores(lesions, blurred.copy(), numbers)])
    disturbed = [s.contrast_kept for s in _scores(lesions + texture, blurred + texture, numbers)]
    assert np.abs(np.array(disturbed) - clean).max() > 0.02


@pytest.mark.parametrize("case", ["shape", "nan", "no-lesion", "no-tissue", "no-ring", "no-contrast"])
def test_refuses_what_cannot_be_scored(truth: np.ndarray, numbers: np.ndarray, case: str) -> None:
    output, tissue, numbers = truth.copy(), np.ones(truth.shape, dtype=bool), numbers.copy()
    if case == "shape":
        output = output[1:]
    elif case == "nan":
        output[0, 0, 0] = np.nan
    elif case == "no-lesion":
        numbers[:] = 0
    elif case == "no-tissue":
        tissue[:] = False
    elif case == "no-ring":
        tissue = numbers > 0
    else:
        truth = truth.copy()
        truth[numbers > 0] = 500
        truth[:15, :15, :15] += 5000
        truth[numbers == 0] = 500
        truth[0] = 9000
    with pytest.raises(InputError) as caught:
        score_lesions(truth, output, numbers, tissue, SPACING)
    assert caught.value.code == "E_PIXELS"


CONTROLS = (
    Lesion((44, 10, 10), 4.0, 100),
    Lesion((44, 10, 52), 4.0, -100),
    Lesion((52, 52, 52), 8.0, 100),
    Lesion((12, 52, 52), 3.0, -100, 6.0, (1, 1, 0)),
)


def _added(truth: np.ndarray, output: np.ndarray, numbers: np.ndarray) -> list[float]:
    controls, tissue = lesion_map(truth.shape, SPACING, CONTROLS), np.ones(truth.shape, dtype=bool)
    contrasts = {score.number: score.contrast for score in _scores(truth, truth, numbers)}
    return score_controls(truth, output, numbers, controls, tissue, SPACING, contrasts)


def test_an_equal_or_blurred_or_lesion_free_output_adds_nothing_at_controls(
    truth: np.ndarray, empty: np.ndarray, numbers: np.ndarray
) -> None:
    for output in (truth, gaussian_filter(truth, 1.2), empty):
        assert _added(truth, output, numbers) == pytest.approx([0] * 4, abs=0.05)


@pytest.mark.parametrize("share", [0.2, 1.0, -1.0])
def test_what_is_added_at_a_control_is_told_in_parts_of_its_lesion_with_its_sign(
    truth: np.ndarray, numbers: np.ndarray, share: float
) -> None:
    """A dark spot where a bright lesion is looked for counts against it."""
    new = [Lesion(c.centre, c.diameter, share * c.contrast, c.length, c.direction) for c in CONTROLS]
    assert _added(truth, insert_lesions(truth, new, SPACING), numbers) == pytest.approx([share] * 4, abs=0.08)


def test_a_lesion_and_its_control_are_judged_by_one_bound(
    truth: np.ndarray, empty: np.ndarray, numbers: np.ndarray
) -> None:
    """An output that shows a fifth of everything has erased all lesions and invented none; a third, the reverse."""
    for share, seen in ((0.2, False), (0.33, True)):
        faded = empty + share * (truth - empty)
        for control, lesion in zip(CONTROLS, LESIONS, strict=True):
            new = Lesion(control.centre, control.diameter, share * lesion.contrast, control.length, control.direction)
            faded = insert_lesions(faded, [new], SPACING)
        assert [not score.erased for score in _scores(truth, faded, numbers)] == [seen] * 4
        assert [added > SEEN for added in _added(truth, faded, numbers)] == [seen] * 4


def test_a_control_needs_a_lesion_that_it_matches(truth: np.ndarray, numbers: np.ndarray) -> None:
    controls, tissue = lesion_map(truth.shape, SPACING, CONTROLS), np.ones(truth.shape, dtype=bool)
    with pytest.raises(InputError, match="control 2"):
        score_controls(truth, truth, numbers, controls, tissue, SPACING, {1: 100.0, 3: 100.0, 4: 100.0})
    with pytest.raises(InputError, match="map of controls"):
        score_controls(truth, truth, numbers, controls * 0, tissue, SPACING, {1: 100.0})


def test_texture_of_single_voxels_makes_no_spots(empty: np.ndarray) -> None:
    """A ball of 2 mm is five voxels: whatever looks for it finds a bright voxel too."""
    lesions = (Lesion((20, 20, 20), 2.0, 100), Lesion((44, 44, 44), 2.0, -100))
    truth = insert_lesions(empty, lesions, SPACING)
    numbers, tissue = lesion_map(truth.shape, SPACING, lesions), np.ones(truth.shape, dtype=bool)
    speck, ball = truth.copy(), insert_lesions(truth, [Lesion((20, 44, 32), 4.0, 100)], SPACING)
    speck[20, 44, 32] += 120
    assert count_spots(truth, speck, numbers, tissue, SPACING, 100) == 0
    assert count_spots(truth, ball, numbers, tissue, SPACING, 100) == 1


def test_contrast_is_told_by_diameter(truth: np.ndarray, numbers: np.ndarray) -> None:
    scores = _scores(truth, gaussian_filter(truth, 1.2), numbers)
    summary = summarise_lesions(scores, (4.0, 4.0, 8.0, 3.0))
    assert set(summary) == {"contrast", "size", "contrast_3mm", "contrast_4mm", "contrast_8mm"}
    assert summary["contrast_4mm"] == pytest.approx((scores[0].contrast_kept + scores[1].contrast_kept) / 2)
    assert summary["contrast_8mm"] == scores[2].contrast_kept
