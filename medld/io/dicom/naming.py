"""Naming: what series and patients are called where nobody may be named.

A series is a number and a hash, a patient a hash: the same wherever the files lie, and nothing that a header says.
Whoever knows a Patient ID can find its hash; with the environment variable MEDLD_SITE_KEY set (see `hash_uid`) only
holders of that key can.
"""

from __future__ import annotations

from medld.io.dicom.privacy import hash_uid, quiet
from medld.io.dicom.series import Series
from medld.io.dicom.values import numbers_of, value_of

__all__ = ["name_patient", "name_series", "name_study", "series_number"]

HASH_DIGITS = 12  # of the 16 in a hashed UID: two series of a hospital share them once in 10^8 studies


@quiet()
def name_series(series: Series) -> str:
    """A name for one volume of a series: its SeriesNumber and a hash of what makes it this one."""
    first, number = series.frames[0], series_number(series)
    instance = value_of(first.head, "SOPInstanceUID", "")
    known = "" if number is None else f"{number}-"
    return f"series-{known}{hash_uid(f'{series.uid} {instance} {first.index}')[:HASH_DIGITS]}"


@quiet()
def series_number(series: Series) -> int | None:
    """SeriesNumber (0020,0011), None where it is none that fits a name."""
    (number,) = numbers_of(series.head, "SeriesNumber", 1) or (-1.0,)
    return int(number) if 0 <= number < 2**31 else None


@quiet()
def name_study(series: Series) -> str:
    """A name for the study that a series belongs to."""
    return f"study-{hash_uid(str(value_of(series.head, 'StudyInstanceUID', '')))[:HASH_DIGITS]}"


@quiet()
def name_patient(series: Series) -> str | None:
    """A name for the person, by the hash of Patient ID (0010,0020); None where there is none.

    Blanks around it and upper and lower case do not count.
    """
    identity = str(value_of(series.head, "PatientID", "")).strip().casefold()
    return f"patient-{hash_uid(identity)[:HASH_DIGITS]}" if identity else None
