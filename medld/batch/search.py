"""Search: which inputs there are, told by content rather than by name.

A file is DICOM if it says so, else an image file. A folder is searched for both; all DICOM below
it is one catalogue, from which the option --series chooses. What is left out becomes an outcome.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medld.batch.inputs import DicomSeries, ImageFile, Input, name_series
from medld.batch.names import image_suffix
from medld.batch.settings import EnhanceSettings, Outcome
from medld.errors import InputError, MedldError
from medld.io import read_header, sidecar_path
from medld.report import describe_trace

if TYPE_CHECKING:
    from medld.io.dicom import Catalogue, Series
    from medld.io.dicom.series import Refusal, Source

__all__ = [
    "Found",
    "discreet",
    "find_inputs",
    "holds_dicom",
    "is_archive",
    "is_dicom",
    "name_source",
    "read_catalogue",
    "walk",
]

Status = Literal["refused", "skipped", "failed"]

logger = logging.getLogger(__name__)

WHOLE = "DICOM"
"""As a part: everything that is DICOM at a path."""
NO_SCAN = ("E_NOT_IMAGE", "E_4D", "E_TOO_FEW")
"""Codes of what lies beside scans in any study and is none to restore: captures, diffusion, references."""
SURVEY = {"LOCALIZER", "SCOUT"}  # values of Image Type (0008,0008)


@dataclass
class Found:
    """What a search found.

    Args:
        inputs: Scans to restore, in the order in which they were given, folders sorted by name.
        outcomes: What is left out already.
        originals: Files of DICOM that are never replaced, by real path.
        dicom: Whether there is DICOM among it.
    """

    inputs: list[Input] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    originals: set[str] = field(default_factory=set)
    dicom: bool = False


def find_inputs(paths: Sequence[Path], settings: EnhanceSettings) -> Found:
    """Find what is to be restored, each scan once.

    Args:
        paths: Files, archives, or folders that are searched recursively (hidden names left out).
        settings: The options.
    """
    search = _Search(settings)
    for path in [p for p in paths if not p.is_dir()]:
        search.look_at_file(path)
    for folder in [p for p in paths if p.is_dir()]:
        search.look_below(folder)
    return search.found


def is_dicom(path: Path) -> bool:
    """Whether a file, or what an archive holds, is DICOM.

    Image files are told by a few bytes, so that a run on them never loads a DICOM library.
    """
    try:
        if image_suffix(path):
            with path.open("rb") as stream:
                return stream.read(132)[128:] == b"DICM"
        if not path.is_file() or path.stat().st_size == 0:
            return False
    except OSError:
        return False
    from medld.io.dicom import looks_like_dicom

    return looks_like_dicom(path)


def holds_dicom(files: Sequence[Path]) -> bool:
    """Whether any file met in a folder is DICOM; archives are looked into only if they are named."""
    return any(is_dicom(file) for file in files if not is_archive(file))


def is_archive(path: Path) -> bool:
    """Whether a file is a .zip archive, which is looked at for DICOM only."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"PK\3\4", b"PK\5\6") or path.suffix.lower() == ".zip"
    except OSError:
        return False


def read_catalogue(path: Path) -> Catalogue:
    """What DICOM there is at a path; errors are those of medld only, and quote nothing.

    Raises:
        InputError: What `list_series` raises, or E_NOT_IMAGE if a file cannot be read.
        MedldError: E_INTERNAL for a defect of ours.
    """
    from medld.io.dicom import list_series

    with discreet():
        return list_series(path)


@contextmanager
def discreet() -> Iterator[None]:
    """Turn errors that medld did not foresee into its own: their messages may quote a header.

    Raises:
        InputError: E_NOT_IMAGE, if a file cannot be read; E_TOO_BIG, if memory ran out.
        MedldError: E_INTERNAL for a defect of ours.
    """
    try:
        yield
    except MedldError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}; check its permissions", "E_NOT_IMAGE") from None
    except MemoryError:
        raise InputError("memory ran out; name less, or use a machine with more", "E_TOO_BIG") from None
    except Exception as error:
        logger.debug("unexpected: %s", describe_trace(error))
        raise MedldError(f"{type(error).__name__}, a defect of medld; --verbose shows where") from None


def walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, sorted; a broken link counts, so that it is refused and not overlooked."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # Hidden: macOS puts a "._scan.nii.gz" that is no image beside every file on a foreign disk.
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def name_source(source: Source, below: Path) -> str:
    """A name for a file that tells nothing of the patient: file names of exports often do."""
    from medld.io.dicom import hash_uid

    path = os.path.relpath(source.path, below) if below.is_dir() else source.path.name
    return f"file-{hash_uid(f'{path} {source.member or str()}')}"


