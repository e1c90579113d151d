"""Headers: everything that an object says before its pixels, and whether they can be used.

    read_head       one object's header, or the reason why it cannot be used
    examine         the same for a folder: a header that is refused still says to which series it belongs

Nothing is decoded here, and nothing of a size that the header claims is allocated.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO, cast

from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medld.errors import InputError
from medld.io.dicom.files import open_source
from medld.io.dicom.privacy import quiet
from medld.io.dicom.scan import scan_header
from medld.io.dicom.series import Refusal, Source
from medld.io.dicom.soundness import BoundedStream, check_object
from medld.io.dicom.values import is_uid, numbers_of, value_of
from medld.io.files import MAX_VOXELS

__all__ = ["IMAGE_CLASSES", "MULTI_FRAME_CLASSES", "Head", "examine", "is_uid", "numbers_of", "read_head", "value_of"]

MAX_PRIVATE_BYTES = 64 * 2**10  # larger private values (raw data, spectra, icons) are not kept

MULTI_FRAME_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    }
)
IMAGE_CLASSES = MULTI_FRAME_CLASSES | {
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
}
_CAPTURE_CLASSES = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture and its multi-frame kinds begin so
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_DEFLATED = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True, eq=False)
class Head:
    """What is known of an object from its header.

    Args:
        dataset: The header; None if nothing of it can be trusted.
        refusal: Why the object cannot be used, None if it can.
    """

    dataset: Dataset | None
    refusal: Refusal | None


@quiet()
def read_head(source: Source, *, max_voxels: int = MAX_VOXELS) -> Dataset:
    """Read an object's header, all but its pixels, and check that they can be read.

    Args:
        source: Where the object is.
        max_voxels: Most voxels of one object.

    Returns:
        The header; its file meta information names the transfer syntax, guessed where the file
        does not say it. Holds patient data.

    Raises:
        InputError: E_NOT_IMAGE, E_TRUNC, E_TOO_BIG, E_BAD_ID, E_CHARSET, E_PIXELS or E_CODEC.
    """
    head = examine(source, max_voxels=max_voxels)
    if head.refusal is not None:
        raise InputError(head.refusal.reason, head.refusal.code)
    assert head.dataset is not None
    return head.dataset


@quiet()
def examine(source: Source, *, max_voxels: int = MAX_VOXELS) -> Head:
    """Read an object's header as far as it goes; what is wrong with it is said, not raised."""
    dataset: Dataset | None = None
    try:
        with open_source(source) as opened:
            size = opened.getbuffer().nbytes if isinstance(opened, io.BytesIO) else source.size
            stream = BoundedStream(opened, size)
            dataset = _parse(stream)
            _check_class(dataset)
            check_object(dataset, stream, max_voxels)
    except InputError as error:
        return Head(dataset, Refusal(error.code, str(error)))
    except OSError:
        return Head(dataset, Refusal("E_TRUNC", "the file cannot be read to its end; copy it again"))
    return Head(dataset, None)


def _check_meta(stream: BoundedStream) -> None:
    """Refuse by the file meta information alone what must not be read further, then rewind."""
    try:
        read_preamble(cast(BinaryIO, stream), force=True)
        meta = read_dataset(cast(BinaryIO, stream), False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    except InputError:
        raise
    except Exception as error:
        raise InputError("the file begins as DICOM but its first elements are damaged", "E_NOT_IMAGE") from error
    if value_of(meta, "TransferSyntaxUID") == _DEFLATED:
        # `open_source` has inflated what it recognised; pydicom would inflate the rest without a bound.
        raise InputError("a deflated object whose first elements are cut or damaged; copy it again", "E_TRUNC")
    stated = value_of(meta, "MediaStorageSOPClassUID")
    if stated is not None:
        _refuse_class(str(stated))
    stream.seek(0)


def _parse(stream: BoundedStream) -> Dataset:
    """The header up to the pixels; the stream then stands at their element or at its end."""
    try:
        dataset = scan_header(stream)
        if dataset is None:
            _check_meta(stream)
            dataset = dcmread(cast(BinaryIO, stream), stop_before_pixels=True, force=True)
    except InputError:
        raise
    except Exception as error:
        raise InputError("the header is cut or damaged; copy the file again", "E_TRUNC") from error
    dataset.buffer = dataset.filename = None  # the stream is closed soon, and a name may be a patient's
    for tag, element in list(dataset.items()):
        raw = element.value if isinstance(element, RawDataElement) else None
        if tag.is_private and raw is not None and len(raw) > MAX_PRIVATE_BYTES:
            del dataset[tag]
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return dataset


def _check_class(dataset: Dataset) -> None:
    """Refuse what is no CT or MR image."""
    stated = value_of(dataset, "SOPClassUID")
    if stated is None:
        meta = value_of(dataset.file_meta, "MediaStorageSOPClassUID")
        if meta is None:
            raise InputError("expected a CT or MR image, the object does not say what it is", "E_NOT_IMAGE")
        raise InputError("the file ends inside its header; copy it again", "E_TRUNC")
    _refuse_class(str(stated))


def _refuse_class(uid: str) -> None:
    """Refuse by SOP class; the sentence is ours, so nothing of the file is quoted."""
    if uid in IMAGE_CLASSES:
        return
    if uid == _DIRECTORY_CLASS:
        raise InputError("a DICOMDIR, the list of a medium's files", "E_NOT_IMAGE")
    if uid == _CAPTURE_CLASSES or uid.startswith(_CAPTURE_CLASSES + "."):
        raise InputError("a secondary capture: a picture of a screen, not a scan", "E_NOT_IMAGE")
    raise InputError("expected a CT or MR image, got an object of another kind", "E_NOT_IMAGE")
