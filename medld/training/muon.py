"""Muon: a step along the average gradient with all its singular values made equal; AdamW for what is no kernel.

A gradient has few large singular values and many small ones; made equal, the rare directions learn as fast as the
common ones. torch's own Muon takes matrices alone, one by one, and older versions that we support have none.

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; size of a step: Liu et al. 2025 (2502.16982).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
"""Of a polynomial that brings singular values from .002 to 1 to between .68 and 1.2, which is as good as to 1."""

STEP_SIZE = 0.2
"""Root mean square of a step in learning rates, about that of AdamW's: one learning rate suits both."""

KEPT = ("exp_avg", "step")
"""The average of the gradient, and how many went into it, which AdamW's own code wants to find."""

NARROW = 16
"""Channels; a kernel with no more at one of its ends is where an image enters or leaves, and AdamW's."""


class Muon(AdamW):
    """AdamW, but for groups that say `kernels`. Of those it keeps less: `KEPT`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of all weights that have a gradient; kernels lose theirs, so that AdamW passes them by."""
        assert closure is None, "a closure would make the gradients anew"
        for group in self.param_groups:
            if group.get("kernels"):
                self._step_kernels(group)
        super().step()

    def _step_kernels(self, group: dict[str, Any]) -> None:
        kernels = [kernel for kernel in group["params"] if kernel.grad is not None]
        if not kernels:
            return
        gradients, states = [kernel.grad for kernel in kernels], [self._state_of(kernel) for kernel in kernels]
        averages = [state["exp_avg"] for state in states]
        torch._foreach_add_([state["step"] for state in states], 1)
        torch._foreach_lerp_(averages, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, averages, MOMENTUM)  # as Nesterov's momentum
        torch._foreach_mul_(kernels, 1 - group["lr"] * group["weight_decay"])
        alike = defaultdict[torch.Size, list[int]](list)
        for index, kernel in enumerate(kernels):
            alike[kernel.shape].append(index)
        for shape, indices in alike.items():
            matrices = torch.stack([ahead[index].flatten(1) for index in indices])
            rate = group["lr"] * STEP_SIZE * max(matrices.shape[1:]) ** 0.5
            for index, change in zip(indices, equalised(matrices), strict=True):
                kernels[index].add_(change.reshape(shape), alpha=-rate)
        for kernel in kernels:
            kernel.grad = None

    def _state_of(self, kernel: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[kernel]
        if not state:
            state |= {"exp_avg": torch.zeros_like(kernel), "step": torch.zeros((), device=kernel.device)}
        return state


def is_hidden_kernel(parameter: nn.Parameter) -> bool:
    """Whether it is the kernel of a convolution between two wide layers."""
    return parameter.ndim == 5 and min(parameter.shape[:2]) > NARROW


def equalised(matrices: Tensor) -> Tensor:
    """(N, R, C), each with its singular vectors and all singular values about 1, by Newton-Schulz in bfloat16."""
    a, b, c = COEFFICIENTS
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = (x / x.norm(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)).bfloat16()
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)
