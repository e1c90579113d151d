"""Fingerprint and domain: numbers that do not hang on storage or unit, and ranges that hold what they were made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medld.checkpoint import find_model, list_models
from medld.errors import CheckpointError
from medld.geometry import Grid
from medld.io import read_volume
from medld.scope import DOMAIN, Domain, load_domain, take_fingerprint
from medld.scope.fingerprint import MEANINGS
from medld.volume import Volume


def make_head(rng: np.random.Generator, size: float = 1.0) -> Volume:
    """A symmetric ellipsoid with texture in air, slices 3 mm apart."""
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in (90, 100, 30)), indexing="ij")
    texture = ndimage.gaussian_filter(rng.standard_normal(i.shape), (1.5, 1.5, 0.5))
    tissue = i**2 + j**2 + k**2 < 0.8
    array = np.where(tissue, 0.6 + 0.8 * (texture + texture[::-1]), 0).clip(0)
    return Volume(array.astype(np.float32), Grid(array.shape, np.diag([size, size, 3 * size, 1.0])), "mr")


@pytest.fixture
def scan(rng: np.random.Generator) -> Volume:
    return make_head(rng)


def test_every_number_has_a_meaning(scan: Volume) -> None:
    assert set(take_fingerprint(scan)) == set(MEANINGS)


def test_numbers_know_no_unit_and_no_order_of_storage(scan: Volume) -> None:
    stored = scan.with_array(scan.array * np.float32(812.0)).permuted((2, 0, 1)).flipped(1)
    assert take_fingerprint(stored) == pytest.approx(take_fingerprint(scan), rel=1e-3, abs=1e-5)


def test_three_thin_slices_are_enough(scan: Volume) -> None:
    """Fewer millimetres than the likeness of left and right is looked for in."""
    thin = scan.cropped((0, 0, 14), (90, 100, 3))
    thin = Volume(thin.array, Grid(thin.array.shape, np.diag([0.5, 0.5, 1.0, 1.0])), "mr")
    assert {"noise", "symmetry", "slice_step"} <= set(take_fingerprint(thin))


def test_sizes_grow_with_the_voxels(rng: np.random.Generator) -> None:
    small, large = (take_fingerprint(make_head(np.random.default_rng(1), size)) for size in (1.0, 2.0))
    assert large["tissue_mm"] == pytest.approx(2 * small["tissue_mm"])
    assert large["tissue_litres"] == pytest.approx(8 * small["tissue_litres"])
    assert large["spacing_ratio"] == pytest.approx(small["spacing_ratio"])


def test_what_is_done_to_a_scan_shows_in_its_number(scan: Volume, rng: np.random.Generator) -> None:
    before = take_fingerprint(scan)
    smooth = take_fingerprint(scan.with_array(ndimage.gaussian_filter(scan.array, (3, 3, 0))))
    noisy = take_fingerprint(scan.with_array(scan.array + 0.3 * rng.random(scan.array.shape).astype(np.float32)))
    inverted = take_fingerprint(scan.with_array(scan.array.max() - scan.array))
    shuffled = take_fingerprint(scan.with_array(scan.array[:, :, rng.permutation(30)]))
    lopsided = scan.array.copy()
    lopsided[:40] *= rng.random((40, 100, 1)).astype(np.float32) < 0.5
    assert smooth["pixel_step"] < 0.9 * before["pixel_step"]
    assert noisy["noise"] > before["noise"] + 0.02
    assert inverted["corner"] > 0.9 > 0.01 > before["corner"]
    assert shuffled["slice_step"] > 1.1 * before["slice_step"]
    assert take_fingerprint(scan.with_array(lopsided))["symmetry"] < before["symmetry"] - 0.1


def test_an_almost_empty_scan_gives_its_spacings_alone(scan: Volume) -> None:
    array = np.zeros_like(scan.array)
    array[40:42, 40:42, 10] = 1
    assert set(take_fingerprint(scan.with_array(array))) == {"pixel_mm", "slice_mm", "spacing_ratio"}


def test_a_domain_holds_the_scans_it_was_made_of(rng: np.random.Generator) -> None:
    taken = [take_fingerprint(make_head(rng, size)) for size in (0.8, 1.0, 1.2)]
    domain = Domain.of(taken)
    assert domain.scans == 3
    assert all(domain.outside(fingerprint) == () for fingerprint in taken)


def test_what_lies_outside_is_named_with_its_range(rng: np.random.Generator) -> None:
    domain = Domain.of([take_fingerprint(make_head(rng, size)) for size in (0.8, 1.0, 1.2)])
    (reason,) = [r for r in domain.outside(take_fingerprint(make_head(rng, 12.0))) if r.startswith("pixel spacing")]
    low, high = domain.ranges["pixel_mm"]
    assert "is 12," in reason
    assert f"{low:.3g} to {high:.3g}" in reason


def test_a_number_that_a_scan_does_not_give_is_not_held_against_it(rng: np.random.Generator) -> None:
    domain = Domain.of([take_fingerprint(make_head(rng))])
    assert domain.outside({}) == ()


def test_a_domain_comes_back_from_its_file(tmp_path: Path, rng: np.random.Generator) -> None:
    domain = Domain.of([take_fingerprint(make_head(rng, size)) for size in (0.8, 1.2)])
    (tmp_path / DOMAIN).write_text(domain.as_json(), encoding="utf-8")
    again = load_domain(tmp_path)
    assert again is not None
    assert again.scans == 2
    for name, ends in domain.ranges.items():
        assert again.ranges[name] == pytest.approx(ends, abs=1e-4)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"scans": 1, "ranges": {"noise": 3}}', '{"scans": 1, "ranges": []}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / DOMAIN).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="Copy the model again"):
        load_domain(tmp_path)


def test_a_model_without_ranges_has_no_domain(tmp_path: Path) -> None:
    assert load_domain(tmp_path) is None


@pytest.mark.skipif("mri" not in list_models(), reason="no model is shipped")
def test_the_shipped_model_knows_its_domain() -> None:
    domain = load_domain(find_model("mri"))
    assert domain is not None
    assert set(domain.ranges) == set(MEANINGS)
    assert all(low < high for low, high in domain.ranges.values())


@pytest.mark.data
@pytest.mark.skipif("mri" not in list_models(), reason="no model is shipped")
def test_heads_are_inside_of_the_shipped_domain_and_a_chest_is_not(data: Path) -> None:
    domain = load_domain(find_model("mri"))
    assert domain is not None
    for name in ("val/sub-openmscs26_FLAIR", "thick/sub-openmslong04_ses-1_T1w"):
        assert domain.outside(take_fingerprint(read_volume(data / f"{name}.nii.gz")[0])) == ()
    chest = read_volume(data / "val" / "sub-lidc0314_CT.nii.gz")[0]
    assert domain.outside(take_fingerprint(Volume(chest.array + 1024.0, chest.grid, "mr")))
