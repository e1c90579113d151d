"""Bombs: small files that claim, or become, far more than they are. Row 20 of the table of bad inputs."""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import dicom_factory as factory
from dicom_factory import edit_bytes
from dicom_makers import Maker, changed, good, with_syntax
from pydicom.encaps import encapsulate

RLE_STREAM = struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\x00\x81\x00"  # two runs of 128 zeros


def pixels_replaced(code: bytes, rows: int, columns: int, slices: int = 12) -> Maker:
    """a small RLE stream that declares a large image."""

    def change(dataset: Any, index: int) -> None:
        dataset.Rows, dataset.Columns = rows, columns
        dataset.PixelData = encapsulate([code])

    return changed(change, slices=slices, syntax=factory.RLE)


def deflate_bomb(folder: Path) -> Path:
    """200 MB of zeros in a private element, deflated to 200 kB."""
    paths = good(folder, slices=3, syntax=factory.EXPLICIT)
    length = 200 * 2**20
    for path in paths:
        raw = with_syntax(path.read_bytes(), factory.DEFLATED)
        head_length = 144 + struct.unpack("<I", raw[140:144])[0]
        packer = zlib.compressobj(9, wbits=-15)
        body = packer.compress(_before_group(raw[head_length:]))
        body += packer.compress(struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, length))
        zeros = bytes(2**20)
        body += b"".join(packer.compress(zeros) for _ in range(200))
        body += packer.compress(_after_group(raw[head_length:])) + packer.flush()
        path.write_bytes(raw[:head_length] + body)
    return folder / "in"


def _before_group(body: bytes) -> bytes:
    """The data set's elements of group 0008."""
    return body[: body.index(b"\x10\x00\x10\x00PN")]


def _after_group(body: bytes) -> bytes:
    """The data set from group 0010 on."""
    return body[body.index(b"\x10\x00\x10\x00PN") :]


def zip_bomb(folder: Path) -> Path:
    """300 MB of zeros in 300 kB."""
    path = folder / "study.zip"
    head = good(folder)[0].read_bytes()
    shutil.rmtree(folder / "in")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("I1.dcm", "w") as member:
        member.write(head)
        zeros = bytes(2**20)
        for _ in range(300):
            member.write(zeros)
    return path


def zip_that_claims_much(folder: Path) -> Path:
    """a directory that says 4 GB for every member."""
    path = folder / "study.zip"
    paths = good(folder)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in paths:
            archive.write(source, source.name)
    shutil.rmtree(folder / "in")
    raw = bytearray(path.read_bytes())
    at = 0
    while (at := raw.find(b"PK\x01\x02", at)) >= 0:
        raw[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)
        at += 4
    path.write_bytes(bytes(raw))
    return path


def deep_sequences(depth: int) -> Maker:
    """Sequences within sequences, deeper than a program that calls itself can follow."""
    nested = b"".join([b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"] * depth)
    nested += b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * depth

    def make(folder: Path) -> Path:
        def change(raw: bytes) -> bytes:
            at = raw.index(b"\xe0\x7f\x10\x00OW")
            return raw[:at] + nested + raw[at:]

        edit_bytes(good(folder), change)
        return folder / "in"

    return make
