"""Values of a header: None, or a default, where they are absent or senseless; never an error that quotes them."""

from __future__ import annotations

import re
from functools import lru_cache
from math import isfinite
from typing import Any

from pydicom import Dataset, Sequence
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.tag import BaseTag, Tag

__all__ = ["is_damaged", "is_uid", "items_of", "numbers_of", "shared_tag", "value_of", "whole_of", "words_of"]

SHORT = 128  # bytes of a value that is remembered
_CODED = frozenset({"CS", "DS", "IS", "UI", "US"})  # no text: the same whatever the character set
_WRITTEN = frozenset({"AS", "DA", "DT", "LO", "PN", "SH", "TM"})  # the same if it is plain ASCII

# Leading zeros of a component are forbidden (PS3.5, 9.1) but written by real scanners; they do no harm.
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


def value_of(dataset: Dataset, keyword: str, default: Any = None) -> Any:
    """A value of a header, the default if it is absent, empty or cannot be understood."""
    # A damaged value can raise nearly anything, and the message of pydicom would quote it.
    try:
        raw = dataset.get_item(_tag_of(keyword))
        if raw is None:
            return default
        if isinstance(raw, RawDataElement) and _is_lasting(raw):
            value = _converted(int(raw.tag), str(raw.VR), raw.value, raw.is_little_endian)
        else:
            value = dataset.get(keyword)
        return default if value is None or value == "" else value
    except Exception:
        return default


def _is_lasting(raw: RawDataElement) -> bool:
    """Whether a value means the same in every header, so that it can be remembered."""
    value = raw.value
    if not value or len(value) > SHORT:
        return False
    return raw.VR in _CODED or (raw.VR in _WRITTEN and value.isascii() and b"\x1b" not in value)


def is_damaged(dataset: Dataset, keyword: str) -> bool:
    """Whether an element is there but cannot be understood, or under a kind (VR) that is not its own.

    `value_of` takes it for absent, or reads the digits of a text as a binary number.
    """
    try:
        element = dataset.get_item(_tag_of(keyword))
    except Exception:
        return True
    if element is None:
        return False
    if element.VR is not None and str(element.VR) not in _kinds_of(keyword):
        return True
    raw = (element.value or b"") if isinstance(element, RawDataElement) else b""
    return bool(raw.strip(b" \0")) and value_of(dataset, keyword) is None


@lru_cache(maxsize=1 << 10)
def _kinds_of(keyword: str) -> frozenset[str]:
    """The value representations that an element may have."""
    return frozenset({"UN", *dictionary_VR(_tag_of(keyword)).split(" or ")})


@lru_cache(maxsize=1 << 14)
def shared_tag(tag: int) -> BaseTag:
    """A number as a tag, always the same object: then a look into a header compares no tags, which is slow."""
    return BaseTag(tag)


@lru_cache(maxsize=1 << 10)
def _tag_of(keyword: str) -> BaseTag:
    """The tag of a keyword of the dictionary."""
    return shared_tag(int(Tag(keyword)))


@lru_cache(maxsize=1 << 14)
def _converted(tag: int, kind: str, raw: bytes, little: bool) -> Any:
    """A coded value; most are the same in every slice of a series. Not to be changed by who gets it."""
    return convert_raw_data_element(RawDataElement(shared_tag(tag), kind, len(raw), raw, 0, False, little)).value


def numbers_of(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers of a header, None if they are absent, senseless or of another count."""
    value = value_of(dataset, keyword)
    try:
        parts = [value] if count == 1 else list(value)
        numbers = tuple(float(part) for part in parts)
    except Exception:
        return None
    return numbers if len(numbers) == count and all(map(isfinite, numbers)) else None


def words_of(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """A coded text of several values (Image Type, Scanning Sequence) as upper-case words; empty if absent."""
    value = value_of(dataset, keyword, "")
    try:
        parts = [value] if isinstance(value, str) else list(value)
        return tuple(word for word in (str(part).strip().upper() for part in parts) if word)
    except Exception:
        return ()


def items_of(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none if it is absent or no sequence."""
    value = value_of(dataset, keyword, ())
    return list(value) if isinstance(value, Sequence) else []


def is_uid(value: Any) -> bool:
    """Whether a value is a UID: digits and dots, at most 64 characters."""
    text = str(value)
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def whole_of(dataset: Dataset, keyword: str, default: int = 0) -> int:
    """A whole number of a header, -1 where there is something else."""
    value = value_of(dataset, keyword, default)
    return int(value) if isinstance(value, int) else -1
