"""A cohort: the fine scans of one's own that a model is tuned on, checked and split by subject.

Everything that would teach a model something wrong is refused before the first step, by the name of the
file: thick slices that pass for fine ones, two modalities, a subject on both sides of the split.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medld.dataset import THICK, Fine, subject_of, to_bytes
from medld.errors import CohortError, GridError, InputError, LabelMapError
from medld.io import SUFFIXES, file_sha256, read_volume

SPLITS = ("train", "val")
LEFT_OUT = ("derivatives", "sourcedata", "code")
"""Folders of a BIDS data set that hold no raw scans."""

VALIDATION_SHARE = 0.2
MOST_VALIDATION_SUBJECTS = 8
_SCAN_WORDS = re.compile(
    r"([_-](ses[_-]?\w+|ce[_-]?gad|t1(w|c|ce|gd|n)?|t2(w|f)?|flair|pdw?|ct|mri?))+$", re.IGNORECASE
)

LEAST_VOXELS = 32
"""Along every axis; a training crop has at least so many."""


@dataclass(frozen=True)
class Member:
    """One scan of a cohort and its subject; `sha256` is the file's."""

    path: Path
    subject: str
    sha256: str
    modality: str
    fine: Fine


@dataclass(frozen=True)
class Cohort:
    """Scans to learn from and scans to judge by; no subject is in both."""

    training: tuple[Member, ...]
    validation: tuple[Member, ...]

    @property
    def modality(self) -> str:
        """ "mr" or "ct"."""
        return self.training[0].modality

    def judged_by(self, count: int) -> Cohort:
        """The same with at most `count` validation scans, of as many subjects as that allows."""
        seen: Counter[str] = Counter()
        turns = []
        for member in self.validation:
            turns.append((seen[member.subject], member.path, member))
            seen[member.subject] += 1
        chosen = {turn[1] for turn in sorted(turns, key=lambda turn: turn[:2])[:count]}
        return replace(self, validation=tuple(member for member in self.validation if member.path in chosen))

    def summary(self) -> dict[str, Any]:
        """Counts, contrasts, spacings and a hash of all files: what may be told without naming anyone."""
        members = [*self.training, *self.validation]
        digest = hashlib.sha256("".join(sorted(member.sha256 for member in members)).encode()).hexdigest()
        spacings = np.array([member.fine.spacing for member in members])
        return {
            "training_subjects": len({member.subject for member in self.training}),
            "training_scans": len(self.training),
            "validation_subjects": len({member.subject for member in self.validation}),
            "validation_scans": len(self.validation),
            "contrasts": sorted({member.fine.contrast for member in members}),
            "spacing_mm": [spacings.min(0).round(3).tolist(), spacings.max(0).round(3).tolist()],
            "files_sha256": digest,
        }


def read_cohort(folder: Path, *, seed: int = 0, report: Callable[[str], None] = lambda line: None) -> Cohort:
    """All fine scans below a folder, split by subject.

    A folder with `train/` and `val/` has its own split; otherwise a fifth of the subjects, one at least and eight at
    most, is drawn for validation. Label maps and outputs of ours are left out and reported.

    Raises:
        InputError, GridError: A file that cannot be read, with its own code; the message names it.
        CohortError: E_COHORT. No scans, one subject only, two modalities, thick slices, a volume too small to crop, or
            a subject in both splits.
    """
    named = all((folder / split).is_dir() for split in SPLITS)
    roots = {split: folder / split for split in SPLITS} if named else {"all": folder}
    found = {split: _read_members(root, report) for split, root in roots.items()}
    members = [member for split in found.values() for member in split]
    if not members:
        raise CohortError(f"Expected fine scans ({', '.join(SUFFIXES)}) below {folder}, found none. Check the path.")
    _check_one_modality(members)
    training, validation = (found["train"], found["val"]) if named else _split(members, seed)
    _check_subjects(training, validation)
    return Cohort(tuple(training), tuple(validation))


def _read_members(root: Path, report: Callable[[str], None]) -> list[Member]:
    members = []
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.name.lower().endswith(tuple(SUFFIXES))):
        if set(path.relative_to(root).parts[:-1]) & set(LEFT_OUT):
            continue
        name = path.relative_to(root).as_posix()
        try:
            members.append(_read_member(path, name, _subject(path, root)))
        except LabelMapError:
            report(f"{name}: left out, a label map")
        except (InputError, GridError) as error:
            if error.code == "E_SECOND_PASS":
                report(f"{name}: left out, an output of medld")
                continue
            raise type(error)(f"{name}: {error}", error.code) from error
    return members


def _subject(path: Path, root: Path) -> str:
    """Whose scan it is: by BIDS, else the folder it lies in below `root`, else its name without contrast and session.

    Taking two people for one costs a little; taking one for two would let a model be judged on what it learned.
    """
    name = subject_of(path)
    folders = path.relative_to(root).parts[:-1]
    return name if name.startswith("sub-") else folders[0] if folders else _SCAN_WORDS.sub("", name)


def _read_member(path: Path, name: str, subject: str) -> Member:
    volume, _ = read_volume(path)
    spacing = volume.grid.spacing
    if max(spacing) >= THICK * min(spacing):
        raise CohortError(
            f"{name}: expected a fine scan, got spacings of {' x '.join(f'{s:.3g}' for s in spacing)} mm: thick slices "
            "hold no truth to learn from. Take it out of the cohort."
        )
    if min(volume.array.shape) < LEAST_VOXELS:
        shape = " x ".join(map(str, volume.array.shape))
        raise CohortError(f"{name}: expected at least {LEAST_VOXELS} voxels along every axis, got {shape}.")
    modality = "ct" if volume.modality == "ct" else "mr"
    fine = Fine(name, to_bytes(volume.array, modality), spacing, volume.contrast, modality=modality)
    return Member(path, subject, file_sha256(path), modality, fine)


def _check_one_modality(members: Sequence[Member]) -> None:
    first = members[0]
    other = next((member for member in members if member.modality != first.modality), None)
    if other is not None:
        raise CohortError(
            f"Expected one modality, got {first.modality.upper()} in {first.fine.name} and {other.modality.upper()} in "
            f"{other.fine.name}. Tune a model on each."
        )


def _split(members: Sequence[Member], seed: int) -> tuple[list[Member], list[Member]]:
    subjects = sorted({member.subject for member in members})
    count = min(max(1, round(VALIDATION_SHARE * len(subjects))), MOST_VALIDATION_SUBJECTS)
    chosen = set(np.random.default_rng(seed).permutation(subjects)[:count].tolist())
    training = [member for member in members if member.subject not in chosen]
    return training, [member for member in members if member.subject in chosen]


def _check_subjects(training: Sequence[Member], validation: Sequence[Member]) -> None:
    both = {member.subject for member in training} & {member.subject for member in validation}
    if both:
        raise CohortError(
            f"Expected every subject in one split, got {', '.join(sorted(both))} in train and val: validation "
            "would flatter the model. Move all scans of a subject to one side."
        )
    hashes = {member.sha256: member for member in training}
    twin = next((member for member in validation if member.sha256 in hashes), None)
    if twin is not None:
        raise CohortError(
            f"Expected other scans in val than in train, got the same file as {twin.fine.name} and "
            f"{hashes[twin.sha256].fine.name}. Remove one."
        )
    if not training or not validation:
        only = {member.subject for member in (*training, *validation)}
        raise CohortError(
            f"Expected at least two subjects, one to learn from and one to judge by, got {len(only)}: "
            f"{', '.join(sorted(only))}. Add scans of other people."
        )
