"""A cohort: the fine scans of one's own that a model is tuned on, checked and split by subject.

Everything that would teach a model something wrong is refused before the first step, by the name of the
file: thick slices that pass for fine ones, two modalities, one scan of two people, a subject on both sides.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medld.errors import CohortError
from medld.io import SUFFIXES
from medld.training.members import Member, read_members

SPLITS = ("train", "val")
VALIDATION_SHARE = 0.2
MOST_VALIDATION_SUBJECTS = 8


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
            turns.append((seen[member.subject], member.name))
            seen[member.subject] += 1
        chosen = {name for _, name in sorted(turns)[:count]}
        return replace(self, validation=tuple(member for member in self.validation if member.name in chosen))

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
    """All fine scans below a folder, image files and DICOM series, split by subject.

    A folder with `train/` and `val/` has its own split; otherwise a fifth of the subjects, one at least and eight at
    most, is drawn for validation. Label maps, outputs of ours and what cannot be used of DICOM are left out and
    reported. A person of DICOM is the hash of a Patient ID.

    Raises:
        InputError, GridError: A file that cannot be read, with its own code; the message names it.
        CohortError: E_COHORT. No scans, one subject only, two modalities, thick slices, a volume too small to crop, one
            scan of two people, or a subject in both splits.
    """
    named = all((folder / split).is_dir() for split in SPLITS)
    roots = {split: folder / split for split in SPLITS} if named else {"all": folder}
    left_out: list[str] = []
    found = {split: read_members(root, _both(report, left_out.append)) for split, root in roots.items()}
    members = [member for split in found.values() for member in split]
    if not members:
        more = f" that can be used. {left_out[0]}" if left_out else ". Check the path."
        raise CohortError(f"Expected fine scans ({', '.join(SUFFIXES)}, DICOM) below {folder}, found none{more}")
    _check_one_modality(members)
    _check_copies(members)
    training, validation = (found["train"], found["val"]) if named else _split(members, seed)
    _check_subjects(training, validation)
    return Cohort(tuple(training), tuple(validation))


def _both(first: Callable[[str], None], second: Callable[[str], object]) -> Callable[[str], None]:
    """Tell two listeners."""

    def tell(line: str) -> None:
        first(line)
        second(line)

    return tell


def _check_one_modality(members: Sequence[Member]) -> None:
    first = members[0]
    other = next((member for member in members if member.modality != first.modality), None)
    if other is not None:
        raise CohortError(
            f"Expected one modality, got {first.modality.upper()} in {first.name} and {other.modality.upper()} in "
            f"{other.name}. Tune a model on each."
        )


def _check_copies(members: Sequence[Member]) -> None:
    """Refuse one scan under two people, of which validation might see one: a DICOM series beside its NIfTI file."""
    first: dict[str, Member] = {}
    for member in members:
        other = first.setdefault(member.content, member)
        if other.subject != member.subject:
            raise CohortError(
                f"Expected every scan once, got the same voxels in {other.name} and {member.name}, of two people by "
                "their names. Remove one."
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
    if not training or not validation:
        only = {member.subject for member in (*training, *validation)}
        raise CohortError(
            f"Expected at least two subjects, one to learn from and one to judge by, got {len(only)}: "
            f"{', '.join(sorted(only))}. Add scans of other people. Those of DICOM are told apart by Patient ID."
        )
