"""Makers: a good series, and the ways to change it.

A maker gets an empty folder and gives what is to be read: the folder `in` with the series.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dicom_factory as factory
from dicom_factory import edit, edit_bytes, make_enhanced, make_series, set_tag
from pydicom.encaps import encapsulate

Change = Callable[[Any, int], None]
Maker = Callable[[Path], Path]


def good(folder: Path, **options: Any) -> list[Path]:
    """A sound series of 12 slices."""
    return make_series(folder / "in", **options)


def changed(change: Change, only: int | None = None, **options: Any) -> Maker:
    """A series with a change to every file, or to one."""

    def make(folder: Path) -> Path:
        paths = good(folder, **options)
        edit(paths if only is None else [paths[only]], change)
        return folder / "in"

    return make


def tagged(keyword: str, value: Any, only: int | None = None, **options: Any) -> Maker:
    """A series with one attribute set, or with None removed, in every file, or in one."""

    def make(folder: Path) -> Path:
        paths = good(folder, **options)
        set_tag(paths if only is None else [paths[only]], keyword, value)
        return folder / "in"

    return make


def built(**options: Any) -> Maker:
    """A series that is impossible as it was made."""

    def make(folder: Path) -> Path:
        good(folder, **options)
        return folder / "in"

    return make


def cut(keep: Callable[[int], int], only: int | None = None, **options: Any) -> Maker:
    """A series whose files, or one of them, end too early; `keep` gives the bytes kept of so many."""

    def make(folder: Path) -> Path:
        paths = good(folder, **options)
        edit_bytes(paths if only is None else [paths[only]], lambda raw: raw[: keep(len(raw))])
        return folder / "in"

    return make


def with_syntax(raw: bytes, uid: str) -> bytes:
    """A file whose meta information names another transfer syntax; the rest stays."""
    at = raw.index(b"\x02\x00\x10\x00UI")
    length = struct.unpack("<H", raw[at + 6 : at + 8])[0]
    value = uid.encode() + b"\0" * (len(uid) % 2)
    raw = raw[: at + 6] + struct.pack("<H", len(value)) + value + raw[at + 8 + length :]
    return raw[:140] + struct.pack("<I", struct.unpack("<I", raw[140:144])[0] + len(value) - length) + raw[144:]


def in_syntax(uid: str) -> Maker:
    """24: fragments of nothing known, under a transfer syntax."""

    def change(dataset: Any, index: int) -> None:
        dataset.PixelData = encapsulate([b"\x12\x34" * 60])

    def make(folder: Path) -> Path:
        paths = edit(good(folder, syntax=factory.RLE), change)
        edit_bytes(paths, lambda raw: with_syntax(raw, uid))
        return folder / "in"

    return make


def enhanced_with(change: Callable[[Any], None], **options: Any) -> Maker:
    """An enhanced object with a change to it."""

    def make(folder: Path) -> Path:
        edit([make_enhanced(folder / "in" / "e.dcm", **options)], lambda dataset, index: change(dataset))
        return folder / "in"

    return make
