"""Tags of a derived image: what is dropped, what is the same in a whole series, what a slice's place says.

The rest is the source's, copied: patient, study, frame of reference, scanner, acquisition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage

from medld.geometry import Grid
from medld.io.dicom.copying import (
    copy_header,
    encodings_of,
    format_ds,
    put,
    raw_sequence,
    same_in_bytes,
    text_of,
)
from medld.io.dicom.derivation import MAX_ST, Derivation, code, contribution, describe, name_series
from medld.io.dicom.headers import numbers_of, value_of
from medld.io.dicom.series import Frame, Series
from medld.io.dicom.uids import hash_to_uid

__all__ = [
    "DROPPED",
    "RAS_TO_LPS",
    "copied_items",
    "derive_number",
    "frame_of_reference",
    "mark_lossy",
    "place_slice",
    "set_dates",
    "source_items",
    "tag_series",
]

RAS_TO_LPS = np.array((-1.0, -1.0, 1.0))
MAX_IS = 2**31 - 1
SAME_SPACING = 0.01  # relative; a slice axis changed by less was not touched

# Statements about pixels, neighbours or signatures that are not true of the result.
DROPPED = frozenset(
    Tag(keyword)
    for keyword in (
        *("SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries"),
        *("LargestPixelValueInSeries", "SmallestImagePixelValueInPlane", "LargestImagePixelValueInPlane"),
        *("SmallestValidPixelValue", "LargestValidPixelValue", "PixelAspectRatio", "PlanarConfiguration"),
        *("ModalityLUTSequence", "VOILUTSequence", "RealWorldValueMappingSequence", "IconImageSequence"),
        *("PresentationLUTShape", "PresentationLUTSequence", "NumberOfFrames", "FrameIncrementPointer"),
        *("ReferencedImageSequence", "ReferencedInstanceSequence", "ReferencedPerformedProcedureStepSequence"),
        *("RequestAttributesSequence", "OriginalAttributesSequence", "EncryptedAttributesSequence"),
        *("DigitalSignaturesSequence", "MACParametersSequence", "ConversionSourceAttributesSequence"),
        *("SourceImageEvidenceSequence", "SourceImageSequence", "AcquisitionMatrix", "TemporalPositionIdentifier"),
        *("NumberOfTemporalPositions", "TemporalResolution", "ImagesInAcquisition", "StackID", "ImageComments"),
        *("InStackPositionNumber", "SliceLocation", "ImagePosition", "ImageOrientation", "Location"),
        *("LUTLabel", "RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped", "RealWorldValueLUTData"),
        *("RealWorldValueIntercept", "RealWorldValueSlope"),
        *("InstanceCreatorUID", "PixelPaddingValue", "PixelPaddingRangeLimit", "FloatPixelPaddingValue"),
        *("DoubleFloatPixelPaddingValue", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    )
)

# Transfer syntaxes that lose something -> Lossy Image Compression Method, PS3.3 C.7.6.1.1.5.1. Those of
# the second table may be lossless too: there a header that says so is believed, and silence is not.
_LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}
_PERHAPS_LOSSY = {"1.2.840.10008.1.2.4.91": "ISO_15444_1", "1.2.840.10008.1.2.4.203": "ISO_15444_15"}


def tag_series(header: Dataset, series: Series, series_uid: str, derivation: Derivation) -> None:
    """Set what is the same in every slice of a result.

    Args:
        header: A copied classic header of the source, changed in place.
        series: The source.
        series_uid: The result's.
        derivation: What was done.
    """
    encodings = encodings_of(header)
    is_ct = header["SOPClassUID"].value == CTImageStorage
    put(header, "ImageType", ["DERIVED", "SECONDARY", "AXIAL" if is_ct else "OTHER"])
    put(header, "SeriesInstanceUID", series_uid)
    put(header, "SeriesNumber", derive_number(series, derivation, 1))
    put(header, "FrameOfReferenceUID", frame_of_reference(series))
    if "PositionReferenceIndicator" not in header:
        put(header, "PositionReferenceIndicator", None)
    source = text_of(series.head, "SeriesDescription")
    name = name_series(source, series.note, derivation)
    put(
        header,
        "SeriesDescription",
        name if same_in_bytes(name, encodings) else name_series("", series.note, derivation),
    )
    put(header, "DerivationDescription", _describe(series, derivation, encodings))
    header[Tag("DerivationCodeSequence")] = raw_sequence(
        "DerivationCodeSequence",
        [*copied_items(series.head, "DerivationCodeSequence"), code("113085", "Spatial resampling")],
        encodings,
    )
    header[Tag("ContributingEquipmentSequence")] = raw_sequence(
        "ContributingEquipmentSequence",
        [*copied_items(series.head, "ContributingEquipmentSequence"), contribution(derivation)],
        encodings,
    )
    header[Tag("SourceImageSequence")] = raw_sequence("SourceImageSequence", source_items(series.frames), encodings)
    burned_in = {str(value_of(head, "BurnedInAnnotation", "")) for head in _heads(series)}
    put(header, "BurnedInAnnotation", "YES" if "YES" in burned_in else "NO")
    mark_lossy(header, series)
    if derivation.when is not None:
        set_dates(header, derivation.when)


def place_slice(header: Dataset, grid: Grid, series: Series, k: int) -> None:
    """Set what the place of slice k says, PS3.3 C.7.6.2.1.1; what the grid says goes before the source's tags."""
    i, j, between = grid.spacing
    direction = grid.direction * RAS_TO_LPS[:, None]
    position = (grid.affine @ (0, 0, k, 1))[:3] * RAS_TO_LPS
    put(header, "ImageOrientationPatient", [format_ds(value) for value in (*direction[:, 0], *direction[:, 1])])
    put(header, "ImagePositionPatient", [format_ds(value) for value in position])
    put(header, "PixelSpacing", [format_ds(j), format_ds(i)])
    assert series.grid is not None
    untouched = abs(between / series.grid.spacing[2] - 1) < SAME_SPACING
    if not untouched or value_of(header, "SliceThickness") is None:
        put(header, "SliceThickness", format_ds(series.slice_thickness or between if untouched else between))
    put(header, "SpacingBetweenSlices", format_ds(between))
    put(header, "Columns", grid.shape[0])
    put(header, "Rows", grid.shape[1])


