"""Acquisition: what a header says about how its frames were made, in our words.

Values are never passed on as text: words come from lists of ours, so that nothing which a file
claims reaches a message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom import Dataset

from medld.io.dicom.derivation import MANUFACTURER
from medld.io.dicom.frames import Kind, attribute_of
from medld.io.dicom.series import Frame
from medld.io.dicom.values import items_of, numbers_of, value_of, words_of
from medld.io.formats import is_own_description
from medld.volume import Contrast, Modality

__all__ = [
    "describe",
    "guess_contrast",
    "guess_modality",
    "is_own_output",
    "is_processed",
    "is_reformat",
    "slice_thickness",
]

_IMAGED = {
    "M": "magnitude",
    "P": "phase",
    "R": "real part",
    "I": "imaginary part",
    "B0": "field map",
    "PHASE MAP": "phase",
    "B0 MAP": "field map",
    "FFE": "gradient echo",
    "M_FFE": "magnitude",
    "P_FFE": "phase",
    "R_FFE": "real part",
    "I_FFE": "imaginary part",
    "M_SE": "magnitude",
    "M_IR": "magnitude",
    "WATER": "water",
    "W": "water",
    "FAT": "fat",
    "F": "fat",
    "IN_PHASE": "in phase",
    "IP": "in phase",
    "OUT_PHASE": "out of phase",
    "OP": "out of phase",
    "OPP_PHASE": "out of phase",
    "ADC": "ADC",
    "FA": "FA",
    "TRACEW": "trace",
    "DIFFUSION": "diffusion",
    "NORM": "normalised",
    "DIS2D": "distortion corrected",
    "DIS3D": "distortion corrected",
    "ND": "not distortion corrected",
    "MEAN": "mean",
    "SUB": "subtraction",
    "T1 MAP": "T1 map",
    "T2 MAP": "T2 map",
    "T2_STAR MAP": "T2* map",
}
_NETWORK = frozenset({"DRS", "DRB", "DRG"})  # Siemens Deep Resolve: sharp, boost, gain
_NETWORK_NAME = re.compile(
    r"deep ?resolve|deep ?learning|deep ?neural|neural net|air ?recon|\baice\b|subtle ?(mr|hd|pet|medical)"
    r"|smart ?speed ai|precise ?image|super.?resolution|artificial intelligence|\bai\b",
    re.IGNORECASE,
)


def guess_modality(head: Dataset) -> Modality:
    """By Modality (0008,0060)."""
    known: dict[str, Modality] = {"MR": "mr", "CT": "ct"}
    return known.get(str(value_of(head, "Modality", "")).strip().upper(), "unknown")


def guess_contrast(frame: Frame) -> Contrast:
    """MR contrast by the tags of the acquisition; "unknown" wherever they do not say it clearly.

    Enhanced objects state Acquisition Contrast (0008,9209). Of classic ones, spin echo, inversion-prepared and spoiled
    2D gradient echo are told by their times; echo-planar and steady-state are not.
    """
    if guess_modality(frame.head) != "mr":
        return "unknown"
    stated = str(attribute_of(frame, "MRImageFrameTypeSequence", "AcquisitionContrast") or "").upper()
    component = str(attribute_of(frame, "MRImageFrameTypeSequence", "ComplexImageComponent") or "MAGNITUDE").upper()
    if component != "MAGNITUDE" or "P" in words_of(frame.head, "ImageType"):
        return "unknown"
    named: dict[str, Contrast] = {"T1": "T1w", "T2": "T2w", "FLUID_ATTENUATED": "FLAIR"}
    found = named.get(stated) or _contrast_by_times(frame.head)
    with_agent = value_of(frame.head, "ContrastBolusAgent") or value_of(frame.head, "ContrastBolusAgentSequence")
    return "ce-T1w" if found == "T1w" and with_agent else found


def _contrast_by_times(head: Dataset) -> Contrast:
    """Contrast by echo, repetition and inversion time (ms) of a classic header."""
    sequence = words_of(head, "ScanningSequence")
    echo, repetition = _milliseconds(head, "EchoTime"), _milliseconds(head, "RepetitionTime")
    inversion = _milliseconds(head, "InversionTime")
    if echo is None or repetition is None or "EP" in sequence:
        return "unknown"
    inverted = "IR" in sequence or bool(inversion)
    if "GR" in sequence:
        # MPRAGE and its kin, and FLASH in 2D beyond the Ernst angle of white matter, 44 degrees at .3 s.
        prepared = inverted and (inversion is None or 500 <= inversion <= 1500)
        spoiled = not inverted and "SP" in words_of(head, "SequenceVariant") and 100 <= repetition <= 400
        flip = numbers_of(head, "FlipAngle", 1)
        return "T1w" if echo < 10 and (prepared or (spoiled and flip and flip[0] >= 50)) else "unknown"
    if "SE" not in sequence:
        return "unknown"
    if inverted:
        return "FLAIR" if inversion is not None and 1500 <= inversion <= 3000 and echo >= 60 else "unknown"
    if echo >= 60 and repetition >= 1500:
        return "T2w"
    return "T1w" if echo <= 30 and repetition <= 1000 else "unknown"


def slice_thickness(frame: Frame) -> float | None:
    """Slice Thickness (0018,0050) of a frame, mm; None if absent or not positive."""
    value = attribute_of(frame, "PixelMeasuresSequence", "SliceThickness")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < 1e3 else None


def describe(kind: Kind, others: Sequence[Kind]) -> str:
    """What tells a volume from the others of its series: "echo 2.46 ms, phase"."""
    parts = []
    if kind.echo_time and len({other.echo_time for other in others}) > 1:
        parts.append(f"echo {kind.echo_time:g} ms")
    shared = set.intersection(*(set(other.image_type) for other in others)) if others else set()
    for word in kind.image_type:
        if word not in shared and word in _IMAGED and _IMAGED[word] not in parts:
            parts.append(_IMAGED[word])
    return ", ".join(parts)


def is_own_output(head: Dataset) -> bool:
    """Whether a header says that we made the images."""
    if is_own_description(str(value_of(head, "DerivationDescription", ""))):
        return True
    equipment = items_of(head, "ContributingEquipmentSequence")
    return any(str(value_of(item, "Manufacturer", "")).strip().lower() == MANUFACTURER for item in equipment)


def is_reformat(head: Dataset) -> bool:
    """Whether a header says that the slices were cut anew (multi-planar) out of another series."""
    words = words_of(head, "ImageType")
    return words[:1] == ("DERIVED",) and any("MPR" in word for word in words[2:])


def is_processed(head: Dataset) -> bool:
    """Whether a header says that a network has already worked on the images."""
    if _NETWORK & set(words_of(head, "ImageType")):
        return True
    texts = [value_of(head, "DerivationDescription", "")]
    for item in items_of(head, "ContributingEquipmentSequence"):
        texts += [
            value_of(item, key, "") for key in ("Manufacturer", "ManufacturerModelName", "ContributionDescription")
        ]
    return any(_NETWORK_NAME.search(str(text)) for text in texts)


def _milliseconds(head: Dataset, keyword: str) -> float | None:
    """A time of the sequence, None if it is not stated."""
    numbers = numbers_of(head, keyword, 1)
    return numbers[0] if numbers else None
