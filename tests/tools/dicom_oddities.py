"""Odd but sound series, and what must be read from each.

Numbers in comments are rows of the table of bad inputs that the project keeps.
"""

from __future__ import annotations

import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dicom_factory as factory
import numpy as np
from dicom_factory import UID_ROOT, edit, edit_bytes, make_enhanced, make_series, set_tag, truth
from dicom_makers import Change, good
from pydicom import Dataset, dcmread


@dataclass(frozen=True)
class Expected:
    """What must be read from `path`.

    Args:
        path: Folder or file.
        values: (columns, rows, slices).
        affine: (4, 4), RAS+ mm.
        warnings: Codes that must be said.
        tolerance: mm by which the affine may differ.
        value_tolerance: Scanner units by which values may differ.
    """

    path: Path
    values: np.ndarray
    affine: np.ndarray
    warnings: tuple[str, ...] = ()
    tolerance: float = 1e-4
    value_tolerance: float = 1e-3


def kept(change: Change, *warnings: str, **options: Any) -> Callable[[Path], Expected]:
    """A change to every file that leaves geometry and values alone."""

    def make(folder: Path) -> Expected:
        paths = good(folder, **options)
        expected = Expected(folder / "in", *truth(paths), warnings)
        edit(paths, change)
        return expected

    return make


def as_made(*warnings: str, value_tolerance: float = 1e-3, **options: Any) -> Callable[[Path], Expected]:
    """A sound series of some kind; what pydicom itself cannot decode is compared with what was encoded."""

    def make(folder: Path) -> Expected:
        plain = make_series(folder / "plain", **(options | {"syntax": factory.EXPLICIT}))
        values, affine = truth(plain)
        shutil.rmtree(folder / "plain")
        good(folder, **options)
        return Expected(folder / "in", values, affine, warnings, value_tolerance=value_tolerance)

    return make


def incomplete(folder: Path, *, first: bool) -> Expected:
    """2: a slice is missing at an end, as Instance Number or Images in Acquisition tell."""
    paths = good(folder)
    if not first:
        set_tag(paths, "ImagesInAcquisition", "12")
    paths.pop(0 if first else -1).unlink()
    return Expected(folder / "in", *truth(paths), ("W_INCOMPLETE",))


def same_file_twice(folder: Path) -> Expected:
    """3: one file under another name."""
    paths = good(folder)
    shutil.copy(paths[4], folder / "in" / "copy.dcm")
    return Expected(folder / "in", *truth(paths), ("W_DUP",))


def folder_twice(folder: Path) -> Expected:
    """3: everything under another name."""
    paths = good(folder)
    shutil.copytree(folder / "in", folder / "in" / "copy")
    return Expected(folder / "in", *truth(paths), ("W_DUP",))


def shuffled(folder: Path) -> Expected:
    """13: file names and Instance Numbers in no order of position."""
    paths = good(folder, orientation="oblique")
    expected = Expected(folder / "in", *truth(paths))
    order = np.random.default_rng(3).permutation(len(paths))
    edit(paths, lambda dataset, index: setattr(dataset, "InstanceNumber", int(order[index]) + 1))
    for path, place in zip(paths, np.random.default_rng(4).permutation(len(paths)), strict=True):
        path.rename(path.with_name(f"{place:02d}"))
    return expected


def without_preamble(folder: Path) -> Expected:
    """19: the data set alone, Implicit VR, as old archives keep it."""
    paths = good(folder, syntax=factory.IMPLICIT)
    expected = Expected(folder / "in", *truth(paths))
    edit_bytes(paths, lambda raw: raw[144 + struct.unpack("<I", raw[140:144])[0] :])
    return expected


def zipped(folder: Path) -> Expected:
    """A study as it is mailed."""
    paths = good(folder)
    values, affine = truth(paths)
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, f"study/{path.name}")
    shutil.rmtree(folder / "in")
    return Expected(folder / "study.zip", values, affine)


def appended(folder: Path) -> Expected:
    """Another object behind the pixels of one file, and zeros behind those of another."""
    paths = good(folder)
    expected = Expected(folder / "in", *truth(paths))
    other = paths[7].read_bytes()
    edit_bytes([paths[3]], lambda raw: raw + other)
    edit_bytes([paths[4]], lambda raw: raw + bytes(512))
    return expected


