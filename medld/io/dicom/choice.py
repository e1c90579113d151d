"""Choice: which series of a catalogue is meant, and what to say where that is not clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from medld.errors import InputError
from medld.geometry import format_mm
from medld.io.dicom.privacy import quiet
from medld.io.dicom.series import Catalogue, Refusal, Series, Source
from medld.io.dicom.values import numbers_of, value_of

__all__ = ["choose_series", "rank_of"]

# Which refusal says most, where nothing can be used: the one nearest to being a volume.
_TELLING = [
    *("E_BAD_ID", "E_CHARSET", "E_TRUNC", "E_TOO_BIG", "E_PIXELS", "E_CODEC", "E_NO_GEOM", "E_TILT", "E_GAP", "E_DUP"),
    *("E_SPACING", "E_4D", "E_MIXED", "E_TOO_FEW", "E_NOT_IMAGE"),
]


def choose_series(catalogue: Catalogue, wanted: str | None = None) -> tuple[Series, ...]:
    """The series that is meant.

    Args:
        catalogue: What there is.
        wanted: None for the only usable one; a number of the list; a Series Instance UID; "all"; or
            a pattern or part of the Series Description, upper and lower case alike.

    Returns:
        Usable series, in the order of their numbers; more than one only for "all" and patterns.
        Outputs of ours are passed over by None and "all" where there are others.

    Raises:
        InputError: E_SEVERAL, if several would do where one is asked for; the reason why the series
            that is meant cannot be used; E_NOT_IMAGE, if nothing matches.
    """
    usable = catalogue.usable
    originals = tuple(series for series in usable if not series.second_pass) or usable
    if wanted is None or wanted.lower() == "all":
        if not originals:
            raise _nothing_usable(catalogue.series, catalogue.skipped)
        if wanted is None and len(originals) > 1:
            raise _several(originals)
        return originals
    if wanted.isdecimal():
        matches = tuple(series for series in usable if series.number == int(wanted))
        if not matches:
            raise InputError(f"there is no series {wanted}, {_range(usable)}; `medld inspect` lists them")
        return matches
    named = tuple(series for series in catalogue.series if series.uid == wanted)
    return _chosen_by_uid(named) if named else _chosen_by_description(catalogue, wanted)


def _chosen_by_uid(same: Sequence[Series]) -> tuple[Series, ...]:
    """The one usable volume among those of one UID."""
    usable = tuple(series for series in same if series.refusal is None)
    if not usable:
        raise _nothing_usable(same, {})
    if len(usable) > 1:
        raise _several(usable)
    return usable


def _chosen_by_description(catalogue: Catalogue, pattern: str) -> tuple[Series, ...]:
    """The usable series whose description holds the text or matches the pattern."""
    same = tuple(series for series in catalogue.series if _matches(series, pattern.casefold()))
    if not same:
        raise InputError("no series has such a UID or description; `medld inspect` lists what there is")
    usable = tuple(series for series in same if series.refusal is None)
    if not usable:
        raise _nothing_usable(same, {})
    return usable


@quiet()
def _matches(series: Series, pattern: str) -> bool:
    """Whether the Series Description holds a text or matches a pattern, case-folded."""
    description = str(value_of(series.head, "SeriesDescription", "")).casefold()
    return pattern in description or fnmatchcase(description, pattern)


def _several(series: Sequence[Series]) -> InputError:
    """The error that lists several usable series; nothing of it comes from free text."""
    lines = "\n".join(f"  {_line(one)}" for one in series)
    return InputError(f"expected one volume, there are {len(series)}; choose one with --series:\n{lines}", "E_SEVERAL")


@quiet()
def _line(series: Series) -> str:
    """A series in one line: number, series number, modality, size, spacing, note."""
    assert series.grid is not None
    number = numbers_of(series.head, "SeriesNumber", 1)
    parts = [
        f"series {number[0]:.0f}" if number else "series without number",
        series.modality.upper() if series.modality != "unknown" else "unknown modality",
        " x ".join(map(str, series.grid.shape)),
        format_mm(series.grid.spacing),
        series.note,
        "an output of medld" if series.second_pass else "",
    ]
    return f"{series.number}: " + ", ".join(part for part in parts if part)


def _range(usable: Sequence[Series]) -> str:
    """The numbers that can be chosen, for a message."""
    return f"the numbers are 1 to {len(usable)}" if usable else "none can be used"


def _nothing_usable(listed: Sequence[Series], skipped: Mapping[Source, Refusal]) -> InputError:
    """The error for a place without a usable series: the reason that says most."""
    refusals = [series.refusal for series in listed if series.refusal] or list(skipped.values())
    if not refusals:
        return InputError("expected DICOM images, found no files", "E_NOT_IMAGE")
    telling = min(refusals, key=rank_of)
    others = len(refusals) - 1
    more = f" (and {others} more that cannot be used; `medld inspect` lists them)" if others else ""
    return InputError(f"{telling.reason}{more}", telling.code)


def rank_of(refusal: Refusal) -> int:
    """How much a refusal says; lower says more."""
    return _TELLING.index(refusal.code) if refusal.code in _TELLING else len(_TELLING)
