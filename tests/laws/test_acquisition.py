"""What holds for every acquisition, whatever its ratio, thickness, profile and number of coarse axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medld.acquisition import SMALLEST_LAMBDA, Acquisition, AxisAcquisition

ROUNDING = 1e-11
"""Float64 sums of a few thousand terms of order one."""

SINGLE = 1e-4
"""Float32, amplified by the inverse of a spectrum that spans three decades."""

SPLINE_POLE = 2 - 3**0.5
"""scipy starts the spline's recursion with a sum that is cut off: this to the power of twice the slices is left."""

ALMOST_UNDAMPED = 1e-13
"""Small against every eigenvalue of the well-conditioned cases, large against rounding."""

SIZES = [(24, 8), (23, 7), (9, 6), (40, 5)]
"""Fine voxels and slices: ratios 3, 3.29, 1.5 and 8."""

PROFILES = ["gaussian", "box", "slr"]
THICKNESSES = [0.6, 1.0, 2.0]


@pytest.fixture(params=[(s, t, p) for s in SIZES for t in THICKNESSES for p in PROFILES], ids=str)
def axis(request: pytest.FixtureRequest) -> AxisAcquisition:
    """One coarse axis of every kind."""
    (fine, slices), thickness, profile = request.param
    return AxisAcquisition(fine, slices, thickness, profile)


ONE, TWO, THREE = AxisAcquisition(13, 5, 0.6, "slr"), AxisAcquisition(12, 6), AxisAcquisition(11, 4, 1.2, "box")


@pytest.fixture(
    params=[(None, None, ONE), (TWO, None, None), (None, THREE, TWO), (ONE, TWO, THREE)],
    ids=["last", "first", "two", "three"],
)
def several(request: pytest.FixtureRequest) -> Acquisition:
    """One, two or three coarse axes."""
    return Acquisition(request.param)


def slice_shape(acquisition: Acquisition) -> tuple[int, ...]:
    """Of scans: two batch items, seven voxels along untouched axes."""
    return (2, 1, *(7 if axis is None else axis.slices for axis in acquisition.axes))


def padded_shape(acquisition: Acquisition) -> tuple[int, ...]:
    """Of fine arrays with margins."""
    return (2, 1, *(7 if axis is None else axis.fine + 2 * axis.margin for axis in acquisition.axes))


def along_last(axis: AxisAcquisition) -> Acquisition:
    """The acquisition that is coarse along the last axis alone."""
    return Acquisition((None, None, axis))


def spline_error(axis: AxisAcquisition) -> float:
    """How far the spline may be from exact and symmetric."""
    return float(SPLINE_POLE ** (2 * axis.slices)) + ROUNDING


def share_left(acquisition: Acquisition, damping: float) -> float:
    """The most that damping leaves of a residual: lambda / (lambda + smallest over largest eigenvalue)."""
    ratio = np.prod([axis.eigen[0][0] / axis.eigen[0][-1] for axis in acquisition.axes if axis is not None])
    return float(damping / (damping + ratio))


def test_adjoint(axis: AxisAcquisition, rng: np.random.Generator) -> None:
    operator = along_last(axis)
    x, y = rng.standard_normal(padded_shape(operator)), rng.standard_normal(slice_shape(operator))
    assert np.vdot(operator.apply(x), y) == pytest.approx(np.vdot(x, operator.adjoint(y)), abs=ROUNDING)


