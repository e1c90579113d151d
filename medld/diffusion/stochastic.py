"""Samplers that draw noise on the way, and the choice of a sampler by name.

Less its drift the path is a Gaussian diffusion, w_t = z_t - t c = alpha_t z + sigma_t eps, so that

    eps^   = (w_t - alpha_t z^) / sigma_t         the noise that is left
    score  = -eps^ / sigma_t                      of the density of w_t, if z^ is the posterior mean
    a      = alpha_t / alpha_s                    what a forward step from s to t > s keeps of w_s,
    g^2    = sigma_t^2 - a^2 sigma_s^2            and the variance that it adds

All of them end at z^ itself, and in one step they draw nothing: that step is the posterior mean. What they promise
holds for a posterior mean at every t, which a network that was trained with an image loss at t < 1 is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import sqrt

import torch
from torch import Tensor

from medld.diffusion.noise import Flow
from medld.diffusion.sample import Denoise, Sampler, euler, everywhere, heun, multistep, times

SIGNAL_TO_NOISE = 0.16
"""Of a Langevin step, as in Song et al. for images."""


@dataclass(frozen=True)
class Walk:
    """What a random walk needs besides the denoiser: the flow, its centre c (B, C, I, J, K), and a source of noise.

    The generator is one of the CPU: every device draws the same numbers.
    """

    flow: Flow
    centre: Tensor
    generator: torch.Generator

    def noise(self) -> Tensor:
        """Standard normal numbers, shaped as the centre."""
        drawn = torch.randn(self.centre.shape, generator=self.generator, dtype=self.centre.dtype)
        return drawn.to(self.centre.device)

    def remaining(self, z: Tensor, estimate: Tensor, t: float) -> Tensor:
        """eps^ at time t."""
        noisy = z - t * self.centre - self.flow.alpha(t) * estimate
        return noisy / self.flow.sigma(t)

    def added(self, t: float, s: float) -> tuple[float, float]:
        """a and g^2 of the forward step from s to t."""
        kept = self.flow.alpha(t) / self.flow.alpha(s)
        return kept, self.flow.sigma(t) ** 2 - (kept * self.flow.sigma(s)) ** 2


def ddim(denoise: Denoise, start: Tensor, steps: int, walk: Walk, eta: float = 0.0) -> Tensor:
    """First order; `steps` evaluations. Each step renews a part of the noise that is left: none at `eta` 0, where this
    is Euler's method to the bit, at 1 as much as a random forward path would.

    Source: Song et al., "Denoising Diffusion Implicit Models" (2010.02502), eq. 12 and 16.
    """
    z = start
    for t, s in times(steps):
        estimate = denoise(z, everywhere(t, start))
        ahead = estimate + (s / t) * (z - estimate)
        if s > 0 and eta > 0:
            _, variance = walk.added(t, s)
            fresh = eta**2 * variance / walk.flow.sigma(t) ** 2
            less = (sqrt(1 - fresh) - 1) * walk.remaining(z, estimate, t)
            ahead = ahead + walk.flow.sigma(s) * (less + sqrt(fresh) * walk.noise())
        z = ahead
    return z


def ddpm(denoise: Denoise, start: Tensor, steps: int, walk: Walk) -> Tensor:
    """Ancestral sampling: w_s is drawn from its posterior given w_t and z = z^; `steps` evaluations.

    Source: Ho et al., "Denoising Diffusion Probabilistic Models" (2006.11239), eq. 6 and 7.
    """
    return ddim(denoise, start, steps, walk, eta=1.0)


def predictor_corrector(
    denoise: Denoise, start: Tensor, steps: int, walk: Walk, corrections: int = 1, ratio: float = SIGNAL_TO_NOISE
) -> Tensor:
    """Reverse diffusion, and after each step `corrections` Langevin steps at the time that was reached.

    steps + (steps - 1) corrections evaluations, of first order: it is meant for tens of steps.
    Source: Song et al., "Score-Based Generative Modeling through SDEs" (2011.13456), algorithm 1, appendices E and G.
    """
    z = start
    for t, s in times(steps):
        estimate = denoise(z, everywhere(t, start))
        if s == 0:
            return estimate
        z = _predict(z, estimate, t, s, walk)
        for _ in range(corrections):
            z = _correct(z, denoise(z, everywhere(s, start)), s, walk, ratio)
    return z


def _predict(z: Tensor, estimate: Tensor, t: float, s: float, walk: Walk) -> Tensor:
    """w_s = (2 - a) w_t + g^2 score + g xi: the forward step's own discretisation, reversed."""
    kept, variance = walk.added(t, s)
    if kept == 0:  # a step that forgets all is no small one; w_s is known but for its noise
        return s * walk.centre + walk.flow.alpha(s) * estimate + walk.flow.sigma(s) * walk.noise()
    score = walk.remaining(z, estimate, t) / -walk.flow.sigma(t)
    w = (2 - kept) * (z - t * walk.centre) + variance * score + sqrt(variance) * walk.noise()
    return s * walk.centre + w


def _correct(z: Tensor, estimate: Tensor, s: float, walk: Walk, ratio: float) -> Tensor:
    """A Langevin step whose length makes noise stand to score as 1 to `ratio`, item by item.

    The noise's variance is less by a share of ratio^2 than that of Song et al.: theirs leaves a Gaussian too wide by
    that share however many steps are taken, this one leaves it as it is.
    """
    score = walk.remaining(z, estimate, s) / -walk.flow.sigma(s)
    length = 2 * ratio**2 / score.square().mean(dim=(1, 2, 3, 4), keepdim=True)
    return z + length * score + (2 * length * (1 - ratio**2)).sqrt() * walk.noise()


DETERMINISTIC: dict[str, Sampler] = {"multistep": multistep, "euler": euler, "heun": heun}
RANDOM: dict[str, Callable[..., Tensor]] = {"ddim": ddim, "ddpm": ddpm, "predictor-corrector": predictor_corrector}


def evaluations(name: str, steps: int) -> int:
    """How often a sampler calls the denoiser: the second one of a step is left out where it lands on t = 0."""
    return 2 * steps - 1 if name in ("heun", "predictor-corrector") else steps


def make_sampler(name: str, walk: Walk, eta: float = 0.0) -> Sampler:
    """The sampler of that name for a walk; `eta` is DDIM's."""
    if name in DETERMINISTIC:
        return DETERMINISTIC[name]
    if name == "ddim":
        return partial(ddim, walk=walk, eta=eta)
    return partial(RANDOM[name], walk=walk)
