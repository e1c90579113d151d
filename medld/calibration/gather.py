"""Gather: from the scores of held-out subjects to the calibration of a mode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medld.calibration.conformal import factors_of
from medld.calibration.coverage import FOREGROUND, Scores, by_subject
from medld.calibration.schema import SCAN_DIGITS, BinConfig, SubjectConfig
from medld.errors import CohortError

FEWEST = 5
"""Subjects of a bin: with five the third largest of their factors is taken, with fewer the middle is left to chance."""


def gather_bins(scores: Sequence[Scores]) -> tuple[BinConfig, ...]:
    """The bins that have enough subjects: one for each contrast, and one for all where there are several.

    Args:
        scores: Of held-out subjects; a subject's scans in one bin count as one.

    Raises:
        CohortError: No bin has enough subjects.
    """
    bins = []
    for key in sorted({one.bin for one in scores}):
        inside = [one for one in scores if one.bin == key]
        contrasts: list[str | None] = [*sorted({one.case.contrast for one in inside})]
        for contrast in contrasts if len(contrasts) == 1 else [*contrasts, None]:
            group = by_subject([one for one in inside if contrast in (one.case.contrast, None)])
            if len(group) >= FEWEST:
                axes, low, high = key
                subjects = tuple(_subject(parts) for parts in group.values())
                bins.append(BinConfig(axes=axes, low=low, high=high, contrast=contrast, subjects=subjects))
    if not bins:
        most = max((len(by_subject([o for o in scores if o.bin == key])) for key in {o.bin for o in scores}), default=0)
        raise CohortError(
            f"Expected at least {FEWEST} held-out subjects in a bin of ratios, got {most}. Add scans of other subjects."
        )
    return tuple(bins)


def _subject(parts: Sequence[Scores]) -> SubjectConfig:
    return SubjectConfig(
        scans=tuple(dict.fromkeys(one.case.scan[:SCAN_DIGITS] for one in parts)),
        ratios=tuple(sorted({round(one.ratio, 4) for one in parts})),
        factors=tuple(map(_rounded_up, factors_of([one.regions[FOREGROUND] for one in parts]))),
        agreement=round(float(np.mean([one.agreement for one in parts])), 6),
    )


def _rounded_up(factor: float) -> float:
    """Six digits, so that a file is short; never less than it was."""
    return float(f"{factor * (1 + 1e-5):.6g}")