def test_adjoint_of_several_axes(several: Acquisition, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal(padded_shape(several)), rng.standard_normal(slice_shape(several))
    assert several.apply(x).shape == y.shape
    assert several.adjoint(y).shape == x.shape
    assert np.vdot(several.apply(x), y) == pytest.approx(np.vdot(x, several.adjoint(y)), abs=ROUNDING)


def test_a_slice_weighs_its_voxels_to_one(axis: AxisAcquisition) -> None:
    assert np.allclose(axis.matrix.sum(1), 1, atol=ROUNDING, rtol=0)
    assert axis.matrix.min() >= 0


def test_slices_are_symmetric_about_the_field_of_view(axis: AxisAcquisition) -> None:
    assert np.allclose(axis.matrix, axis.matrix[::-1, ::-1], atol=ROUNDING, rtol=0)
    assert np.allclose(axis.spline, axis.spline[::-1, ::-1], atol=spline_error(axis), rtol=0)


def test_a_constant_stays_constant(axis: AxisAcquisition) -> None:
    operator = along_last(axis)
    fine, slices = np.full(padded_shape(operator), 0.7), np.full(slice_shape(operator), 0.7)
    assert np.allclose(operator.apply(fine), 0.7, atol=ROUNDING, rtol=0)
    assert np.allclose(operator.baseline(slices), 0.7, atol=spline_error(axis), rtol=0)
    assert np.allclose(operator.project(fine, slices), 0.7, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(("fine", "slices"), SIZES)
def test_a_box_without_gap_keeps_mass(fine: int, slices: int, rng: np.random.Generator) -> None:
    operator = along_last(AxisAcquisition(fine, slices, 1.0, "box"))
    x = rng.random((3, 4, fine))
    seen = operator.apply(operator.pad(x)).sum(-1) * fine / slices
    assert np.allclose(seen, x.sum(-1), atol=ROUNDING, rtol=0)


def test_the_baseline_images_to_the_scan_as_far_as_damping_lets_it(
    axis: AxisAcquisition, rng: np.random.Generator
) -> None:
    operator = along_last(axis)
    y = rng.standard_normal(slice_shape(operator))
    missing = np.linalg.norm(y - operator.apply(operator.spline(y)))
    left = np.linalg.norm(y - operator.apply(operator.baseline(y)))
    assert left <= share_left(operator, SMALLEST_LAMBDA) * missing * (1 + 1e-6) + ROUNDING


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("thickness", [0.6, 1.0, 1.25])
@pytest.mark.parametrize(("fine", "slices"), SIZES)
def test_the_baseline_is_consistent_at_usual_thicknesses(
    fine: int, slices: int, thickness: float, profile: str, rng: np.random.Generator
) -> None:
    promised = 1e-3  # of the range; what `--consistency exact` promises up to tau = 1.25
    operator = along_last(AxisAcquisition(fine, slices, thickness, profile))
    y = rng.random((6, 5, slices))
    assert np.abs(y - operator.apply(operator.baseline(y))).max() <= promised


def test_the_baseline_of_several_axes_is_consistent(several: Acquisition, rng: np.random.Generator) -> None:
    y = rng.standard_normal(slice_shape(several))
    missing = np.linalg.norm(y - several.apply(several.spline(y)))
    left = np.linalg.norm(y - several.apply(several.baseline(y)))
    assert left <= share_left(several, SMALLEST_LAMBDA) * missing * (1 + 1e-6) + ROUNDING


def test_one_baseline_matrix_is_the_baseline(axis: AxisAcquisition, rng: np.random.Generator) -> None:
    y = rng.standard_normal((3, 2, axis.slices))
    assert np.allclose(y @ axis.baseline_matrix().T, along_last(axis).baseline(y), atol=1e-8, rtol=0)
    assert np.allclose(y @ axis.pseudo_inverse().T, along_last(axis).pseudo_inverse(y), atol=1e-8, rtol=0)


def test_projection_is_idempotent(several: Acquisition, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal(padded_shape(several)), rng.standard_normal(slice_shape(several))
    once = several.project(x, y, damping=ALMOST_UNDAMPED)
    twice = several.project(once, y, damping=ALMOST_UNDAMPED)
    assert np.abs(once - x).max() > 0.1
    assert np.allclose(twice, once, atol=1e-6, rtol=0)


def test_projection_leaves_alone_what_the_scan_does_not_see(several: Acquisition, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal(padded_shape(several)), rng.standard_normal(slice_shape(several))
    unseen = x - several.pseudo_inverse(several.apply(x), ALMOST_UNDAMPED)
    both = several.project(several.adjoint(y) + unseen, y, damping=ALMOST_UNDAMPED)
    alone = several.project(several.adjoint(y), y, damping=ALMOST_UNDAMPED)
    assert np.allclose(both - alone, unseen, atol=1e-6, rtol=0)


def test_a_gated_projection_never_adds_more_than_the_residual(axis: AxisAcquisition, rng: np.random.Generator) -> None:
    operator = along_last(axis)
    x, y = rng.standard_normal(padded_shape(operator)), rng.standard_normal(slice_shape(operator))
    residual = np.linalg.norm(y - operator.apply(x))
    steps = [
        np.linalg.norm(operator.apply(operator.project(x, y, noise)) - operator.apply(x))
        for noise in (0.0, 0.3, 1.0, 100.0)
    ]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] <= residual * (1 + 1e-9)
    assert steps[-1] == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, ROUNDING), (torch.float32, SINGLE)])
