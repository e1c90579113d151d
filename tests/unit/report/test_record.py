"""Records are JSON for every parser."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from medld.geometry import Grid
from medld.report import (
    describe_file,
    describe_grid,
    describe_versions,
    measure_peak_gib,
    write_json,
)


def test_write_json_takes_numpy_and_nulls_what_is_not_finite(tmp_path: Path) -> None:
    record = {
        "a": np.float32(0.5),
        "b": (np.int64(1), float("nan")),
        "c": {"d": np.inf, "e": Path("/ward/jane.nii")},
        "f": "Überschrift",
        "g": np.bool_(True),
    }
    write_json(tmp_path / "r.json", record)
    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    back = json.loads(text)
    assert back == {
        "a": 0.5,
        "b": [1, None],
        "c": {"d": None, "e": "jane.nii"},
        "f": "Überschrift",
        "g": True,
    }
    assert text.endswith("}\n")


def test_describe_file_hashes_the_bytes_and_drops_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"medld" * 1000)
    assert describe_file(path) == {"file": "x.bin", "sha256": hashlib.sha256(b"medld" * 1000).hexdigest()}


def test_describe_grid_is_complete(oblique: Grid) -> None:
    plain = json.loads(json.dumps(describe_grid(oblique)))
    assert Grid(tuple(plain["shape"]), np.array(plain["affine"])).is_close(oblique, 0.0)
    assert plain["spacing_mm"] == pytest.approx(oblique.spacing, abs=1e-6)
    assert plain["orientation"] == oblique.orientation


def test_versions_name_what_values_depend_on() -> None:
    assert {"medld", "torch", "numpy"} <= describe_versions().keys()


def test_peak_memory_is_that_of_a_program_with_numpy() -> None:
    peak = measure_peak_gib()
    assert peak is not None
    assert 0.01 < peak < 1e3
