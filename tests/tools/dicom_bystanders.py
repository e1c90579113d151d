"""Bystanders: files that are no scans. Alone they are refused, beside a scan passed over. Row 18."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dicom_factory as factory
import numpy as np
from dicom_factory import edit, make_series
from dicom_makers import Maker
from pydicom import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    MediaStorageDirectoryStorage,
    RTStructureSetStorage,
)


def text(folder: Path) -> Path:
    """a readme."""
    (folder / "README.txt").write_text("DICM is not all that a DICOM file needs\n" * 20)
    return folder / "README.txt"


def zero_bytes(folder: Path) -> Path:
    """nothing."""
    (folder / "empty.dcm").write_bytes(b"")
    return folder / "empty.dcm"


def magic_only(folder: Path) -> Path:
    """a preamble, and then text."""
    (folder / "magic.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"but nothing that follows\n" * 10)
    return folder / "magic.dcm"


def noise(folder: Path) -> Path:
    """random bytes."""
    (folder / "noise.dcm").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder / "noise.dcm"


def a_pdf(folder: Path) -> Path:
    """a PDF, not even in DICOM."""
    (folder / "report.pdf").write_bytes(b"%PDF-1.4\n" + b"1 0 obj\n" * 50)
    return folder / "report.pdf"


def without_image(sop_class: str, modality: str, name: str, **values: Any) -> Maker:
    """an object without pixels."""

    def make(folder: Path) -> Path:
        path = make_series(folder / "tmp", slices=1, series=9)[0]

        def change(dataset: Any, index: int) -> None:
            dataset.SOPClassUID, dataset.Modality = sop_class, modality
            for keyword in ("Rows", "Columns", "PixelData", "BitsAllocated", "ImagePositionPatient"):
                delattr(dataset, keyword)
            for keyword, value in values.items():
                setattr(dataset, keyword, value)

        edit([path], change)
        path.rename(folder / name)
        (folder / "tmp").rmdir()
        return folder / name

    return make


def dicomdir(folder: Path) -> Path:
    """the table of contents of a disc, with a reference that leads out of it."""
    record = Dataset()
    with factory.unvalidated():
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = ["..", "..", "etc", "passwd"]
    maker = without_image(MediaStorageDirectoryStorage, "OT", "DICOMDIR", DirectoryRecordSequence=[record])
    return maker(folder)


SKIPPED: dict[str, Maker] = {
    "text": text,
    "zero bytes": zero_bytes,
    "magic only": magic_only,
    "noise": noise,
    "PDF": a_pdf,
    "DICOMDIR": dicomdir,
    "encapsulated PDF": without_image(EncapsulatedPDFStorage, "DOC", "doc.dcm", EncapsulatedDocument=b"%PDF-1.4 "),
    "structured report": without_image(BasicTextSRStorage, "SR", "sr.dcm", ValueType="CONTAINER"),
    "contours": without_image(RTStructureSetStorage, "RTSTRUCT", "rt.dcm", StructureSetLabel="A"),
}
