"""Synthetic DICOM: valid classic and enhanced series with smooth content, and the means to damage them.

Everything that must not leave a hospital is in the headers (`SECRETS`), so that a test can look
for it in what was printed and written. Nothing here uses medld: `truth` says from the tags and the
stored numbers alone what a reader has to find.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, FileDataset, config, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MRImageStorage,
    RLELossless,
)

UID_ROOT = "1.3.6.1.4.1.55555.7731946"
PATIENT = {
    "PatientName": "Xylander^Zenobia^Quinta",
    "PatientID": "PID-4417093",
    "PatientBirthDate": "19530417",
    "OtherPatientIDs": "OTHER-882731",
    "PatientAddress": "Quittenweg 12, Xanten",
    "InstitutionName": "Klinikum Vogelsang",
    "ReferringPhysicianName": "Jaspersen^Wilhelmina",
    "AccessionNumber": "ACC5520931",
    "StudyID": "STUDY60117",
    "StudyDescription": "Verlaufskontrolle Glioblastom",
    "SeriesDescription": "ax hyrbex vibe",
    "ProtocolName": "protokoll zwetschge",
    "StationName": "MRKELLER7",
    "PerformingPhysicianName": "Operschall^Tusnelda",
}
STUDY_DATE = "20190823"
SECRETS = (*[part for value in PATIENT.values() for part in value.split("^")], STUDY_DATE, UID_ROOT)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
_X, _Y = np.deg2rad((12.0, 7.0))  # a rotation around x, then one around y
OBLIQUE = (
    float(np.cos(_Y)),
    0.0,
    float(-np.sin(_Y)),
    float(np.sin(_X) * np.sin(_Y)),
    float(np.cos(_X)),
    float(np.sin(_X) * np.cos(_Y)),
)
ORIENTATIONS = {"axial": AXIAL, "sagittal": SAGITTAL, "coronal": CORONAL, "oblique": OBLIQUE}

DEFLATED, RLE = DeflatedExplicitVRLittleEndian, RLELossless
BIG_ENDIAN, IMPLICIT, EXPLICIT = ExplicitVRBigEndian, ImplicitVRLittleEndian, ExplicitVRLittleEndian
JPEG_LOSSLESS, JPEG_LS, J2K, HTJ2K = JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless
J2K_LOSSY, JPEG_LS_LOSSY = JPEG2000, JPEGLSNearLossless


def leaks(text: str) -> list[str]:
    """The secrets that a text holds; must be empty for whatever is printed, logged or reported."""
    return [secret for secret in SECRETS if secret.lower() in text.lower()]


def phantom(slices: int, shape: tuple[int, int], modality: str = "MR", rng: np.random.Generator | None = None) -> Any:
    """(slices, rows, columns), scanner units: a soft ball with waves in it, on air; 1 % noise.

    Its values differ from slice to slice and along both axes of a slice, and there are many of them.
    """
    rng = rng if rng is not None else np.random.default_rng(7)
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (slices, *shape)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    ball = 1 / (1 + np.exp(12 * (np.sqrt(x**2 + y**2 + 0.7 * z**2) - 0.8)))
    waves = 1 + 0.3 * np.sin(3 * x + 1) + 0.2 * np.cos(4 * y) + 0.25 * z
    unit = ball * waves + 0.01 * rng.random(x.shape)
    return 900 * unit if modality == "MR" else 1040 * unit - 1000


def make_series(
    folder: Path,
    *,
    modality: str = "MR",
    slices: int = 12,
    shape: tuple[int, int] = (20, 24),
    pixel_spacing: tuple[float, float] = (0.9, 0.8),
    spacing: float = 4.0,
    thickness: float = 4.0,
    orientation: str | Sequence[float] = "axial",
    origin: Sequence[float] = (-40.0, -50.0, 30.0),
    dtype: Any = None,
    bits_stored: int | None = None,
    slope: float = 1.0,
    inter: float | None = None,
    syntax: str = ExplicitVRLittleEndian,
    rng: np.random.Generator | None = None,
    values: np.ndarray | None = None,
    study: int = 1,
    series: int = 1,
    step: Sequence[float] | None = None,
) -> list[Path]:
    """Write a classic MR or CT series, one file a slice, in the order of the slices.

    Args:
        folder: Made if it is not there; holds the files s1-0001.dcm, ... of series 1.
        modality: "MR" or "CT".
        slices: Number of slices.
        shape: Rows, columns.
        pixel_spacing: mm between rows, between columns.
        spacing: mm from slice to slice, along the normal.
        thickness: Slice Thickness, mm.
        orientation: A name in `ORIENTATIONS` or six cosines.
        origin: Position of the first slice, mm, LPS.
        dtype: Type of the stored numbers; uint16 for MR and int16 for CT unless given.
        bits_stored: 12 for unsigned 16-bit numbers and else all bits, unless given.
        slope: Rescale Slope.
        inter: Rescale Intercept; 0 for MR, -1024 for CT unless given.
        syntax: Transfer Syntax UID.
        rng: Draws the noise.
        values: (slices, rows, columns) in scanner units instead of the phantom.
        study: Number that ends the Study Instance UID.
        series: Series Number; also ends the Series Instance UID.
        step: (3,) mm, LPS, from slice to slice instead of `spacing` along the normal: a tilt.

    Returns:
        The files, in the order of the slices along row x column.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype(dtype if dtype is not None else (np.uint16 if modality == "MR" else np.int16))
    inter = inter if inter is not None else (0.0 if modality == "MR" else -1024.0)
    cosines = np.array(ORIENTATIONS[orientation] if isinstance(orientation, str) else orientation, dtype=float)
    step = np.asarray(step) if step is not None else spacing * np.cross(cosines[:3], cosines[3:])
    content = values if values is not None else phantom(slices, shape, modality, rng)
    stored = to_stored(content, dtype, bits_stored, slope, inter)
    paths = []
    for index, pixels in enumerate(stored):
        dataset = _common(modality, study, series, index + 1, dtype, bits_stored)
        dataset.SOPClassUID = MRImageStorage if modality == "MR" else CTImageStorage
        (_mr if modality == "MR" else _ct)(dataset)
        dataset.SliceThickness = _ds(thickness)
        dataset.PixelSpacing = [_ds(value) for value in pixel_spacing]
        dataset.ImageOrientationPatient = [_ds(value) for value in cosines]
        dataset.ImagePositionPatient = [_ds(value) for value in np.asarray(origin) + index * step]
        if modality == "CT" or (slope, inter) != (1.0, 0.0):
            dataset.RescaleSlope, dataset.RescaleIntercept = _ds(slope), _ds(inter)
            dataset.RescaleType = "HU" if modality == "CT" else "US"
        path = folder / f"s{series}-{index + 1:04d}.dcm"
        set_pixels(dataset, pixels, syntax)
        save(dataset, path)
        paths.append(path)
    return paths


