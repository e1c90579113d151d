"""Calibrated: whether the half-widths that a model promises hold on the scans of an evaluation.

    covered_foreground, covered_boundary    share whose truth lies within output +- half-width, 0.9 as calibrated;
                                            the boundary is the steepest tenth of the foreground
    covered_lesions                         the same in the lesions that the protocol put in
    half_width                              mean over the foreground, in parts of the scan's brightest tissue

A scan that took part in the calibration is judged by the factor that the other subjects give. Models without a
calibration for their mode have no such columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medld.calibration import Evidence, ModeConfig, covered_shares, half_width, read_calibration
from medld.calibration.schema import FILE
from medld.checkpoint import Model
from medld.evaluation.simulate import Simulated
from medld.io import file_sha256
from medld.metrics import Reference
from medld.superres import Request, Restoration

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Promise:
    """An output with what its half-widths rest on."""

    evidence: Evidence
    mode: ModeConfig

    def half_width(self, made: Simulated, scan_sha256: str) -> Array | None:
        """Of every voxel, in scanner units; None where nobody but the scan's own subject was calibrated.

        Args:
            made: What was restored.
            scan_sha256: Of the file that the truth comes from.
        """
        if not any(scan_sha256[:12] not in subject.scans for one in self.mode.bins for subject in one.subjects):
            return None
        return half_width(self.evidence, self.mode, made.scan.contrast, left_out=scan_sha256).array

    def judge(self, reference: Reference, made: Simulated, width: Array) -> dict[str, float]:
        """The columns.

        Args:
            reference: The truth.
            made: What was restored.
            width: As `half_width` gives it.
        """
        truth, inside = made.truth.array, reference.foreground
        lesions = made.phantom.lesion_map > 0 if made.phantom else None
        shares = covered_shares(truth, self.evidence.output, width, inside, lesions)
        mean = float(np.mean(width[inside], dtype=np.float64)) / self.evidence.unit
        return {**{f"covered_{region}": share for region, share in shares.items()}, "half_width": mean}


def find_mode(model: Model, mode: str) -> ModeConfig | None:
    """The calibration of a model's mode without samples, None if there is none.

    Raises:
        CheckpointError: It is damaged, or belongs to other weights.
    """
    calibration = None if model.folder is None else read_calibration(model.folder, model.sha256)
    return None if calibration is None else calibration.find_mode(*model.networks.position(mode), sampled=False)


def hash_of(model: Model) -> dict[str, str]:
    """What the columns rest on, for the record; empty without a calibration."""
    path = None if model.folder is None else model.folder / FILE
    return {"calibration_sha256": file_sha256(path)} if path is not None and path.is_file() else {}


def promise_of(
    calibrated: ModeConfig | None, made: Simulated, request: Request, restoration: Restoration
) -> Promise | None:
    """What is promised of one restoration; None without a calibration, and where the networks had no part."""
    if calibrated is None or restoration.method.startswith("baseline"):
        return None
    acquisition = request.acquisition(made.scan.grid)
    return Promise(Evidence.of(made.scan, restoration.volume.array, acquisition, restoration.noise), calibrated)