def icon(folder: Path) -> Expected:
    """A small picture in the header, whose pixels come before those of the image."""
    paths = good(folder)

    def change(dataset: Any, index: int) -> None:
        item = Dataset()
        item.Rows, item.Columns, item.SamplesPerPixel, item.PhotometricInterpretation = 20, 24, 1, "MONOCHROME2"
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 12, 11, 0
        item.add_new("PixelData", "OW", bytes(20 * 24 * 2))
        dataset.IconImageSequence = [item]

    edit(paths, change)
    return Expected(folder / "in", *truth(paths))


def slope_per_slice(folder: Path) -> Expected:
    """23: Philips scales every slice for itself."""
    paths = good(folder)

    def change(dataset: Any, index: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{1 + 0.125 * index}", f"{index}"

    edit(paths, change)
    return Expected(folder / "in", *truth(paths))


def bits_outside(folder: Path) -> Expected:
    """23: set bits above the twelve that are stored."""
    paths = good(folder)
    expected = Expected(folder / "in", *truth(paths))

    def change(dataset: Any, index: int) -> None:
        stored = np.frombuffer(dataset.PixelData, "<u2")
        junk = np.random.default_rng(index).integers(0, 16, stored.size).astype("<u2") << 12
        dataset.PixelData = (stored | junk).astype("<u2").tobytes()

    edit(paths, change)
    return expected


def padded(folder: Path) -> Expected:
    """23: -2000 outside the field of view, as GE has it."""
    values = factory.phantom(12, (20, 24), "CT")
    values[:, :2], values[:, -2:] = -2000, -2000
    paths = good(folder, modality="CT", inter=0.0, values=values)
    edit(paths, lambda dataset, index: dataset.add_new("PixelPaddingValue", "SS", -2000))
    expected = Expected(folder / "in", *truth(paths))
    assert expected.values.min() == -2000
    return expected


def metal(folder: Path) -> Expected:
    """29: +30000 HU in some voxels."""
    values = factory.phantom(12, (20, 24), "CT")
    values[5, 8:11, 8:11] = 30000
    paths = good(folder, modality="CT", inter=0.0, values=values)
    return Expected(folder / "in", *truth(paths), ("W_RANGE",))


def jitter(amount: float, keyword: str) -> Callable[[Path], Expected]:
    """Positions in mm, or cosines, that miss by a little."""

    def make(folder: Path) -> Expected:
        paths = good(folder)
        values, affine = truth(paths)
        rng = np.random.default_rng(5)

        def change(dataset: Any, index: int) -> None:
            numbers = np.array(getattr(dataset, keyword), dtype=float)
            setattr(dataset, keyword, [f"{n:.8g}" for n in numbers + rng.uniform(-amount, amount, numbers.size)])

        edit(paths, change)
        return Expected(
            folder / "in", values, affine, tolerance=max(2 * amount, 30 * amount * (keyword != "ImagePositionPatient"))
        )

    return make


def scout_beside(folder: Path) -> Expected:
    """10: a localizer and a scan in one study."""
    paths = good(folder)
    expected = Expected(folder / "in", *truth(paths))
    scout = make_series(folder / "in" / "scout", slices=3, orientation="coronal", series=2)
    set_tag(scout, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])
    return expected


def enhanced(folder: Path) -> Expected:
    """One object with a slope for every frame."""
    path = make_enhanced(folder / "in" / "e.dcm", orientation="oblique", slopes=[1 + k / 8 for k in range(12)])
    (folder / "plain").mkdir()
    affine = truth(make_series(folder / "plain", orientation="oblique"))[1]
    shutil.rmtree(folder / "plain")
    stored = dcmread(path).pixel_array.astype(float) * np.array([1 + k / 8 for k in range(12)])[:, None, None]
    return Expected(folder / "in", stored.transpose(2, 1, 0), affine)


def _empty_number(dataset: Any, index: int) -> None:
    dataset.InstanceNumber = None


def _same_number(dataset: Any, index: int) -> None:
    dataset.InstanceNumber = 1


def _no_frame_of_reference(dataset: Any, index: int) -> None:
    del dataset.FrameOfReferenceUID


def _own_frame_of_reference(dataset: Any, index: int) -> None:
    dataset.FrameOfReferenceUID = f"{UID_ROOT}.5.{index + 1}"  # as some tools for anonymisation leave it


