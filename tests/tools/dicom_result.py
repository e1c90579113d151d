"""Results to write: a series made finer along its slices by interpolation, and what was done to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread

from medld.io.dicom import Derivation, Series, list_series, read_series, write_series
from medld.io.formats import Storage
from medld.volume import Volume

FACTOR = 3


def only_series(folder: Path, count: int | None = None) -> Series:
    """The one usable series of a folder; `count` slices from its middle if given."""
    (series,) = list_series(folder).usable
    return series if count is None else shortened(series, count)


def shortened(series: Series, count: int) -> Series:
    """A run of `count` slices from the middle of a series, as a series."""
    assert series.grid is not None
    count = min(count, len(series.frames))
    start = (len(series.frames) - count) // 2
    grid = series.grid.cropped((0, 0, start), (*series.grid.shape[:2], count))
    return replace(series, frames=series.frames[start : start + count], grid=grid)


def finer(volume: Volume, factor: int = FACTOR) -> Volume:
    """The same box with `factor` times as many slices, linear between the slices, constant at the ends."""
    grid = volume.grid.with_shape((*volume.grid.shape[:2], volume.grid.shape[2] * factor))
    place = np.clip((np.arange(grid.shape[2]) + 0.5) / factor - 0.5, 0, volume.grid.shape[2] - 1)
    below = np.minimum(place.astype(int), volume.grid.shape[2] - 2)
    weight = (place - below).astype(np.float32)
    array = volume.array[:, :, below] * (1 - weight) + volume.array[:, :, below + 1] * weight
    return replace(volume, array=array.astype(np.float32), grid=grid)


def derivation(source: Volume, result: Volume, **changes: Any) -> Derivation:
    """What was done: a model that there is not, with settings."""
    values: dict[str, Any] = {
        "model": "interpolation",
        "model_sha256": {"model.safetensors": "ab" * 32},
        "settings": {"steps": 4},
        "spacing_from": source.grid.spacing[2],
        "spacing_to": result.grid.spacing[2],
    }
    return Derivation(**{**values, **changes})


def write_finer(series: Series, folder: Path, **changes: Any) -> tuple[Volume, Storage, np.ndarray]:
    """Write a finer series into a new folder.

    Returns:
        What was to be written, how, and what a reader is to see.
    """
    source, storage = read_series(series, force=True)
    result = finer(source)
    folder.mkdir(parents=True)
    seen = write_series(folder, result, series, storage, derivation(source, result, **changes))
    return result, storage, seen


def read_all(folder: Path) -> list[Dataset]:
    """The data sets of a folder, in the order of the files' names."""
    return [dcmread(path) for path in sorted(folder.iterdir())]
