"""DICOM: a study folder -> series -> `Volume`, and back as a derived series; exact or refused.

    list_series     what a folder, archive or file holds, from headers alone
    choose_series   the series that is meant
    read_series     its voxels, scanner units
    write_series    a derived series, for an archive to file beside the original

Importing this package is cheap; pydicom and highdicom are imported with the first use of a name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medld.io.dicom.catalogue import list_series
    from medld.io.dicom.choice import choose_series
    from medld.io.dicom.files import hash_sources, looks_like_dicom
    from medld.io.dicom.maps import write_map
    from medld.io.dicom.privacy import hash_uid
    from medld.io.dicom.read import read_series
    from medld.io.dicom.series import Catalogue, Series
    from medld.io.dicom.write import Derivation, write_series

__all__ = [
    "Catalogue",
    "Derivation",
    "Series",
    "choose_series",
    "hash_sources",
    "hash_uid",
    "list_series",
    "looks_like_dicom",
    "read_series",
    "write_map",
    "write_series",
]

_HOMES = {
    "Catalogue": "series",
    "Derivation": "write",
    "Series": "series",
    "choose_series": "choice",
    "hash_sources": "files",
    "hash_uid": "privacy",
    "list_series": "catalogue",
    "looks_like_dicom": "files",
    "read_series": "read",
    "write_series": "write",
    "write_map": "maps",
}


def __getattr__(name: str) -> Any:
    """Import a public name with its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)
