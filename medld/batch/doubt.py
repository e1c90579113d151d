"""Doubt: how far the values of one restoration can be trusted, for `--uncertainty` and `--trust`.

Where the model was calibrated for what it is asked, the half-width of intervals that hold 90 % of a typical subject's
voxels, and the mask of `medld.calibration`; else the standard deviation over samples, which promises nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medld.batch.prepare import Prepared
from medld.batch.settings import EnhanceSettings
from medld.calibration import (
    LEVEL,
    Evidence,
    HalfWidth,
    ModeConfig,
    Trust,
    find_trust,
    half_width,
    read_calibration,
)
from medld.calibration.coverage import DISAGREEING
from medld.calibration.schema import FILE
from medld.checkpoint import Model
from medld.errors import ConfigError
from medld.io import file_sha256
from medld.metrics import find_foreground
from medld.superres import Restoration
from medld.volume import Volume

__all__ = ["Doubt", "DoubtSource", "find_source"]

PROMISE = (
    "in a typical subject like those of the calibration this share of the foreground lies within output +- half-width; "
    "a single voxel or lesion is promised nothing"
)
DEVIATION = ("sd", "standard deviation")


@dataclass(frozen=True, eq=False)
class Doubt:
    """What is written about one restoration.

    Args:
        uncertainty: Half-width or standard deviation, scanner units, on the grid of the result.
        meaning: Which of them: a short code, and words.
        rests_on: SHA-256 of the calibration, empty without one.
        trusted: 1 where to trust, else 0; None where it was not asked for.
        record: For the sidecar.
        warnings: Sentences for the report.
    """

    uncertainty: Volume
    meaning: tuple[str, str]
    rests_on: str
    trusted: Volume | None
    record: Mapping[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DoubtSource:
    """What doubts rest on: the mode of a calibration, whose scans it saw and the hash of its file, or samples alone
    (mode None)."""

    settings: EnhanceSettings
    model: Model
    mode: ModeConfig | None
    cohort: str
    sha256: str

    def check(self, scan: Volume) -> None:
        """Before the long work. Raises: ConfigError, if the model will have no part in the result."""
        if scan.modality not in (*self.model.networks.modalities, "unknown"):
            raise ConfigError(
                f"--uncertainty, --trust: {self.model.name} was not trained for {scan.modality.upper()}, so it draws "
                "no samples of it and nothing is known of its errors there; leave them out, or name another --model"
            )

    def judge(self, prepared: Prepared, restoration: Restoration, output: Volume) -> Doubt:
        """The doubts about `output`, the restoration as it is stored."""
        if self.mode is None:
            assert restoration.spread is not None, "checked before the model was used"
            record = {"kind": DEVIATION[1] + " over samples, not calibrated", "samples": self.settings.samples}
            return Doubt(restoration.spread, DEVIATION, "", None, {"uncertainty": record}, ())
        scan, spread = prepared.volume, restoration.spread
        acquisition = prepared.request.acquisition(scan.grid)
        drawn = spread.array if spread is not None and self.mode.is_sampled else None
        evidence = Evidence.of(scan, output.array, acquisition, restoration.noise, drawn)
        found = half_width(evidence, self.mode, scan.contrast)
        record = {"uncertainty": _describe(found, self.mode, self.cohort, self.sha256)}
        trusted = None
        if self.settings.trust is not None:
            trust = find_trust(evidence, found)
            trusted = output.with_array(trust.trusted.astype(np.float32))
            record["trust"] = _describe_trust(trust, output)
        meaning = (f"hw{100 * LEVEL:.0f}", f"half-width of the calibrated {LEVEL:.0%} interval")
        warnings = (*found.warnings, *self._warn())
        return Doubt(output.with_array(found.array), meaning, self.sha256, trusted, record, warnings)

    def _warn(self) -> tuple[str, ...]:
        """What the samples have to do with it."""
        assert self.mode is not None
        drawn, known = self.settings.samples, self.mode.samples
        if drawn == known:
            return ()
        if known == 1:
            return ("the half-width was calibrated without samples: those of --samples have no part in it",)
        return (f"the half-width was calibrated with {known} samples, {drawn} were drawn: use --samples {known}",)


def find_source(settings: EnhanceSettings, model: Model | None) -> DoubtSource | None:
    """What doubts rest on; None if nobody asked.

    Raises:
        ConfigError: There is neither a calibration for what is asked nor samples that differ.
        CheckpointError: The calibration is damaged or of other weights.
    """
    option = "--trust" if settings.trust is not None else "--uncertainty"
    if settings.uncertainty is None and settings.trust is None:
        return None
    if model is None:
        raise ConfigError(f"{option} needs a model; name one with --model, or leave it out")
    draws = settings.samples > 1 and model.networks.denoiser is not None
    mode, cohort, sha256 = _find_mode(settings, model, draws=draws)
    if mode is None and (settings.trust is not None or not draws):
        raise ConfigError(
            f"{option}: {model.name} was not calibrated for what is asked; leave it out, take --mode fidelity, or "
            "calibrate it (pipelines/calibrate.py). Models that draw samples also give their --uncertainty with "
            "--mode detail --samples 8"
        )
    return DoubtSource(settings, model, mode, cohort, sha256)


def _find_mode(settings: EnhanceSettings, model: Model, *, draws: bool) -> tuple[ModeConfig | None, str, str]:
    """What was calibrated of what is asked, on whose scans, and the hash of the calibration."""
    calibration = None if model.folder is None else read_calibration(model.folder, model.sha256)
    if calibration is None or model.folder is None:
        return None, "", ""
    realism, steps = model.networks.position(settings.mode, settings.realism, settings.steps)
    mode = calibration.find_mode(realism, steps, sampled=draws)
    return mode, calibration.cohort, file_sha256(model.folder / FILE)


def _describe(found: HalfWidth, mode: ModeConfig, cohort: str, sha256: str) -> dict[str, Any]:
    """The half-width for the sidecar."""
    low, high = found.bin.ratios
    return {
        "kind": "half-width of a calibrated interval",
        "level": LEVEL,
        "promise": PROMISE,
        "unit": "the scan's",
        "calibrated_on": cohort,
        "calibration_sha256": sha256,
        "samples": mode.samples,
        "factor": found.factor,
        "bin": {
            "axes": found.bin.axes,
            "ratio_from": low,
            "ratio_to": high,
            "contrast": found.bin.contrast,
            "subjects": len(found.bin.subjects),
        },
        "warnings": list(found.warnings),
    }


def _describe_trust(trust: Trust, output: Volume) -> dict[str, Any]:
    """The mask for the sidecar: shares of the foreground."""
    inside = find_foreground(output.array)
    return {
        "values": {"0": "not to trust", "1": "details agree with the scan and stand out from their half-width"},
        "trusted_share": float(np.mean(trust.trusted[inside])),
        "disagreeing_share": float(np.mean(trust.disagreeing[inside])),
        "disagreeing_share_of_truths": DISAGREEING,
    }
