"""EnhanceSettings: everything `medld enhance` can be told, checked once; Outcome: what became of an input.

Settings hold no path of an input, so that they can be written into the record of every volume.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from medld.errors import ConfigError

__all__ = ["BASELINE", "CHOICES", "DEFAULT_MODEL", "EnhanceSettings", "Outcome", "label"]

DEFAULT_MODEL = "mri"
BASELINE = "baseline"
"""As a model's name: no model, but the baseline B (spline and gated projection)."""

CHOICES: dict[str, tuple[str, ...]] = {
    "modality": ("auto", "mr", "ct"),
    "consistency": ("auto", "exact", "gated", "off"),
    "slice_profile": ("gaussian", "box", "slr", "auto"),
    "mode": ("fidelity", "balanced", "detail"),
    "format": ("auto", "dicom", "nifti"),
}
"""Options with named choices; the first is the default."""

FLIPS = (1, 2, 4, 8)
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
NOT_SETTINGS = ("output", "report", "preview", "uncertainty", "trust", "interval", "overwrite", "format", "series")
"""Where files go says nothing about what is in them; a path, or a series' description, may hold a name."""


@dataclass(frozen=True)
class EnhanceSettings:
    """Options of one `medld enhance`.

    Args:
        output: Output file for one input file, else a folder; None writes beside each input.
        modality: "auto", "mr" or "ct".
        consistency: "auto", "exact", "gated" or "off".
        spacing: Target spacing in mm, one value or three in the order of the array axes.
        factor: How many times finer the slice axis is to be; not together with `spacing`.
        slice_thickness: FWHM of the slice profile (mm); None takes the sidecar's, else the spacing.
        slice_profile: "gaussian", "box", "slr", or "auto": told from the voxels, as is a thickness that nobody states.
        mode: "fidelity", "balanced" or "detail".
        realism: 0 (the posterior mean) to 1 (a full sample); None takes the mode's.
        steps: Sampler steps; None takes the mode's.
        flips: Mirrored copies of the scan (1, 2, 4 or 8) whose answers are averaged.
        samples: Samples drawn besides; from 2 on their mean and standard deviation are written beside the output.
        uncertainty: File (one input), or suffix behind "desc-sr" (several), of the calibrated half-width or, without a
            calibration, the standard deviation over samples.
        trust: File (one input), or suffix behind "desc-sr" (several), of the mask of voxels to trust.
        interval: Write the lower and the upper end of the calibrated interval beside the output.
        adapt_steps: Steps for which the one-step network is tuned on each scan; 0 leaves it as it is.
        seed: Of the sampler's noise, and of what a scan teaches.
        device: "auto", "cpu", "cuda" or "cuda:1".
        threads: CPU threads; None leaves the choice to torch.
        memory_gib: Most memory a restoration may need (GiB); None takes 80 % of the machine's.
        model: Name of a shipped model, a model folder, or "baseline".
        report: File that gets a copy of the record (several inputs: one document on all of them).
        preview: PNG file (one input), or suffix behind "desc-sr" (several), of a before/after picture.
        overwrite: Replace outputs that exist; an input is never replaced.
        force: Take label maps for scans; keep the model where the scope check would not.
        series: Of a DICOM input: number, UID, pattern of the description, or "all"; None takes the only one.
        format: "auto" (DICOM for DICOM, else the scan's own), "dicom" or "nifti".

    Raises:
        ConfigError: If a value is out of its range or two options contradict one another.
    """

    output: Path | None = None
    modality: str = "auto"
    consistency: str = "auto"
    spacing: tuple[float, ...] | None = None
    factor: float | None = None
    slice_thickness: float | None = None
    slice_profile: str = "gaussian"
    mode: str = "fidelity"
    realism: float | None = None
    steps: int | None = None
    flips: int = 1
    samples: int = 1
    uncertainty: str | None = None
    trust: str | None = None
    adapt_steps: int = 0
    interval: bool = False
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    memory_gib: float | None = None
    model: str = DEFAULT_MODEL
    report: Path | None = None
    preview: str | None = None
    overwrite: bool = False
    force: bool = False
    series: str | None = None
    format: str = "auto"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ConfigError(f"--{_dashed(name)}: expected one of {', '.join(choices)}, got {value}")
        if not DEVICE.fullmatch(self.device):
            raise ConfigError(f"--device: expected auto, cpu, cuda or cuda:1, got {self.device}")
        self._check_numbers()
        self._check_samples()
        self._check_adaptation()

    def _check_numbers(self) -> None:
        """Refuse numbers outside their range."""
        for name in ("factor", "slice_thickness", "memory_gib"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise ConfigError(f"--{_dashed(name)}: expected a positive number, got {value:g}")
        for name in ("steps", "samples", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name}: expected a whole number of at least 1, got {value}")
        if self.flips not in FLIPS:
            raise ConfigError(f"--flips: expected one of {', '.join(map(str, FLIPS))}, got {self.flips}")
        if self.adapt_steps < 0:
            raise ConfigError(f"--adapt-steps: expected a whole number of at least 0, got {self.adapt_steps}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"--seed: expected a whole number from 0 to 2^63 - 1, got {self.seed}")
        if self.realism is not None and not 0 <= self.realism <= 1:
            raise ConfigError(f"--realism: expected a number from 0 to 1, got {self.realism:g}")
        if self.spacing is not None:
            if len(self.spacing) not in (1, 3) or not all(isfinite(s) and s > 0 for s in self.spacing):
                values = " ".join(f"{s:g}" for s in self.spacing)
                raise ConfigError(f"--spacing: expected one or three positive spacings in mm, got {values}")
            if self.factor is not None:
                raise ConfigError("expected --spacing or --factor, got both; leave one of them out")

    def _check_samples(self) -> None:
        """Refuse samples where the answer is none."""
        deterministic = self.mode == "fidelity" if self.realism is None else self.realism == 0
        if self.samples > 1 and deterministic:
            raise ConfigError("--samples: the answer of fidelity is no sample; leave it out, or add --mode detail")

    def _check_adaptation(self) -> None:
        """Refuse to tune what is not there, or what something was measured of."""
        if self.adapt_steps and self.model == BASELINE:
            raise ConfigError(f"--adapt-steps tunes a network and {BASELINE} has none; leave one of them out")
        if self.adapt_steps and (self.interval or self.uncertainty is not None or self.trust is not None):
            raise ConfigError(
                "--adapt-steps: nothing is known of a tuned network's errors; leave out --uncertainty, --interval and "
                "--trust"
            )

    def as_record(self) -> dict[str, Any]:
        """The settings as plain JSON values, without the paths of outputs."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NOT_SETTINGS}
        # A model folder's path may hold a user's name; its weights are known by their sha256.
        return plain | {"model": Path(self.model).name, "spacing": self.spacing and list(self.spacing)}


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Args:
        path: The input, as the caller named it or as it was met in a folder.
        status: "done"; "planned" (a dry run); "skipped" (met in a folder, not a scan to restore);
            "refused" (the input's or the caller's fault); "failed" (ours, or the machine's).
        code: Reason code, empty when done or planned.
        reason: One sentence.
        output: The file that was written or would be.
        record: Content of the sidecar, None unless done.
        part: Which part of the input, if it is DICOM; such an input's own path may name a patient
            and stays out of reports.
        files: Names without meaning of the skipped files that this is about.
    """

    path: Path
    status: Literal["done", "planned", "skipped", "refused", "failed"]
    code: str = ""
    reason: str = ""
    output: Path | None = None
    record: Mapping[str, Any] | None = None
    part: str = ""
    files: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What a person at the terminal calls it."""
        return label(self.path, self.part)


def label(path: Path, part: str) -> str:
    """An input, or a part of it, as it is printed."""
    return f"{path} ({part})" if part else str(path)


def _dashed(name: str) -> str:
    """The option that sets a field."""
    return {"memory_gib": "memory"}.get(name, name).replace("_", "-")
