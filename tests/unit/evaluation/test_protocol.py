from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medld.errors import ConfigError, InputError
from medld.evaluation.protocol import (
    FOLDER,
    ProtocolConfig,
    list_protocols,
    load_protocol,
    simulate,
    slice_matrix,
)
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


@pytest.mark.parametrize("name", list_protocols())
def test_every_shipped_protocol_loads_under_its_own_name(name: str) -> None:
    assert load_protocol(name).name == name


def test_the_protocols_of_the_bars_ship() -> None:
    bars = {f"through-plane-{r}x" for r in ("2", "3.5", "4", "6")} | {"isotropic-2x"}
    assert bars <= set(list_protocols())
    assert all(load_protocol(name).consistency == "exact" for name in bars)


def test_a_protocol_of_ones_own_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\naxes: through-plane\nratio: 2.5\nnoise: 0.02\n")
    assert load_protocol(str(path)) == ProtocolConfig(name="mine", axes="through-plane", ratio=2.5, noise=0.02)
    assert load_protocol(str(path)).consistency == "auto"


def test_an_unknown_protocol_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="through-plane-4x"):
        load_protocol("through-plane-4")


@pytest.mark.parametrize("line", ["ratios: 4", "ratio: 9", "noise: -1", "axes: coronal"])
def test_a_mistake_in_a_protocol_is_refused(tmp_path: Path, line: str) -> None:
    content = {
        "name": "name: mine",
        "axes": "axes: through-plane",
        "ratio": "ratio: 4",
        line.split(":")[0]: line,
    }
    path = tmp_path / "mine.yaml"
    path.write_text("\n".join(content.values()))
    with pytest.raises(ConfigError, match=line.split(":")[0]):
        load_protocol(str(path))


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
    matrix = slice_matrix(42, 12)
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


def test_every_protocol_file_says_what_it_is() -> None:
    for path in FOLDER.glob("*.yaml"):
        assert path.read_text().startswith("# ")
