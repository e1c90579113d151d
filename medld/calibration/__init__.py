"""Calibration: how far the values of a restoration are from the truth, as intervals that keep a promise.

evidence     what is known without the truth, and its features      scale       how large an error is to be expected
conformal    subjects' scores to a factor; what is promised          schema      JSON beside the weights
gather       scores of held-out subjects to a calibration            apply       half-width, trusted voxels
coverage     what it is worth where the truth is known               rings       hallucination check after sFRC

Arrays and numbers come in, so that whoever restores (`superres`, an evaluation, another tool) can be calibrated.
"""

from __future__ import annotations

from medld.calibration.apply import HalfWidth, Trust, agreement_limit, find_trust, half_width, local_contrast
from medld.calibration.conformal import LEVEL, LEVELS, factors_of, find_factor
from medld.calibration.coverage import Case, Row, Scores, covered_shares, judge, leave_one_out, score
from medld.calibration.evidence import Evidence
from medld.calibration.gather import gather_bins
from medld.calibration.rings import agreement, ring_correlation
from medld.calibration.scale import Sample, ScaleConfig, draw_sample, fit_scale, scale_map
from medld.calibration.schema import (
    BinConfig,
    CalibrationConfig,
    ModeConfig,
    SubjectConfig,
    read_calibration,
    write_calibration,
)

__all__ = [
    "LEVEL",
    "LEVELS",
    "BinConfig",
    "CalibrationConfig",
    "Case",
    "Evidence",
    "HalfWidth",
    "ModeConfig",
    "Row",
    "Sample",
    "ScaleConfig",
    "Scores",
    "SubjectConfig",
    "Trust",
    "agreement",
    "agreement_limit",
    "covered_shares",
    "draw_sample",
    "factors_of",
    "find_factor",
    "find_trust",
    "fit_scale",
    "gather_bins",
    "half_width",
    "judge",
    "leave_one_out",
    "local_contrast",
    "read_calibration",
    "ring_correlation",
    "scale_map",
    "score",
    "write_calibration",
]
