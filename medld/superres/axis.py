"""One coarse axis restored: baseline, what the networks add, projection.

    fidelity   x_1, the posterior mean
    otherwise  x_1 + realism (x_K - x_1), x_K a sample of K steps, projected again

The flow that makes samples starts at the latent of the baseline or, where the model says so, of x_1 itself.

Everything here is in network units, (1, C, I, J, K) with the coarse axis last. Source: design, sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from medld.acquisition import Acquisition, AxisAcquisition, along
from medld.diffusion.sample import euler
from medld.diffusion.stochastic import Walk, make_sampler
from medld.nn.autoencoder import LatentSpace, fold, unfold
from medld.nn.conditions import Conditions, time_features
from medld.nn.networks import Networks
from medld.patches import apply_tiled, iterate_tiled
from medld.scratch import Scratch
from medld.superres.arrays import make_empty
from medld.superres.pieces import Piece, Pieces
from medld.superres.projection import Strength, baseline_core, complete
from medld.superres.work import Work

MIRRORS = ((), (2,), (3,), (2, 3), (4,), (2, 4), (3, 4), (2, 3, 4))
"""Dimensions of a slab that are turned round; the first two, four or eight of these are a group."""


@dataclass(frozen=True)
class Dials:
    """`realism` and `steps` of the slider, `seed`, the acquired voxels that a network may take in one piece, and the
    number of mirrored scans that the one-step answer is the mean of.
    """

    realism: float
    steps: int
    seed: int
    untiled_voxels: int
    flips: int = 1


@dataclass(frozen=True)
class AxisPass:
    """The networks on one axis of a scan `slab` (1, 1, I, J, K); `remaining` axes of it are still coarse."""

    networks: Networks
    axis: AxisAcquisition
    slab: Tensor
    conditions: Conditions
    remaining: int
    strength: Strength
    dials: Dials
    dtype: torch.dtype
    work: Work
    scratch: Scratch = field(default_factory=Scratch)

    def restore(self, draw: int | None = None) -> Tensor:
        """The slab on the target grid (1, 1, I, J, n): the slider's position, or the pure sample `draw`."""
        if draw is not None:
            return self.completed(self._sampled(draw, None))
        fine = self._mean()
        if self.dials.realism > 0:
            fine.add_(self._sampled(0, fine).sub_(fine).mul_(self.dials.realism))
        return self.completed(fine)

    def completed(self, fine: Tensor) -> Tensor:
        """Baseline plus a correction, projected onto the slab: (1, 1, I, J, n), in the correction's own place."""
        acquisition = Acquisition((None, None, self.axis))
        with self.work.timed("baseline"):
            core = baseline_core(acquisition, self.slab, self.strength.damping)
        with self.work.timed("projection"):
            complete(acquisition, fine, self.slab, self.strength, core)
        return fine

    def _mean(self) -> Tensor:
        """The posterior mean's correction to the baseline, (1, 1, I, J, n)."""
        if self.networks.one_step is None or self.networks.fidelity == "latent":
            low_res, known = self._start(None)
            return self._latent(low_res, known=known)
        return self._one_step()

    def _one_step(self) -> Tensor:
        """The one-step network's correction to the baseline, (1, 1, I, J, n): the mean of those of mirrored scans.

        A network should not care for the side, and as far as it does the mean is nearer to the truth (geometric
        self-ensemble: Timofte et al., CVPR 2016).
        """
        rows, columns = self.slab.shape[2:4]
        fine = self._empty()
        with self.work.timed("one-step"):
            for dims in MIRRORS[: self.dials.flips]:
                for i, j, part in self._answer(self.slab.flip(dims) if dims else self.slab):
                    here = fine[:, :, _turned(i, rows, 2 in dims), _turned(j, columns, 3 in dims)]
                    here.add_(part.flip(dims)) if dims else here.copy_(part)
                    self.work.advance(part.shape[2] * part.shape[3] / (rows * columns))
        return fine if self.dials.flips == 1 else fine.div_(self.dials.flips)

    def _answer(self, slab: Tensor) -> Iterator[Piece]:
        """The one-step network's correction for a slab like this pass's: rows, columns and what stands there."""
        features, one_step = self.conditions.features(), self.networks.one_step
        assert one_step is not None, "callers ask for it only where there is one"
        for i, j, part in self._pieces.answer(one_step, slab, features):
            yield i, j, self._to_target(part)

    def _start(self, mean: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Where the flow starts: a latent (1, C, I, J, K) and, if it is the one-step answer, the correction it is of.

        `mean` is that correction where the caller has it.
        """
        if self.networks.start != "mean":
            with self.work.timed("encode"):
                return self._encoded(self.slab, self._known_samples), None
        mean = self._one_step() if mean is None else mean
        completed = self.completed(self._empty().copy_(mean))
        to_profile = self.axis.like("to_profile", completed)
        with self.work.timed("encode"):
            return self._encoded(completed, lambda fine: fold(along(to_profile, fine, -1))), mean

    def _sampled(self, draw: int, mean: Tensor | None) -> Tensor:
        """A sample's correction; its noise field is drawn whole and on the CPU, so tiles and devices agree on it.

        Sample `draw` of a seed is the first one of the seed `draw` higher, so that each can be made alone.

        `mean` is `_mean()` where the caller has it.
        """
        low_res, known = self._start(mean if self.networks.fidelity == "one-step" else None)
        seed = np.random.SeedSequence((self.dials.seed + draw, 0, self.remaining)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed[0] >> 1))
        return self._latent(low_res, generator, known=known)

    def _latent(
        self, low_res: Tensor, generator: torch.Generator | None = None, *, known: Tensor | None = None
    ) -> Tensor:
        """Restore the latent of what is known (1, C, I, J, K), decode: a correction (1, 1, I, J, n).

        The latent is its posterior mean or, of a `generator`, a sample. `known` is the correction that `low_res` is
        of, if any: the flow then only adds to it, since what the autoencoder loses of it need not be lost.
        """
        with self.work.timed("denoise"):
            latent = self._restored(low_res, generator)
        with self.work.timed("decode"):
            correction = self.decode(latent)
            return correction if known is None else correction.sub_(self.decode(low_res)).add_(known)

    def _restored(self, low_res: Tensor, generator: torch.Generator | None) -> Tensor:
        """The latent (1, C, I, J, K) of what is wanted, given the scan's own: the mean, or a sample."""
        denoiser = self.networks.denoiser
        assert denoiser is not None, "callers ask for latents only where there is a denoiser"

        def denoise(z: Tensor, t: Tensor) -> Tensor:
            return self._denoised(z, t, low_res)

        centre = denoiser.flow.centre(low_res)
        if generator is None:
            return euler(denoise, centre, 1)
        walk = Walk(denoiser.flow, centre, generator)
        sampler = make_sampler(self.networks.sampler, walk, self.networks.eta)
        return sampler(denoise, denoiser.flow.start(low_res, walk.noise()), self.dials.steps)

    def encode(self, samples: Tensor) -> Tensor:
        """Values on the profile grid, folded (1, 8, I, J, K), to their standardised latent (1, C, I, J, K)."""
        return self._encoded(samples, lambda part: part)

    def decode(self, latent: Tensor) -> Tensor:
        """A standardised latent (1, C, I, J, K), beside the slab, to a correction of the baseline (1, 1, I, J, n)."""
        geometry, halo = self.conditions.geometry(), self.networks.autoencoder_halo
        both = torch.cat([self._autoencoder.unstandardise(latent, self.conditions.ratio), self.slab], dim=1)

        def decode(x: Tensor) -> Tensor:
            x = x.to(self.dtype)
            return self._autoencoder.decode(x[:, :-1], x[:, -1:], geometry)

        fine = self._empty()
        for i, j, part in iterate_tiled(decode, both, size=self._pieces.tile(both.shape, halo), halo=halo):
            fine[:, :, i, j] = self._to_target(part)
        return fine

    def known_samples(self) -> Tensor:
        """The baseline on the profile grid, folded (1, 8, I, J, K)."""
        return self._known_samples(self.slab)

    def _known_samples(self, slab: Tensor) -> Tensor:
        """The same of some columns of the slab: the baseline of a column knows nothing of the others."""
        wide = Acquisition((None, None, self.axis.on_profile_grid()))
        return fold(wide.crop(wide.baseline(slab, self.strength.damping)))

    def _encoded(self, known: Tensor, samples_of: Callable[[Tensor], Tensor]) -> Tensor:
        """The standardised latent (1, C, I, J, K) of the samples that are made of pieces of what is known."""
        geometry, halo = self.conditions.geometry(), self.networks.autoencoder_halo
        latent = apply_tiled(
            lambda part: self._autoencoder.encode(samples_of(part).to(self.dtype), geometry).mean,
            known,
            size=self._pieces.tile(self.slab.shape, halo),
            halo=halo,
        )
        return self._autoencoder.standardise(latent, self.conditions.ratio)

    def _denoised(self, z: Tensor, t: Tensor, low_res: Tensor) -> Tensor:
        denoiser = self.networks.denoiser
        assert denoiser is not None, "callers ask for latents only where there is a denoiser"
        backbone = denoiser.backbone

        def run(x: Tensor, features: Tensor) -> Tensor:
            answer = torch.empty_like(z)
            for i, j, part in self._pieces.answer(backbone, x, features):
                answer[:, :, i, j] = part
                self.work.advance(part.shape[2] * part.shape[3] / (x.shape[2] * x.shape[3]))
            return answer

        features = torch.cat([self.conditions.features(), time_features(t)], dim=1)
        ratio, scan = self.conditions.ratio, self.slab.to(self.dtype)
        return denoiser(z, low_res, scan, features, t=t, ratio=ratio, run=run)  # type: ignore[no-any-return]

    def _to_target(self, profile: Tensor) -> Tensor:
        matrix = self.axis.like(f"to_target_{self.networks.profile_map}", self.slab)
        return along(matrix, unfold(profile), -1)  # type: ignore[no-any-return]

    def _empty(self) -> Tensor:
        """Room for what is on the target grid, (1, 1, I, J, n)."""
        return make_empty(self.scratch, (*self.slab.shape[:4], self.axis.fine), self.slab.device)

    @property
    def _pieces(self) -> Pieces:
        return Pieces(self.networks, self.dials.untiled_voxels, self.dtype)

    @property
    def _autoencoder(self) -> LatentSpace:
        assert self.networks.autoencoder is not None, "callers ask for latents only where there is an autoencoder"
        return self.networks.autoencoder


def _turned(place: slice, count: int, turned: bool) -> slice:
    """Where some of `count` rows stand once all are in reverse, if they are."""
    return slice(count - place.stop, count - place.start) if turned else place
