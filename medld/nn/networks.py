"""The trained parts of a model, side by side: what `SuperResolver` is given."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from medld.nn.autoencoder import LatentSpace

if TYPE_CHECKING:  # networks do not depend on how they are sampled
    from medld.diffusion.denoise import Denoiser

PRESETS = {"fidelity": (0.0, 1), "balanced": (0.35, 8), "detail": (0.8, 8)}


@dataclass(frozen=True)
class Networks:
    """One-step network, autoencoder and denoiser; a part that was not trained is None.

    `presets` gives (realism, steps) of each mode; `fidelity` says which form answers at realism 0, `start` whose
    latent the flow starts at: the baseline's or, where there is a one-step network, its answer's; or none, but pure
    noise. `sampler` names how it is sampled, see `medld.diffusion.stochastic`; `eta` is DDIM's.
    The halos, in voxels, are how far the U-Nets and the autoencoder's halves look in-plane, rounded up to `align`, of
    which tiles start at multiples.
    """

    one_step: nn.Module | None = None
    autoencoder: LatentSpace | None = None
    denoiser: Denoiser | None = None
    profile_map: Literal["inverse", "triangle"] = "inverse"
    fidelity: Literal["one-step", "latent"] = "one-step"
    start: Literal["baseline", "mean", "noise"] = "baseline"
    sampler: str = "multistep"
    eta: float = 0.0
    align: int = 4
    halo: int = 56
    autoencoder_halo: int = 8
    modalities: tuple[str, ...] = ("mr",)
    presets: Mapping[str, tuple[float, int]] = field(default_factory=lambda: dict(PRESETS))

    @property
    def tileable(self) -> bool:
        """Whether tiles with a halo give what the whole would; so it is unless a module says `tileable = False`."""
        parts = (part for part in (self.one_step, self.autoencoder, self.denoiser) if part is not None)
        return all(getattr(module, "tileable", True) for part in parts for module in part.modules())

    def position(
        self, mode: str, realism: float | None = None, steps: int | None = None, *, drawn: bool = False
    ) -> tuple[float, int]:
        """Realism and sampler steps of a mode, or those asked for; without a flow realism is 0.

        The steps of a mode without realism are of no sampler: where a sample is asked for all the same, by `realism` or
        to be `drawn`, it gets those of `detail`.
        """
        usual, usual_steps = self.presets[mode]
        wanted = usual if realism is None else realism
        if usual == 0 and (wanted > 0 or drawn):
            usual_steps = self.presets["detail"][1]
        return wanted if self.denoiser is not None else 0.0, usual_steps if steps is None else steps

    def to(self, device: torch.device, dtype: torch.dtype) -> Networks:
        """Copies for use: on `device`, weights in `dtype`, channels last, no gradients, no dropout."""
        parts = {name: _ready(getattr(self, name), device, dtype) for name in ("one_step", "autoencoder", "denoiser")}
        return replace(self, **parts)  # type: ignore[arg-type]


def _ready(module: nn.Module | None, device: torch.device, dtype: torch.dtype) -> nn.Module | None:
    if module is None:
        return None
    module = copy.deepcopy(module).to(device).eval().requires_grad_(False)
    for parameter in module.parameters():
        layout = torch.channels_last_3d if parameter.ndim == 5 else torch.contiguous_format
        parameter.data = parameter.data.to(dtype).contiguous(memory_format=layout)
    return module
