from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medld.errors import ConfigError
from medld.evaluation.protocol import FOLDER, ProtocolConfig, list_protocols, load_protocol


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


def test_every_protocol_file_says_what_it_is() -> None:
    for path in FOLDER.glob("*.yaml"):
        assert path.read_text().startswith("# ")


def _mine(**settings: Any) -> ProtocolConfig:
    return ProtocolConfig(name="mine", axes="through-plane", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "ratio or slice_thickness_mm"),
        ({"ratio": 4, "slice_thickness_mm": 4}, "ratio or slice_thickness_mm"),
        ({"ratio": 4, "gap_mm": 1}, "gap_mm"),
        ({"slice_thickness_mm": 4, "thickness": 0.8}, "thickness"),
        ({"slice_thickness_mm": 4, "gap_mm": -4}, "gap_mm"),
        ({"ratio": 2, "profile": "sinc"}, "told"),
        ({"ratio": 2, "profile": "sinc", "thickness": 0.5, "told": {"profile": "box"}}, "told"),
        ({"ratio": 2, "told": {"profile": "sinc"}}, "profile"),
        ({"ratio": 2, "crop": "none"}, "crop"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _mine(**settings)


def test_a_restoration_is_told_what_the_slices_are() -> None:
    assert load_protocol("through-plane-4x").told_thickness_mm(4.0) is None
    assert load_protocol("through-plane-5mm-gap").told_thickness_mm(4.9) == 4
    assert _mine(ratio=4, thickness=0.75).told_thickness_mm(4.0) == pytest.approx(3)
    assert _mine(ratio=4, profile="slr").told_profile == "slr"


def test_a_restoration_can_be_told_wrong() -> None:
    protocol = _mine(ratio=4, thickness=1, told={"profile": "box", "thickness": 1.25})
    assert (protocol.profile, protocol.told_profile, protocol.told_thickness_mm(4.0)) == ("gaussian", "box", 5)


def test_the_gap_counts_for_the_ratio() -> None:
    assert load_protocol("through-plane-5mm-gap").ratio_on(1.0) == 5
    assert load_protocol("through-plane-5mm-gap").ratio_on(0.8) == pytest.approx(6.25)
    assert load_protocol("through-plane-5mm-gap").thickness_in(5.0) == pytest.approx(0.8)


def test_the_protocols_of_the_evaluation_ship() -> None:
    through = {f"through-plane-{name}" for name in ("2x", "3x", "3.5x", "4x", "5x", "6x", "8x", "5mm-gap")}
    noise = {f"through-plane-4x-noise{percent}" for percent in (1, 2, 3)}
    noise |= {f"{name}-noise2" for name in ("through-plane-2x", "through-plane-6x", "isotropic-2x")}
    coarse = {"isotropic-2x", "isotropic-4x", "kspace-2x", "blockmean-2x"}
    assert through | noise | coarse | {"through-plane-4x-lesions"} == set(list_protocols())
