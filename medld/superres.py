"""SuperResolver: a coarse Volume in, a fine Volume out.

One axis at a time, the coarse one last: bring the scan to network units, form the baseline B, add what
the networks say the scan did not measure, project onto the scan as far as its noise allows, and return
to the scanner's units and orientation. Several coarse axes are passes, then one projection over all.

    fidelity   x_1, the posterior mean
    otherwise  x_1 + realism (x_K - x_1), x_K a sample of `steps` steps, projected again

Source: reference design, sections 2 to 4.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from medld.acquisition import SMALLEST_LAMBDA, Acquisition, AxisAcquisition, Profile, along, damping_for
from medld.diffusion.sample import euler
from medld.errors import RestorationError
from medld.geometry import Grid, Target
from medld.intensity import TEXTURE, estimate_noise, intensity_map
from medld.nn.autoencoder import fold, unfold
from medld.nn.conditions import CONTRASTS, Conditions, time_features
from medld.nn.networks import Networks
from medld.patches import apply_tiled
from medld.volume import Volume

Consistency = Literal["auto", "exact", "gated", "off"]
Mode = Literal["fidelity", "balanced", "detail"]

HALO = 56
HALO_AUTOENCODER = 8
UNTILED_VOXELS = 6_000_000
"""Acquired voxels that a network takes in one piece; a head at 1 mm from 4 mm slices has a third of that."""

BYTES_PER_VOXEL = {"float32": 64 * 4 * 7, "bfloat16": 64 * 2 * 7}
"""Peak of the networks, per acquired voxel: seven live feature maps of 64 channels (measured)."""

END_SLICES = 2
"""Slices at each end that residuals leave out: what lies beyond the field of view is in them."""

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Request:
    """What to make of a scan, see `medld enhance --help`; `thickness` in mm per array axis, None = the spacing."""

    target: Target
    thickness: tuple[float | None, float | None, float | None] = (None, None, None)
    profile: Profile = "gaussian"
    consistency: Consistency = "auto"
    mode: Mode = "fidelity"
    realism: float | None = None
    steps: int | None = None
    samples: int = 1
    seed: int = 0
    memory_gib: float | None = None


@dataclass(frozen=True)
class Restoration:
    """The result: `volume` and `spread` (deviation over samples, or None) in scanner units on the target grid."""

    volume: Volume
    spread: Volume | None
    noise: float
    method: str
    precision: str
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Residual:
    """Re-imaged output minus scan, RMS in scanner units, and relative to the scan's noise and range."""

    rms: float
    largest: float
    relative_to_noise: float | None
    relative_to_range: float