def derive_number(series: Series, derivation: Derivation, offset: int) -> int:
    """Series Number of a result: the source's times 100 plus an offset, or that of the derivation."""
    if derivation.series_number is not None:
        return derivation.series_number + offset - 1
    found = numbers_of(series.head, "SeriesNumber", 1)
    number = int(found[0]) if found else 0
    return max(1, min(number * 100 + offset, MAX_IS))


def frame_of_reference(series: Series) -> str:
    """The source's Frame of Reference UID; where it has none, one that its results share."""
    return str(value_of(series.head, "FrameOfReferenceUID", "")) or hash_to_uid("frame of reference", series.uid)


def set_dates(header: Dataset, when: datetime) -> None:
    """Date and time of series, content and instance; those of the acquisition stay."""
    for keyword in ("Series", "Content", "InstanceCreation"):
        put(header, f"{keyword}Date", when.strftime("%Y%m%d"))
        put(header, f"{keyword}Time", when.strftime("%H%M%S.%f"))


def _heads(series: Series) -> list[Dataset]:
    """The headers of a series, each once."""
    return list({id(frame.head): frame.head for frame in series.frames}.values())


def copied_items(head: Dataset, keyword: str) -> list[Dataset]:
    """Copies of the items of a source's sequence, of public elements."""
    if keyword not in head:
        return []
    encodings = encodings_of(head)
    holder = Dataset(parent_encoding=encodings)
    holder[Tag(keyword)] = head[keyword]
    return list(copy_header(holder, encodings=encodings)[keyword].value or ())


def _describe(series: Series, derivation: Derivation, encodings: list[str]) -> str:
    """What we did, then what had been done to the source, as far as both fit."""
    ours, before = describe(derivation), text_of(series.head, "DerivationDescription")
    both = f"{ours}; source: {before}"[:MAX_ST].rstrip()
    return both if before and same_in_bytes(both, encodings) else ours


def source_items(frames: Sequence[Frame]) -> Iterator[Dataset]:
    """Items of the Source Image Sequence: every source instance, with frame numbers where it holds several."""
    used: dict[str, tuple[str, list[int]]] = {}
    for frame in frames:
        uid, kind = str(frame.head.SOPInstanceUID), str(frame.head.SOPClassUID)
        used.setdefault(uid, (kind, []))[1].append(frame.index + 1)
    multi = {str(frame.head.SOPInstanceUID) for frame in frames if int(value_of(frame.head, "NumberOfFrames", 1)) > 1}
    for uid, (kind, numbers) in used.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, uid
        if uid in multi:
            item.ReferencedFrameNumber = sorted(numbers)
        item.PurposeOfReferenceCodeSequence = [code("121322", "Source image for image processing operation")]
        yield item


def mark_lossy(header: Dataset, series: Series) -> None:
    """Lossy once is lossy for ever: flag, ratio and method of whichever source has them."""
    for head in _heads(series):
        meta = getattr(head, "file_meta", None) or Dataset()
        syntax, flag = str(meta.get("TransferSyntaxUID", "")), str(value_of(head, "LossyImageCompression", ""))
        method = _LOSSY.get(syntax) or (_PERHAPS_LOSSY.get(syntax) if flag != "00" else None)
        if flag != "01" and method is None:
            continue
        source = copy_header(head)
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in source:
                header[Tag(keyword)] = source.get_item(Tag(keyword))
        if method is not None and "LossyImageCompressionMethod" not in header:
            put(header, "LossyImageCompressionMethod", method)
        put(header, "LossyImageCompression", "01")
        return
