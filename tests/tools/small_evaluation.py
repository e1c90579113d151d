"""A small evaluation: what its results.json holds, and sketches of its scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medld.geometry import Grid
from medld.report import EvaluationReport, Sketcher, SketchStore
from medld.volume import Volume

PROTOCOL = "through-plane-4x"
GAINS = {"sub-01": 0.25, "sub-02": -0.5, "sub-03": 1.75, "sub-04": 1.0, "sub-05": 0.875, "sub-06": 2.125}
METHODS = ("cubic", "B", "medld")


def statistic(mean: float, spread: float = 0.125, p: float | None = 0.03125) -> dict[str, Any]:
    """A figure with its interval and difference."""
    interval = {"low": mean - spread, "high": mean + spread}
    return {
        "value": {"subjects": len(GAINS), "mean": mean, "sd": spread, **interval},
        "difference": {"mean": mean / 8, **interval, "p": p},
    }


def row(subject: str, method: str, gain: float) -> dict[str, Any]:
    """A line of subjects.csv."""
    return {
        "protocol": PROTOCOL,
        "group": "T1w",
        "subject": subject,
        "file": f"{subject}_T1w.nii.gz",
        "sha256": "ab" * 32,
        "shape": "24x20x40",
        "ratio": 4.0,
        "method": method,
        "how": "",
        "psnr": 30.0 + gain,
        "ssim": 0.9 + gain / 100,
        "detail_share": 0.5,
        "gain": gain,
        "ssim_gain": gain / 100,
    }


def line(method: str, gain: float) -> dict[str, Any]:
    """A line of the table."""
    figures = {"psnr": statistic(30.0 + gain), "ssim": statistic(0.9), "nrmse_euclidean": statistic(0.0625)}
    if method == "B":
        figures = {name: {**found, "difference": None} for name, found in figures.items()}
    return {
        "protocol": PROTOCOL,
        "group": "T1w",
        "method": method,
        "scans": len(GAINS),
        "subjects": len(GAINS),
        "psnr": 30.0 + gain,
        "ssim": 0.9,
        "detail_share": 0.5123456789,
        "gain": gain,
        "lowest_gain": gain - 0.5,
        "ssim_gain": gain / 100,
        "lowest_ssim_gain": gain / 200,
        "statistics": figures,
        "note": "",
    }


def make_results() -> dict[str, Any]:
    """What results.json holds: six scans, one protocol, three methods."""
    rows = [row(subject, method, gain) for subject, own in GAINS.items() for method, gain in _gains(own)]
    mean = sum(GAINS.values()) / len(GAINS)
    estimate = {"subjects": 3, "mean": 30.4375, "sd": 0.5, "low": None, "high": None}
    subgroup = {
        "protocol": PROTOCOL,
        "group": "T1w",
        "factor": "sex",
        "level": "F",
        "method": "medld",
        "scans": 3,
        "subjects": 3,
        "values": {"psnr": estimate, "ssim": estimate, "gain": {**estimate, "mean": 0.4375}, "ssim_gain": estimate},
        "difference": {"gain": {"mean": -0.6875, "low": None, "high": None, "p": None}},
        "note": "3 subjects (fewer than 5): too small to say anything",
    }
    return {
        "medld": "0.1.0",
        "versions": {"numpy": "2.4.6"},
        "model": {"name": "mri", "sha256": {"one_step.safetensors": "cd" * 32}},
        "models": [{"method": "medld", "name": "mri", "sha256": {"one_step.safetensors": "cd" * 32}}],
        "device": "cpu",
        "precision": "float32",
        "settings": {"mode": "fidelity", "against": "B", "seed": 0, "limit": None},
        "protocols": [{"name": PROTOCOL, "axes": "through-plane", "ratio": 4.0, "noise": 0.0, "told": None}],
        "methods": list(METHODS),
        "metrics": [{"name": "nrmse", "unit": "", "better": "lower", "meaning": "RMS error over RMS"}],
        "definitions": {"mean": "over subjects", "interval": "bootstrap", "p": "Wilcoxon"},
        "summary": [line(method, gain) for method, gain in _gains(mean)],
        "subgroups": [subgroup],
        "warnings": ["T1w, sex F: 3 subjects (fewer than 5): too small to say anything"],
        "subjects": rows,
        "skipped": [
            {"protocol": PROTOCOL, "file": "sub-09_T1w.nii.gz", "code": "E_NOT_IMAGE", "reason": "not a scan at all"}
        ],
    }


def _gains(own: float) -> list[tuple[str, float]]:
    return [("cubic", -1.0), ("B", 0.0), ("medld", own)]


def sketch_all(results: dict[str, Any], folder: Path) -> SketchStore:
    """A sketch of every scan, of noise: the model's error is half of B's, and it is unsure where it errs."""
    store = SketchStore((folder,))
    for place, one in enumerate(dict.fromkeys(line["file"] for line in results["subjects"])):
        rng = np.random.default_rng(place)
        array = rng.random((24, 20, 40)).astype(np.float32) * 100 + 10
        sketcher = Sketcher(Volume(array, Grid((24, 20, 40), np.diag([1, 1, 1.5, 1]))), PROTOCOL, one, 2, 4.0)
        error = rng.standard_normal(array.shape).astype(np.float32)
        sketcher.add("cubic", array + 3 * error, pictured=False)
        sketcher.add("B", array + 2 * error)
        sketcher.add("medld", array + error, spread=np.abs(error))
        store.save(sketcher.finish())
    return store


def make_evaluation(folder: Path) -> EvaluationReport:
    """All that a report shows; its sketches lie in `folder`."""
    results = make_results()
    return EvaluationReport(results, ("medld",), sketch_all(results, folder))
