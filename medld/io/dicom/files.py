"""Files: where DICOM objects are looked for, and how their bytes are reached.

    folder      all files below it, in the order of their names; hidden names and links that
                lead out of it are left out; names and suffixes say nothing
    archive     a .zip: its members are read where they are, never extracted to a path
    file        itself

Deflated DICOM is inflated here, within a bound, so that the rest sees plain little endian.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

from medld.errors import InputError
from medld.io.dicom.series import Refusal, Source
from medld.io.files import digest_of, stream_sha256

__all__ = ["MAX_MEMBER_BYTES", "find_sources", "hash_sources", "looks_like_dicom", "open_source"]

MAX_FILES = 200_000  # of one folder or archive; a large study has thousands
MAX_MEMBER_BYTES = 4 * 2**30  # of one member or one deflated object, uncompressed
MAX_RATIO = 100  # uncompressed to compressed; scans reach 10, padded ones more, but those are small
SMALL_BYTES = 16 * 2**20  # below it the ratio does not matter
HEAD_BYTES = 4096  # read to tell what a file is
LOOK_FILES = 500  # looked at in a folder or archive before it counts as no DICOM

DEFLATED = b"1.2.840.10008.1.2.1.99"
EXPLICIT = b"1.2.840.10008.1.2.1\0\0\0"  # as long as the name that it replaces
_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)

NOT_DICOM = Refusal("E_NOT_IMAGE", "not a DICOM file")
EMPTY = Refusal("E_NOT_IMAGE", "an empty file")


def find_sources(path: Path) -> tuple[list[Source], dict[Source, Refusal]]:
    """Everything at a path that may be a DICOM object, and what is not, with the reason.

    Args:
        path: A file, a folder (looked through with all its subfolders) or a .zip archive.

    Returns:
        Candidates and the others, each in the order of their names.

    Raises:
        InputError: E_NOT_IMAGE, if there is nothing at that path or the archive is damaged;
            E_TOO_BIG, if it holds too many files.
    """
    if not path.exists():
        raise InputError("expected a DICOM file, folder or .zip archive, there is nothing of that name", "E_NOT_IMAGE")
    found: list[Source] = []
    skipped: dict[Source, Refusal] = {}
    sources = _iterate_members(path) if _is_archive(path) else _iterate_files(path)
    for source, refusal in sources:
        if len(found) + len(skipped) >= MAX_FILES:
            raise InputError(f"expected at most {MAX_FILES} files; name the folder of one study", "E_TOO_BIG")
        refusal = refusal or _first_look(source)
        if refusal is None:
            found.append(source)
        else:
            skipped[source] = refusal
    return found, skipped


def open_source(source: Source) -> BinaryIO:
    """The bytes of one object as a seekable stream; deflated ones come inflated, as explicit little endian.

    Raises:
        InputError: E_TOO_BIG for a decompression bomb, E_TRUNC for a damaged archive or deflated
            object, E_NOT_IMAGE if it cannot be opened.
    """
    stream = _open_raw(source)
    try:
        head = stream.read(HEAD_BYTES)
        stream.seek(0)
        start = _deflated_start(head)
        return stream if start is None else _inflate(stream, head, start)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        stream.close()
        raise InputError("the archive or file is cut or damaged; copy it again", "E_TRUNC") from error
    except BaseException:
        stream.close()
        raise


def hash_sources(sources: Iterable[Source]) -> str:
    """SHA-256 of DICOM objects together, hexadecimal: the same whatever they are called, in an archive or outside.

    Raises:
        InputError: As `open_source`.
    """
    hashes = []
    for source in sources:
        try:
            with _open_raw(source) as stream:
                hashes.append(stream_sha256(stream))
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise InputError("the archive or file is cut or damaged; copy it again", "E_TRUNC") from error
    return digest_of(hashes)


def looks_like_dicom(path: Path | str) -> bool:
    """Whether a file, or something in a folder or .zip archive, begins as a DICOM object does.

    Cheap: a few bytes of a file, of the first `LOOK_FILES` files of a folder or archive.
    Whatever cannot be read does not look like DICOM.
    """
    path = Path(path)
    try:
        sources = _iterate_members(path) if _is_archive(path) else _iterate_files(path)
        for number, (source, refusal) in enumerate(sources):
            if number >= LOOK_FILES:
                return False
            if refusal is None and _first_look(source) is None:
                return True
    except (OSError, InputError):
        pass
    return False


def is_dicom_head(head: bytes, size: int) -> bool:
    """Whether the first bytes are those of a DICOM object, with or without its preamble.

    Without it the first element must be a low one of group 2 or 8, with a known value
    representation or, in implicit encoding, a length that the file has room for.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    for order in "<>":
        group, element, kind, length = struct.unpack_from(f"{order}HH2sH", head)
        if group in (0x0002, 0x0008) and element <= 0x0018:
            if kind in _VALUE_REPRESENTATIONS:
                return cast(int, length) <= size
            implicit = struct.unpack_from("<I", head, 4)[0]
            return order == "<" and implicit <= min(size, 1024) and implicit % 2 == 0
    return False


def _iterate_files(path: Path) -> Iterator[tuple[Source, Refusal | None]]:
    """The regular files at or below a path, in the order of their names."""
    root = path.resolve()
    if not root.is_dir():
        yield from _source_of(path, None)
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(names):
            if not _is_hidden(name):
                yield from _source_of(Path(folder) / name, root)


