"""SketchStore: folders of sketches, a file for each scan and protocol, named by a hash of both."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medld.report.planes import PLANES, Plane, Planes
from medld.report.sketch import Sketch

__all__ = ["SketchStore"]

BROKEN = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)
"""What a damaged file raises: a report does without that sketch."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class SketchStore:
    """Folders in which sketches are kept; the first one gets new ones, a scan is looked for in all.

    Args:
        folders: Those of the shards of an evaluation; none: there are no sketches.
    """

    folders: tuple[Path, ...] = ()

    def save(self, sketch: Sketch) -> None:
        """Write a sketch, whole or not at all; an older one of the same scan and protocol is replaced."""
        folder = self.folders[0]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _name(sketch.protocol, sketch.file)
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_bytes(_packed(sketch))
        os.replace(temporary, path)

    def find(self, protocol: str, file: str) -> Sketch | None:
        """The sketch of a scan by a protocol; None where there is none, or it is damaged."""
        for folder in self.folders:
            try:
                found = _unpacked((folder / _name(protocol, file)).read_bytes())
            except BROKEN:
                continue
            if (found.protocol, found.file) == (protocol, file):
                return found
        return None

    def remove(self) -> None:
        """Delete all sketches, and the folders where nothing else is in them."""
        for folder in self.folders:
            for path in folder.glob("*.npz"):
                path.unlink()
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _name(protocol: str, file: str) -> str:
    return hashlib.sha256(f"{protocol}\n{file}".encode()).hexdigest()[:32] + ".npz"


def _packed(sketch: Sketch) -> bytes:
    """A sketch as an .npz: arrays by number, and their meaning as JSON."""
    arrays: Arrays = {}

    def put(array: np.ndarray) -> str:
        arrays[f"a{len(arrays)}"] = array
        return f"a{len(arrays) - 1}"

    def put_planes(planes: Planes) -> list[str]:
        return [put(plane.values.astype(np.float16)) for plane in planes]

    meta = {
        "protocol": sketch.protocol,
        "file": sketch.file,
        "ratio": sketch.ratio,
        "window": sketch.window,
        "spacing": [plane.spacing for plane in sketch.truth],
        "truth": put_planes(sketch.truth),
        "truth_spectrum": None if sketch.truth_spectrum is None else put(sketch.truth_spectrum),
        "outputs": [[name, put_planes(planes)] for name, planes in sketch.outputs.items()],
        "spreads": [[name, put_planes(planes)] for name, planes in sketch.spreads.items()],
        "spectra": [[name, put(spectrum)] for name, spectrum in sketch.spectra.items()],
    }
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def _unpacked(content: bytes) -> Sketch:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        meta: Mapping[str, Any] = json.loads(arrays["meta"].tobytes())

        def planes_of(keys: list[str]) -> Planes:
            axial, coronal, sagittal = (
                Plane(name, arrays[key].astype(np.float32), (float(spacing[0]), float(spacing[1])), left)
                for (name, _, left), key, spacing in zip(PLANES, keys, meta["spacing"], strict=True)
            )
            return axial, coronal, sagittal

        black, white = meta["window"]
        spectrum = meta["truth_spectrum"]
        return Sketch(
            protocol=meta["protocol"],
            file=meta["file"],
            ratio=float(meta["ratio"]),
            window=(float(black), float(white)),
            truth=planes_of(meta["truth"]),
            truth_spectrum=None if spectrum is None else arrays[spectrum],
            outputs={name: planes_of(keys) for name, keys in meta["outputs"]},
            spreads={name: planes_of(keys) for name, keys in meta["spreads"]},
            spectra={name: arrays[key] for name, key in meta["spectra"]},
        )
