"""Run: simulate, enhance, compare every scan of a folder, and write the account of it.

Each scan is brought back to the truth's spacing by the program's own path, `SuperResolver`, with and without
the model, so a figure here is what a user gets. Nothing that is written depends on the clock or on the order
of scans: the same folder, model, settings and machine give the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

import medld
from medld.acquisition import Acquisition, AxisAcquisition
from medld.checkpoint import DEFAULT, Model, list_models, load_model
from medld.config import Schema, parse_config
from medld.dataset import subject_of
from medld.errors import AcquisitionError, ConfigError, GridError, InputError, OutputError
from medld.evaluation.protocol import ProtocolConfig, list_protocols, load_protocol, simulate
from medld.evaluation.table import Row, Summary, format_csv, format_table, summarise
from medld.geometry import choose_target
from medld.io import SUFFIXES, file_sha256, read_volume
from medld.metrics import Reference
from medld.superres import Request, SuperResolver
from medld.volume import Volume

Mode = Literal["fidelity", "balanced", "detail"]
Report = Callable[[str], None]

BASELINE = "baseline"
"""As a model's name: none, cubic and B alone."""
UNKNOWN_THICKNESS = (None, None, None)


class RunSettings(Schema):
    """What a run may choose, as results.json keeps it."""

    mode: Mode = "fidelity"
    limit: int | None = Field(None, ge=1)
    """Only the first so many subjects, in the order of their names."""
    device: str = "auto"
    threads: int | None = Field(None, ge=1)


@dataclass(frozen=True)
class Enhancers:
    """The program's own path without a model, and with it if there is one."""

    baseline: SuperResolver
    model: SuperResolver | None
    mode: Mode

    def outputs(self, scan: Volume, truth: Volume, protocol: ProtocolConfig) -> Iterator[tuple[str, str, np.ndarray]]:
        """Method, what the program says it did, and its values on the truth's grid, one method at a time."""
        yield "cubic", "cubic B-spline", upsample_cubic(scan, truth.grid.shape)
        target = choose_target(scan.grid, spacing=truth.grid.spacing)
        assert target.grid.is_close(truth.grid), "a protocol keeps the outer faces"
        request = Request(target, UNKNOWN_THICKNESS, consistency=protocol.consistency, mode=self.mode)
        for method, resolver in (("B", self.baseline), ("medld", self.model)):
            if resolver is not None:
                restoration = resolver.restore(scan, request)
                yield method, restoration.method, restoration.volume.array


def upsample_cubic(scan: Volume, shape: tuple[int, int, int]) -> np.ndarray:
    """Cubic B-spline through the slices of `scan`, level at the outer faces, on `shape` voxels."""
    i, j, k = (AxisAcquisition(n, m) if n > m else None for n, m in zip(shape, scan.grid.shape, strict=True))
    acquisition = Acquisition((i, j, k))
    return np.asarray(acquisition.crop(acquisition.spline(scan.array)))


def evaluate(
    folder: Path | str,
    protocols: Sequence[str],
    out: Path | str,
    *,
    model: Path | str | None = None,
    mode: Mode = "fidelity",
    limit: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    report: Report = lambda line: None,
) -> tuple[Summary, ...]:
    """Compare cubic, B and the model on every scan below `folder`, by every protocol.

    Args:
        folder: Fine volumes; files that cannot serve are skipped and listed with the reason.
        protocols: Shipped names or YAML files.
        out: Gets results.json (everything) and subjects.csv (the rows); created if missing.
        model: Name or folder, or "baseline" for none; None takes the shipped one if there is one.
        mode: Mode of the model.
        limit: Only the first so many subjects.
        device: "auto", "cpu", "cuda" or "cuda:1".
        threads: CPU threads, None for all.
        overwrite: Replace the results of an earlier run.
        report: Gets a line of text for each scan and, at the end, the table.

    Raises:
        ConfigError: An unknown protocol, none, or a setting out of range.
        InputError: Not one scan could be used.
        OutputError: `out` holds results already.
        CheckpointError: The named model is missing or damaged.
    """
    folder, out = Path(folder), Path(out)
    chosen = [load_protocol(name) for name in dict.fromkeys(protocols)]
    if not chosen:
        raise ConfigError(f"Expected at least one protocol out of {', '.join(list_protocols())}, got none.")
    if (out / "results.json").exists() and not overwrite:
        raise OutputError(f"{out} holds the results of an earlier run. Choose another folder or remove them.")
    wish = {"mode": mode, "limit": limit, "device": device, "threads": threads}
    settings = parse_config(wish, RunSettings, origin="The evaluation")
    paths = find_scans(folder, limit)
    loaded = _load(model, report)
    enhancers = Enhancers(
        SuperResolver(None, device=device, threads=threads),
        SuperResolver(loaded, device=device, threads=threads) if loaded else None,
        mode,
    )
    rows, skipped = _compare(folder, paths, chosen, enhancers, report)
    summaries = summarise(rows)
    record = _record(settings, chosen, loaded, enhancers)
    record |= {
        "summary": [asdict(s) for s in summaries],
        "subjects": [asdict(r) for r in rows],
        "skipped": skipped,
    }
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "subjects.csv", format_csv(rows))
    _write(out / "results.json", json.dumps(record, indent=1) + "\n")
    for line in format_table(summaries):
        report(line)
    return summaries


