"""A map of how uncertain the restoration is, beside the derived series: a Parametric Map, PS3.3 A.75."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

import medld
from medld.errors import OutputError, RestorationError
from medld.geometry import Grid
from medld.io.dicom.classic import classic_header
from medld.io.dicom.copying import encodings_of, put, raw_sequence
from medld.io.dicom.derivation import MANUFACTURER, MAX_LO, NOTICE, Derivation, contribution, describe, plain
from medld.io.dicom.headers import value_of
from medld.io.dicom.privacy import quiet
from medld.io.dicom.series import Series
from medld.io.dicom.tags import (
    RAS_TO_LPS,
    copied_items,
    derive_number,
    frame_of_reference,
    mark_lossy,
    place_slice,
    set_dates,
    source_items,
)
from medld.io.dicom.uids import derive_instance_uid, derive_series_uid, hash_to_uid
from medld.volume import Volume

__all__ = ["write_map"]

NUMBER_OFFSETS = {"uncertainty": 2, "mean": 3, "std": 4, "lower": 5, "upper": 6}  # of the Series Number; images: 1
UNKNOWN = {"Date": "19000101", "Time": "000000"}  # what de-identification writes; Content Date must not be empty
# The source's study, taken over byte for byte; its patient is group 0010, and 0012 says what was removed of it.
_STUDY = frozenset(
    Tag(keyword)
    for keyword in (
        *("SpecificCharacterSet", "TimezoneOffsetFromUTC", "StudyDate", "StudyTime", "AccessionNumber"),
        *("ReferringPhysicianName", "StudyDescription", "ProcedureCodeSequence", "ReferencedStudySequence"),
        *("StudyInstanceUID", "StudyID", "LongitudinalTemporalInformationModified", "BodyPartExamined", "Laterality"),
        *("PositionReferenceIndicator", "PatientPosition"),
    )
)
_PATIENT_GROUPS = (0x0010, 0x0012)


@quiet()
def write_map(
    path: Path,
    values: Volume,
    series: Series,
    derivation: Derivation,
    *,
    kind: str = "uncertainty",
    code: str = "sd",
    meaning: str = "standard deviation",
    rests_on: str = "",
) -> None:
    """Write a value for every voxel as a Parametric Map of float32 values, a series of its own.

    Args:
        path: The file; its folder is there.
        values: Scanner units, on the grid of the result.
        series: What the result was made of.
        derivation: As the result's.
        kind: "uncertainty", "mean" or "std" of samples, "lower" or "upper" end of an interval.
        code: What the values are, 16 characters at most.
        meaning: The same in words, 64 characters at most.
        rests_on: Hash of what the values rest on besides the model; another one makes another series.

    Raises:
        RestorationError: E_NUMERIC, if a value is not finite.
        InputError: E_NOT_IMAGE, if the source is no CT or MR image.
        OutputError: If the file cannot be written.
    """
    array = np.ascontiguousarray(values.array.transpose(2, 1, 0), dtype=np.float32)  # slices, rows, columns
    if not np.isfinite(array).all():
        raise RestorationError("the map holds values that are not finite; nothing was written")
    source = classic_header(series.frames[0])
    result = f"{code} {rests_on}" if rests_on else {"uncertainty": "spread"}.get(kind, kind)
    uid = derive_series_uid(series, values.grid, derivation.model_sha256, derivation.settings, kind=result)
    dataset = _build(array, values.grid, source, series, uid, derivation, kind, (code, meaning))
    _describe_source(dataset, source, series, derivation)
    _settle(dataset, source, uid, derivation)
    try:
        dataset.save_as(path, enforce_file_format=True)
    except OSError as error:
        raise OutputError(f"the output cannot be written: {error.strerror or 'unknown reason'}") from error


def _build(
    values: np.ndarray,
    grid: Grid,
    source: Dataset,
    series: Series,
    uid: str,
    derivation: Derivation,
    kind: str,
    label: tuple[str, str],
) -> ParametricMap:
    """The object as highdicom makes it, of a source without a name."""
    low, high = float(values.min()), float(values.max())
    unit = codes.UCUM.HounsfieldUnit if series.modality == "ct" else codes.UCUM.NoUnits
    window = highdicom.VOILUTTransformation(
        window_center=(low + high) / 2, window_width=max(high - low, 1e-6), voi_lut_function="LINEAR_EXACT"
    )
    return ParametricMap(
        source_images=[_nameless(source, grid, series)],
        pixel_array=highdicom.Volume(
            values,
            affine=_lps(grid),
            coordinate_system="PATIENT",
            frame_of_reference_uid=frame_of_reference(series),
        ),
        series_instance_uid=uid,
        series_number=derive_number(series, derivation, NUMBER_OFFSETS[kind]),
        sop_instance_uid=derive_instance_uid(uid, 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=plain(derivation.model, MAX_LO) or MANUFACTURER,
        software_versions=medld.__version__,
        device_serial_number=hash_to_uid(dict(derivation.model_sha256)),
        # Heads can be recognised from maps of them too; only a source that says no is believed.
        contains_recognizable_visual_features=value_of(source, "RecognizableVisualFeatures") != "NO",
        real_world_value_mappings=[RealWorldValueMapping(*label, unit, (low, high), 1.0, 0.0)],
        voi_lut_transformations=[window],
        content_label=kind.upper(),
        content_description=NOTICE,
        series_description=f"{MANUFACTURER} SR {kind} {round(derivation.spacing_to, 2)}mm",
    )


def _lps(grid: Grid) -> np.ndarray:
    """Affine of (slice, row, column) indices, LPS, as highdicom's volumes have it."""
    affine = np.diag((*RAS_TO_LPS, 1.0)) @ grid.affine
    return np.asarray(affine[:, (2, 1, 0, 3)])


