from __future__ import annotations

import numpy as np
import pytest
from calibration_heads import Head

from medld.calibration import agreement, ring_correlation
from medld.calibration.rings import PATCH
from medld.errors import InputError


def ring_correlation_by_hand(first: np.ndarray, second: np.ndarray) -> list[float]:
    """From the whole transform of one pair, frequency after frequency."""
    window = np.sin(np.pi * np.arange(1, PATCH + 1) / (PATCH + 1)) ** 2
    f, g = (np.fft.fft2((x - x.mean()) * window[:, None] * window) for x in (first, second))
    sums = np.zeros((3, PATCH // 2 + 1))
    for i, u in enumerate(np.fft.fftfreq(PATCH, 1 / PATCH)):
        for j, v in enumerate(np.fft.fftfreq(PATCH, 1 / PATCH)):
            if (ring := round(float(np.hypot(u, v)))) <= PATCH // 2:
                sums[:, ring] += (f[i, j].conj() * g[i, j]).real, abs(f[i, j]) ** 2, abs(g[i, j]) ** 2
    return list(sums[0] / np.sqrt(sums[1] * sums[2]))


def test_the_curve_is_that_of_its_definition(rng: np.random.Generator) -> None:
    first, noise = rng.standard_normal((2, PATCH, PATCH))
    second = first + noise
    assert np.allclose(ring_correlation(first, second), ring_correlation_by_hand(first, second), atol=1e-4)


def test_equal_patches_agree_opposite_ones_do_not_and_unrelated_ones_neither(rng: np.random.Generator) -> None:
    first, second = rng.standard_normal((2, 400, PATCH, PATCH))
    assert np.allclose(ring_correlation(first, 3 * first + 5), 1, atol=1e-4)
    assert np.allclose(ring_correlation(first, -first)[:, 1:], -1, atol=1e-4)
    assert np.abs(ring_correlation(first, second)[:, 1:].mean(0)).max() < 0.1


def test_a_ring_that_is_empty_on_one_side_alone_does_not_agree() -> None:
    wave = np.cos(2 * np.pi * 4 * np.arange(PATCH) / PATCH)[:, None] * np.ones(PATCH)
    nothing = np.zeros((PATCH, PATCH))
    assert (ring_correlation(nothing, nothing) == 1).all()
    assert ring_correlation(wave, nothing, 1e-9)[4] == 0


def test_an_output_agrees_with_itself_at_any_gain(head: Head) -> None:
    output = head.evidence.output
    assert np.allclose(agreement(output, output), 1, atol=1e-3)
    assert np.allclose(agreement(3 * output, output), 1, atol=1e-3)


def plant(head: Head, amplitude: float) -> np.ndarray:
    """A false structure between slices that the scan knows nothing of: imaged again it is zero."""
    evidence, false = head.evidence, np.zeros_like(head.evidence.output)
    false[18:23, 16:21, 15:17] = amplitude
    acquisition = evidence.acquisition
    return np.asarray(false - acquisition.crop(acquisition.pseudo_inverse(acquisition.apply(acquisition.pad(false)))))


def test_a_planted_structure_is_flagged_and_a_faithful_output_passes(head: Head) -> None:
    evidence = head.evidence
    limit = np.quantile(agreement(head.truth, evidence.baseline)[head.foreground], 0.05)
    faithful = agreement(evidence.output, evidence.baseline)
    assert np.mean(faithful[head.foreground] < limit) < 0.02
    false = plant(head, 900.0)
    again = evidence.acquisition.apply(evidence.acquisition.pad(false))
    assert np.abs(again).max() < 0.02 * np.abs(false).max(), "the residual cannot see it"
    flagged = agreement(evidence.output + false, evidence.baseline) < limit
    assert flagged[18:23, 16:21, 15:17].mean() > 0.9
    far = np.ones(flagged.shape, dtype=bool)
    far[2:, :, 0:32] = False
    far |= np.indices(flagged.shape)[0] > 23 + PATCH
    assert np.array_equal(flagged[far], (faithful < limit)[far]), "patches that it is not in do not see it"


def test_more_of_it_agrees_less(head: Head) -> None:
    evidence = head.evidence
    places = (20, 18, 15)
    values = [agreement(evidence.output + plant(head, a), evidence.baseline)[places] for a in (0, 200, 400, 800)]
    assert (np.diff(values) < 0).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_the_slice_axis_may_be_any(head: Head, axis: int) -> None:
    evidence = head.evidence
    turned = agreement(np.moveaxis(evidence.output, 2, axis), np.moveaxis(evidence.baseline, 2, axis), axis)
    usual = agreement(evidence.output, evidence.baseline, 2)
    assert np.allclose(np.moveaxis(turned, axis, 2), usual, atol=1e-4)


def test_volumes_without_room_for_a_patch_are_refused() -> None:
    small = np.zeros((20, 20, PATCH - 1))
    with pytest.raises(InputError, match="at least 16 voxels"):
        agreement(small, small)
    with pytest.raises(InputError, match="one shape"):
        agreement(np.zeros((20, 20, 20)), np.zeros((20, 20, 21)))