def test_numpy_equals_torch(
    several: Acquisition, dtype: torch.dtype, tolerance: float, rng: np.random.Generator
) -> None:
    x, y = rng.random(padded_shape(several)), rng.random(slice_shape(several))
    x_torch, y_torch = torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype)
    pairs = [
        (several.apply(x), several.apply(x_torch)),
        (several.adjoint(y), several.adjoint(y_torch)),
        (several.spline(y), several.spline(y_torch)),
        (several.baseline(y, 1e-3), several.baseline(y_torch, 1e-3)),
        (several.project(x, y, 0.05, 1e-3), several.project(x_torch, y_torch, 0.05, 1e-3)),
        (several.crop(x), several.crop(x_torch)),
    ]
    for expected, got in pairs:
        assert got.dtype == dtype
        assert np.allclose(got.numpy(), expected, atol=tolerance, rtol=0)


def test_pseudo_inverse_of_several_axes_is_the_kronecker_product(rng: np.random.Generator) -> None:
    axes = (AxisAcquisition(6, 3), AxisAcquisition(5, 3, 0.8, "slr"), AxisAcquisition(7, 2, 1.0, "box"))
    y = rng.standard_normal((3, 3, 2))
    inverse = np.kron(np.kron(axes[0].pseudo_inverse(0), axes[1].pseudo_inverse(0)), axes[2].pseudo_inverse(0))
    errors = []
    for damping in (1e-6, 1e-8, 1e-10):
        got = Acquisition(axes).pseudo_inverse(y, damping)
        errors.append(np.abs(got.ravel() - inverse @ y.ravel()).max())
    assert errors[2] < 1e-8
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)  # and it goes to zero as lambda does


def test_every_batch_item_has_its_own_noise_and_damping(several: Acquisition, rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.random(padded_shape(several)))
    y = torch.from_numpy(rng.random(slice_shape(several)))
    column = (2, 1, 1, 1, 1)
    noise, damping = torch.tensor([0.0, 0.2]).double().reshape(column), torch.tensor([1e-6, 1e-2]).reshape(column)
    both = several.project(x, y, noise, damping)
    for item in range(2):
        alone = several.project(x[item], y[item], float(noise[item]), float(damping[item]))
        assert torch.allclose(both[item], alone, atol=ROUNDING, rtol=1e-5)


def test_padding_and_cropping_are_inverse(several: Acquisition, rng: np.random.Generator) -> None:
    fine = rng.random(several.crop(np.zeros(padded_shape(several))).shape)
    padded = several.pad(fine)
    assert padded.shape == padded_shape(several)
    assert np.array_equal(several.crop(padded), fine)
    assert np.count_nonzero(padded) == np.count_nonzero(fine)
    assert torch.equal(several.pad(torch.from_numpy(fine)), torch.from_numpy(padded))


@pytest.mark.parametrize("ratio", [1.2, 1.5, 2.0, 2.7, 3.5, 4.0, 6.0, 7.9, 8.0])
def test_the_profile_grid_holds_the_whole_target(ratio: float) -> None:
    slices = 10
    axis = AxisAcquisition(round(ratio * slices), slices)
    S, F = axis.profile_to_target(), axis.target_to_profile()
    assert S.shape == (axis.fine, 8 * slices)
    assert np.linalg.matrix_rank(S) == axis.fine
    assert np.allclose(S @ F, np.eye(axis.fine), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("kind", ["inverse", "triangle"])
def test_both_profile_maps_keep_a_constant(axis: AxisAcquisition, kind: str) -> None:
    assert np.allclose(axis.profile_to_target(kind).sum(1), 1, atol=ROUNDING, rtol=0)
    assert np.allclose(axis.target_to_profile().sum(1), 1, atol=ROUNDING, rtol=0)
