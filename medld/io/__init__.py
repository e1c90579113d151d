"""Files <-> `Volume`: NIfTI-1/2, NRRD and MetaImage, read with care and written whole or not at all."""

from medld.errors import LabelMapError
from medld.io.checks import Guess, guess_modality, is_label_name
from medld.io.files import digest_of, file_sha256, read_header, read_volume, write_volume
from medld.io.formats import (
    OUTPUT_MARK,
    SUFFIXES,
    Header,
    Storage,
    has_own_record,
    read_sidecar,
    sidecar_path,
    split_suffix,
)

__all__ = [
    "OUTPUT_MARK",
    "SUFFIXES",
    "Guess",
    "Header",
    "LabelMapError",
    "Storage",
    "digest_of",
    "file_sha256",
    "guess_modality",
    "has_own_record",
    "is_label_name",
    "read_header",
    "read_sidecar",
    "read_volume",
    "sidecar_path",
    "split_suffix",
    "write_volume",
]