def make_enhanced(
    path: Path,
    *,
    slices: int = 12,
    shape: tuple[int, int] = (20, 24),
    pixel_spacing: tuple[float, float] = (0.9, 0.8),
    spacing: float = 4.0,
    thickness: float = 4.0,
    orientation: str | Sequence[float] = "axial",
    origin: Sequence[float] = (-40.0, -50.0, 30.0),
    echo_times: Sequence[float] = (4.6,),
    times: int = 1,
    slopes: Sequence[float] | None = None,
    syntax: str = ExplicitVRLittleEndian,
    rng: np.random.Generator | None = None,
    study: int = 1,
    series: int = 1,
) -> Path:
    """Write one Enhanced MR object of len(echo_times) * times volumes; slices turn fastest.

    Args:
        path: The file.
        slices: Number of slices of one volume.
        shape: Rows, columns.
        pixel_spacing: mm between rows, between columns.
        spacing: mm from slice to slice.
        thickness: Slice Thickness, mm.
        orientation: A name in `ORIENTATIONS` or six cosines.
        origin: Position of the first slice, mm, LPS.
        echo_times: Effective Echo Time of each volume, ms.
        times: Time points per echo, told apart by Temporal Position Index if there are several.
        slopes: Rescale Slope of each frame; 1 unless given.
        syntax: Transfer Syntax UID.
        rng: Draws the noise.
        study: Number that ends the Study Instance UID.
        series: Series Number; also ends the Series Instance UID.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = rng if rng is not None else np.random.default_rng(7)
    cosines = np.array(ORIENTATIONS[orientation] if isinstance(orientation, str) else orientation, dtype=float)
    step = spacing * np.cross(cosines[:3], cosines[3:])
    order = [(echo, time, k) for echo in echo_times for time in range(times) for k in range(slices)]
    slopes = list(slopes) if slopes is not None else [1.0] * len(order)
    dataset = _common("MR", study, series, 1, np.dtype(np.uint16), None)
    dataset.SOPClassUID = EnhancedMRImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames = len(order)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[_ds(value) for value in cosines])]
    shared.PixelMeasuresSequence = [
        _item(PixelSpacing=[_ds(value) for value in pixel_spacing], SliceThickness=_ds(thickness))
    ]
    shared.MRImageFrameTypeSequence = [_item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames, pixels = [], []
    for (echo, time, k), slope in zip(order, slopes, strict=True):
        frame = Dataset()
        frame.PlanePositionSequence = [
            _item(ImagePositionPatient=[_ds(value) for value in np.asarray(origin) + k * step])
        ]
        content = _item(StackID="1", InStackPositionNumber=k + 1)
        if times > 1:
            content.TemporalPositionIndex = time + 1
        frame.FrameContentSequence = [content]
        frame.MREchoSequence = [_item(EffectiveEchoTime=float(echo))]
        frame.PixelValueTransformationSequence = [
            _item(RescaleSlope=_ds(slope), RescaleIntercept=_ds(0), RescaleType="US")
        ]
        frames.append(frame)
        volume = phantom(slices, shape, "MR", np.random.default_rng(11)) * (1 + 0.1 * time) * echo / echo_times[0]
        pixels.append(to_stored(volume[k], np.dtype(np.uint16), None, slope, 0.0))
    dataset.PerFrameFunctionalGroupsSequence = frames
    set_pixels(dataset, np.stack(pixels), syntax)
    save(dataset, path)
    return path


def truth(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """What a reader has to find in a sound classic series: values and affine.

    Returns:
        (columns, rows, slices) float64 scanner units, slices in the direction of row x column; and
        the (4, 4) affine, RAS+ mm, its slice column taken from the first and the last position.
    """
    datasets = [dcmread(path, force=True) for path in paths]
    cosines = np.array(datasets[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(cosines[:3], cosines[3:])
    datasets.sort(key=lambda dataset: float(normal @ np.array(dataset.ImagePositionPatient, dtype=float)))
    values = [
        dataset.pixel_array.astype(np.float64) * float(dataset.get("RescaleSlope", 1))
        + float(dataset.get("RescaleIntercept", 0))
        for dataset in datasets
    ]
    positions = np.array([dataset.ImagePositionPatient for dataset in datasets], dtype=float)
    between_rows, between_columns = (float(value) for value in datasets[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = cosines[:3] * between_columns
    affine[:3, 1] = cosines[3:] * between_rows
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(paths) - 1) if len(paths) > 1 else normal
    affine[:3, 3] = positions[0]
    return np.stack(values).transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def edit(paths: Sequence[Path], change: Callable[[Any, int], None]) -> list[Path]:
    """Change files in place; `change` gets the data set and its place in `paths`. Nothing is validated."""
    for index, path in enumerate(paths):
        dataset = dcmread(path, force=True)
        with unvalidated():
            change(dataset, index)
        save(dataset, path)
    return list(paths)


def set_tag(paths: Sequence[Path], keyword: str, value: Any) -> list[Path]:
    """Set one attribute in every file; None removes it."""

    def change(dataset: Any, index: int) -> None:
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)

    return edit(paths, change)


def edit_bytes(paths: Sequence[Path], change: Callable[[bytes], bytes]) -> list[Path]:
    """Change files in place, as bytes."""
    for path in paths:
        path.write_bytes(change(path.read_bytes()))
    return list(paths)


def save(dataset: Any, path: Path) -> Path:
    """Write a data set as a DICOM file; nothing is validated."""
    with unvalidated():
        meta = dataset.file_meta
        meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", MRImageStorage)
        meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", f"{UID_ROOT}.999")
        dataset.preamble = b"\0" * 128
        dataset.save_as(path, enforce_file_format=True)
    return path


@contextmanager
def unvalidated() -> Iterator[None]:
    """Let pydicom take and write values that the standard forbids."""
    settings = config.settings
    before = settings.writing_validation_mode, settings.reading_validation_mode
    settings.writing_validation_mode = settings.reading_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        settings.writing_validation_mode, settings.reading_validation_mode = before


def to_stored(values: Any, dtype: np.dtype[Any], bits_stored: int | None, slope: float, inter: float) -> np.ndarray:
    """Scanner units to stored numbers, clipped to the bits stored."""
    bits = bits_stored or default_bits(dtype)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.kind == "i" else (0, 2**bits - 1)
    stored: np.ndarray = np.clip(np.rint((np.asarray(values) - inter) / slope), low, high).astype(dtype)
    return stored


def default_bits(dtype: np.dtype[Any]) -> int:
    """12 for unsigned 16-bit numbers, as most scanners have it; else all."""
    return 12 if dtype == np.uint16 else 8 * dtype.itemsize


def set_pixels(dataset: Any, pixels: np.ndarray, syntax: str) -> None:
    """Put stored numbers, (rows, columns) or (frames, rows, columns), into a data set in a transfer syntax."""
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.file_meta = _meta(dataset, syntax)
    for _ in dataset.iterall():  # decodes what was read in another encoding
        pass
    dataset.set_original_encoding(syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian, None)
    frames = pixels if pixels.ndim == 3 else pixels[None]
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
        return
    dataset.PixelData = encapsulate([encode(frame, syntax, dataset.BitsStored) for frame in frames])
    dataset["PixelData"].VR = "OB"
    if syntax in (JPEG2000, JPEGLSNearLossless):
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = "4.0"
        dataset.LossyImageCompressionMethod = "ISO_15444_1" if syntax == JPEG2000 else "ISO_14495_1"


def encode(frame: np.ndarray, syntax: str, bits_stored: int) -> bytes:
    """One frame, (rows, columns), compressed."""
    frame = np.ascontiguousarray(frame)
    if syntax == RLELossless:
        return _rle(frame)
    import imagecodecs

    signless = frame.view(f"u{frame.dtype.itemsize}")  # the code streams below know no sign
    if syntax == JPEGLosslessSV1:
        code: bytes = imagecodecs.ljpeg_encode(signless, bitspersample=8 * frame.dtype.itemsize)
    elif syntax in (JPEGLSLossless, JPEGLSNearLossless):
        code = imagecodecs.jpegls_encode(signless, level=2 if syntax == JPEGLSNearLossless else 0)
    elif syntax in (JPEG2000Lossless, JPEG2000):
        reversible = syntax == JPEG2000Lossless
        code = imagecodecs.jpeg2k_encode(
            signless if frame.dtype.kind == "u" else frame,
            level=0 if reversible else 60,
            reversible=reversible,
            codecformat="j2k",
            bitspersample=bits_stored if frame.dtype.kind == "u" else None,
        )
    elif syntax == HTJ2KLossless:
        code = imagecodecs.htj2k_encode(frame, level=0)
    else:
        raise ValueError(f"no encoder for {syntax}")
    return bytes(code)


def _rle(frame: np.ndarray) -> bytes:
    """RLE Lossless, PS3.5 annex G, by pydicom's own encoder."""
    from pydicom.pixels.encoders import RLELosslessEncoder

    return bytes(
        RLELosslessEncoder.encode(
            frame.astype(frame.dtype.newbyteorder("<")).tobytes(),
            rows=frame.shape[0],
            columns=frame.shape[1],
            samples_per_pixel=1,
            bits_allocated=8 * frame.dtype.itemsize,
            bits_stored=8 * frame.dtype.itemsize,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
            number_of_frames=1,
            encoding_plugin="pydicom",
        )
    )


