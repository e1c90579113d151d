"""Classic headers: one image of CT or MR Image Storage, from a classic source or a frame of an enhanced one.

Enhanced objects keep what differs between frames in functional groups, and most of it under
other names or as codes; the classic modules want the names of old. Only what the enhanced
object says is said, in classic words: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from medld.errors import InputError
from medld.io.dicom.copying import copy_header, format_ds, put
from medld.io.dicom.headers import value_of
from medld.io.dicom.series import Frame
from medld.io.dicom.tags import DROPPED

__all__ = ["classic_header"]

_CLASSIC = {
    MRImageStorage: MRImageStorage,
    CTImageStorage: CTImageStorage,
    EnhancedMRImageStorage: MRImageStorage,
    LegacyConvertedEnhancedMRImageStorage: MRImageStorage,
    EnhancedCTImageStorage: CTImageStorage,
    LegacyConvertedEnhancedCTImageStorage: CTImageStorage,
}
ENHANCED_ELEMENT = 0x9000  # from here on, attributes of the groups below belong to enhanced objects
_ENHANCED_GROUPS = frozenset((0x0008, 0x0018, 0x0020, 0x0028))
_KEPT = frozenset((Tag("DerivationCodeSequence"), Tag("SourceImageSequence")))

# Functional group, its attribute -> classic attribute of the same unit.
_RENAMED = (
    ("MRTimingAndRelatedParametersSequence", "RepetitionTime", "RepetitionTime"),
    ("MRTimingAndRelatedParametersSequence", "FlipAngle", "FlipAngle"),
    ("MRTimingAndRelatedParametersSequence", "EchoTrainLength", "EchoTrainLength"),
    ("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
    ("MRAveragesSequence", "NumberOfAverages", "NumberOfAverages"),
    ("MRImagingModifierSequence", "PixelBandwidth", "PixelBandwidth"),
    ("MRImagingModifierSequence", "TransmitterFrequency", "ImagingFrequency"),
    ("MRFOVGeometrySequence", "PercentSampling", "PercentSampling"),
    ("MRFOVGeometrySequence", "PercentPhaseFieldOfView", "PercentPhaseFieldOfView"),
    ("MRReceiveCoilSequence", "ReceiveCoilName", "ReceiveCoilName"),
    ("MRTransmitCoilSequence", "TransmitCoilName", "TransmitCoilName"),
    ("CTXRayDetailsSequence", "KVP", "KVP"),
    ("CTXRayDetailsSequence", "FilterType", "FilterType"),
    ("CTExposureSequence", "ExposureTimeInms", "ExposureTime"),
    ("CTExposureSequence", "XRayTubeCurrentInmA", "XRayTubeCurrent"),
    ("CTExposureSequence", "ExposureInmAs", "Exposure"),
    ("CTReconstructionSequence", "ConvolutionKernel", "ConvolutionKernel"),
    ("CTReconstructionSequence", "ReconstructionDiameter", "ReconstructionDiameter"),
    ("CTAcquisitionDetailsSequence", "TableHeight", "TableHeight"),
    ("CTAcquisitionDetailsSequence", "RotationDirection", "RotationDirection"),
    ("CTAcquisitionDetailsSequence", "DataCollectionDiameter", "DataCollectionDiameter"),
    ("CTAcquisitionDetailsSequence", "GantryDetectorTilt", "GantryDetectorTilt"),
    ("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber"),
    ("FrameAnatomySequence", "FrameLaterality", "ImageLaterality"),
    ("FrameAnatomySequence", "AnatomicRegionSequence", "AnatomicRegionSequence"),
    ("FrameVOILUTSequence", "WindowCenter", "WindowCenter"),
    ("FrameVOILUTSequence", "WindowWidth", "WindowWidth"),
    ("PixelMeasuresSequence", "SliceThickness", "SliceThickness"),
    ("PixelValueTransformationSequence", "RescaleType", "RescaleType"),
)
# Type 2 in the classic modules: there, and empty where nothing is known.
_PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("ReferringPhysicianName", "AccessionNumber", "Manufacturer"),
)
_EMPTY_MR = (*_PATIENT_AND_STUDY, "ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime")
_EMPTY_CT = (*_PATIENT_AND_STUDY, "KVP", "AcquisitionNumber")


def classic_header(frame: Frame) -> Dataset:
    """A copy of a frame's header as a classic image has it, without what the result says anew (`DROPPED`).

    Raises:
        InputError: E_NOT_IMAGE, if the source is no CT or MR image.
    """
    head = frame.head
    kind = str(head.get("SOPClassUID", ""))
    if kind not in _CLASSIC:
        raise InputError(
            "expected CT or MR images, got another kind of DICOM object, which cannot be written as a series; "
            "write NIfTI instead (--format nifti)",
            "E_NOT_IMAGE",
        )
    classic = _CLASSIC[kind]  # type: ignore[index]
    if classic == kind:
        header = copy_header(head, DROPPED)
    else:
        enhanced = frozenset(filter(_is_enhanced, head.keys()))
        header = copy_header(head, DROPPED | enhanced)
        _fill_from_groups(header, frame, is_mr=classic == MRImageStorage)
    put(header, "SOPClassUID", classic)
    return header


def group_item(frame: Frame, keyword: str, attribute: str) -> Dataset | None:
    """The functional group item that holds an attribute for this frame: its own before the shared one."""
    per_frame = frame.head.get("PerFrameFunctionalGroupsSequence") or ()
    shared = frame.head.get("SharedFunctionalGroupsSequence") or ()
    for groups in (*per_frame[frame.index : frame.index + 1], *shared[:1]):
        items = groups.get(keyword)
        if items and attribute in items[0]:
            return items[0]  # type: ignore[no-any-return]
    return None


def _is_enhanced(tag: int) -> bool:
    """Whether an element at the top belongs to enhanced objects alone."""
    group, element = Tag(tag).group, Tag(tag).element
    return group == 0x5200 or (group in _ENHANCED_GROUPS and element >= ENHANCED_ELEMENT and tag not in _KEPT)


def _fill_from_groups(header: Dataset, frame: Frame, *, is_mr: bool) -> None:
    """What an enhanced object says in groups and codes, in the words of a classic header."""
    for keyword, attribute, classic in _RENAMED:
        item = group_item(frame, keyword, attribute)
        if item is not None:
            _set(header, classic, value_of(copy_header(item), attribute))
    moment = str(
        value_of(frame.head, "AcquisitionDateTime")
        or _value(frame, "FrameContentSequence", "FrameAcquisitionDateTime")
        or ""
    )
    if moment[:14].isdigit() and len(moment) >= 14:
        _set(header, "AcquisitionDate", moment[:8])
        _set(header, "AcquisitionTime", moment[8:].split("+")[0].split("-")[0])
    if is_mr:
        _set(header, "ScanningSequence", list(_scanning_sequence(frame)) or ["RM"])
        _set(header, "SequenceVariant", list(_sequence_variant(frame)) or ["NONE"])
        times = _value(frame, "MRModifierSequence", "InversionTimes")
        if "IR" not in (header["ScanningSequence"].value or ()):
            header.pop(Tag("InversionTime"), None)  # some write it all the same; the classic module forbids it
        elif times is not None:
            _set(header, "InversionTime", times[0] if _is_several(times) else times)
    for keyword in _EMPTY_MR if is_mr else _EMPTY_CT:
        if keyword not in header:
            _set(header, keyword, None)
    if not any(keyword in header for keyword in ("ImageLaterality", "Laterality", "BodyPartExamined")):
        _set(header, "Laterality", None)


def _value(frame: Frame, keyword: str, attribute: str) -> Any:
    """A functional group's attribute, None if it is not there."""
    item = group_item(frame, keyword, attribute)
    return None if item is None else value_of(item, attribute)


