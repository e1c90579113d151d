"""Headers copied element by element: text byte for byte, numbers decoded once, all in Explicit VR Little Endian.

pydicom decodes text as soon as it is looked at and encodes it anew when it is written, which
loses bytes where a character set is used in an unusual way. So what is still raw stays raw.
Copies hold no private element, no overlay or curve, no pixels, and no Decimal String (DS) of
more than 16 characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, decode_bytes, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import STR_VR, TEXT_VR_DELIMS, DSfloat

__all__ = ["copy_header", "encodings_of", "format_ds", "put", "raw_sequence", "same_in_bytes", "text_of"]

MAX_DS = 16  # characters, PS3.5 6.2
Element = DataElement | RawDataElement
_SPECIFIC_CHARACTER_SET = Tag(0x0008, 0x0005)
_VALUE_DELIMITER = b"\\"


def copy_header(source: Dataset, drop: Iterable[int] = (), encodings: list[str] | None = None) -> Dataset:
    """A data set with the same public elements, as it is to be written; `source` is left as it is.

    Args:
        source: A header, or an item of one.
        drop: Tags that are left out, at every depth.
        encodings: Python names of the character sets around an item.
    """
    drop = frozenset(drop)
    encodings = encodings_of(source, encodings)
    result = Dataset(parent_encoding=encodings)
    for tag in sorted(source.keys()):
        if tag in drop or _is_foreign(tag):
            continue
        element = _copy_element(source, tag, drop, encodings)
        if element is not None:
            result[tag] = element
    result.set_original_encoding(False, True, encodings)
    return result


def encodings_of(header: Dataset, default: list[str] | None = None) -> list[str]:
    """Python names of the character sets that a header's text is in."""
    element = header.get(_SPECIFIC_CHARACTER_SET)
    if element is None or not element.value:
        return default if default is not None else [default_encoding]
    names = [element.value] if isinstance(element.value, str) else list(element.value)
    return list(convert_encodings(names))


def text_of(header: Dataset, keyword: str) -> str:
    """A text element's value in one line, "" where there is none; the header is left as it is."""
    tag = Tag(keyword)
    element = header.get_item(tag) if tag in header else None
    if element is None or element.value is None:
        return ""
    if isinstance(element.value, bytes):
        text = decode_bytes(element.value, encodings_of(header), TEXT_VR_DELIMS)
    else:
        values = [element.value] if isinstance(element.value, str) else element.value
        text = " ".join(str(value) for value in values)
    return " ".join("".join(c if c.isprintable() and c != "\\" else " " for c in text).split())


def same_in_bytes(text: str, encodings: list[str]) -> bool:
    """Whether a text is the same once it was written in these character sets and read again."""
    item = Dataset(parent_encoding=encodings)
    item.add_new(Tag("SeriesDescription"), "LO", text)
    item.set_original_encoding(False, True, encodings)
    try:
        stored = _encode(item, encodings)
    except (UnicodeError, ValueError):
        return False
    return bool(decode_bytes(stored[8:], encodings, TEXT_VR_DELIMS).rstrip() == text)


def format_ds(value: float) -> DSfloat:
    """A number as a Decimal String of at most 16 characters; what it then is worth is `float` of it."""
    value = float(value) + 0.0  # -0 is 0
    return DSfloat(str(DSfloat(value, auto_format=True)))


def put(header: Dataset, keyword: str, value: Any) -> None:
    """Set an element, VR of the dictionary, in this header alone.

    Assigning an attribute would change the element itself, which copies of a header share.
    """
    tag = Tag(keyword)
    header[tag] = DataElement(tag, dictionary_VR(tag), value)


def raw_sequence(keyword: str | BaseTag, items: Iterable[Dataset], encodings: list[str]) -> RawDataElement:
    """A sequence that is encoded once, to be written many times."""
    tag = Tag(keyword)
    holder = Dataset(parent_encoding=encodings)
    holder[tag] = DataElement(tag, "SQ", list(items))
    holder.set_original_encoding(False, True, encodings)
    return _raw(tag, "SQ", _encode(holder, encodings)[12:])  # after tag, VR, reserved bytes and length


def _is_foreign(tag: BaseTag) -> bool:
    """Whether no copy holds this element: private, not of a data set, group length, curve, overlay, pixels, padding."""
    group = tag.group
    return (
        tag.is_private
        or group < 0x0008
        or tag.element == 0
        or 0x5000 <= group <= 0x50FF
        or 0x6000 <= group <= 0x60FF
        or group >= 0x7F00
    )


def _copy_element(source: Dataset, tag: BaseTag, drop: frozenset[int], encodings: list[str]) -> Element | None:
    """One element as it is to be written, None if it cannot be."""
    found = source.get_item(tag)
    if found is None:
        return None
    vr = str(found.VR or "UN")
    if vr == "UN" or len(vr) != 2:
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            return None  # neither private nor in the dictionary: nobody knows what it holds
    if vr in STR_VR and isinstance(found, RawDataElement) and isinstance(found.value, bytes):
        return _copy_ds(tag, found.value) if vr == "DS" else _raw(tag, vr, found.value)
    try:
        element = source[tag]
    except Exception:  # deferred to a file that is gone, or bytes that are no numbers: pydicom raises whatever comes
        return None
    if element.VR == "SQ":
        items = [copy_header(item, drop, encodings) for item in element.value or ()]
        return raw_sequence(tag, items, encodings)
    if element.VR == "DS":
        return DataElement(tag, "DS", [_shorten(str(value)) for value in _values(element.value)] or None)
    return element if len(element.VR) == 2 and element.VR != "UN" else None


def _copy_ds(tag: BaseTag, value: bytes) -> RawDataElement:
    """Decimal Strings as they are, those of more than 16 characters rounded, those that are no numbers left empty."""
    parts = value.rstrip(b"\0 ").split(_VALUE_DELIMITER)
    text = _VALUE_DELIMITER.join(_shorten(part.decode("latin-1")).encode("latin-1") for part in parts)
    return _raw(tag, "DS", text)


def _shorten(text: str) -> str:
    """A Decimal String that is one."""
    text = text.strip("\0 ")
    try:
        number = float(text)
    except ValueError:
        return ""
    if not isfinite(number):
        return ""
    return text if len(text) <= MAX_DS else str(format_ds(number))


def _values(value: Any) -> list[Any]:
    """The values of an element of any multiplicity."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | float | int) else list(value)


def _raw(tag: BaseTag, vr: str, value: bytes) -> RawDataElement:
    """An element that is written as it is, padded to an even length."""
    padding = b"\0" if vr == "UI" else b" "
    value = value + padding if len(value) % 2 else value
    return RawDataElement(tag, vr, len(value), value, 0, False, True)


def _encode(dataset: Dataset, encodings: list[str]) -> bytes:
    """A data set in Explicit VR Little Endian, without meta information."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset, encodings)
    return bytes(buffer.getvalue())
