"""Derivation: what was done to a series, and the texts and codes that say so in the result's headers."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydicom import Dataset

import medld

__all__ = ["MANUFACTURER", "Derivation", "code", "contribution", "describe", "name_series", "plain"]

MANUFACTURER = "medld"  # what a reader looks for to know an output of ours
MAX_ST, MAX_LO = 1024, 64  # characters, PS3.5 6.2
NOTICE = "AI generated; not for diagnostic use"


@dataclass(frozen=True, eq=False)
class Derivation:
    """How a result came about.

    Args:
        model: The model's name.
        model_sha256: File of the model -> SHA-256, hexadecimal.
        settings: How it was used; plain values.
        spacing_from: mm between the slices of the source.
        spacing_to: mm between the slices of the result.
        when: When it was made, from the record of the job. Without it no clock is read and the
            source's dates stay, so that the same job writes the same bytes.
        series_number: Series Number of the result; None makes it of the source's.
        prefix: Text before the result's Series Description ("RESEARCH ").
    """

    model: str
    model_sha256: Mapping[str, str]
    settings: Mapping[str, Any]
    spacing_from: float
    spacing_to: float
    when: datetime | None = None
    series_number: int | None = None
    prefix: str = field(default="")


def plain(text: str, limit: int) -> str:
    """Text for any element of any character set: printable ASCII in one line, no backslash."""
    allowed = set(string.printable) - set("\\\t\n\r\v\f")
    return " ".join("".join(c if c in allowed else " " for c in text).split())[:limit].strip()


def describe(derivation: Derivation) -> str:
    """Derivation Description (0008,2111), at most 1024 characters."""
    hashes = "; ".join(f"{name} sha256 {digest}" for name, digest in sorted(derivation.model_sha256.items()))
    end = f"; slice spacing {derivation.spacing_from:.4g} -> {derivation.spacing_to:.4g} mm. {NOTICE}"
    start = f"{MANUFACTURER} {medld.__version__}; model {plain(derivation.model, MAX_LO)}; {hashes}"
    return plain(start, MAX_ST - len(end)) + end


def name_series(source: str, note: str, derivation: Derivation) -> str:
    """Series Description (0008,103E): the source's, cut to make room, then what tells volumes apart and what we did.

    Args:
        source: The source's description in one line; what an archive's display rules look for at its beginning.
        note: `Series.note`.
        derivation: Says the spacing.
    """
    end = f" {MANUFACTURER} SR {round(derivation.spacing_to, 2)}mm"
    if note:
        end = f" {plain(note, MAX_LO // 2)}{end}"
    start = plain(derivation.prefix, MAX_LO // 4)
    start = f"{start} {source}" if start else source
    return (start[: MAX_LO - len(end)].rstrip() + end).strip()


def code(value: str, meaning: str) -> Dataset:
    """An item of a code sequence, scheme DCM, PS3.16 D."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def contribution(derivation: Derivation) -> Dataset:
    """Our item of the Contributing Equipment Sequence (0018,A001)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code("109102", "Processing Equipment")]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = plain(derivation.model, MAX_LO) or MANUFACTURER
    item.SoftwareVersions = medld.__version__
    if derivation.when is not None:
        item.ContributionDateTime = _datetime(derivation.when)
    settings = json.dumps(dict(derivation.settings), sort_keys=True, default=str)
    item.ContributionDescription = plain(f"{NOTICE}. Settings: {settings}", MAX_ST)
    return item


def _datetime(when: datetime) -> str:
    """A moment as DT, with its offset where it has one."""
    text = when.strftime("%Y%m%d%H%M%S.%f")
    return text + when.strftime("%z")[:5]
