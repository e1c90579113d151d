from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from calibration_heads import Head, make_head

from medld.calibration import (
    LEVELS,
    BinConfig,
    Evidence,
    HalfWidth,
    ModeConfig,
    SubjectConfig,
    agreement_limit,
    find_trust,
    half_width,
    local_contrast,
    scale_map,
)
from medld.calibration.apply import find_bin
from medld.errors import ConfigError


def test_the_half_width_is_the_factor_of_the_middle_subject_times_the_scale(head: Head, mode: ModeConfig) -> None:
    found = half_width(head.evidence, mode, "T1w")
    assert found.factor == pytest.approx(0.9 * 1.4), "the fifth of nine"
    assert np.allclose(found.array, found.factor * scale_map(head.evidence, mode.scale))
    assert found.array.shape == head.truth.shape
    assert found.array.dtype == np.float32
    assert found.warnings == ()


def test_a_higher_level_is_wider_everywhere(head: Head, mode: ModeConfig) -> None:
    widths = [half_width(head.evidence, mode, "T1w", level=level).array for level in LEVELS]
    assert all((narrow < wide).all() for narrow, wide in pairwise(widths))


def test_twice_the_gain_gives_twice_the_width(head: Head, mode: ModeConfig) -> None:
    e = head.evidence
    louder = replace(e, scan=2 * e.scan, output=2 * e.output, unit=2 * e.unit)
    assert np.allclose(half_width(louder, mode, "T1w").array, 2 * half_width(e, mode, "T1w").array, rtol=1e-4)


def test_another_contrast_takes_what_was_found_on_all_and_says_so(head: Head, mode: ModeConfig) -> None:
    found = half_width(head.evidence, mode, "FLAIR")
    assert found.bin.contrast is None
    assert "on several contrasts together: on a scan of contrast FLAIR" in found.warnings[0]
    only = mode.model_copy(update={"bins": mode.bins[:1]})
    assert "calibrated on T1w" in half_width(head.evidence, only, "FLAIR").warnings[0]


def test_a_ratio_without_a_bin_takes_the_nearest_and_says_so(mode: ModeConfig) -> None:
    found = half_width(make_head(0, slices=16).evidence, mode, "T1w")
    assert found.bin == mode.bins[0]
    assert found.warnings == (
        "the half-width was calibrated at 4x along 1 axis, this scan is restored by 2x along 1 axis: it can be too "
        "narrow or too wide",
    )


def test_noise_beyond_what_was_seen_is_named(head: Head, mode: ModeConfig) -> None:
    noisy = replace(head.evidence, noise=0.04 * head.evidence.unit)
    assert "noise of up to 3 %" in half_width(noisy, mode, "T1w").warnings[0]
    assert not half_width(replace(head.evidence, noise=0.02 * head.evidence.unit), mode, "T1w").warnings


def test_the_nearest_bin_has_the_same_axes_if_any_then_the_nearest_ratio(
    mode: ModeConfig, subject: Callable[..., SubjectConfig]
) -> None:
    edges = ((1, 1.19, 2.5), (1, 2.5, 3.4), (1, 4.5, 5.5), (3, 1.19, 2.5))
    bins = [BinConfig(axes=n, low=low, high=high, contrast="T1w", subjects=(subject(),)) for n, low, high in edges]
    several = mode.model_copy(update={"bins": tuple(bins)})
    for axes, ratio, place in (
        (1, 2.0, 0),
        (1, 2.5, 1),
        (1, 3.5, 1),
        (1, 4.4, 2),
        (1, 8.0, 2),
        (3, 4.0, 3),
        (2, 1.5, 0),
    ):
        assert find_bin(several, axes, ratio, "T1w") is bins[place], (axes, ratio)


def test_whose_scan_it_is_has_no_part_in_the_factor(
    head: Head, mode: ModeConfig, subject: Callable[..., SubjectConfig]
) -> None:
    sha256 = "f" * 64
    own = subject(50.0).model_copy(update={"scans": (sha256[:12],)})
    narrow, wide = subject(1.0), subject(2.0)

    def factor(*subjects: SubjectConfig, left_out: str) -> float:
        bins = (mode.bins[0].model_copy(update={"subjects": subjects}),)
        return half_width(head.evidence, mode.model_copy(update={"bins": bins}), "T1w", left_out=left_out).factor

    assert factor(narrow, wide, own, left_out="") == pytest.approx(0.9 * 2)
    assert factor(narrow, narrow, own, left_out=sha256) == pytest.approx(0.9 * 1)
    with pytest.raises(ConfigError, match="other subjects"):
        factor(own, left_out=sha256)


def test_a_level_that_was_not_kept_is_refused(head: Head, mode: ModeConfig) -> None:
    with pytest.raises(ConfigError, match=r"0.9, 0.95"):
        half_width(head.evidence, mode, "T1w", level=0.85)


@pytest.mark.parametrize(("limits", "expected"), [((0.1, 0.5, 0.9), 0.5), ((0.1, 0.3, 0.5, 0.9), 0.3), ((0.4,), 0.4)])
def test_half_of_the_subjects_reach_the_limit_of_agreement(
    subject: Callable[..., SubjectConfig], limits: tuple[float, ...], expected: float
) -> None:
    assert agreement_limit([subject(agreement=limit) for limit in limits]) == expected


def test_local_contrast_is_the_step_where_one_is_near_and_nothing_far_from_it() -> None:
    step = np.zeros((48, 24, 24))
    step[24:] = 100
    contrast = local_contrast(step)
    assert contrast[24, 12, 12] == pytest.approx(100, rel=0.01)
    assert contrast[:12].max() == 0


def trust(evidence: Evidence, found: HalfWidth) -> np.ndarray:
    """Voxels to trust."""
    return find_trust(evidence, found).trusted


def test_voxels_are_trusted_where_the_width_is_small_beside_the_contrast(head: Head, mode: ModeConfig) -> None:
    lenient = [s.model_copy(update={"agreement": -1.0}) for s in mode.bins[0].subjects]
    mode = mode.model_copy(update={"bins": (mode.bins[0].model_copy(update={"subjects": tuple(lenient)}),)})
    found = half_width(head.evidence, mode, "T1w")
    assert np.array_equal(trust(head.evidence, found), 4 * found.array <= local_contrast(head.evidence.output))
    assert not trust(head.evidence, replace(found, array=found.array + 1e4)).any()
    assert trust(head.evidence, replace(found, array=np.zeros_like(found.array))).all()


def test_an_invented_structure_is_not_trusted_and_the_honest_output_is(head: Head, mode: ModeConfig) -> None:
    found = replace(half_width(head.evidence, mode, "T1w"), array=np.zeros_like(head.truth))
    output = head.evidence.output.copy()
    false = np.zeros_like(output)
    false[18:23, 16:21, 15:17] = 900
    acquisition = head.evidence.acquisition
    false -= acquisition.crop(acquisition.pseudo_inverse(acquisition.apply(acquisition.pad(false))))
    planted = find_trust(replace(head.evidence, output=output + false), found)
    assert planted.disagreeing[18:23, 16:21, 15:17].mean() > 0.8
    assert planted.trusted[18:23, 16:21, 15:17].mean() < 0.2
    honest = find_trust(head.evidence, found)
    assert honest.trusted[18:23, 16:21, 15:17].mean() > 0.9
    assert honest.disagreeing[head.foreground].mean() < 0.05