def _set(header: Dataset, keyword: str, value: Any) -> None:
    """Set an element, numbers in the form that its classic VR wants; unknown where there is no value."""
    vr = dictionary_VR(Tag(keyword))
    try:
        if vr == "DS" and value is not None:
            value = [format_ds(v) for v in (value if _is_several(value) else [value])]
        if vr == "IS" and value is not None:
            value = round(float(value))
    except (TypeError, ValueError, OverflowError):
        return  # not a number: nothing is known
    put(header, keyword, value)


def _is_several(value: Any) -> bool:
    """Whether a DICOM value is a list of values."""
    return not isinstance(value, str | int | float)


def _scanning_sequence(frame: Frame) -> Iterator[str]:
    """Scanning Sequence (0018,0020), PS3.3 C.8.3.1.1.1."""
    pulse = str(value_of(frame.head, "EchoPulseSequence", ""))
    if pulse in ("SPIN", "BOTH"):
        yield "SE"
    if pulse in ("GRADIENT", "BOTH"):
        yield "GR"
    if str(value_of(frame.head, "EchoPlanarPulseSequence", "")) == "YES":
        yield "EP"
    if str(_value(frame, "MRModifierSequence", "InversionRecovery") or "") == "YES":
        yield "IR"


def _sequence_variant(frame: Frame) -> Iterator[str]:
    """Sequence Variant (0018,0021), PS3.3 C.8.3.1.1.1."""
    if str(value_of(frame.head, "SegmentedKSpaceTraversal", "")) in ("PARTIAL", "FULL"):
        yield "SK"
    if str(_value(frame, "MRImagingModifierSequence", "MagnetizationTransfer") or "NONE") != "NONE":
        yield "MTC"
    if str(value_of(frame.head, "SteadyStatePulseSequence", "NONE")) != "NONE":
        yield "SS"
    if str(_value(frame, "MRModifierSequence", "Spoiling") or value_of(frame.head, "Spoiling", "NONE")) != "NONE":
        yield "SP"
    if str(value_of(frame.head, "OversamplingPhase", "NONE")) != "NONE":
        yield "OSP"
