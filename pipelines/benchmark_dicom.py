"""Benchmark: how long a DICOM series takes to read, against what pydicom alone takes for its pixels.

    ideal     np.stack of dcmread and pixel_array of each file: the stored numbers as one array
    passing   the same with each file's pixels thrown away, which no use of a scan can do
    medld     list_series (every header checked, sorted, a grid made) and read_series (scanner units, float32)
    ratio     medld / ideal, and / passing; the bar is 1.3 for uncompressed pixels
    memory    the reading process's peak; the bar is the float32 volume and 1 GiB

Compressed series are for information: medld decodes them in a process of its own. pydicom is given
the same decoders there, in its process.

    python pipelines/benchmark_dicom.py [--slices N] [--size PIXELS] [--repeats N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, JPEGLosslessSV1, RLELossless, generate_uid

from medld.io.dicom import list_series, read_series
from medld.io.dicom.codecs import register_codecs
from medld.report import measure_peak_gib

SYNTAXES = {"native": ExplicitVRLittleEndian, "RLE": RLELossless, "JPEG lossless": JPEGLosslessSV1}
BAR_RATIO = 1.3
BAR_GIB = 1.0
"""Beside the float32 volume."""


def phantom_slice(index: int, size: int) -> np.ndarray:
    """Stored numbers of a CT slice, (size, size) int16: a textured body in air, with noise; HU + 1024."""
    y, x = np.mgrid[-1.1 : 1.1 : size * 1j, -1.1 : 1.1 : size * 1j]
    body = 1064 + 120 * np.sin(9 * x + index / 20) * np.cos(7 * y)
    noise = np.random.default_rng(index).normal(0, 12, x.shape)
    stored: np.ndarray = np.where(x**2 + 1.4 * y**2 < 1, body + noise, 24 + noise / 2)
    return stored.astype(np.int16)


def header_of(index: int, size: int, study: str, series: str, frame_of_reference: str) -> Dataset:
    """A CT header of about 110 elements, as those of real scanners (92 to 128), a third of them private."""
    head = FileDataset("", Dataset(), preamble=b"\0" * 128)
    head.SOPClassUID, head.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[series, str(index)])
    head.StudyInstanceUID, head.SeriesInstanceUID, head.FrameOfReferenceUID = study, series, frame_of_reference
    head.SpecificCharacterSet, head.ImageType = "ISO_IR 100", ["ORIGINAL", "PRIMARY", "AXIAL"]
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(head, keyword, "20260101")
    for keyword in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(head, keyword, "101112.000000")
    for keyword in ("AccessionNumber", "StudyID", "PatientID", "Manufacturer", "StationName", "SoftwareVersions"):
        setattr(head, keyword, "1")
    head.Modality, head.PatientName, head.PatientBirthDate, head.PatientSex = "CT", "Phantom", "", ""
    head.InstitutionName = head.ManufacturerModelName = head.ProtocolName = head.SeriesDescription = "Phantom"
    head.KVP, head.XRayTubeCurrent, head.ExposureTime, head.Exposure = "120", "200", "500", "100"
    head.ConvolutionKernel, head.PatientPosition, head.BodyPartExamined = "B30f", "HFS", "CHEST"
    head.GantryDetectorTilt, head.TableHeight, head.ReconstructionDiameter = "0", "150", "400"
    head.SeriesNumber, head.AcquisitionNumber, head.InstanceNumber = "2", "1", str(index + 1)
    head.SliceThickness, head.PixelSpacing = "1.0", ["0.78125", "0.78125"]
    head.ImagePositionPatient = ["-200", "-200", f"{index:.1f}"]
    head.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    head.PositionReferenceIndicator, head.SliceLocation = "", f"{index:.1f}"
    head.SamplesPerPixel, head.PhotometricInterpretation = 1, "MONOCHROME2"
    head.Rows = head.Columns = size
    head.BitsAllocated, head.BitsStored, head.HighBit, head.PixelRepresentation = 16, 16, 15, 1
    head.WindowCenter, head.WindowWidth, head.RescaleType = "40", "400", "HU"
    head.RescaleIntercept, head.RescaleSlope = "-1024", "1"
    for group in (0x0019, 0x0021, 0x0045):
        block = head.private_block(group, "MEDLD BENCHMARK", create=True)
        for element in range(12):
            block.add_new(element, "DS", f"{element}.5")
    return head


def write_series(folder: Path, slices: int, size: int, syntax: UID) -> list[Path]:
    """A CT series of one file a slice."""
    folder.mkdir()
    uids = generate_uid(), generate_uid(), generate_uid()
    paths = []
    for index in range(slices):
        head, stored = header_of(index, size, *uids), phantom_slice(index, size)
        head.file_meta = FileMetaDataset()
        head.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        head.PixelData = stored.astype("<i2").tobytes()
        head["PixelData"].VR = "OW"
        if syntax == RLELossless:
            head.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        elif syntax == JPEGLosslessSV1:
            head.file_meta.TransferSyntaxUID = JPEGLosslessSV1
            code = imagecodecs.ljpeg_encode(stored.view(np.uint16), bitspersample=16)
            head.PixelData = encapsulate([bytes(code)])
            head["PixelData"].VR = "OB"
        paths.append(folder / f"{index:04d}.dcm")
        head.save_as(paths[-1], enforce_file_format=True)
    return paths


def read_by_pydicom(paths: list[Path]) -> np.ndarray:
    """The stored numbers of all files, (files, rows, columns)."""
    return np.stack([dcmread(path).pixel_array for path in paths])


def pass_by_pydicom(paths: list[Path]) -> int:
    """The stored numbers of each file, one after the other; nothing is kept."""
    return sum(int(dcmread(path).pixel_array[0, 0]) for path in paths)


def read_by_medld(folder: Path) -> tuple[float, float, np.ndarray]:
    """Seconds of listing and of reading, and the values."""
    begin = time.perf_counter()
    (series,) = list_series(folder).usable
    middle = time.perf_counter()
    volume, _ = read_series(series)
    return middle - begin, time.perf_counter() - middle, volume.array


def seconds_of(function: Callable[[], object]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def report(name: str, folder: Path, paths: list[Path], repeats: int) -> None:
    """Measure one series; both readers in turn, and the best of each, since other work only slows."""
    ours, theirs, passing = [], [], []
    for _ in range(repeats):
        *seconds, array = read_by_medld(folder)
        ours.append(seconds)
        peak, volume_gib = measure_peak_gib() or 0.0, array.nbytes / 2**30
        del array
        passing.append(seconds_of(lambda: pass_by_pydicom(paths)))
        theirs.append(seconds_of(lambda: read_by_pydicom(paths)))
    listing, reading = min(ours, key=sum)
    ratio = (listing + reading) / min(theirs)
    print(
        f"{name}: medld {listing + reading:.2f} s (list {listing:.2f}, read {reading:.2f}), "
        f"pydicom {min(theirs):.2f} s, passing {min(passing):.2f} s"
    )
    bar = f"bar {BAR_RATIO:g}: {'kept' if ratio <= BAR_RATIO else 'MISSED'}" if name == "native" else "no bar"
    print(f"  ratio   {ratio:.2f} ({bar}), to passing {(listing + reading) / min(passing):.2f}")
    kept = peak <= volume_gib + BAR_GIB
    print(f"  memory  {peak:.2f} GiB, volume {volume_gib:.2f} + {BAR_GIB:g} GiB: {'kept' if kept else 'MISSED'}")


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the reading of a DICOM series against pydicom alone.")
    parser.add_argument("--slices", type=int, default=500, help="%(default)s")
    parser.add_argument("--size", type=int, default=512, help="rows and columns (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="%(default)s")
    return parser.parse_args()


def main() -> None:
    """One series of each kind, written into a folder that goes away."""
    options = parse_options()
    register_codecs()
    print(f"{options.slices} slices of {options.size} x {options.size}, 16 bits")
    for name, syntax in SYNTAXES.items():
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root) / "series"
            paths = write_series(folder, options.slices, options.size, syntax)
            report(name, folder, paths, options.repeats)


if __name__ == "__main__":
    main()
