"""Benchmark: how long a restoration takes, measured against what this machine can compute.

    rate      what a 64-channel 3x3x3 conv3d reaches here, in the precision that the program uses
    ideal     floating-point operations of the networks' convolutions / rate
    ratio     whole command after import (read, load, restore, write) / ideal; the bar is 1.5, plus 4 s
    loaded    the same without loading, that of a GPU's kernels included

Seconds alone say what the machine is, the ratio says what the program is. Two scans of one output size:
thick slices at 4x, and isotropic 2x, which is three passes over growing grids.

    python pipelines/benchmark.py [--mode MODE] [--model NAME|DIR] [--device DEVICE] [--threads N] [--size VOXELS]

With --curve instead: `medld enhance` on scans for outputs of 1 to 134 million voxels, each in a process of its own.

    seconds   after import, as its record says, also per million voxels of the output
    GiB       largest resident memory and, on a GPU, largest memory there; beside it the estimate made before the start
    exponent  of seconds, and of memory above that of the smallest scan, in voxels from one line to the next; growth is
              linear at 1

    python pipelines/benchmark.py --curve [--scan 4x|isotropic-2x] [--model NAME|DIR|baseline]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import get_args

import nibabel
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from medld.batch.scope import check_scope
from medld.batch.settings import EnhanceSettings
from medld.batch.warm import warm_up
from medld.checkpoint import DEFAULT, Model, load_model
from medld.geometry import choose_target
from medld.io import read_volume, write_volume
from medld.report import measure_peak_gib
from medld.superres import Mode, Request, Restoration, SuperResolver

SIZE = 192
"""Voxels along each axis of the output: 192^3 is 7.1 million."""
CURVE_SIZES = (96, 192, 256, 384, 512)
"""The same for the curve: 0.9, 7.1, 16.8, 56.6 and 134 million voxels."""
COUNTED_SIZE = 48
"""The same where operations are counted: small, and a multiple of the networks' strides on every grid."""
SCANS = {"4x": (1.0, 1.0, 4.0), "isotropic 2x": (2.0, 2.0, 2.0)}
"""Name and spacing (mm); the target is 1 mm."""

BAR_RATIO, BAR_SECONDS = 1.5, 4.0
WEIGHTS, KERNELS = "load model", "load kernels"
"""Stages that are no part of `loaded`."""
AGAIN = 5
"""Further restorations on a GPU, which chooses its kernels for new shapes in the first two."""
RATE_SHAPE = (64, 128, 128, 48)
"""Channels and voxels of the measured convolution: larger than any cache, like the networks' first level."""


@dataclass
class Clock:
    """Seconds of named stages."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of a `with` block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Run:
    """Seconds of each stage and of the whole, and the scan's voxels."""

    stages: dict[str, float]
    total: float
    voxels: int
    again: float = 0.0
    """The same scan restored again by the loaded model, reading and writing left out: the median of `AGAIN` times."""


