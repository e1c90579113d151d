"""Outputs: a restoration and its record as files.

The caller stages them, so that they appear together or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medld import __version__
from medld.batch.plan import Job
from medld.batch.prepare import Prepared
from medld.batch.settings import BASELINE, EnhanceSettings
from medld.checkpoint import Model
from medld.io import OUTPUT_MARK, Storage, digest_of, file_sha256, write_volume
from medld.report import describe_file
from medld.volume import Volume

if TYPE_CHECKING:
    from medld.io.dicom import Derivation

__all__ = ["Made", "describe_output", "write_output", "write_spread"]


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


def write_spread(path: Path, job: Job, spread: Volume | None, prepared: Prepared, made: Made) -> None:
    """Write the standard deviation over samples, unrounded: it is small beside the scan's values."""
    assert spread is not None, "checked before anything was written"
    if not job.dicom:
        write_volume(path, spread, prepared.storage.as_float32(), description=_describe("sd"))
        return
    from medld.io.dicom import write_spread_map

    assert job.input.series is not None, "only DICOM becomes DICOM"
    write_spread_map(path, spread, job.input.series, made.derive(prepared))


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