class _Search:
    """A search under way."""

    def __init__(self, settings: EnhanceSettings) -> None:
        self.found = Found()
        self._settings = settings
        self._seen: set[object] = set()

    def look_at_file(self, path: Path) -> None:
        """A file that the caller named."""
        if not self._is_new(os.path.abspath(path)):
            return
        if not path.exists():
            self._leave_out(path, "refused", InputError.code, "no such file or folder; check the path")
        elif is_archive(path) or is_dicom(path):
            self._look_at_dicom(path, explicit=True)
        else:
            self.found.inputs.append(ImageFile(path, True))

    def look_below(self, folder: Path) -> None:
        """A folder: its DICOM as a whole, then its image files one by one."""
        files = list(walk(folder))
        images = [path for path in files if image_suffix(path)]
        if holds_dicom(files):
            images = self._look_at_dicom(folder, explicit=False, images=images)
        for path in images:
            if self._is_new(os.path.abspath(path)):
                self._look_at_image(path)

    def _look_at_image(self, path: Path) -> None:
        """An image file met in a folder: left out if its header says so, an unreadable one is left to the run."""
        try:
            header = read_header(path)
        except MedldError:
            header = None
        if header is not None and header.second_pass:
            self._leave_out(path, "skipped", "E_SECOND_PASS", "an output of medld")
        elif header is not None and header.named_label and not self._settings.force:
            self._leave_out(path, "skipped", "E_NOT_IMAGE", "a label map")
        else:
            self.found.inputs.append(ImageFile(path, False))

    def _look_at_dicom(self, path: Path, *, explicit: bool, images: Sequence[Path] = ()) -> list[Path]:
        """All DICOM at a path; the image files of `images` that are no part of it."""
        self.found.dicom = True
        try:
            catalogue = read_catalogue(path)
        except MedldError as error:  # one bad folder must not stop the rest, whatever it does to us
            self._leave_out(path, "failed" if error.code == "E_INTERNAL" else "refused", error.code, str(error), WHOLE)
            return list(images)
        taken = {source.path for series in catalogue.series for source in series.sources}
        self.found.originals.update(os.path.realpath(file) for file in taken)
        self._list_refused(catalogue, explicit)
        try:
            self._choose(catalogue, explicit)
        except MedldError as error:
            self._leave_out(path, "refused", error.code, str(error), WHOLE)
        images = [image for image in images if image not in taken]
        handled = {file for image in images for file in (image, sidecar_path(image))}
        self._list_skipped(path, {s: r for s, r in catalogue.skipped.items() if s.path not in handled})
        return images

    def _list_refused(self, catalogue: Catalogue, explicit: bool) -> None:
        """Series that cannot be used, each with its reason."""
        for series in catalogue.series:
            if series.refusal is not None:
                status: Status = "refused" if explicit or self._counts(series) else "skipped"
                code, reason = series.refusal.code, series.refusal.reason
                if code == "E_TOO_FEW" and explicit and not is_archive(catalogue.path):
                    reason += "; name the folder that holds the whole series"
                self._leave_out(catalogue.path, status, code, reason, name_series(series))

    def _choose(self, catalogue: Catalogue, explicit: bool) -> None:
        """The series that are wanted become inputs."""
        from medld.io.dicom import choose_series

        wanted = self._settings.series
        if not catalogue.usable and (catalogue.series or not explicit) and wanted in (None, "all"):
            return  # each has said why
        with discreet():
            chosen = choose_series(catalogue, wanted)
        for series in chosen:
            # Once, though a folder and one below it may be named.
            key = tuple((os.path.realpath(f.source.path), f.source.member, f.index) for f in series.frames)
            if not series.second_pass and self._is_new(key):
                self.found.inputs.append(DicomSeries(catalogue.path, explicit, series))
        named = explicit or wanted not in (None, "all")
        for series in catalogue.usable:
            if series.second_pass:
                status: Status = "refused" if named and series in chosen else "skipped"
                reason = "an output of medld; enhance the original"
                self._leave_out(catalogue.path, status, "E_SECOND_PASS", reason, name_series(series))

    def _counts(self, series: Series) -> bool:
        """Whether a series that cannot be used is a scan that someone will miss."""
        from medld.io.dicom.frames import words_of

        assert series.refusal is not None
        if self._settings.series not in (None, "all") or series.refusal.code in NO_SCAN:
            return False
        return not SURVEY & set(words_of(series.head, "ImageType"))

    def _list_skipped(self, path: Path, skipped: Mapping[Source, Refusal]) -> None:
        """Files that are no images, counted by reason."""
        names: dict[tuple[str, str], list[str]] = defaultdict(list)
        for source, refusal in skipped.items():
            names[refusal.code, refusal.reason].append(name_source(source, path))
        for (code, reason), files in names.items():
            part = f"{len(files)} files" if len(files) > 1 else "1 file"
            self.found.outcomes.append(Outcome(path, "skipped", code, reason, part=part, files=tuple(files)))

    def _leave_out(self, path: Path, status: Status, code: str, reason: str, part: str = "") -> None:
        """An outcome for what is no input."""
        self.found.outcomes.append(Outcome(path, status, code, reason, part=part))

    def _is_new(self, key: object) -> bool:
        """Whether something is seen for the first time."""
        new = key not in self._seen
        self._seen.add(key)
        return new
