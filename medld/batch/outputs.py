"""Outputs: a restoration and its record as files.

The caller stages them, so that they appear together or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medld import __version__
from medld.batch.doubt import VoxelMap
from medld.batch.plan import Job
from medld.batch.prepare import Prepared
from medld.batch.settings import BASELINE, EnhanceSettings
from medld.checkpoint import Model
from medld.io import OUTPUT_MARK, Storage, digest_of, file_sha256, write_volume
from medld.io.formats import format_of
from medld.report import describe_file
from medld.volume import Volume

if TYPE_CHECKING:
    from medld.io.dicom import Derivation

__all__ = ["Made", "describe_output", "write_map", "write_mask", "write_output"]


MACHINE = ("device", "threads", "memory_gib")
"""Settings of the machine: a retry on another one must not make a second series in the archive."""


class Made:
    """How a restoration was made: what a DICOM output tells of its origin.

    Args:
        settings: The options.
        model: The model, None for the baseline.
    """

    def __init__(self, settings: EnhanceSettings, model: Model | None) -> None:
        self._settings, self._model = settings, model

    def derive(self, prepared: Prepared) -> Derivation:
        """The origin of one output; the same for the same scan, model and settings, so that its UIDs are too."""
        from medld.io.dicom import Derivation

        model, target = self._model, prepared.request.target
        # Slices lie along the last axis; where only pixels became finer, the text is about these.
        axis = 2 if 2 in target.axes else target.axes[0]
        return Derivation(
            model=model.name if model else BASELINE,
            model_sha256=dict(model.sha256) if model else {},
            settings={k: v for k, v in self._settings.as_record().items() if k not in MACHINE},
            spacing_from=prepared.volume.grid.spacing[axis],
            spacing_to=target.grid.spacing[axis],
        )


def write_output(path: Path, job: Job, volume: Volume, prepared: Prepared, made: Made) -> Any:
    """Write the restored volume.

    Returns:
        (I, J, K), float32: the values as a reader of the output will see them.
    """
    if not job.dicom:
        return write_volume(path, volume, prepared.storage, description=_describe("sr"))
    from medld.io.dicom import write_series

    assert job.input.series is not None, "only DICOM becomes DICOM"
    path.mkdir()
    return write_series(path, volume, job.input.series, prepared.storage, made.derive(prepared))


def write_map(path: Path, job: Job, kind: str, of: VoxelMap, prepared: Prepared, made: Made) -> None:
    """Write a map, unrounded: a half-width is small beside the scan's values."""
    if not job.dicom:
        write_volume(path, of.volume, prepared.storage.as_float32(), description=_describe(of.code))
        return
    from medld.io import dicom

    assert job.input.series is not None, "only DICOM becomes DICOM"
    origin = made.derive(prepared)
    dicom.write_map(
        path, of.volume, job.input.series, origin, kind=kind, code=of.code, meaning=of.meaning, rests_on=of.rests_on
    )


def write_mask(path: Path, mask: Volume, prepared: Prepared) -> None:
    """Write the voxels to trust as an image file of 0 and 1, whatever the output is."""
    storage = prepared.storage.converted_to(format_of(path)).as_float32()
    write_volume(path, mask, replace(storage, dtype=np.dtype(np.uint8)), description=_describe("trust"))


def describe_output(path: Path, job: Job, storage: Storage) -> Mapping[str, Any]:
    """Name, type and sha256 of what was written to `path`."""
    described: dict[str, Any] = {"file": job.output.name, "dtype": str(storage.dtype)}
    if not job.dicom:
        return described | {"sha256": describe_file(path)["sha256"]}
    files = sorted(path.iterdir())
    return described | {
        "format": "dicom",
        "instances": len(files),
        "sha256": digest_of([file_sha256(file) for file in files]),
    }


def _describe(kind: str) -> str:
    """What the header of an output says, and by which it is known again."""
    return f"{OUTPUT_MARK} {__version__} {kind}"
