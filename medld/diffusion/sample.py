"""Samplers: from z_1 to z_0 in a few steps, given a function that denoises.

All take `denoise(z_t, t) -> z^` with t (B,), the start z_1 and a number of steps, on equal steps in t.
Of a straight path the velocity is (z_t - z^) / t, so an Euler step to s is

    z_s = z^ + (s / t) (z_t - z^)

which is DDIM's step as well. One step is the posterior mean itself.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]


def euler(denoise: Denoise, start: Tensor, steps: int) -> Tensor:
    """First order; `steps` evaluations."""
    z = start
    for t, s in _times(steps):
        estimate = denoise(z, start.new_full((len(start),), t))
        z = estimate + (s / t) * (z - estimate)
    return z


def heun(denoise: Denoise, start: Tensor, steps: int) -> Tensor:
    """Second order; 2 steps - 1 evaluations, since the last step lands on t = 0 where the slope has no meaning."""
    z = start
    for t, s in _times(steps):
        slope = (z - denoise(z, start.new_full((len(start),), t))) / t
        ahead = z + (s - t) * slope
        if s > 0:
            slope = (slope + (ahead - denoise(ahead, start.new_full((len(start),), s))) / s) / 2
            ahead = z + (s - t) * slope
        z = ahead
    return z


def _times(steps: int) -> list[tuple[float, float]]:
    return [((steps - step) / steps, (steps - step - 1) / steps) for step in range(steps)]
