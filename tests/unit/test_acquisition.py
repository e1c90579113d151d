"""The parts of an acquisition against independent definitions; laws for all kinds are in tests/laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from medld.acquisition import (
    GATE_WINDOW,
    INTEGRATE_BELOW,
    SMALLEST_LAMBDA,
    Acquisition,
    AxisAcquisition,
    Profile,
    along,
    box_mean_matrix,
    damping_for,
    keys_matrix,
    profile_weights,
    spline_matrix,
    triangle_matrix,
)
from medld.errors import AcquisitionError

ROUNDING = 1e-12
QUADRATURE = 2e-3
"""The SLR-like profile is integrated with 32 points a voxel, of which .3 voxels hold ten."""


@pytest.mark.parametrize("slices", [1, 2, 3, 8, 31])
def test_the_spline_is_scipys(slices: int, rng: np.random.Generator) -> None:
    values, positions = rng.random(slices), np.linspace(-0.5, slices - 0.5, 97)
    expected = map_coordinates(values, [positions], order=3, mode="reflect")
    cut_off = (2 - np.sqrt(3)) ** (2 * slices)  # scipy starts its recursion with the first terms of a series
    assert np.allclose(spline_matrix(slices, positions) @ values, expected, atol=max(ROUNDING, cut_off), rtol=0)


@pytest.mark.parametrize("profile", ["gaussian", "box", "slr"])
def test_no_matrix_brings_subnormal_numbers_and_none_loses_by_it(profile: Profile) -> None:
    axis = AxisAcquisition(192, 48, 1.0, profile)
    exact = {"apply": axis.matrix, "adjoint": axis.matrix.T, "spline": axis.spline, "reimage": axis.edge_matrix}
    for name, matrix in exact.items():
        single = axis.like(name, torch.zeros(1)).abs()
        assert not ((single > 0) & (single < torch.finfo(torch.float32).tiny)).any(), name
        assert np.array_equal(axis.like(name, np.zeros(1)).sum(1), matrix.sum(1)), name
    tails = np.float32(axis.matrix)  # of a Gaussian there is something to drop
    assert profile != "gaussian" or ((tails > 0) & (tails < np.finfo(np.float32).tiny)).any()


@pytest.mark.parametrize("slices", [1, 3, 8])
def test_the_spline_passes_through_its_samples(slices: int) -> None:
    assert np.allclose(spline_matrix(slices, np.arange(slices)), np.eye(slices), atol=ROUNDING, rtol=0)


def test_the_spline_is_level_at_the_faces_and_constant_beyond(rng: np.random.Generator) -> None:
    values = rng.random(9)
    faces = spline_matrix(9, np.array([-0.5, 8.5])) @ values
    beyond = spline_matrix(9, np.array([-3.0, 40.0])) @ values
    inside = spline_matrix(9, np.array([-0.5 + 1e-4, 8.5 - 1e-4])) @ values
    assert np.allclose(beyond, faces, atol=ROUNDING, rtol=0)
    assert np.allclose(inside, faces, atol=1e-6, rtol=0)  # a slope would show in the fourth digit


def test_keys_interpolation_passes_through_its_samples() -> None:
    assert np.array_equal(keys_matrix(8, 8), np.eye(8))
    assert np.allclose(keys_matrix(8, 24)[1::3], np.eye(8), atol=ROUNDING, rtol=0)


def test_keys_interpolation_reproduces_parabolas_inside() -> None:
    fine = np.arange(20.0)
    positions = (np.arange(160) + 0.5) / 8 - 0.5
    inside = (positions > 1) & (positions < 18)
    for power in (1, 2):
        got = keys_matrix(20, 160) @ fine**power
        assert np.allclose(got[inside], positions[inside] ** power, atol=1e-10, rtol=0)


def test_triangles_reproduce_a_ramp_inside() -> None:
    for fine in (9, 16, 40):
        centres = (np.arange(fine) + 0.5) * 40 / fine - 0.5
        got = triangle_matrix(fine, 40) @ np.arange(40.0)
        inside = (centres > 5) & (centres < 34)
        # The samples under a triangle lie unevenly about its centre unless the width is whole.
        assert np.allclose(got[inside], centres[inside], atol=0.06, rtol=0)


@pytest.mark.parametrize("profile", ["gaussian", "slr"])
@pytest.mark.parametrize("fwhm", [0.3, 0.8, 1.1999])
def test_a_narrow_profile_is_integrated_over_each_voxel(profile: str, fwhm: float) -> None:
    offsets = np.arange(-4, 5) + 0.37
    order = 2 if profile == "gaussian" else 4
    fine = (np.arange(4000) + 0.5) / 4000 - 0.5
    expected = np.exp(-np.log(2) * np.abs(2 * (offsets[:, None] + fine) / fwhm) ** order).mean(1)
    got = profile_weights(offsets, fwhm, profile)
    assert np.allclose(got / got.sum(), expected / expected.sum(), atol=QUADRATURE, rtol=0)


@pytest.mark.parametrize("profile", ["gaussian", "slr"])
def test_a_wide_profile_is_sampled_at_voxel_centres(profile: str) -> None:
    weights = profile_weights(np.array([0.0, 1.0, 2.0]), 2.0, profile)
    assert weights[0] == 1
    assert weights[1] == pytest.approx(0.5)  # half of the full width
    assert weights[2] == pytest.approx(0.5 ** (4 if profile == "gaussian" else 16))


@pytest.mark.parametrize("profile", ["gaussian", "box", "slr"])
def test_rows_below_the_limit_are_integrated(profile: str) -> None:
    """A thin slice that falls between two voxels sees both; sampled, it would see what lies beside it."""
    axis = AxisAcquisition(12, 6, 0.3, profile)
    assert axis.thickness * axis.ratio < INTEGRATE_BELOW
    row = axis.matrix[2, axis.margin : axis.margin + axis.fine]
    assert row[4] == pytest.approx(0.5, abs=1e-3)
    assert row[5] == pytest.approx(0.5, abs=1e-3)


def test_a_box_covers_the_part_of_each_voxel_that_it_crosses() -> None:
    assert np.allclose(profile_weights(np.array([-1.0, 0.0, 1.0, 2.0]), 2.5, "box"), [0.75, 1, 0.75, 0])


def test_thicker_slices_reach_further() -> None:
    assert AxisAcquisition(20, 5, 0.6).margin == 4
    assert AxisAcquisition(20, 5, 2.0).margin == 8
    assert AxisAcquisition(9, 6).margin == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((4, 5), "between 1 and 4 slices.*got 5.*finer target spacing"),
        ((4, 0), "got 0"),
        ((4, 2, 0.0), "positive slice thickness, got 0.0.*--slice-thickness"),
        ((4, 2, -1.0), "got -1.0"),
        ((4, 2, float("nan")), "got nan"),
        ((4, 2, float("inf")), "got inf"),
    ],
)
def test_refuses_what_no_scanner_could_do(arguments: tuple[float, ...], told: str) -> None:
    with pytest.raises(AcquisitionError, match=told) as caught:
        AxisAcquisition(*arguments)
    assert caught.value.code == "E_ACQUISITION"


def test_along_multiplies_the_axis_that_it_is_told(rng: np.random.Generator) -> None:
    array = rng.random((2, 3, 4, 5, 6))
    matrix = {-3: rng.random((7, 4)), -2: rng.random((7, 5)), -1: rng.random((7, 6))}
    sums = {-3: "pi,bcijk->bcpjk", -2: "pj,bcijk->bcipk", -1: "pk,bcijk->bcijp"}
    for axis, formula in sums.items():
        expected = np.einsum(formula, matrix[axis], array)
        assert np.allclose(along(matrix[axis], array, axis), expected, atol=ROUNDING)
        assert np.allclose(along(matrix[axis], torch.from_numpy(array), axis).numpy(), expected, atol=ROUNDING)


def test_matrices_take_the_arrays_precision() -> None:
    axis = AxisAcquisition(8, 4)
    assert axis.like("apply", np.zeros(1, np.float32)).dtype == np.float32
    single = axis.like("apply", torch.zeros(1))
    assert single.dtype == torch.float32
    assert axis.like("apply", torch.zeros(3)) is single  # copied to a device once


@pytest.mark.parametrize("size", [1, 5, 9, 20])
def test_a_box_mean_shrinks_at_the_ends(size: int, rng: np.random.Generator) -> None:
    values = rng.random(size)
    expected = [values[max(0, i - 4) : i + 5].mean() for i in range(size)]
    assert np.allclose(box_mean_matrix(size, GATE_WINDOW) @ values, expected, atol=ROUNDING)


def test_damping_follows_the_noise() -> None:
    noise = torch.tensor([0.0, 1e-5, 0.01, 0.04])
    assert torch.allclose(damping_for(noise), torch.tensor([SMALLEST_LAMBDA, SMALLEST_LAMBDA, 0.01, 0.16]))


@pytest.fixture
def transparent() -> Acquisition:
    """A box of one voxel at ratio one: A is the identity, so a projection shows its gate."""
    axis = AxisAcquisition(6, 6, 1.0, "box")
    assert np.array_equal(axis.matrix[:, axis.margin : -axis.margin], np.eye(6))
    return Acquisition((None, None, axis))


def gate(acquisition: Acquisition, residual: np.ndarray, noise: float) -> np.ndarray:
    """The gate's weights, read from a projection of zero onto `residual`."""
    zero = acquisition.pad(np.zeros_like(residual))
    return acquisition.crop(acquisition.project(zero, residual, noise)) * (1 + SMALLEST_LAMBDA) / residual