class SuperResolver:
    """Restores volumes with the networks it was given; without any, the answer is the baseline B.

    Args:
        model: Anything with `networks: Networks`, or None.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:i`.
        threads: CPU threads; None leaves torch's choice.
    """

    def __init__(self, model: Any = None, *, device: str = "auto", threads: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.device = "cuda:0" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
        self.precision = _precision(self.device)
        networks: Networks | None = model.networks if model is not None else None
        self._dtype = getattr(torch, self.precision)
        self._networks = networks.to(torch.device(self.device), self._dtype) if networks else None

    def estimate_memory_gib(self, grid: Grid, request: Request) -> float:
        """What `restore` will need at its peak, in GiB, program included; nothing is allocated."""
        fine = prod(request.target.grid.shape)
        largest = max((fine / request.target.ratios[axis] for axis in request.target.axes), default=0.0)
        tile = min(largest, UNTILED_VOXELS) if self._networks else 0
        arrays = (6 + (2 if request.samples > 1 else 0)) * 4 * fine * 1.3
        return float(arrays + BYTES_PER_VOXEL[self.precision] * tile) / 2**30 + 0.7

    @torch.inference_mode()
    def restore(self, volume: Volume, request: Request, progress: Progress | None = None) -> Restoration:
        """`volume` on `request.target.grid`.

        Raises:
            RestorationError: The result is not finite.
        """
        job = _Job(self, volume, request, progress or (lambda _: None))
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return job.run()

    def residual(self, output: Volume, scan: Volume, request: Request, noise: float = 0.0) -> Residual:
        """How far `output`, imaged again, is from `scan`; `noise` in scanner units, 0 if unknown."""
        acquisition = Acquisition(tuple(_axes(scan.grid, request)))  # type: ignore[arg-type]
        x, y = (np.asarray(v.array, dtype=np.float32) for v in (output, scan))
        pad = [(a.margin, a.margin) if a else (0, 0) for a in acquisition.axes]
        difference = acquisition.apply(np.pad(x, pad, mode="edge")) - y
        inner = tuple(
            slice(END_SLICES, -END_SLICES) if axis in request.target.axes and y.shape[axis] > 3 * END_SLICES else slice(None)
            for axis in range(3)
        )
        rms = float(np.sqrt(np.mean(np.square(difference[inner], dtype=np.float64))))
        return Residual(
            rms, float(np.abs(difference[inner]).max()), rms / noise if noise > 0 else None, rms / float(np.ptp(y))
        )


def _precision(device: str) -> str:
    """bfloat16 where the processor computes in it, else float32; read from its features, never timed."""
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "float32"
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def _axes(grid: Grid, request: Request) -> list[AxisAcquisition | None]:
    """How each array axis of the scan was acquired, None where it is left alone."""
    axes: list[AxisAcquisition | None] = [None, None, None]
    for axis in request.target.axes:
        thickness = request.thickness[axis]
        tau = 1.0 if thickness is None else thickness / grid.spacing[axis]
        axes[axis] = AxisAcquisition(request.target.grid.shape[axis], grid.shape[axis], tau, request.profile)
    return axes


class _Job:
    """One restoration: the scan, the settings and the clock, so that steps need few arguments."""

    def __init__(self, owner: SuperResolver, volume: Volume, request: Request, progress: Progress) -> None:
        self.owner, self.volume, self.request, self.progress = owner, volume, request, progress
        self.device = torch.device(owner.device)
        self.timings: dict[str, float] = {}
        self.warnings: list[str] = []
        self.networks = owner._networks
        if self.networks is None:
            self.warnings.append("No model: the result is cubic B-spline interpolation made consistent with the scan.")
        elif volume.modality not in (*self.networks.modalities, "unknown"):
            self.networks = None
            self.warnings.append(
                f"The model was not trained for {volume.modality.upper()}: the result is cubic B-spline interpolation "
                "made consistent with the scan."
            )
        realism, steps = self.networks.presets[request.mode] if self.networks else (0.0, 1)
        self.realism = realism if request.realism is None else request.realism
        self.steps = steps if request.steps is None else request.steps
        if self.networks and self.networks.denoiser is None and (self.realism > 0 or request.samples > 1):
            self.realism = 0.0
            self.warnings.append("This model holds no diffusion part: the result is the posterior mean.")

    def run(self) -> Restoration:
        scale = intensity_map(self.volume.array, self.volume.modality)
        array = np.ascontiguousarray(self.volume.array, dtype=np.float32)
        scan = torch.from_numpy(scale.forward(array).astype(np.float32)).to(self.device)[None, None]
        can_sample = self.networks is not None and self.networks.denoiser is not None
        draws = self.request.samples if can_sample else 1
        fine, noise = self._restore(scan, 0, draws)
        spread = None
        if draws > 1:
            fine, spread = self._with_spread(scan, fine, draws)
        fine = self._respect_background(fine, scan)
        result = scale.inverse(fine[0, 0].cpu().numpy()).astype(np.float32)
        if not np.isfinite(result).all():
            raise RestorationError(
                "Expected finite values, the networks gave NaN or Inf. Try --device cpu; nothing was written."
            )
        grid = self.request.target.grid
        return Restoration(
            volume=replace(self.volume, array=result, grid=grid),
            spread=None if spread is None else replace(self.volume, array=spread * np.float32(scale.scale), grid=grid),
            noise=float(noise) * scale.scale,
            method=self._method(),
            precision=self.owner.precision if self.networks else "float32",
            warnings=tuple(self.warnings),
            timings=self.timings,
        )

    def _method(self) -> str:
        if self.networks is None:
            return "baseline B"
        form = "latent" if self.networks.one_step is None else self.networks.fidelity
        return f"fidelity ({form})" if self.realism == 0 else f"realism {self.realism:g}, {self.steps} steps"

    def _with_spread(self, scan: Tensor, first: Tensor, draws: int) -> tuple[Tensor, np.ndarray[Any, Any]]:
        """Mean-free second moment over samples, one in memory at a time (Welford)."""
        mean, moment = torch.zeros_like(first), torch.zeros_like(first)
        for draw in range(draws):
            sample, _ = self._restore(scan, draw, draws, sample=True)
            delta = sample - mean
            mean += delta / (draw + 1)
            moment += delta * (sample - mean)
        return first, (moment / (draws - 1)).sqrt()[0, 0].cpu().numpy()

    def _restore(self, scan: Tensor, draw: int, draws: int, *, sample: bool = False) -> tuple[Tensor, Tensor]:
        """The fine volume in network units and the noise of the scan along its first restored axis."""
        axes = _axes(self.volume.grid, self.request)
        current, spacing, first_noise = scan, list(self.volume.grid.spacing), None
        remaining = list(self.request.target.axes)
        for done, axis in enumerate(self.request.target.axes):
            remaining.remove(axis)
            acquisition = axes[axis]
            assert acquisition is not None
            in_plane = [spacing[i] for i in range(3) if i != axis]
            a = spacing[axis] / float(np.sqrt(in_plane[0] * in_plane[1]))
            slab = current.movedim(axis + 2, -1).contiguous()
            noise = self._noise(slab)
            first_noise = noise if first_noise is None else first_noise
            one = _Pass(self, acquisition, slab, noise, a, soft=len(remaining) / 2, draw=draw, sample=sample)
            current = one.run().movedim(-1, axis + 2).contiguous()
            spacing[axis] = self.request.target.grid.spacing[axis]
            self.progress((done + 1) / len(self.request.target.axes) / (draws + (draws > 1)))
        assert first_noise is not None, "a target has at least one axis to restore"
        if len(self.request.target.axes) > 1 and self.request.consistency != "off":
            current = self._joint_projection(current, scan, axes, first_noise)
        return current, first_noise

    def _noise(self, slab: Tensor) -> Tensor:
        texture = 0.0 if self.request.consistency == "gated" else TEXTURE
        with self.timed("noise"):
            return estimate_noise(slab, texture)[0]

    def _joint_projection(self, fine: Tensor, scan: Tensor, axes: list[Any], noise: Tensor) -> Tensor:
        """The last word over all axes at once: passes only answered to their own."""
        with self.timed("projection"):
            joint = Acquisition((axes[0], axes[1], axes[2]))
            gate, damping = self._strength(noise)
            outside = joint.baseline(scan, damping)
            padded = outside + joint.pad(fine - joint.crop(outside))
            return joint.crop(joint.project(padded, scan, gate, damping))  # type: ignore[no-any-return]

    def _strength(self, noise: Tensor) -> tuple[Any, Any]:
        """(noise for the gate, lambda) under the consistency that was asked for."""
        if self.request.consistency == "exact":
            return 0.0, SMALLEST_LAMBDA
        return noise, damping_for(noise)

    def _respect_background(self, fine: Tensor, scan: Tensor) -> Tensor:
        """A scan without negative values gets none; where the slices around a voxel are all zero, it stays zero."""
        if self.request.consistency == "exact" or bool((scan < 0).any()):
            return fine
        support = (scan > 0).float()
        for axis in self.request.target.axes:
            size, slices = self.request.target.grid.shape[axis], self.volume.grid.shape[axis]
            support = along(_linear_matrix(size, slices), support, axis - 3)
        return torch.where(support > 0, fine.clamp(min=0), torch.zeros_like(fine))

    def timed(self, stage: str) -> _Timer:
        """Adds the seconds of a `with` block to a stage."""
        return _Timer(self.timings, stage, self.device)


@dataclass
class _Pass:
    """One axis: `slab` (1, 1, I, J, K) with the coarse axis last."""

    job: _Job
    axis: AxisAcquisition
    slab: Tensor
    noise: Tensor
    spacing_ratio: float
    soft: float
    draw: int
    sample: bool

    def run(self) -> Tensor:
        """The slab on the target grid, (1, 1, I, J, n)."""
        acquisition = Acquisition((None, None, self.axis))
        gate, damping = self.job._strength(self.noise)
        off = self.job.request.consistency == "off"
        if self.job.networks is None:
            with self.job.timed("baseline"):
                padded = acquisition.spline(self.slab)
                padded = padded if off else acquisition.project(padded, self.slab, gate, damping)
                return acquisition.crop(padded)  # type: ignore[no-any-return]
        with self.job.timed("baseline"):
            baseline = acquisition.baseline(self.slab, damping)
        fine = self._mean(damping)
        realism = 1.0 if self.sample else self.job.realism
        if realism > 0:
            fine = fine + realism * (self._sampled(damping) - fine)
        with self.job.timed("projection"):
            padded = baseline + acquisition.pad(fine)
            padded = padded if off else acquisition.project(padded, self.slab, gate, damping)
            return acquisition.crop(padded)  # type: ignore[no-any-return]

    def _mean(self, damping: Any) -> Tensor:
        """The posterior mean's correction to the baseline, (1, 1, I, J, n)."""
        networks = self.job.networks
        assert networks is not None
        if networks.one_step is None or networks.fidelity == "latent":
            return self._latent(damping, steps=1, noise=None)
        features = self._conditions().features()
        with self.job.timed("one-step"):
            profile = self._tiled(networks.one_step, self.slab, HALO, features)
        return self._to_target(profile)

    def _sampled(self, damping: Any) -> Tensor:
        """A sample's correction; its noise field is drawn on the CPU, so devices agree on it."""
        networks = self.job.networks
        assert networks is not None and networks.autoencoder is not None
        generator = torch.Generator().manual_seed(self.job.request.seed * 1009 + self.draw)
        shape = (1, networks.autoencoder.latent_channels, *self.slab.shape[2:])
        noise = torch.randn(shape, generator=generator).to(self.slab.device)
        return self._latent(damping, steps=self.job.steps, noise=noise)

    def _latent(self, damping: Any, *, steps: int, noise: Tensor | None) -> Tensor:
        """Encode what the baseline knows, let the denoiser restore, decode; correction (1, 1, I, J, n)."""
        networks = self.job.networks
        assert networks is not None and networks.autoencoder is not None and networks.denoiser is not None
        conditions = self._conditions()
        geometry, autoencoder = conditions.geometry(), networks.autoencoder
        with self.job.timed("encode"):
            wide = Acquisition((None, None, self.axis.on_profile_grid()))
            samples = fold(wide.crop(wide.baseline(self.slab, damping)))
            raw = self._tiled(lambda x, g: autoencoder.encode(x, g).mean, samples, HALO_AUTOENCODER, geometry)
            low_res = autoencoder.standardise(raw, conditions.ratio)
        start = low_res if noise is None else networks.denoiser.flow.start(low_res, noise)  # type: ignore[union-attr,operator]
        with self.job.timed("denoise"):
            latent = euler(lambda z, t: self._denoise(z, t, low_res, conditions), start, steps)
        with self.job.timed("decode"):
            raw = autoencoder.unstandardise(latent, conditions.ratio)
            both = torch.cat([raw, self.slab], dim=1)
            profile = self._tiled(
                lambda x, g: autoencoder.decode(x[:, :-1], x[:, -1:], g), both, HALO_AUTOENCODER, geometry
            )
        return self._to_target(profile)

    def _denoise(self, z: Tensor, t: Tensor, low_res: Tensor, conditions: Conditions) -> Tensor:
        networks = self.job.networks
        assert networks is not None and networks.denoiser is not None
        denoiser, channels = networks.denoiser, z.shape[1]
        features = torch.cat([conditions.features(), time_features(t)], dim=1)
        return self._tiled(
            lambda x, f: denoiser(x[:, :channels], x[:, channels:-1], x[:, -1:], f),
            torch.cat([z, low_res, self.slab], dim=1),
            HALO,
            features,
        )

    def _tiled(self, network: Callable[[Tensor, Tensor], Tensor], x: Tensor, halo: int, features: Tensor) -> Tensor:
        size = max(x.shape[2:4])
        if prod(x.shape[2:]) > UNTILED_VOXELS:
            size = max(4 * HALO, int((UNTILED_VOXELS / x.shape[-1]) ** 0.5) - 2 * HALO)
        dtype = self.job.owner._dtype
        return apply_tiled(lambda part: network(part.to(dtype), features), x, size=size, halo=halo)

    def _to_target(self, profile: Tensor) -> Tensor:
        networks = self.job.networks
        assert networks is not None
        with self.job.timed("projection"):
            return along(self.axis.profile_to_target(networks.profile_map), unfold(profile), -1)  # type: ignore[no-any-return]

    def _conditions(self) -> Conditions:
        one = lambda value: self.slab.new_full((1,), float(value))  # noqa: E731
        contrast = torch.tensor([CONTRASTS.index(self.job.volume.contrast)], device=self.slab.device)
        return Conditions(
            one(self.spacing_ratio), one(self.axis.ratio), one(self.axis.thickness), self.noise[None], one(self.soft), contrast
        )


class _Timer:
    def __init__(self, timings: dict[str, float], stage: str, device: torch.device) -> None:
        self.timings, self.stage, self.device = timings, stage, device

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.timings[self.stage] = self.timings.get(self.stage, 0.0) + time.perf_counter() - self.start


def _linear_matrix(fine: int, slices: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Linear interpolation of the slices on the fine grid, ends clamped, shape (fine, slices)."""
    position = np.clip((np.arange(fine) + 0.5) * slices / fine - 0.5, 0, slices - 1)
    return np.asarray(np.clip(1 - np.abs(position[:, None] - np.arange(slices)), 0, None))