def measure_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a 64-channel 3x3x3 conv3d, channels last: the median of timed calls after untimed ones."""
    channels, *voxels = RATE_SHAPE
    last = torch.channels_last_3d
    x = torch.randn(1, channels, *voxels, device=device, dtype=dtype).contiguous(memory_format=last)
    w = torch.randn(channels, channels, 3, 3, 3, device=device, dtype=dtype).contiguous(memory_format=last)
    operations = 2 * 27 * channels**2 * int(np.prod(voxels))
    calls = []
    with torch.inference_mode():
        for _ in range(2 + (20 if device.type == "cuda" else 5)):
            start = time.perf_counter()
            torch.nn.functional.conv3d(x, w, padding=1)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            calls.append(time.perf_counter() - start)
    return operations / median(calls[2:])


def write_phantom(path: Path, spacing: tuple[float, float, float], size: int) -> None:
    """A textured ball in air as a scan of that spacing over a box of `size` mm, int16."""
    shape = [round(size / s) for s in spacing]
    i, j, k = np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in shape), indexing="ij")
    texture = np.random.default_rng(0).normal(0, 20, shape)
    array = np.where(i**2 + j**2 + k**2 < 1, 600 + 200 * np.sin(9 * i) * np.cos(7 * j + 5 * k) + texture, 0)
    nibabel.save(nibabel.Nifti1Image(array.astype(np.int16), np.diag([*spacing, 1.0])), path)


def run_command(path: Path, load: Callable[[], Model], device: str, threads: int | None, mode: Mode) -> Run:
    """What `medld enhance` does after import, stage by stage; `other` is what no stage claims."""
    clock, begin = Clock(), time.perf_counter()
    with clock.stage("read"):
        scan, storage = read_volume(path)
    with clock.stage(WEIGHTS):
        model = load()
        resolver = SuperResolver(model, device=device, threads=threads)
    if resolver.device != "cpu":
        with clock.stage(KERNELS):
            warm_up(model, resolver, EnhanceSettings(mode=mode))
    request = Request(choose_target(scan.grid, spacing=(1.0, 1.0, 1.0)), mode=mode)

    def restore() -> Restoration:
        """As the command does it: first, whether the model should."""
        with clock.stage("scope"):
            check_scope(scan, request, model, resolver, force=True)
        return resolver.restore(scan, request)

    restoration = restore()
    with clock.stage("write"):
        output = path.with_name("output.nii.gz")
        stored = write_volume(output, restoration.volume, storage, description="benchmark")
    with clock.stage("residual"):
        resolver.residual(restoration.volume.with_array(stored), scan, request, restoration.noise)
    total = time.perf_counter() - begin
    stages = clock.seconds | restoration.timings
    repeated = []
    for _ in range(AGAIN if resolver.device != "cpu" else 1):
        begin = time.perf_counter()
        restore()
        repeated.append(time.perf_counter() - begin)
    return Run(stages | {"other": total - sum(stages.values())}, total, scan.array.size, median(repeated))


def count_operations(path: Path, load: Callable[[], Model], device: str, mode: Mode) -> float:
    """Floating-point operations of the networks' convolutions per voxel of the scan.

    For a scan that is neither padded nor tiled: what a tile's halo repeats is not the networks' work.
    """
    scan, _ = read_volume(path)
    request = Request(choose_target(scan.grid, spacing=(1.0, 1.0, 1.0)), mode=mode)
    with FlopCounterMode(display=False) as counter:
        SuperResolver(load(), device=device).restore(scan, request)
    counts = counter.get_flop_counts().get("Global", {})
    operations: int = sum(n for operation, n in counts.items() if "convolution" in str(operation))
    return operations / scan.array.size


def report(name: str, run: Run, per_voxel: float, rate: float) -> None:
    """One scan's figures."""
    ideal = per_voxel * run.voxels / rate
    bar = BAR_RATIO * ideal + BAR_SECONDS
    loading = sum(run.stages.get(stage, 0.0) for stage in (WEIGHTS, KERNELS))
    print(f"\n{name}: {run.total:.2f} s after import, {run.total - loading:.2f} s after loading")
    for stage, seconds in run.stages.items():
        print(f"  {stage:<12} {seconds:8.2f} s  {100 * seconds / run.total:5.1f} %")
    print(f"  the next such scan: {run.again:.2f} s between reading and writing")
    tera = per_voxel * run.voxels / 1e12
    print(f"  operations   {tera:.3f} TFLOP, {per_voxel / 1e6:.2f} MFLOP per acquired voxel")
    print(f"  ideal        {ideal:.2f} s at the measured rate; total / ideal = {run.total / ideal:.2f}")
    verdict = "kept" if run.total <= bar else "MISSED"
    print(f"  bar          {BAR_RATIO:g} x ideal + {BAR_SECONDS:g} s = {bar:.2f} s: {verdict}")


@dataclass(frozen=True)
class Point:
    """One restoration of the curve: voxels of the output, seconds, peaks and estimate in GiB."""

    voxels: int
    seconds: float
    resident: float
    estimate: float
    gpu: float | None