def _nameless(source: Dataset, grid: Grid, series: Series) -> Dataset:
    """What highdicom wants to know of a source; it refuses what real headers hold, so those are put in later."""
    result = Dataset()
    for keyword in ("PatientID", "PatientName", "AccessionNumber", "StudyID", "PatientBirthDate", "PatientSex"):
        put(result, keyword, None)
    for keyword in ("StudyDate", "StudyTime", "ReferringPhysicianName"):
        put(result, keyword, None)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        put(result, keyword, source[keyword].value)
    place_slice(result, grid, series, 0)
    put(result, "FrameOfReferenceUID", frame_of_reference(series))
    return result


def _describe_source(dataset: Dataset, source: Dataset, series: Series, derivation: Derivation) -> None:
    """Patient, study and lossy compression of the source; what was done to it, and with what."""
    for tag in list(source.keys()):
        if tag.group in _PATIENT_GROUPS or tag in _STUDY:
            dataset[tag] = source.get_item(tag)
    if not any(keyword in dataset for keyword in ("Laterality", "BodyPartExamined")):
        put(dataset, "Laterality", None)  # images may name the side elsewhere, maps may not
    mark_lossy(dataset, series)
    encodings = encodings_of(dataset)
    equipment = [*copied_items(series.head, "ContributingEquipmentSequence"), contribution(derivation)]
    dataset[Tag("ContributingEquipmentSequence")] = raw_sequence("ContributingEquipmentSequence", equipment, encodings)
    put(dataset, "DerivationDescription", describe(derivation))
    dataset[Tag("SourceImageSequence")] = raw_sequence("SourceImageSequence", source_items(series.frames), encodings)
    instances = []
    for item in source_items(series.frames):
        del item["PurposeOfReferenceCodeSequence"]
        instances.append(item)
    referenced = Dataset()
    put(referenced, "SeriesInstanceUID", series.uid)
    put(referenced, "ReferencedInstanceSequence", instances)
    put(dataset, "ReferencedSeriesSequence", [referenced])


def _settle(dataset: Dataset, source: Dataset, uid: str, derivation: Derivation) -> None:
    """Replace what highdicom takes from the clock and from chance."""
    organization = hash_to_uid("organization", uid)
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(keyword, ()):
            item.DimensionOrganizationUID = organization
    if derivation.when is not None:
        set_dates(dataset, derivation.when)
    else:
        _take_dates(dataset, source)
    dataset.set_original_encoding(False, True, encodings_of(dataset))


def _take_dates(dataset: Dataset, source: Dataset) -> None:
    """The source's dates; Content Date and Time, which must be there, from the nearest that it has."""
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        del dataset[keyword]
    for kind in ("Date", "Time"):
        candidates = (f"{name}{kind}" for name in ("Content", "Series", "Acquisition", "Study"))
        found = _first(source, tuple(candidates))
        put(dataset, f"Content{kind}", UNKNOWN[kind] if found is None else found)
        series = value_of(source, f"Series{kind}")
        if series is not None:
            put(dataset, f"Series{kind}", series)


def _first(source: Dataset, keywords: Sequence[str]) -> Any:
    """The first of these elements that has a value, None if none has."""
    return next((value for value in (value_of(source, keyword) for keyword in keywords) if value is not None), None)