def test_gate_weights_lie_between_zero_and_one(transparent: Acquisition, rng: np.random.Generator) -> None:
    residual = rng.standard_normal((30, 31, 6)) + 3
    previous = np.ones_like(residual)
    for noise in (0.0, 1.0, 3.0, 3.5, 10.0):
        weights = gate(transparent, residual, noise)
        assert weights.min() >= 0
        assert (weights <= previous + 1e-9).all()  # more noise, less trust
        previous = weights
    assert np.allclose(gate(transparent, residual, 0.0), 1, atol=1e-9)
    assert not gate(transparent, residual, 10.0).any()


def test_the_gate_is_the_share_that_noise_does_not_explain(transparent: Acquisition) -> None:
    residual = np.full((12, 12, 6), 0.5)
    assert np.allclose(gate(transparent, residual, 0.3), 1 - 0.3**2 / 0.5**2, atol=1e-6)


def test_the_gate_looks_at_a_window_in_its_own_slice(transparent: Acquisition) -> None:
    residual = np.full((21, 21, 6), 0.5)
    plain = gate(transparent, residual, 0.3)
    residual[10, 10, 2] = 5.0
    changed = np.abs(gate(transparent, residual, 0.3) - plain) > 1e-9
    reach = GATE_WINDOW // 2
    expected = np.zeros_like(changed)
    expected[10 - reach : 11 + reach, 10 - reach : 11 + reach, 2] = True
    assert np.array_equal(changed, expected)


@pytest.mark.parametrize("axes", [(1, 2, 0), (2, 1, 0)])
def test_the_gate_of_several_axes_does_not_depend_on_their_order(
    axes: tuple[int, int, int], rng: np.random.Generator
) -> None:
    parts = (AxisAcquisition(22, 11), AxisAcquisition(24, 12), AxisAcquisition(26, 13))
    x, y = rng.random((26, 28, 30)), rng.random((11, 12, 13))
    expected = Acquisition(parts, slice_axis=1).project(x, y, 0.2, 1e-3).transpose(axes)
    moved = Acquisition((parts[axes[0]], parts[axes[1]], parts[axes[2]]), slice_axis=axes.index(1))
    assert np.allclose(moved.project(x.transpose(axes), y.transpose(axes), 0.2, 1e-3), expected, atol=1e-9)
