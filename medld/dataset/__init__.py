"""Fine volumes to learn from: found, looked at, packed, and loaded as 8-bit arrays.

files       which scans lie in a folder or belong to a card
survey      what is in them, and what is wrong with them
volumes     a scan as an 8-bit array
packs       many of them in few small files; cache: where these lie unpacked
loading     what a training draws from
"""

from medld.dataset.files import ScanFile, card_scans, find_scans, subject_of
from medld.dataset.loading import Source, load, pack
from medld.dataset.packs import INDEX, SHARD_BYTES, Packed, read_pack, write_pack
from medld.dataset.survey import THICK, Problem, Scan, survey
from medld.dataset.volumes import Fine, read_fine, to_bytes

__all__ = [
    "INDEX",
    "SHARD_BYTES",
    "THICK",
    "Fine",
    "Packed",
    "Problem",
    "Scan",
    "ScanFile",
    "Source",
    "card_scans",
    "find_scans",
    "load",
    "pack",
    "read_fine",
    "read_pack",
    "subject_of",
    "survey",
    "to_bytes",
    "write_pack",
]