def measure_point(folder: Path, size: int, options: argparse.Namespace) -> Point:
    """`medld enhance` in a process of its own, so that its peak is of this scan alone."""
    path, record = folder / "scan.nii.gz", folder / "record.json"
    write_phantom(path, SCANS[options.scan.replace("-", " ")], size)
    words = ["enhance", path, "-o", folder / "output.nii.gz", "--overwrite", "--spacing", "1", "--force"]
    words += ["--model", options.model, "--device", options.device, "--report", record, "--mode", options.mode]
    words += ["--threads", options.threads] if options.threads else []
    subprocess.run([sys.executable, "-m", "medld.cli", *map(str, words)], check=True, capture_output=True)
    told = json.loads(record.read_text(encoding="utf-8"))
    memory = told["memory_gib"]
    seconds = told["timings_s"]["total"]
    return Point(size**3, seconds, memory["peak"], memory["estimate"], memory.get("device_peak"))


def print_curve(options: argparse.Namespace) -> None:
    """A line a size."""
    print(f"{options.scan}, model {options.model}, device {options.device}, mode {options.mode}")
    print("million voxels   seconds  s/million  exponent   GiB  estimate  exponent   GPU GiB")
    first: Point | None = None
    last: Point | None = None
    with tempfile.TemporaryDirectory() as folder:
        for size in CURVE_SIZES:
            point = measure_point(Path(folder), size, options)
            time_grows = memory_grows = "-"
            if last is not None and first is not None:
                step = np.log(point.voxels / last.voxels)
                time_grows = f"{np.log(point.seconds / last.seconds) / step:.2f}"
                if last.resident > first.resident:
                    more = (point.resident - first.resident) / (last.resident - first.resident)
                    memory_grows = f"{np.log(max(more, 1e-3)) / step:.2f}"
            million = point.voxels / 1e6
            gpu = "-" if point.gpu is None else f"{point.gpu:.2f}"
            print(
                f"{million:14.1f} {point.seconds:9.1f} {point.seconds / million:10.2f} {time_grows:>9} "
                f"{point.resident:5.2f} {point.estimate:9.2f} {memory_grows:>9} {gpu:>9}",
                flush=True,
            )
            first, last = first or point, point


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure a restoration against the machine's conv3d rate.")
    parser.add_argument("--model", default=DEFAULT, help="name or folder (%(default)s)")
    parser.add_argument("--mode", default="fidelity", choices=get_args(Mode))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--size", type=int, default=SIZE, help="voxels along an axis of the output (%(default)s)")
    parser.add_argument("--curve", action="store_true", help="time and memory against voxels")
    parser.add_argument("--scan", choices=[name.replace(" ", "-") for name in SCANS], default="4x", help="of the curve")
    return parser.parse_args()


def main() -> None:
    """Run each scan as a fresh process would, then measure what it is judged against."""
    options = parse_options()
    if options.curve:
        print_curve(options)
        return
    probe = SuperResolver(None, device=options.device, threads=options.threads)
    device = torch.device(probe.device)
    load = partial(load_model, options.model)
    runs, counts, rates = {}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, spacing in SCANS.items():
            path = Path(folder) / f"{name.replace(' ', '-')}.nii.gz"
            write_phantom(path, spacing, options.size)
            runs[name] = run_command(path, load, options.device, options.threads, options.mode)
            rates.append(measure_rate(device, getattr(torch, probe.precision)))
            write_phantom(path, spacing, COUNTED_SIZE)
            counts[name] = count_operations(path, load, options.device, options.mode)
    memory = {"resident": measure_peak_gib()}
    processor = f"{torch.get_num_threads()} threads"
    if device.type == "cuda":
        memory["GPU"] = torch.cuda.max_memory_allocated(device) / 2**30
        processor = torch.cuda.get_device_name(device)
    rate = max(rates)  # other work on the machine can only lower it
    print(f"device {device} ({processor}), {probe.precision}, torch {torch.__version__}")
    print(f"output {options.size}^3 = {options.size**3 / 1e6:.1f} million voxels, mode {options.mode}")
    each = ", ".join(f"{r / 1e12:.3f}" for r in rates)
    print(f"conv3d rate {rate / 1e12:.3f} TFLOP/s (after each run: {each})")
    for name, run in runs.items():
        report(name, run, counts[name], rate)
    print("\npeak memory  " + ", ".join(f"{kind} {gib:.2f} GiB" for kind, gib in memory.items() if gib))


if __name__ == "__main__":
    main()
