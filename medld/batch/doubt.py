"""Doubt: how far the values of one restoration can be trusted.

Where the model was calibrated for what it is asked, the half-width of intervals that hold 90 % of a typical subject's
voxels, the ends of these intervals, and the mask of `medld.calibration`. Of samples their mean and standard deviation,
which promise nothing; the deviation is also the uncertainty where there is no calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

__all__ = ["Doubt", "DoubtSource", "VoxelMap", "find_source"]

Array = NDArray[Any]

PROMISE = (
    "in a typical subject like those of the calibration this share of the foreground lies within output +- half-width; "
    "a single voxel or lesion is promised nothing"
)
DEVIATION = "standard deviation"
PERCENT = f"{100 * LEVEL:.0f}"
INTERVAL = f"calibrated {PERCENT}% interval"


@dataclass(frozen=True, eq=False)
class VoxelMap:
    """Scanner units, on the grid of the result; `code` and `meaning` say what of, and `rests_on` is the SHA-256 of the
    calibration, empty without one."""

    volume: Volume
    code: str
    meaning: str
    rests_on: str = ""


@dataclass(frozen=True, eq=False)
class Doubt:
    """What is written about one restoration.

    Args:
        maps: By kind, as in `Job.maps`; there may be more of them than are asked for.
        trusted: 1 where to trust, else 0; None where it was not asked for.
        record: For the sidecar.
        warnings: Sentences for the report.
    """

    maps: Mapping[str, VoxelMap]
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

    @property
    def asked_for(self) -> str:
        """The options that ask for doubts."""
        return _asked_for(self.settings)

    def check(self, scan: Volume) -> None:
        """Before the long work. Raises: ConfigError, if the model will have no part in the result."""
        if scan.modality not in (*self.model.networks.modalities, "unknown"):
            raise ConfigError(
                f"{self.asked_for}: {self.model.name} was not trained for {scan.modality.upper()}, so it draws "
                "no samples of it and nothing is known of its errors there; leave them out, or name another --model"
            )

    def judge(self, prepared: Prepared, restoration: Restoration, output: Volume) -> Doubt:
        """The doubts about `output`, the restoration as it is stored."""
        maps = _maps_of_samples(restoration)
        record: dict[str, Any] = {"samples": _describe_samples(self.settings)} if maps else {}
        if not _asks_for_width(self.settings):
            return Doubt(maps, None, record, ())
        if self.mode is None:
            kind = f"{DEVIATION} over samples, not calibrated"
            record["uncertainty"] = {"kind": kind, "samples": self.settings.samples}
            return Doubt({**maps, "uncertainty": maps["std"]}, None, record, ())
        scan, spread = prepared.volume, restoration.spread
        acquisition = prepared.request.acquisition(scan.grid)
        drawn = spread.array if spread is not None and self.mode.is_sampled else None
        evidence = Evidence.of(scan, output.array, acquisition, restoration.noise, drawn)
        found = half_width(evidence, self.mode, scan.contrast)
        record["uncertainty"] = _describe(found, self.mode, self.cohort, self.sha256)
        trusted = None
        if self.settings.trust is not None:
            trust = find_trust(evidence, found)
            trusted = output.with_array(trust.trusted.astype(np.float32))
            record["trust"] = _describe_trust(trust, output)
        words = f"half-width of the {INTERVAL}"
        maps["uncertainty"] = VoxelMap(output.with_array(found.array), f"hw{PERCENT}", words, self.sha256)
        if self.settings.interval:
            maps |= _ends_of_interval(output, found.array, self.sha256, signed=bool(scan.array.min() < 0))
        return Doubt(maps, trusted, record, (*found.warnings, *self._warn()))

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
    option = _asked_for(settings)
    if not option:
        return None
    if model is None:
        raise ConfigError(f"{option} needs a model; name one with --model, or leave it out")
    draws = settings.samples > 1
    if draws and model.networks.denoiser is None:
        raise ConfigError(
            f"--samples: {model.name} holds no diffusion part, so it draws none; leave it out, or name another --model"
        )
    mode, cohort, sha256 = _find_mode(settings, model, draws=draws)
    if mode is None and (settings.trust is not None or settings.interval or not draws):
        raise ConfigError(
            f"{option}: {model.name} was not calibrated for what is asked; leave it out, take --mode fidelity, or "
            "calibrate it (pipelines/calibrate.py). Models that draw samples also give their --uncertainty with "
            "--mode detail --samples 8"
        )
    return DoubtSource(settings, model, mode, cohort, sha256)


def _asks_for_width(settings: EnhanceSettings) -> bool:
    """Whether anything is asked for that rests on the width of intervals."""
    return settings.uncertainty is not None or settings.trust is not None or settings.interval


def _asked_for(settings: EnhanceSettings) -> str:
    """The options that ask for doubts, empty if none does."""
    asked = {
        "--uncertainty": settings.uncertainty is not None,
        "--trust": settings.trust is not None,
        "--interval": settings.interval,
        "--samples": settings.samples > 1,
    }
    return ", ".join(option for option, wanted in asked.items() if wanted)


def _maps_of_samples(restoration: Restoration) -> dict[str, VoxelMap]:
    """Mean and deviation of the samples, if there are any."""
    if restoration.mean is None or restoration.spread is None:
        return {}
    return {
        "mean": VoxelMap(restoration.mean, "mean", "mean over samples"),
        "std": VoxelMap(restoration.spread, "sd", DEVIATION),
    }


def _ends_of_interval(output: Volume, width: Array, rests_on: str, *, signed: bool) -> dict[str, VoxelMap]:
    """Both ends of the interval; none lies below 0 of a scan that is not `signed`, unless the output does."""
    lower, upper = output.array - width, output.array + width
    if not signed:
        lower = np.maximum(lower, np.minimum(output.array, 0))
    return {
        "lower": VoxelMap(output.with_array(lower), f"lower{PERCENT}", f"lower end of the {INTERVAL}", rests_on),
        "upper": VoxelMap(output.with_array(upper), f"upper{PERCENT}", f"upper end of the {INTERVAL}", rests_on),
    }


def _find_mode(settings: EnhanceSettings, model: Model, *, draws: bool) -> tuple[ModeConfig | None, str, str]:
    """What was calibrated of what is asked, on whose scans, and the hash of the calibration."""
    calibration = None if model.folder is None else read_calibration(model.folder, model.sha256)
    if calibration is None or model.folder is None:
        return None, "", ""
    realism, steps = model.networks.position(settings.mode, settings.realism, settings.steps)
    mode = calibration.find_mode(realism, steps, sampled=draws)
    return mode, calibration.cohort, file_sha256(model.folder / FILE)


def _describe_samples(settings: EnhanceSettings) -> dict[str, Any]:
    """The samples for the sidecar."""
    return {
        "number": settings.samples,
        "seeds": [settings.seed, settings.seed + settings.samples - 1],
        "meaning": "sample d is what --realism 1 gives with seed + d; mean and standard deviation promise nothing",
    }


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
