from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from medld.acquisition import AxisAcquisition
from medld.errors import InputError
from medld.evaluation.protocol import ProtocolConfig, load_protocol
from medld.evaluation.simulate import image, simulate, sinc_matrix
from medld.geometry import Grid
from medld.volume import Modality, Volume

SINGLE = 1e-6
"""Relative rounding of the float32 that a scan is stored in, with room for one more operation."""

OBLIQUE = np.array([[-0.86, 0.05, 0.0, 70.0], [0.05, 0.858, 0.12, -90.0], [0.007, -0.12, 0.993, -20.0], [0, 0, 0, 1]])


def _volume(array: np.ndarray, modality: Modality = "mr") -> Volume:
    direction, _ = np.linalg.qr(OBLIQUE[:3, :3])
    affine = OBLIQUE.copy()
    affine[:3, :3] = direction * [0.868, 0.868, 1.0]
    return Volume(array, Grid(array.shape, affine), modality, "T1w")


def _random(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1000, shape).astype(np.float32)


def _image_by_hand(array: np.ndarray, ratio: float, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Design section 6, slice by slice and straight from its words: the cut truth and the scan."""
    counts = {axis: int(np.floor(array.shape[axis] / ratio)) for axis in axes}
    for axis, k in counts.items():
        array = np.take(array, np.arange(round(k * ratio)), axis)
    scan = array.astype(np.float64)
    for axis, k in counts.items():
        n = array.shape[axis]
        r = n / k
        sigma = r / (2 * np.sqrt(2 * np.log(2)))
        slices = []
        for i in range(k):
            weights = np.exp(-0.5 * ((np.arange(n) - ((i + 0.5) * r - 0.5)) / sigma) ** 2)
            slices.append(np.tensordot(weights / weights.sum(), scan, (0, axis)))
        scan = np.stack(slices, axis)
    return array, scan


@pytest.mark.parametrize("ratio", [2, 3, 3.5, 4, 5, 6, 8])
@pytest.mark.parametrize("length", [37, 48, 53])
def test_slices_are_those_of_the_design(ratio: float, length: int) -> None:
    protocol = ProtocolConfig(name="p", axes="through-plane", ratio=ratio)
    array = _random((5, 4, length))
    truth, scan = simulate(_volume(array), protocol)
    expected_truth, expected_scan = _image_by_hand(array, ratio, (2,))
    assert np.array_equal(truth.array, expected_truth)
    np.testing.assert_allclose(scan.array, expected_scan, rtol=SINGLE)
    assert truth.array.dtype == scan.array.dtype == np.float32


def test_isotropic_scans_are_coarse_on_all_axes() -> None:
    array = _random((13, 16, 11))
    truth, scan = simulate(_volume(array), load_protocol("isotropic-2x"))
    expected_truth, expected_scan = _image_by_hand(array, 2, (0, 1, 2))
    assert truth.array.shape == (12, 16, 10)
    assert np.array_equal(truth.array, expected_truth)
    np.testing.assert_allclose(scan.array, expected_scan, rtol=SINGLE)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(12, 200), ratio=st.floats(1.2, 4))
def test_keeps_the_outer_faces_and_the_cuts_first_voxel(length: int, ratio: float) -> None:
    whole = _volume(np.ones((3, 3, length), np.int16))
    truth, scan = simulate(whole, ProtocolConfig(name="p", axes="through-plane", ratio=ratio))
    assert truth.array.shape[2] <= length < truth.array.shape[2] + ratio + 1
    np.testing.assert_allclose(scan.grid.corners(), truth.grid.corners(), atol=1e-10)
    np.testing.assert_allclose(truth.grid.affine, whole.grid.affine, atol=1e-12)


@pytest.mark.parametrize("name", ["through-plane-3.5x", "through-plane-4x", "isotropic-2x"])
def test_a_constant_stays_constant(name: str) -> None:
    _, scan = simulate(_volume(np.full((20, 21, 40), 7.0)), load_protocol(name))
    np.testing.assert_allclose(scan.array, 7.0, rtol=SINGLE)


@pytest.mark.parametrize("ratio", [2, 3.5, 4, 6])
def test_a_ramp_comes_back_without_a_half_voxel_shift(ratio: float) -> None:
    truth, scan = simulate(
        _volume(np.ones((3, 3, 84)) * np.arange(84.0)),
        ProtocolConfig(name="p", axes="through-plane", ratio=ratio),
    )
    r = truth.array.shape[2] / scan.array.shape[2]
    centres = (np.arange(scan.array.shape[2]) + 0.5) * r - 0.5
    inner = slice(3, -3)  # a Gaussian reaches two slices far; at the faces its rows are cut
    np.testing.assert_allclose(scan.array[1, 1, inner], centres[inner], atol=2e-3 * r)


def test_what_is_cut_off_does_not_enter() -> None:
    array = _random((4, 4, 43))
    other = array.copy()
    other[..., 40:] = 1e6
    protocol = load_protocol("through-plane-4x")
    assert np.array_equal(simulate(_volume(array), protocol)[1].array, simulate(_volume(other), protocol)[1].array)


def test_rows_weigh_tissue_inside_the_truth_alone() -> None:
    matrix = AxisAcquisition(42, 12).inner_matrix
    assert matrix.shape == (12, 42)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-14)


def test_noise_hangs_on_the_seed_and_the_scan_alone() -> None:
    volume, protocol = _volume(_random((8, 8, 40))), load_protocol("through-plane-4x-noise3")
    first = simulate(volume, protocol, "a.nii.gz")[1].array
    assert np.array_equal(first, simulate(volume, protocol, "a.nii.gz")[1].array)
    assert not np.array_equal(first, simulate(volume, protocol, "b.nii.gz")[1].array)
    other_seed = protocol.model_copy(update={"seed": 1})
    assert not np.array_equal(first, simulate(volume, other_seed, "a.nii.gz")[1].array)


def test_noise_has_the_asked_strength_and_is_rician() -> None:
    array = np.zeros((60, 60, 80), np.float32)
    array[30:] = 1000
    protocol = load_protocol("through-plane-4x-noise3")
    _, scan = simulate(_volume(array), protocol)
    air, tissue = scan.array[:30], scan.array[30:]
    assert tissue.std() == pytest.approx(30, rel=0.03)
    assert air.mean() == pytest.approx(30 * np.sqrt(np.pi / 2), rel=0.03)  # Rayleigh
    assert air.min() >= 0


def test_noise_on_ct_is_gaussian() -> None:
    array = np.full((30, 30, 80), -1000, np.int16)
    array[:4] = 1000
    _, scan = simulate(_volume(array, "ct"), load_protocol("through-plane-4x-noise3"))
    assert scan.array[4:].mean() == pytest.approx(-1000, abs=2)


def test_too_few_slices_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        simulate(_volume(np.ones((8, 8, 20))), load_protocol("through-plane-8x"))
    assert caught.value.code == "E_TOO_FEW"


def _isotropic(array: np.ndarray, modality: Modality = "mr") -> Volume:
    return Volume(array, Grid(array.shape, np.eye(4)), modality, "T1w")


@pytest.mark.parametrize("shape", [(12, 10, 14), (16, 13, 11)])
def test_kspace_is_the_discrete_fourier_transform_cut_to_half(shape: tuple[int, int, int]) -> None:
    array = gaussian_filter(_random(shape), 0.7)
    truth, scan = simulate(_isotropic(array), load_protocol("kspace-2x"))
    fine, coarse = truth.array.shape, scan.array.shape
    assert coarse == tuple(n // 2 for n in shape)
    spectrum = np.fft.fftn(truth.array.astype(np.float64))
    for axis, (n, k) in enumerate(zip(fine, coarse, strict=True)):
        f = np.fft.fftfreq(n, 1 / n)
        half = np.where(np.abs(f) < k / 2, 1.0, np.where(np.abs(f) == k / 2, 0.5, 0.0))
        # The first slice's centre is half a voxel beyond the first voxel's at 2x: a phase ramp moves it there.
        # The ramp at +-k/2 would leave an imaginary part: those two are read as one real cosine.
        place = np.exp(2j * np.pi * np.outer(0.5 * n / k - 0.5 + np.arange(k) * n / k, f) / n) * half
        spectrum = np.moveaxis(np.tensordot(place, spectrum, (1, axis)), 0, axis) / n
    np.testing.assert_allclose(spectrum.imag, 0, atol=1e-9 * array.max())
    np.testing.assert_allclose(scan.array, np.abs(spectrum.real), atol=SINGLE * array.max())


def test_kspace_passes_what_the_coarse_voxels_hold_and_nothing_else() -> None:
    n, k = 48, 24
    voxels, centres = np.arange(n), (np.arange(k) + 0.5) * 2 - 0.5
    for frequency, passed in ((3, 1.0), (11, 1.0), (13, 0.0), (20, 0.0)):
        wave, sampled = (np.cos(2 * np.pi * frequency * x / n + 0.3) for x in (voxels, centres))
        np.testing.assert_allclose(sinc_matrix(n, k) @ wave, passed * sampled, atol=1e-12)


def test_a_magnitude_is_never_negative_but_ct_keeps_its_ringing() -> None:
    array = np.zeros((16, 16, 16), np.float32)
    array[4:9] = 1000
    _, seen = simulate(_isotropic(array), load_protocol("kspace-2x"))
    _, plain = simulate(_isotropic(array, "ct"), load_protocol("kspace-2x"))
    assert plain.array.min() < -10
    np.testing.assert_array_equal(seen.array, np.abs(plain.array))


def test_a_block_mean_is_the_mean_of_eight_voxels() -> None:
    array = _random((12, 15, 10))
    truth, scan = simulate(_isotropic(array), load_protocol("blockmean-2x"))
    blocks = array[:, :14].astype(np.float64).reshape(6, 2, 7, 2, 5, 2).mean((1, 3, 5))
    np.testing.assert_allclose(scan.array, blocks, rtol=SINGLE)
    assert truth.array.shape == (12, 14, 10)


@pytest.mark.parametrize(("spacing", "length"), [(1.0, 63), (0.7, 80), (1.25, 41)])
def test_slices_with_a_gap_are_4_mm_thick_and_5_mm_apart(spacing: float, length: int) -> None:
    array = _random((4, 4, length))
    volume = Volume(array, Grid(array.shape, np.diag([1.0, 1.0, spacing, 1.0])), "mr", "T1w")
    truth, scan = simulate(volume, load_protocol("through-plane-5mm-gap"))
    n, k = truth.array.shape[2], scan.array.shape[2]
    assert k == int(length * spacing / 5)
    assert scan.grid.spacing[2] == pytest.approx(5, abs=spacing / 2 / k)
    mm = (np.arange(n) + 0.5) * spacing
    for index in range(k):
        weights = np.exp(-4 * np.log(2) * ((mm - (index + 0.5) * n * spacing / k) / 4) ** 2)
        np.testing.assert_allclose(scan.array[..., index], truth.array @ (weights / weights.sum()), rtol=10 * SINGLE)


def test_a_gap_that_leaves_no_ratio_to_restore_is_refused() -> None:
    volume = Volume(np.ones((8, 8, 40)), Grid((8, 8, 40), np.diag([1.0, 1.0, 4.5, 1.0])))
    with pytest.raises(InputError, match=r"1\.11 of 4\.5 mm") as caught:
        simulate(volume, load_protocol("through-plane-5mm-gap"))
    assert caught.value.code == "E_NOTHING_TO_DO"


@pytest.mark.parametrize("axis", [0, 1])
def test_another_axis_gives_the_turned_scan(axis: int) -> None:
    array = _random((22, 23, 21))
    protocol = ProtocolConfig(name="p", axes="through-plane", ratio=3.5, axis=axis)  # type: ignore[arg-type]
    _, scan = simulate(_isotropic(array), protocol)
    turned = np.moveaxis(array, axis, -1)
    _, last = simulate(_isotropic(turned), protocol.model_copy(update={"axis": 2}))
    np.testing.assert_allclose(np.moveaxis(scan.array, axis, -1), last.array, rtol=SINGLE)


@pytest.mark.parametrize("name", ["kspace-2x", "blockmean-2x", "isotropic-4x", "through-plane-5mm-gap"])
def test_new_protocols_keep_constants_and_outer_faces(name: str) -> None:
    truth, scan = simulate(_isotropic(np.full((25, 26, 31), 7.0)), load_protocol(name))
    np.testing.assert_allclose(scan.array, 7.0, rtol=SINGLE)
    np.testing.assert_allclose(scan.grid.corners(), truth.grid.corners(), atol=1e-10)


def test_the_noise_that_was_added_is_told() -> None:
    volume = _isotropic(_random((20, 20, 40)))
    clean, noisy = (image(volume, load_protocol(f"through-plane-4x{end}"), "a") for end in ("", "-noise2"))
    assert clean.noise == 0
    assert noisy.noise == pytest.approx(0.02 * np.percentile(clean.scan.array, 99.9))
    assert np.std(noisy.scan.array - clean.scan.array) == pytest.approx(noisy.noise, rel=0.05)