def _source_of(path: Path, root: Path | None) -> Iterator[tuple[Source, Refusal | None]]:
    """A file as a source; nothing for pipes, devices and links that lead out of the root."""
    try:
        if root is not None and path.is_symlink() and not path.resolve(strict=True).is_relative_to(root):
            yield Source(path, None, 0), Refusal("E_NOT_IMAGE", "a link that leads out of the folder")
            return
        status = path.stat()
    except OSError:
        yield Source(path, None, 0), Refusal("E_NOT_IMAGE", "cannot be read")
        return
    if stat.S_ISREG(status.st_mode):
        yield Source(path, None, status.st_size), None if status.st_size else EMPTY


def _iterate_members(path: Path) -> Iterator[tuple[Source, Refusal | None]]:
    """The members of an archive, in the order of their names; none is decompressed here."""
    members = {info.filename: info for info in _archive(path).infolist() if info.filename and not info.is_dir()}
    for name in sorted(members):
        if not any(_is_hidden(part) for part in re.split(r"[/\\]", name)):
            info = members[name]
            yield Source(path, name, info.file_size), _refuse_member(info)


def _refuse_member(info: zipfile.ZipInfo) -> Refusal | None:
    """Why a member is not opened, or None."""
    if info.file_size == 0:
        return EMPTY
    if info.flag_bits & 0x1:
        return Refusal("E_NOT_IMAGE", "encrypted; unpack the archive first")
    if stat.S_ISLNK(info.external_attr >> 16):
        return Refusal("E_NOT_IMAGE", "a link")
    if _is_bomb(info.file_size, info.compress_size):
        return Refusal("E_TOO_BIG", f"{info.file_size / 2**20:.0f} MiB packed into {info.compress_size} bytes")
    return None


def _is_bomb(size: int, packed: int) -> bool:
    """Whether so many bytes out of so few are more than any scan needs."""
    return size > MAX_MEMBER_BYTES or (size > SMALL_BYTES and size > MAX_RATIO * packed)


def _is_hidden(name: str) -> bool:
    """Whether a name is a system's own: hidden files, the resource forks of a Mac."""
    return name == "__MACOSX" or (name.startswith(".") and name not in (".", ".."))


def _is_archive(path: Path) -> bool:
    """Whether a path is a .zip by its content: it begins as one, so a DICOM file never is."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"PK\3\4", b"PK\5\6")
    except OSError:
        return False


def _archive(path: Path) -> zipfile.ZipFile:
    """An archive, opened once: its directory can be long."""
    status = path.stat()
    try:
        return _opened_archive(path, status.st_mtime_ns, status.st_size, os.getpid())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError("the .zip archive cannot be read; it was cut or is damaged", "E_NOT_IMAGE") from error


@lru_cache(maxsize=2)
def _opened_archive(path: Path, changed: int, size: int, process: int) -> zipfile.ZipFile:
    """Keyed by what changes when the file does, and by the process: a fork shares the file's position."""
    return zipfile.ZipFile(path)


def _open_raw(source: Source) -> BinaryIO:
    """The bytes as they are stored in the folder or archive."""
    try:
        if source.member is None:
            return source.path.open("rb")
        # `ZipExtFile` never yields more than the declared size, which `find_sources` has checked.
        member = _archive(source.path).open(source.member)
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, member)))
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError("the file cannot be opened", "E_NOT_IMAGE") from error


def _first_look(source: Source) -> Refusal | None:
    """Why the first bytes are not those of a DICOM object, or None."""
    try:
        with _open_raw(source) as stream:
            head = stream.read(256)
    except InputError as error:
        return Refusal(error.code, str(error))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile):
        return Refusal("E_TRUNC", "the archive or file is cut or damaged; copy it again")
    return None if is_dicom_head(head, source.size) else NOT_DICOM


def _deflated_start(head: bytes) -> int | None:
    """Where the deflated bytes begin, None if the transfer syntax is another.

    The file meta information is explicit little endian and says its own length in its first
    element, (0002,0000) (PS3.10, 7.1).
    """
    if head[128:132] != b"DICM" or DEFLATED not in head:
        return None
    tag, kind, length = struct.unpack_from("<I2sH", head, 132) if len(head) >= 144 else (0, b"", 0)
    if (tag, kind, length) != (0x00000002, b"UL", 4):
        return None
    start = 144 + cast(int, struct.unpack_from("<I", head, 140)[0])
    return start if DEFLATED in head[:start] and start <= len(head) else None


def _inflate(stream: BinaryIO, head: bytes, start: int) -> BinaryIO:
    """The object with its data set inflated, and its meta information saying so."""
    stream.seek(start)
    result = io.BytesIO()
    result.write(head[:start].replace(DEFLATED, EXPLICIT))
    engine, packed = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not engine.eof:
        block = stream.read(1 << 16)
        packed += len(block)
        data = engine.decompress(block, SMALL_BYTES) if block else engine.flush()
        while True:
            result.write(data)
            if _is_bomb(result.tell(), packed):
                raise InputError("a deflated object that grows beyond any scan; it is not read", "E_TOO_BIG")
            if not engine.unconsumed_tail:
                break
            data = engine.decompress(engine.unconsumed_tail, SMALL_BYTES)
        if not block:
            break
    if not engine.eof:
        # A cut stream yields what it holds, but its last byte: its header still says to which series it
        # belongs, and its pixels count as cut even where the damage is behind them.
        result.truncate(max(start, result.tell() - 1))
    stream.close()
    result.seek(0)
    return result
