"""The calibration that ships: it belongs to the weights, and holds on a scan that took part in neither."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medld.calibration import (
    Evidence,
    HalfWidth,
    ModeConfig,
    agreement_limit,
    covered_shares,
    find_trust,
    half_width,
    read_calibration,
)
from medld.checkpoint import load_model
from medld.evaluation import load_protocol
from medld.evaluation.methods import request_for
from medld.evaluation.simulate import image
from medld.io import file_sha256, read_volume
from medld.metrics import find_foreground
from medld.superres import Mode, SuperResolver
from medld.volume import Volume

CROP = 64
SAMPLES = {"fidelity": 1, "detail": 8}
"""Samples drawn in a mode where its intervals are calibrated."""


@pytest.fixture(scope="module", params=SAMPLES)
def name(request: pytest.FixtureRequest) -> Mode:
    """A mode that is calibrated."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def mode(name: Mode) -> ModeConfig:
    """Its calibration in the shipped model."""
    model = load_model()
    assert model.folder is not None
    calibration = read_calibration(model.folder, model.sha256)
    assert calibration is not None
    found = calibration.find_mode(*model.networks.position(name), sampled=SAMPLES[name] > 1)
    assert found is not None
    assert found.samples == SAMPLES[name]
    return found


def test_it_knows_every_ratio_of_thick_slices_and_coarse_voxels_at_2x(mode: ModeConfig) -> None:
    ratios = {(one.axes, round(ratio)) for one in mode.bins for ratio in one.ratios}
    assert ratios >= {(1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (1, 8), (3, 2)}
    assert all(len(one.subjects) >= 6 for one in mode.bins)
    assert all(0 < agreement_limit(one.subjects) < 1 for one in mode.bins)


def middle_of(path: Path) -> Volume:
    """The middle of a scan."""
    return read_volume(path)[0].middle((CROP,) * 3)


@pytest.mark.data
def test_most_of_a_held_out_head_is_covered_and_an_invented_structure_is_caught(
    data: Path, name: Mode, mode: ModeConfig
) -> None:
    path = data / "val" / "sub-ds002748s60_T1w.nii.gz"
    made = image(middle_of(path), protocol := load_protocol("through-plane-4x"), path.name)
    request = replace(request_for(made, protocol), mode=name, samples=SAMPLES[name])
    restored = SuperResolver(load_model(), device="cpu").restore(made.scan, request)
    acquisition = request.acquisition(made.scan.grid)
    spread = restored.spread.array if restored.spread is not None else None
    evidence = Evidence.of(made.scan, restored.volume.array, acquisition, restored.noise, spread)
    found = half_width(evidence, mode, "T1w", left_out=file_sha256(path))
    truth, inside = made.truth.array, find_foreground(made.truth.array)
    covered = covered_shares(truth, evidence.output, found.array, inside)["foreground"]
    assert 0.78 < covered < 0.98, "90 % are promised of the whole head, not of its middle"
    check_a_planted_ball(evidence, found, inside)


def check_a_planted_ball(evidence: Evidence, found: HalfWidth, inside: np.ndarray) -> None:
    """As bright as the brightest tissue, three voxels in radius."""
    honest = find_trust(evidence, found)
    assert honest.disagreeing[inside].mean() < 0.1
    places = np.stack(np.meshgrid(*3 * (np.arange(CROP) - CROP // 2,), indexing="ij"))
    ball = (np.linalg.norm(places, axis=0) <= 3).astype(np.float32)
    planted = find_trust(replace(evidence, output=evidence.output + evidence.unit * ball), found)
    assert planted.disagreeing[ball > 0].mean() > 0.9
    assert planted.trusted[ball > 0].mean() < 0.1
    far = np.abs(places).max(0) > 3 + 16
    assert np.array_equal(planted.disagreeing[far], honest.disagreeing[far])