def _inverted(dataset: Any, index: int) -> None:
    dataset.PhotometricInterpretation = "MONOCHROME1"


def _deep_resolve(dataset: Any, index: int) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "DRG", "NORM", "DRS", "DIS2D"]


def _other_ai(dataset: Any, index: int) -> None:
    dataset.DerivationDescription = "SubtleMR 2.3 enhanced"


def _markup(dataset: Any, index: int) -> None:
    dataset.SeriesDescription = "../a/b\nc <script>alert(1)</script>"
    dataset.ProtocolName = "%s %n {0} $(id)"


def _private(dataset: Any, index: int) -> None:
    block = dataset.private_block(0x0029, "ANY VENDOR", create=True)
    block.add_new(0x10, "OB", bytes(range(200)))


def _exponents(dataset: Any, index: int) -> None:
    dataset.PixelSpacing = ["009.000000E-01", "8.0E-1"]


def _half_number(dataset: Any, index: int) -> None:
    dataset.ImageOrientationPatient = ["1.", "-0", "0.0", "0", "+1.0", " 0"]


ACCEPTED: dict[str, Callable[[Path], Expected]] = {
    "sound MR": as_made(),
    "sound CT": as_made(modality="CT"),
    "oblique": as_made(orientation="oblique"),
    "first slice missing": partial(incomplete, first=True),
    "last slice missing": partial(incomplete, first=False),
    "same file twice": same_file_twice,
    "folder twice": folder_twice,
    "shuffled": shuffled,
    "empty Instance Number": kept(_empty_number),
    "one Instance Number for all": kept(_same_number),
    "no preamble": without_preamble,
    "zip": zipped,
    "another object appended": appended,
    "icon": icon,
    "MONOCHROME1": kept(_inverted),
    "slope per slice": slope_per_slice,
    "bits outside": bits_outside,
    "padding -2000": padded,
    "no frame of reference": kept(_no_frame_of_reference),
    "a frame of reference per slice": kept(_own_frame_of_reference),
    "metal": metal,
    "12 bits signed": as_made(modality="CT", bits_stored=12),
    "16 bits unsigned": as_made(bits_stored=16, slope=0.02),
    "8 bits": as_made(dtype=np.uint8, slope=6.0),
    "implicit": as_made(syntax=factory.IMPLICIT),
    "implicit, a length like letters": as_made(syntax=factory.IMPLICIT, shape=(85, 148), slices=3),  # b"Hb"
    "big endian": as_made(syntax=factory.BIG_ENDIAN),
    "deflated": as_made(syntax=factory.DEFLATED),
    "RLE": as_made(syntax=factory.RLE),
    "RLE, 8 bits": as_made(syntax=factory.RLE, dtype=np.uint8, slope=6.0),
    "RLE, signed": as_made(syntax=factory.RLE, modality="CT"),
    "JPEG lossless": as_made(syntax=factory.JPEG_LOSSLESS),
    "JPEG lossless, signed": as_made(syntax=factory.JPEG_LOSSLESS, modality="CT", inter=0.0),
    "JPEG-LS": as_made(syntax=factory.JPEG_LS),
    "JPEG-LS, signed": as_made(syntax=factory.JPEG_LS, modality="CT", inter=0.0),
    "J2K": as_made(syntax=factory.J2K),
    "J2K, signed": as_made(syntax=factory.J2K, modality="CT", inter=0.0),
    "J2K, 8 bits": as_made(syntax=factory.J2K, dtype=np.uint8, slope=6.0),
    "J2K, lossy": as_made(syntax=factory.J2K_LOSSY, value_tolerance=40.0),
    "JPEG-LS, lossy": as_made(syntax=factory.JPEG_LS_LOSSY, value_tolerance=2.0),
    "Deep Resolve": kept(_deep_resolve, "W_SECOND_PASS"),
    "another AI": kept(_other_ai, "W_SECOND_PASS"),
    "markup in descriptions": kept(_markup),
    "private tags": kept(_private),
    "numbers with exponents": kept(_exponents),
    "numbers with signs and points": kept(_half_number),
    "jitter 0.02 mm": jitter(0.02, "ImagePositionPatient"),
    "jitter 1e-5": jitter(1e-5, "ImageOrientationPatient"),
    "scout beside": scout_beside,
    "enhanced": enhanced,
}
