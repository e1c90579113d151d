"""Lesions that a protocol puts into a truth, and what a table says of outputs that keep, erase or invent them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fine_scans import make_volume, save_scan
from scipy.ndimage import gaussian_filter

from medld.errors import InputError
from medld.evaluation import evaluate, load_protocol
from medld.evaluation.figures import choose_metrics, reimage
from medld.evaluation.phantom import put_lesions
from medld.evaluation.protocol import LesionsConfig, ProtocolConfig
from medld.evaluation.simulate import Simulated, image
from medld.io import read_volume
from medld.metrics import Lesion

SHAPE = (72, 68, 64)
FEW = LesionsConfig(diameters_mm=(3.0, 5.0))
PROTOCOL = ProtocolConfig(name="few", axes="through-plane", ratio=2, lesions=FEW)
ERASED, INVENTED, CONTRAST = "lesions_wrong_erased", "lesions_wrong_invented", "lesions_kept_contrast"


def _tissue(seed: int = 0) -> np.ndarray:
    """A box of two tissues with a faint texture in them, in air."""
    texture = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 1.5)
    inside = slice(3, -3)
    array = np.zeros(SHAPE, dtype=np.float32)
    array[inside, inside, inside] = (500 + 100 * texture)[inside, inside, inside]
    array[36:-3, inside, inside] += 400
    return array


@pytest.fixture(scope="module")
def made() -> Simulated:
    return image(make_volume(_tissue()), PROTOCOL, "sub-01_T1w.nii.gz")


def test_every_kind_is_put_in_once_and_has_a_control_of_its_shape(made: Simulated) -> None:
    assert made.phantom is not None
    kinds = {(lesion.diameter, lesion.length > 0, lesion.contrast > 0) for lesion in made.phantom.lesions}
    assert (len(made.phantom.lesions), len(kinds), FEW.count) == (8, 8, 8)
    assert made.phantom.diameters == (5.0,) * 4 + (3.0,) * 4
    for number in range(1, 9):
        sizes = [(numbers == number).sum() for numbers in (made.phantom.lesion_map, made.phantom.control_map)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.25)  # the same shape, turned, on another part of the grid


def test_controls_and_all_that_is_not_a_lesion_are_left_alone(made: Simulated) -> None:
    assert made.phantom is not None
    before, after = _tissue(), made.truth.array
    assert (before != after)[made.phantom.lesion_map > 0].all()
    np.testing.assert_array_equal(before[made.phantom.control_map > 0], after[made.phantom.control_map > 0])
    assert (before != after).mean() < 0.05


def test_the_scan_is_an_image_of_the_truth_with_its_lesions(made: Simulated) -> None:
    np.testing.assert_array_equal(reimage(made.truth.array, made, PROTOCOL), made.scan.array)


def test_places_hang_on_name_and_seed_alone() -> None:
    volume = make_volume(_tissue())

    def places(config: LesionsConfig, key: str) -> tuple[Lesion, ...]:
        return put_lesions(volume, config, key)[1].lesions

    assert places(FEW, "a") == places(FEW, "a")
    assert places(FEW, "a") != places(FEW, "b")
    assert places(FEW, "a") != places(FEW.model_copy(update={"seed": 1}), "a")


def test_a_truth_without_room_is_refused() -> None:
    small = make_volume(_tissue()[:24, :24, :24])
    with pytest.raises(InputError, match="room for the lesions"):
        put_lesions(small, LesionsConfig(), "a")


def test_the_shipped_phantom_is_what_its_file_says() -> None:
    protocol = load_protocol("through-plane-4x-lesions")
    assert protocol.lesions is not None
    assert (protocol.lesions.count, protocol.lesions.diameters_mm) == (20, (2, 3, 4, 6, 8))
    plain = load_protocol("through-plane-4x")
    assert plain.lesions is None
    assert protocol.model_copy(update={"name": plain.name, "lesions": None}) == plain


@pytest.mark.parametrize("wrong", [{"diameters_mm": []}, {"diameters_mm": [0.0]}, {"contrast": 0}, {"copies": 0}])
def test_lesions_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LesionsConfig(**wrong)


def test_lesion_metrics_are_meant_wherever_there_are_lesions() -> None:
    asked = choose_metrics(["residual"], ("lesions", "diameters", "controls"))
    assert [metric.name for metric in asked] == ["residual", "lesions_kept", "lesions_wrong"]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One scan with lesions and without, B, and tools that are right, blind, or see lesions at every control."""
    folder = tmp_path_factory.mktemp("phantom")
    save_scan(folder / "fine" / "sub-01_T1w.nii.gz", np.round(_tissue()).astype(np.int16))
    (folder / "few.yaml").write_text(
        "name: few\naxes: through-plane\nratio: 2\nlesions:\n  diameters_mm: [3, 5]\n  contrast: 0.3\n"
    )
    volume = read_volume(folder / "fine" / "sub-01_T1w.nii.gz")[0]
    made = image(volume, load_protocol(str(folder / "few.yaml")), "sub-01_T1w.nii.gz")
    assert made.phantom is not None
    seeing = made.truth.array.copy()
    for number, lesion in enumerate(made.phantom.lesions, start=1):
        seeing[made.phantom.control_map == number] += lesion.contrast
    for name, array in {"right": made.truth.array, "blind": volume.array, "seeing": seeing}.items():
        save_scan(folder / name / "few" / "sub-01_T1w.nii.gz", array, made.truth.grid.affine)
    evaluate(
        folder / "fine",
        [str(folder / "few.yaml"), "through-plane-2x"],
        folder / "out",
        model="baseline",
        baselines=["linear", "B"],
        others={name: folder / name for name in ("right", "blind", "seeing")},
        device="cpu",
    )
    found: dict[str, Any] = json.loads((folder / "out" / "results.json").read_text())
    return found


def _rows(record: dict[str, Any], protocol: str) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in record["subjects"] if row["protocol"] == protocol}


def test_kept_erased_and_invented_lesions_are_told_apart(record: dict[str, Any]) -> None:
    rows = _rows(record, "few")
    assert {name: (row[ERASED], row[INVENTED]) for name, row in rows.items() if name not in ("linear", "B")} == {
        "right": (0, 0),
        "blind": (8, 0),
        "seeing": (0, 8),
    }
    assert rows["right"][CONTRAST] == pytest.approx(1)
    assert rows["right"]["lesions_kept_size"] == 1
    assert abs(rows["blind"][CONTRAST]) < 0.2
    assert "lesions_kept_size" not in rows["blind"]
    assert rows["linear"][CONTRAST] < rows["B"][CONTRAST] < 1
    assert rows["B"]["lesions_kept_contrast_3mm"] < rows["B"]["lesions_kept_contrast_5mm"]


def test_protocols_without_lesions_get_no_lesion_columns(record: dict[str, Any]) -> None:
    assert not any("lesions" in column for row in _rows(record, "through-plane-2x").values() for column in row)
    assert {"lesions_kept", "lesions_wrong"} <= {metric["name"] for metric in record["metrics"]}
    assert record["protocols"][0]["lesions"]["diameters_mm"] == [3, 5]
    assert record["protocols"][1]["lesions"] is None


def test_means_and_differences_of_lesions_are_in_the_summary(record: dict[str, Any]) -> None:
    blind = next(line for line in record["summary"] if (line["protocol"], line["method"]) == ("few", "blind"))
    assert blind["statistics"][ERASED]["value"]["mean"] == 8
    assert blind["statistics"][ERASED]["difference"]["mean"] > 0