def find_scans(folder: Path, limit: int | None = None) -> list[Path]:
    """Image files below `folder` by name, those of the first `limit` subjects.

    Raises:
        InputError: If there is none.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name.lower().endswith(tuple(SUFFIXES)))
    subjects = sorted({subject_of(path) for path in paths})[:limit]
    if not subjects:
        raise InputError(f"Expected image files ({', '.join(SUFFIXES)}) below {folder}, found none. Check the path.")
    return [path for path in paths if subject_of(path) in subjects]


def _load(model: Path | str | None, report: Report) -> Model | None:
    """The named model, the shipped one if there is one, or none."""
    if model == BASELINE:
        return None
    if model in (None, DEFAULT) and DEFAULT not in list_models():
        report("no model is shipped yet: cubic and B alone")
        return None
    return load_model(str(model or DEFAULT))


def _compare(
    folder: Path,
    paths: Sequence[Path],
    protocols: Sequence[ProtocolConfig],
    enhancers: Enhancers,
    report: Report,
) -> tuple[list[Row], list[dict[str, str]]]:
    """All rows, ordered by protocol and file; and what was skipped, with the reason."""
    rows: list[Row] = []
    skipped: list[dict[str, str]] = []
    for protocol in protocols:
        for path in paths:
            name = path.relative_to(folder).as_posix()
            try:
                new = _compare_one(path, name, protocol, enhancers)
            except (InputError, GridError, AcquisitionError) as error:
                skipped.append({"protocol": protocol.name, "file": name, "code": error.code, "reason": str(error)})
                report(f"{protocol.name}  {name}  skipped, {error.code}: {error}")
                continue
            rows += new
            report(f"{protocol.name}  {name}  " + ", ".join(f"{r.method} {r.psnr:.2f}" for r in new) + " dB")
    if not rows:
        raise InputError(f"Expected a fine volume below {folder}, all files were skipped: {skipped[0]['reason']}")
    return rows, skipped


def _compare_one(path: Path, name: str, protocol: ProtocolConfig, enhancers: Enhancers) -> list[Row]:
    """The rows of one scan by one protocol."""
    truth, scan = simulate(read_volume(path)[0], protocol, key=path.name)
    reference = Reference(truth.array)
    ratio = truth.grid.shape[2] / scan.grid.shape[2]
    facts: dict[str, Any] = {
        "protocol": protocol.name,
        "group": "CT" if truth.modality == "ct" else truth.contrast,
        "subject": subject_of(path),
        "file": name,
        "sha256": file_sha256(path),
        "shape": "x".join(str(n) for n in truth.grid.shape),
        "ratio": ratio,
    }
    rows = [
        Row(
            **facts,
            method=method,
            how=how,
            psnr=reference.psnr(array),
            ssim=reference.ssim(array),
            detail_share=reference.detail_share(array, ratio),
            gain=0.0,
            ssim_gain=0.0,
        )
        for method, how, array in enhancers.outputs(scan, truth, protocol)
    ]
    base = next(row for row in rows if row.method == "B")
    return [replace(row, gain=row.psnr - base.psnr, ssim_gain=row.ssim - base.ssim) for row in rows]


def _record(
    settings: RunSettings, protocols: Sequence[ProtocolConfig], model: Model | None, enhancers: Enhancers
) -> dict[str, Any]:
    """What the figures rest on; paths of this machine and times of day are left out on purpose."""
    resolver = enhancers.model or enhancers.baseline
    packages = ("numpy", "scipy", "torch", "nibabel")
    return {
        "medld": medld.__version__,
        "versions": {package: version(package) for package in packages},
        "model": {"name": model.name, "sha256": dict(model.sha256)} if model else None,
        "device": resolver.device,
        "precision": resolver.precision,
        "settings": settings.model_dump(),
        "protocols": [protocol.model_dump() for protocol in protocols],
    }


def _write(path: Path, text: str) -> None:
    """`text` under a temporary name, then moved: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
