"""Samplers: from z_1 to z_0 in a few steps, given a function that denoises.

All take `denoise(z_t, t) -> z^` with t (B,), the start z_1 and a number of steps, on equal steps in t.
Of a straight path the velocity is (z_t - z^) / t. With u = 1 / t that reads d(z u) / du = z^, so a step to s is

    z_s = (s / t) z_t + s (integral of z^ over u from 1 / t to 1 / s)

and only z^ needs a guess between its evaluations. Held constant it gives Euler's step, which is DDIM's as well; in
few steps that leaves too little spread. One step is the posterior mean itself.

Those here draw nothing on the way; `stochastic.py` has the others, and picks one by name.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
Sampler = Callable[[Denoise, Tensor, int], Tensor]


def euler(denoise: Denoise, start: Tensor, steps: int) -> Tensor:
    """First order; `steps` evaluations. The same as DDIM without noise."""
    z = start
    for t, s in times(steps):
        estimate = denoise(z, everywhere(t, start))
        z = estimate + (s / t) * (z - estimate)
    return z


def heun(denoise: Denoise, start: Tensor, steps: int) -> Tensor:
    """Second order; 2 steps - 1 evaluations, since the last step lands on t = 0 where the slope has no meaning."""
    z = start
    for t, s in times(steps):
        slope = (z - denoise(z, everywhere(t, start))) / t
        ahead = z + (s - t) * slope
        if s > 0:
            slope = (slope + (ahead - denoise(ahead, everywhere(s, start))) / s) / 2
            ahead = z + (s - t) * slope
        z = ahead
    return z


def multistep(denoise: Denoise, start: Tensor, steps: int) -> Tensor:
    """Second order; `steps` evaluations: z^ goes on in a line in t through its last two values.

    Source: the exponential integrator of Zhang and Chen, "DEIS" (2204.13902), for this path.
    """
    z, before = start, None
    for t, s in times(steps):
        estimate = denoise(z, everywhere(t, start))
        z = estimate + (s / t) * (z - estimate)
        if before is not None:
            z = z + (before - estimate) * steps * (s * log(t / s) - (t - s) if s > 0 else -t)
        before = estimate
    return z


def everywhere(t: float, latent: Tensor) -> Tensor:
    """t for every batch item of a latent, (B,)."""
    return latent.new_full((len(latent),), t)


def times(steps: int) -> list[tuple[float, float]]:
    """Equal steps from t = 1 to 0: (from, to)."""
    return [((steps - step) / steps, (steps - step - 1) / steps) for step in range(steps)]
