"""SuperResolver: what surrounds the networks.

The scan goes to network units, its coarse axes are restored one by one, the coarsest first, then all of them
are projected onto the scan at once, as far as its noise allows, and the result goes back to the scanner's
units. Without a model, or for a modality that it does not cover, the answer is the baseline B.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medld.acquisition import SMALLEST_LAMBDA, Acquisition, along, away_from_ends, damping_for, linear_matrix
from medld.diffusion.stochastic import evaluations
from medld.errors import ConfigError, InputError, RestorationError
from medld.geometry import Grid
from medld.intensity import TEXTURE, IntensityMap, estimate_noise, intensity_map
from medld.nn.conditions import CONTRASTS, Conditions
from medld.nn.networks import Networks
from medld.superres.arrays import as_slab, make_empty, to_host
from medld.superres.axis import AxisPass, Dials
from medld.superres.needs import BYTES_PER_VOXEL, Needs, find_needs
from medld.superres.projection import STRIP_VOXELS, Strength, baseline_core, complete, padded_strips, subtract_baseline
from medld.superres.values import Flips, Request, Residual, Restoration
from medld.superres.work import Work
from medld.volume import Volume

UNTILED_VOXELS = 4_000_000
"""Acquired voxels that a network takes in one piece in bfloat16; a head at 1 mm from 4 mm slices has half of that."""

Progress = Callable[[float], None]


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
        self._dtype = getattr(torch, self.precision)
        networks: Networks | None = model.networks if model is not None else None
        self._networks = networks.to(torch.device(self.device), self._dtype) if networks else None

    def estimate_memory_gib(self, grid: Grid, request: Request, besides: int = 0) -> float:
        """What `restore` and the writing of its result will need at their peak, in GiB, program included.

        `besides` are volumes on the target grid that are held while the result is written. Nothing is allocated.
        """
        return self._needs(grid, request, besides).memory / 2**30

    def estimate_mapped_gib(self, grid: Grid, request: Request) -> float:
        """What `restore` and the writing of its result will hold in files of `request.scratch` at most, in GiB."""
        return self._needs(grid, request).disk / 2**30

    def _needs(self, grid: Grid, request: Request, besides: int = 0) -> Needs:
        return find_needs(grid, request, self._networks, self.precision, self._untiled_voxels(request), besides)

    @property
    def _tileable(self) -> bool:
        return self._networks is None or self._networks.tileable

    def _untiled_voxels(self, request: Request) -> int:
        """Fixed by voxels and `--memory`, never by free memory, so that bytes repeat."""
        if not self._tileable:
            return sys.maxsize
        per_voxel = BYTES_PER_VOXEL[self.precision]
        most = int(UNTILED_VOXELS * BYTES_PER_VOXEL["bfloat16"] / per_voxel)
        if request.memory_gib is None:
            return most
        return int(min(most, max(request.memory_gib / 2 * 2**30 / per_voxel, 1)))

    @torch.inference_mode()
    def restore(self, volume: Volume, request: Request, progress: Progress | None = None) -> Restoration:
        """`volume` on `request.target.grid`.

        Raises:
            ConfigError: A number of flips that is none of `Flips`.
            InputError: The networks cannot be tiled and need more than `request.memory_gib` for the whole, or the disk
                of `request.scratch` is full (E_TOO_BIG).
            RestorationError: The result is not finite.
        """
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return self._job(volume, request, progress or (lambda _: None)).run()

    def _job(self, volume: Volume, request: Request, progress: Progress) -> _Job:
        networks, warnings = self._networks, []
        fallback = "the result is cubic B-spline interpolation made consistent with the scan."
        if networks is None:
            warnings.append(f"No model: {fallback}")
        elif volume.modality not in (*networks.modalities, "unknown"):
            warnings.append(f"The model was not trained for {volume.modality.upper()}: {fallback}")
            networks = None
        if networks is not None and not networks.tileable:
            self._refuse_too_big(volume.grid, request)
        draws = request.samples if request.samples > 1 else 0
        realism, steps = 0.0, 1
        if networks:
            usual, _ = networks.presets[request.mode]
            if networks.denoiser is None and ((usual if request.realism is None else request.realism) > 0 or draws):
                warnings.append("This model holds no diffusion part: the result is the posterior mean.")
            realism, steps = networks.position(request.mode, request.realism, request.steps, drawn=draws > 0)
        if networks is None or networks.denoiser is None:
            draws = 0
        if request.flips not in get_args(Flips):
            raise ConfigError(f"Expected 1, 2, 4 or 8 flips, got {request.flips}: only these are a group of mirrors.")
        dials = Dials(realism, steps, request.seed, self._untiled_voxels(request), request.flips)
        sampling = evaluations(networks.sampler, steps) if networks else 0
        means = request.flips if networks is not None and networks.one_step is not None else 1
        per_draw = sampling + (means if networks is not None and networks.start == "mean" else 0)
        passes = len(request.target.axes) * (means + (sampling if realism > 0 else 0) + draws * per_draw)
        work = Work(torch.device(self.device), passes, progress)
        return _Job(networks, volume, request, dials, draws, self._dtype, warnings, work)

    def _refuse_too_big(self, grid: Grid, request: Request) -> None:
        """Tiles would give other numbers and more memory than allowed may end the program: neither, then."""
        need = self.estimate_memory_gib(grid, request)
        if request.memory_gib is not None and need > request.memory_gib:
            raise InputError(
                f"Expected to need at most {request.memory_gib:.3g} GiB of memory, this model needs about {need:.3g}: "
                "its norms take in the whole scan, so it cannot work in tiles. Raise --memory, ask for a coarser "
                "--spacing, or name another --model.",
                "E_TOO_BIG",
            )

    def residual(self, output: Volume, scan: Volume, request: Request, noise: float = 0.0) -> Residual:
        """How far `output`, imaged again, is from `scan`; `noise` in scanner units, 0 if unknown."""
        x, y = (np.asarray(v.array, dtype=np.float32) for v in (output, scan))
        difference = _reimaged(request.acquisition(scan.grid), x) - y
        inner = away_from_ends(y.shape, request.target.axes)
        rms = float(np.sqrt(np.mean(np.square(difference[inner], dtype=np.float64))))
        largest = float(np.abs(difference[inner]).max())
        return Residual(rms, largest, rms / noise if noise > 0 else None, rms / float(np.ptp(y)))


def _reimaged(acquisition: Acquisition, fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """The slices (I, J, K) that a scan of a fine array would have had.

    Quickest, and without a copy, where the array's first axis lies densest, as in files: turned round it is a matrix of
    one slice a row, and to reimage the slices is one product.
    """
    i, j, k = acquisition.axes
    turned = fine.transpose(2, 1, 0)
    if i is not None or j is not None:
        step = max(1, STRIP_VOXELS // (fine.shape[0] * fine.shape[1]))
        blocks = (turned[start : start + step] for start in range(0, fine.shape[2], step))
        turned = np.concatenate([Acquisition((None, j, i)).reimage(block) for block in blocks])
    return Acquisition((k, None, None)).reimage(turned).transpose(2, 1, 0)  # type: ignore[no-any-return]


def _precision(device: str) -> str:
    """bfloat16 where the processor computes in it, else float32; read from its features, never timed."""
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "float32"
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


@dataclass
class _Job:
    """One restoration: the scan, the settings and the clock."""

    networks: Networks | None
    volume: Volume
    request: Request
    dials: Dials
    draws: int
    dtype: torch.dtype
    warnings: list[str]
    work: Work

    def run(self) -> Restoration:
        with self.work.timed("intensity"):
            units = intensity_map(self.volume.array, self.volume.modality)
            scan = self._to_device(units)
        noise = self._noise(scan.movedim(self.request.target.axes[0] + 2, -1))
        fine = self._restore(scan, noise, None)
        mean, spread = self._samples(scan, noise, units) if self.draws else (None, None)
        with self.work.timed("intensity"):
            self._respect_background(fine, scan)
            volume = self._to_volume(units.invert_(fine))
        return Restoration(
            volume=volume,
            mean=mean,
            spread=spread,
            noise=float(noise) * units.scale,
            method=self._method(),
            precision=str(self.dtype).removeprefix("torch.") if self.networks else "float32",
            warnings=tuple(self.warnings),
            timings=self.work.timings,
        )

    def _to_device(self, units: IntensityMap) -> Tensor:
        array = np.ascontiguousarray(self.volume.array, dtype=np.float32)
        return units.forward(torch.from_numpy(array).to(self.work.device))[None, None]  # type: ignore[no-any-return]

    def _method(self) -> str:
        if self.networks is None:
            return "baseline B"
        if self.dials.realism > 0:
            return f"realism {self.dials.realism:g}, {self.dials.steps} {self.networks.sampler} steps"
        return f"fidelity ({'latent' if self.networks.one_step is None else self.networks.fidelity})"

    def _noise(self, slab: Tensor) -> Tensor:
        """Deviation of the noise in slices (1, 1, I, J, K), a tensor of one value."""
        with self.work.timed("noise"):
            return estimate_noise(slab, 0.0 if self.request.consistency == "gated" else TEXTURE)[0]

    def _strength(self, noise: Tensor) -> Strength:
        exact = self.request.consistency == "exact"
        damping = torch.full_like(noise, SMALLEST_LAMBDA) if exact else damping_for(noise)
        return Strength(noise * (not exact), damping, self.request.consistency != "off")

    def _to_volume(self, fine: Tensor) -> Volume:
        """What is on the target grid (1, 1, I, J, K), in scanner units."""
        array = fine[0, 0].numpy() if fine.device.type == "cpu" else to_host(fine, self.request.scratch)
        if not (np.isfinite(array.min()) and np.isfinite(array.max())):  # as in `check_values`: no mask
            raise RestorationError(
                "Expected finite values, the networks gave NaN or Inf. Try --device cpu; nothing was written."
            )
        return replace(self.volume, array=array, grid=self.request.target.grid)

    def _samples(self, scan: Tensor, noise: Tensor, units: IntensityMap) -> tuple[Volume, Volume]:
        """Mean and standard deviation over samples, one of them in memory at a time (Welford)."""
        mean = self._sample(scan, noise, 0)
        moment = self._empty(mean.shape).zero_()
        for draw in range(1, self.draws):
            sample = self._sample(scan, noise, draw)
            for rows in padded_strips(Acquisition((None, None, None)), mean.shape[2:]):
                part = sample[:, :, rows]
                delta = part - mean[:, :, rows]
                mean[:, :, rows] += delta / (draw + 1)
                moment[:, :, rows] += part.sub_(mean[:, :, rows]).mul_(delta)
            del sample, part  # before the next is made
        spread = moment.div_(self.draws - 1).sqrt_().mul_(units.scale)
        return self._to_volume(units.invert_(mean)), self._to_volume(spread)

    def _sample(self, scan: Tensor, noise: Tensor, draw: int) -> Tensor:
        fine = self._restore(scan, noise, draw)
        self._respect_background(fine, scan)
        return fine

    def _restore(self, scan: Tensor, noise: Tensor, draw: int | None) -> Tensor:
        """The scan on the target grid, in network units; a pure sample where `draw` is given."""
        target = self.request.target
        current, spacing = scan, list(self.volume.grid.spacing)
        for done, axis in enumerate(target.axes):
            slab = as_slab(self.request.scratch, current, axis)
            del current  # it may be as large as the slab
            slab_noise = noise if done == 0 else self._noise(slab)
            fine = self._restore_axis(slab, axis, slab_noise, spacing, len(target.axes) - 1 - done, draw)
            del slab
            current = fine.movedim(-1, axis + 2)
            spacing[axis] = target.grid.spacing[axis]
        if len(target.axes) > 1 and self.request.consistency != "off":
            self._project_jointly(current, scan, noise)
        return current

    def _empty(self, shape: Sequence[int]) -> Tensor:
        return make_empty(self.request.scratch, shape, self.work.device)

    def _restore_axis(
        self, slab: Tensor, axis: int, noise: Tensor, spacing: list[float], remaining: int, draw: int | None
    ) -> Tensor:
        acquisition = self.request.acquisition_of(self.volume.grid, axis)
        assert acquisition is not None, "targets list only axes that change"
        strength = self._strength(noise)
        if self.networks is None:
            with self.work.timed("baseline"):
                fine = self._empty((*slab.shape[:4], acquisition.fine)).zero_()
                complete(Acquisition((None, None, acquisition)), fine, slab, strength, None)
                self.work.advance(1.0)
                return fine
        first, second = (spacing[other] for other in range(3) if other != axis)
        conditions = Conditions(
            spacing_ratio=slab.new_tensor([spacing[axis] / (first * second) ** 0.5]),
            ratio=slab.new_tensor([acquisition.ratio]),
            thickness=slab.new_tensor([acquisition.thickness]),
            noise=noise[None],
            soft=slab.new_tensor([remaining / 2]),
            contrast=torch.tensor([CONTRASTS.index(self.volume.contrast)], device=slab.device),
        )
        one = AxisPass(
            self.networks,
            acquisition,
            slab,
            conditions,
            remaining,
            strength,
            self.dials,
            self.dtype,
            self.work,
            self.request.scratch,
        )
        return one.restore(draw)

    def _project_jointly(self, fine: Tensor, scan: Tensor, noise: Tensor) -> None:
        """The last word over all axes at once, in place: each pass answered only to its own."""
        with self.work.timed("projection"):
            joint, strength = self.request.acquisition(self.volume.grid), self._strength(noise)
            core = baseline_core(joint, scan, strength.damping)
            subtract_baseline(joint, fine, scan, core)
            complete(joint, fine, scan, strength, core)

    def _respect_background(self, fine: Tensor, scan: Tensor) -> None:
        """A scan without negative values gets none; where the slices around a voxel are all zero, it stays zero."""
        if self.request.consistency == "exact" or bool((scan < 0).any()):
            return
        shape, axes = self.request.target.grid.shape, self.request.target.axes
        weights = [linear_matrix(fine.shape[a + 2], scan.shape[a + 2]) if a in axes else None for a in range(3)]
        support = (scan > 0).float()
        for rows in padded_strips(Acquisition((None, None, None)), shape):
            part = support[:, :, rows] if weights[0] is None else along(weights[0][rows], support, -3)
            for axis in (1, 2):
                part = part if weights[axis] is None else along(weights[axis], part, axis - 3)
            fine[:, :, rows].clamp_(min=0).masked_fill_(part <= 0, 0)
