"""Damaged series, each made from a good one, and the codes of which one is the right answer.

Numbers in comments are rows of the table of bad inputs that the project keeps.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dicom_factory as factory
import numpy as np
from dicom_bombs import (
    RLE_STREAM,
    deep_sequences,
    deflate_bomb,
    pixels_replaced,
    zip_bomb,
    zip_that_claims_much,
)
from dicom_factory import UID_ROOT, edit, edit_bytes, make_series
from dicom_makers import Change, Maker, built, changed, cut, enhanced_with, good, in_syntax, tagged
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

SPACING = 4.0
MAKER = "1.2.840.10008.1.2.4."
RANDOM_STEPS = [0.0, 1.3, 4.2, 10.9, 12.0, 18.7, 21.1, 22.4, 29.3, 31.0, 36.2, 43.0]
DRIFT = [*(1.015 * k for k in range(50)), *(1.015 * 49 + 0.985 * (k + 1) for k in range(50))]
SKEWED = ["0.9", "0", "0.43589", "0", "1", "0.3"]
LONG_UID = UID_ROOT + "." + "1" * (64 - len(UID_ROOT))  # 65 characters


def missing_middle(folder: Path) -> Path:
    """1: the seventh slice, at z = 54."""
    good(folder)[6].unlink()
    return folder / "in"


def same_position(folder: Path) -> Path:
    """4: one slice again, as another object with other content."""
    paths = good(folder)
    copy = folder / "in" / "again.dcm"
    shutil.copy(paths[5], copy)

    def change(dataset: Any, index: int) -> None:
        dataset.SOPInstanceUID = f"{UID_ROOT}.1.1.77"
        dataset.PixelData = bytes(reversed(dataset.PixelData))

    edit([copy], change)
    return folder / "in"


def repeated(times: int, change: Change, slices: int = 12) -> Maker:
    """The series several times under one Series Instance UID; `change` tells the repeats apart."""

    def make(folder: Path) -> Path:
        for time in range(times):
            paths = make_series(folder / "in" / f"t{time}", slices=slices, rng=np.random.default_rng(time))
            edit(paths, partial(_repeat, time=time, slices=slices, change=change))
        return folder / "in"

    return make


def _repeat(dataset: Any, index: int, *, time: int, slices: int, change: Change) -> None:
    """A new object with new numbers."""
    number = time * slices + index + 1
    dataset.SOPInstanceUID = f"{UID_ROOT}.1.1.{number}"
    dataset.InstanceNumber = number
    change(dataset, time)


def mosaic(times: int) -> Maker:
    """7: Siemens puts the slices of a volume side by side into one image."""

    def change(dataset: Any, index: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        dataset.Manufacturer = "SIEMENS"
        dataset.ImagePositionPatient = ["-80", "-90", "30"]
        dataset.AcquisitionNumber = index + 1

    return changed(change, slices=times, shape=(60, 72))


def tilted(degrees: float) -> Maker:
    """8: slices that move sideways along a column."""
    angle = np.deg2rad(degrees)
    return built(modality="CT", step=(0.0, SPACING * np.sin(angle), SPACING * np.cos(angle)))


def moved(heights: Sequence[float], **options: Any) -> Maker:
    """9: slices at these heights, mm."""

    def change(dataset: Any, index: int) -> None:
        dataset.ImagePositionPatient = ["-40", "-50", f"{30 + heights[index]:.6g}"]

    return changed(change, slices=len(heights), **options)


def localizer(slices: int, mark: bool = True) -> Maker:
    """10: some slices in each of three orientations."""

    def make(folder: Path) -> Path:
        for number, name in enumerate(("axial", "sagittal", "coronal")):
            paths = make_series(folder / "in" / name, slices=slices, orientation=name, spacing=20.0)

            def change(dataset: Any, index: int, start: int = number * slices) -> None:
                dataset.SOPInstanceUID = f"{UID_ROOT}.1.1.{start + index + 1}"
                dataset.InstanceNumber = start + index + 1
                if mark:
                    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

            edit(paths, change)
        return folder / "in"

    return make


def second_half(**values: str) -> Maker:
    """11: attributes that differ from the sixth slice on."""

    def change(dataset: Any, index: int) -> None:
        if index >= 6:
            for keyword, value in values.items():
                setattr(dataset, keyword, value)

    return changed(change)


def two_patients_interleaved(folder: Path) -> Path:
    """11: two whole scans under one Series Instance UID."""
    good(folder)
    other = make_series(folder / "in" / "other", rng=np.random.default_rng(1))

    def change(dataset: Any, index: int) -> None:
        dataset.PatientID, dataset.PatientName = "PID-OTHER", "Other^Person"
        dataset.SOPInstanceUID = f"{UID_ROOT}.1.1.{100 + index}"

    edit(other, change)
    return folder / "in"


def other_size(only: int) -> Maker:
    """16: one slice has fewer rows."""

    def change(dataset: Any, index: int) -> None:
        dataset.Rows = 18
        dataset.PixelData = dataset.PixelData[: 18 * 24 * 2]

    return changed(change, only)


def colour(photometric: str, samples: int = 3) -> Maker:
    """21: three bytes a pixel, or a palette."""

    def change(dataset: Any, index: int) -> None:
        dataset.PhotometricInterpretation = photometric
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = samples, 0
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        dataset.PixelData = (dataset.PixelData * 2)[: 20 * 24 * samples]

    return changed(change)


def float_pixels(keyword: str, dtype: str) -> Maker:
    """23: Float Pixel Data or Double Float Pixel Data."""

    def change(dataset: Any, index: int) -> None:
        values = dataset.pixel_array.astype(dtype)
        dataset.BitsAllocated = 8 * values.dtype.itemsize
        del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
        setattr(dataset, keyword, values.tobytes())

    return changed(change)


def pixel_kind(kind: bytes) -> Maker:
    """The value representation of the pixels is damaged in one file."""

    def make(folder: Path) -> Path:
        old = b"\xe0\x7f\x10\x00"
        edit_bytes([good(folder)[4]], lambda raw: raw.replace(old + b"OW", old + kind))
        return folder / "in"

    return make


def slope_bytes(element: bytes) -> Maker:
    """Kind, length and value of Rescale Slope are other bytes in one file."""

    def make(folder: Path) -> Path:
        tag = b"\x28\x00\x53\x10"
        paths = good(folder, modality="CT", slope=2.0)
        edit_bytes([paths[4]], lambda raw: raw.replace(tag + b"DS\2\x002 ", tag + element))
        return folder / "in"

    return make


def own_series(folder: Path) -> Path:
    """27: an output of ours by what its header says of the equipment that contributed."""

    def change(dataset: Any, index: int) -> None:
        dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        dataset.DerivationDescription = "medld 0.1.0, model sr; AI generated; not for diagnostic use"
        item = Dataset()
        item.Manufacturer, item.ManufacturerModelName = "medld", "sr"
        dataset.ContributingEquipmentSequence = [item]

    edit(good(folder), change)
    return folder / "in"


def filled(value: int, modality: str) -> Maker:
    """29: every stored number the same."""
    return built(modality=modality, values=np.full((12, 20, 24), float(value)))


def _nothing(dataset: Any, time: int) -> None:
    """No attribute tells the repeats apart."""


def _diffusion(dataset: Any, time: int) -> None:
    dataset.DiffusionBValue = 0.0 if time == 0 else 1000.0
    dataset.DiffusionGradientOrientation = [0.0, float(time == 1), float(time == 2)]


def _one_more_value(dataset: Any, index: int) -> None:
    dataset.ImagePositionPatient = ["-40", "-50"]


def _shorter(dataset: Any, index: int) -> None:
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2 & ~1]


def _turned(dataset: Any, index: int) -> None:
    dataset.ImageOrientationPatient = list(map(str, factory.SAGITTAL))


def _capture(dataset: Any, index: int) -> None:
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.Modality, dataset.ConversionType = "OT", "WSD"


def _huge_frames(dataset: Any, index: int) -> None:
    dataset.NumberOfFrames = 2**31 - 1


def _half(length: int) -> int:
    return length // 2


def _in_pixels(length: int) -> int:
    return length - 400


def _without_frame(dataset: Any) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[6]
    size = 20 * 24 * 2
    dataset.PixelData = dataset.PixelData[: 6 * size] + dataset.PixelData[7 * size :]
    dataset.NumberOfFrames = 11


def _more_frames_than_places(dataset: Any) -> None:
    dataset.NumberOfFrames = 11


def _less_pixels_than_frames(dataset: Any) -> None:
    dataset.PixelData = dataset.PixelData[: 11 * 20 * 24 * 2]


def _frame_without_place(dataset: Any) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence


def _frame_twice(dataset: Any) -> None:
    groups = dataset.PerFrameFunctionalGroupsSequence
    groups[4].PlanePositionSequence = groups[3].PlanePositionSequence


def _frame_turned(dataset: Any) -> None:
    item = Dataset()
    item.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]
    dataset.PerFrameFunctionalGroupsSequence[4].PlaneOrientationSequence = [item]


def _frames_lean(dataset: Any) -> None:
    for k, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        groups.PlanePositionSequence[0].ImagePositionPatient = ["-40", f"{-50 + 0.14 * k:.6g}", f"{30 + 4 * k}"]


def _localiser_frames(dataset: Any) -> None:
    groups = dataset.SharedFunctionalGroupsSequence[0]
    groups.MRImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]


REFUSED: dict[str, tuple[str, Maker]] = {
    "missing middle slice": ("E_GAP", missing_middle),
    "two missing slices": ("E_GAP", moved([0, 4, 12, 16, 24, 28, 32])),
    "same position, new UID": ("E_DUP", same_position),
    "nearly the same position": ("E_DUP|E_SPACING", moved([0, 4, 8, 8.005, 12, 16, 20])),
    "repeats without a tag": ("E_4D|E_DUP", repeated(3, _nothing)),
    "fMRI by temporal position": ("E_4D", repeated(4, lambda d, t: setattr(d, "TemporalPositionIdentifier", t + 1))),
    "fMRI by acquisition": ("E_4D", repeated(4, lambda d, t: setattr(d, "AcquisitionNumber", t + 1))),
    "diffusion": ("E_4D", repeated(4, _diffusion)),
    "mosaic": ("E_4D", mosaic(3)),
    "mosaic of one time point": ("E_4D", mosaic(1)),
    "tilt 18.5 degrees": ("E_TILT", tilted(18.5)),
    "tilt -16.5 degrees": ("E_TILT", tilted(-16.5)),
    "tilt 2 degrees": ("E_TILT", tilted(2.0)),
    "spacing 1 to 7 mm": ("E_SPACING", moved(RANDOM_STEPS)),
    "slow drift of spacing": ("E_SPACING", moved(DRIFT, spacing=1.0)),
    "localizer": ("E_MIXED|E_TOO_FEW", localizer(1)),
    "localizer of several slices": ("E_MIXED", localizer(4)),
    "three orientations, unmarked": ("E_MIXED|E_TOO_FEW", localizer(1, mark=False)),
    "two patients, half each": ("E_MIXED", second_half(PatientID="PID-OTHER")),
    "two studies, half each": ("E_MIXED", second_half(StudyInstanceUID=f"{UID_ROOT}.8")),
    "two patients, whole scans": ("E_MIXED", two_patients_interleaved),
    "no position": ("E_NO_GEOM", tagged("ImagePositionPatient", None)),
    "no orientation": ("E_NO_GEOM", tagged("ImageOrientationPatient", None)),
    "no pixel spacing": ("E_NO_GEOM", tagged("PixelSpacing", None)),
    "no position in one slice": ("E_NO_GEOM|E_GAP|E_MIXED", tagged("ImagePositionPatient", None, only=5)),
    "no position in the last slice": ("E_NO_GEOM|E_MIXED", tagged("ImagePositionPatient", None, only=11)),
    "two numbers as position": ("E_NO_GEOM", changed(_one_more_value)),
    "position not finite": ("E_NO_GEOM", tagged("ImagePositionPatient", ["nan", "0", "0"])),
    "position infinite": ("E_NO_GEOM", tagged("ImagePositionPatient", ["0", "0", "inf"])),
    "pixel spacing 0": ("E_NO_GEOM", tagged("PixelSpacing", ["0", "0"])),
    "pixel spacing 0 one way": ("E_NO_GEOM", tagged("PixelSpacing", ["0.9", "0"])),
    "pixel spacing negative": ("E_NO_GEOM", tagged("PixelSpacing", ["-0.9", "0.8"])),
    "pixel spacing not a number": ("E_NO_GEOM", tagged("PixelSpacing", ["nan", "nan"])),
    "pixel spacing empty": ("E_NO_GEOM", tagged("PixelSpacing", "")),
    "orientation not orthogonal": ("E_NO_GEOM", tagged("ImageOrientationPatient", SKEWED)),
    "orientation of zeros": ("E_NO_GEOM", tagged("ImageOrientationPatient", ["0"] * 6)),
    "orientation not unit": ("E_NO_GEOM", tagged("ImageOrientationPatient", ["2", "0", "0", "0", "1", "0"])),
    "one slice of other size": ("E_MIXED", other_size(6)),
    "last slice of other size": ("E_MIXED", other_size(11)),
    "one slice of other orientation": ("E_MIXED", changed(_turned, only=6)),
    "last slice of other orientation": ("E_MIXED", changed(_turned, only=11)),
    "pixel data too short": ("E_TRUNC", changed(_shorter)),
    "pixel data of one slice too short": ("E_TRUNC", changed(_shorter, only=3)),
    "files cut in the pixels": ("E_TRUNC", cut(_in_pixels)),
    "one file cut in the pixels": ("E_TRUNC", cut(_in_pixels, only=4)),
    "last file cut in the pixels": ("E_TRUNC", cut(_in_pixels, only=11)),
    "files cut in the header": ("E_TRUNC|E_NOT_IMAGE", cut(lambda n: 700)),
    "one file cut in the header": ("E_TRUNC|E_GAP", cut(lambda n: 700, only=4)),
    "one compressed file cut": ("E_TRUNC", cut(lambda n: n - 100, only=4, syntax=factory.J2K)),
    "one RLE file cut": ("E_TRUNC", cut(lambda n: n - 100, only=4, syntax=factory.RLE)),
    "one deflated file cut": ("E_TRUNC|E_GAP", cut(_half, only=4, syntax=factory.DEFLATED)),
    "pixels of no kind": ("E_TRUNC", pixel_kind(b"S\0")),
    "RLE of 60000 x 60000": ("E_TOO_BIG", pixels_replaced(RLE_STREAM, 60000, 60000)),
    "RLE of 65535 x 65535": ("E_TOO_BIG", pixels_replaced(RLE_STREAM, 65535, 65535)),
    "RLE that lies": ("E_TRUNC|E_CODEC|E_TOO_BIG", pixels_replaced(RLE_STREAM, 3000, 3000, slices=3)),
    "frames without end": ("E_TOO_BIG|E_TRUNC", changed(_huge_frames)),
    "deflate bomb": ("E_TOO_BIG", deflate_bomb),
    "zip bomb": ("E_TOO_BIG", zip_bomb),
    "zip that claims much": ("E_TOO_BIG", zip_that_claims_much),
    "deep sequences": ("E_NOT_IMAGE|E_TRUNC|E_TOO_BIG", deep_sequences(3000)),
    "RGB": ("E_NOT_IMAGE", colour("RGB")),
    "YBR": ("E_NOT_IMAGE", colour("YBR_FULL")),
    "palette": ("E_NOT_IMAGE", colour("PALETTE COLOR", samples=1)),
    "secondary capture": ("E_NOT_IMAGE", changed(_capture)),
    "float pixels": ("E_PIXELS", float_pixels("FloatPixelData", "<f4")),
    "double pixels": ("E_PIXELS", float_pixels("DoubleFloatPixelData", "<f8")),
    "no sign": ("E_PIXELS", tagged("PixelRepresentation", None)),
    "no bits": ("E_PIXELS|E_NOT_IMAGE", tagged("BitsAllocated", None)),
    "bits at the upper end": ("E_PIXELS", tagged("HighBit", 15)),
    "unknown syntax": ("E_CODEC", in_syntax(MAKER + "999")),
    "MPEG": ("E_CODEC", in_syntax(MAKER + "100")),
    "JPEG XL": ("E_CODEC", in_syntax(MAKER + "110")),
    "private syntax": ("E_CODEC", in_syntax("1.2.3.4.5.6")),
    "damaged JPEG-LS": ("E_TRUNC|E_CODEC", in_syntax(factory.JPEG_LS)),
    "damaged JPEG": ("E_TRUNC|E_CODEC", in_syntax(factory.JPEG_LOSSLESS)),
    "noise as J2K": ("E_TRUNC|E_CODEC", in_syntax(factory.J2K)),
    "noise as RLE": ("E_TRUNC|E_CODEC", in_syntax(factory.RLE)),
    "series UID with a path": ("E_BAD_ID", tagged("SeriesInstanceUID", "../../etc/passwd")),
    "study UID with a path": ("E_BAD_ID", tagged("StudyInstanceUID", "/tmp/../x")),
    "instance UID with letters": ("E_BAD_ID", tagged("SOPInstanceUID", "abc.def", only=3)),
    "frame of reference with markup": ("E_BAD_ID|E_NO_GEOM", tagged("FrameOfReferenceUID", "<script>")),
    "series UID of 65 characters": ("E_BAD_ID", tagged("SeriesInstanceUID", LONG_UID)),
    "no series UID": ("E_BAD_ID", tagged("SeriesInstanceUID", None)),
    "no instance UID": ("E_BAD_ID", tagged("SOPInstanceUID", None)),
    "enhanced, missing frame": ("E_GAP", enhanced_with(_without_frame)),
    "enhanced, more places than frames": ("E_NO_GEOM|E_TRUNC", enhanced_with(_more_frames_than_places)),
    "enhanced, cut": ("E_TRUNC", enhanced_with(_less_pixels_than_frames)),
    "enhanced, frame without place": ("E_NO_GEOM", enhanced_with(_frame_without_place)),
    "enhanced, place twice": ("E_DUP", enhanced_with(_frame_twice)),
    "enhanced, frame turned": ("E_MIXED", enhanced_with(_frame_turned)),
    "enhanced, 2 degrees tilt": ("E_TILT", enhanced_with(_frames_lean)),
    "enhanced, localizer": ("E_MIXED", enhanced_with(_localiser_frames)),
    "enhanced, colour": ("E_NOT_IMAGE", enhanced_with(lambda d: setattr(d, "SamplesPerPixel", 3))),
    "enhanced, one frame": ("E_TOO_FEW", enhanced_with(lambda d: None, slices=1)),
    "one slice": ("E_TOO_FEW", built(slices=1)),
    "two slices": ("E_TOO_FEW", built(slices=2)),
    "4 x 4 pixels": ("E_TOO_FEW", built(shape=(4, 4))),
    "constant": ("E_PIXELS", filled(300, "MR")),
    "air only": ("E_PIXELS", filled(-1000, "CT")),
    "zero only": ("E_PIXELS", filled(0, "MR")),
    "slope not a number": ("E_PIXELS|E_NO_GEOM", tagged("RescaleSlope", "nan", modality="CT")),
    "slope infinite": ("E_PIXELS|E_NO_GEOM", tagged("RescaleSlope", "inf", modality="CT")),
    "slope no number": ("E_PIXELS|E_NO_GEOM", slope_bytes(b"DS\2\0ab")),
    "slope of another kind": ("E_PIXELS|E_TRUNC", slope_bytes(b"US\2\x002 ")),
    "slope of no kind": ("E_PIXELS|E_TRUNC", slope_bytes(b"D\xa9\2\x002 ")),
    "slope 0": ("E_PIXELS|E_NO_GEOM", tagged("RescaleSlope", "0", modality="CT")),
}
