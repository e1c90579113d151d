"""`medld enhance` where arrays lie on the disk: the same bytes, and nothing left, however it ends."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tiny_model import save_tiny_model

from medld import scratch
from medld.batch.plan import make_plan
from medld.batch.run import run_plan
from medld.batch.settings import BASELINE, EnhanceSettings
from medld.cli import main

THROUGH_PLANE, ISOTROPIC = (1.0, 1.0, 3.0), (2.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder whose networks do something, if nothing sensible."""
    return str(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", summary="random"))


def save(folder: Path, spacing: tuple[float, ...] = THROUGH_PLANE) -> Path:
    """A small scan of whole numbers in a folder of its own."""
    folder.mkdir()
    # Off centre, or symmetry leaves so few distinct values that it counts as a label map.
    axes = np.meshgrid(np.linspace(-1, 0.9, 16), np.linspace(-0.8, 1, 14), np.linspace(-1, 0.7, 6), indexing="ij")
    values = np.round(900 * np.exp(-2 * sum(a**2 for a in axes))).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1.0])), folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


def enhance(scan: Path, *options: object) -> int:
    """Enhance on the CPU."""
    return main(["enhance", str(scan), "--device", "cpu", "--force", *map(str, options)])


def contents(folder: Path) -> dict[str, Any]:
    """All files below a folder, records without what a clock or the machine tells."""
    files = {}
    for path in folder.rglob("*"):
        if path.suffix == ".json":
            record = json.loads(path.read_text(encoding="utf-8"))
            files[path.name] = {k: v for k, v in record.items() if k not in ("timings_s", "memory_gib")}
        else:
            files[path.name] = path.read_bytes()
    return files


def mapped_gib(folder: Path) -> float:
    """What the record says of files."""
    mapped: float = json.loads((folder / "scan_desc-sr.json").read_text(encoding="utf-8"))["memory_gib"]["mapped"]
    return mapped


@pytest.mark.parametrize("spacing", [THROUGH_PLANE, ISOTROPIC], ids=["through-plane", "isotropic"])
@pytest.mark.parametrize(
    "options",
    [["--model", BASELINE], [], ["--mode", "detail", "--steps", 2], ["--mode", "detail", "--steps", 2, "--samples", 3]],
    ids=["baseline", "fidelity", "detail", "samples"],
)
def test_it_writes_the_same_bytes(
    tmp_path: Path, model: str, spacing: tuple[float, ...], options: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options if BASELINE in options else [*options, "--model", model]
    folders = tmp_path / "memory", tmp_path / "disk"
    for folder in folders:
        assert enhance(save(folder, spacing), *options) == 0
        monkeypatch.setattr(scratch, "MAPPED_VOXELS", 1000)
    in_memory, on_disk = map(contents, folders)
    assert in_memory == on_disk
    assert mapped_gib(folders[0]) == 0 < mapped_gib(folders[1])


def test_what_the_disk_has_no_room_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scratch, "MAPPED_VOXELS", 1000)
    scan = save(tmp_path / "scans")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
        assert enhance(scan, "--model", BASELINE) == 2
    assert "E_TOO_BIG" in capsys.readouterr().err

    def fill(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", fill, raising=False)  # another program was faster
    assert enhance(scan, "--model", BASELINE) == 2
    assert "E_TOO_BIG" in capsys.readouterr().err
    assert list(scan.parent.iterdir()) == [scan]


class Interrupter:
    """A listener that loses patience once the restoration has begun."""

    def started(self, *_: object) -> None:
        """Nothing to tell."""

    def finished(self, *_: object) -> None:
        """Nothing to tell."""

    def progressed(self, fraction: float) -> None:
        """Ctrl-C."""
        raise KeyboardInterrupt


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MAPPED_VOXELS", 1000)
    scan, settings = save(tmp_path / "scans"), EnhanceSettings(model=BASELINE, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        run_plan(make_plan([scan], settings), settings, Interrupter())
    assert list(scan.parent.iterdir()) == [scan]
