"""Fine volumes to learn from: found, looked at, packed, and loaded as 8-bit arrays.

scanfile    a scan that has not been read
layouts     how public sets name their files
studies     the series of DICOM folders, naming nobody
files       which scans lie in a folder or belong to a card
volumes     a scan's voxels, and as an 8-bit array
survey      what is in a folder, and what is wrong with it
packs       many scans in few small files; cache: where these lie unpacked
loading     what a training draws from
"""

from medld.dataset.files import LEFT_OUT, card_scans, find_scans, where_to_get
from medld.dataset.layouts import LAYOUTS, match_layout, recognise
from medld.dataset.loading import Source, load, pack
from medld.dataset.packs import INDEX, SHARD_BYTES, Packed, read_pack, write_pack
from medld.dataset.scanfile import ScanFile, subject_of
from medld.dataset.studies import Entry, holds_dicom, list_studies
from medld.dataset.survey import THICK, Problem, Scan, find_thick, survey
from medld.dataset.volumes import Fine, content_of, hash_scan, read_fine, read_scan, to_bytes

__all__ = [
    "INDEX",
    "LAYOUTS",
    "LEFT_OUT",
    "SHARD_BYTES",
    "THICK",
    "Entry",
    "Fine",
    "Packed",
    "Problem",
    "Scan",
    "ScanFile",
    "Source",
    "card_scans",
    "content_of",
    "find_scans",
    "find_thick",
    "hash_scan",
    "holds_dicom",
    "list_studies",
    "load",
    "match_layout",
    "pack",
    "read_fine",
    "read_pack",
    "read_scan",
    "recognise",
    "subject_of",
    "survey",
    "to_bytes",
    "where_to_get",
    "write_pack",
]