def _meta(dataset: Any, syntax: str) -> Any:
    """File meta information of a new data set."""
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    return meta


def _common(modality: str, study: int, series: int, instance: int, dtype: np.dtype[Any], bits: int | None) -> Any:
    """Patient, study, series, equipment and pixel format."""
    dataset = FileDataset("", {}, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPInstanceUID = f"{UID_ROOT}.{study}.{series}.{instance}"
    dataset.StudyInstanceUID = f"{UID_ROOT}.{study}"
    dataset.SeriesInstanceUID = f"{UID_ROOT}.{study}.{series}"
    dataset.FrameOfReferenceUID = f"{UID_ROOT}.{study}.0"
    dataset.PositionReferenceIndicator = ""
    for keyword, value in PATIENT.items():
        setattr(dataset, keyword, value)
    dataset.PatientSex, dataset.PatientAge, dataset.PatientWeight = "F", "066Y", "70"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = STUDY_DATE
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "101112"
    dataset.Modality, dataset.Manufacturer, dataset.ManufacturerModelName = modality, "Factory", "Phantom 1"
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = "1.0", "SN-1"
    dataset.PatientPosition, dataset.BodyPartExamined = "HFS", "HEAD"
    dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = series, 1, instance
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * dtype.itemsize
    dataset.BitsStored = bits or default_bits(dtype)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(dtype.kind == "i")
    dataset.WindowCenter, dataset.WindowWidth = ("400", "800") if modality == "MR" else ("40", "400")
    return dataset


def _mr(dataset: Any) -> None:
    """What an MR image must have, PS3.3 C.8.3.1."""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "SE", "NONE", ""
    dataset.MRAcquisitionType, dataset.MagneticFieldStrength = "2D", "3"
    dataset.RepetitionTime, dataset.EchoTime, dataset.EchoTrainLength = "600", "12", "1"
    dataset.FlipAngle, dataset.EchoNumbers = "90", "1"


def _ct(dataset: Any) -> None:
    """What a CT image must have, PS3.3 C.8.2.1."""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.KVP, dataset.ConvolutionKernel = "120", "B30f"


def _item(**values: Any) -> Dataset:
    """An item of a sequence."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters, as exact as that allows."""
    for digits in range(15, 3, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(value)
