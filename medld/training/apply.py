"""Plans made real on the device: crop, resample, recolour, image through thick slices, add noise.

All geometry is three matrices per crop, so that it runs as batched products beside the training step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from medld.acquisition import Acquisition, AxisAcquisition, ProfileMap, along, damping_for
from medld.dataset import Fine
from medld.intensity import estimate_noise
from medld.nn.autoencoder import fold
from medld.nn.conditions import Conditions
from medld.training.blend import legendre_field, share_of
from medld.training.draw import BIAS_DEGREE, CURVE_POINTS, CURVE_TOP, Draw, Item
from medld.training.plan import Plan
from medld.training.portion import Portion


@dataclass(frozen=True)
class Sample:
    """A batch: scan `low_res` (B, 1, I, J, k), truth `high_res` (B, 1, I, J, n) and what goes with them.

    `baseline` is B on the padded target grid and `known` the same projected and cropped; `noise` (B, 1, 1, 1, 1) is
    as estimated from the scan, `to_target` the matrix S from the profile grid. `true_samples` and `known_samples`
    (B, 8, I, J, k) are truth and B on the profile grid, folded, where a stage with latents asks for them. `portion`
    says which items of the whole batch these are.
    """

    low_res: Tensor
    high_res: Tensor
    baseline: Tensor
    known: Tensor
    noise: Tensor
    damping: Tensor
    conditions: Conditions
    to_target: Tensor
    acquisition: AxisAcquisition
    portion: Portion
    true_samples: Tensor | None
    known_samples: Tensor | None

    @property
    def operator(self) -> Acquisition:
        """The acquisition along the last axis."""
        return Acquisition((None, None, self.acquisition))

    def first(self, count: int) -> Sample:
        """The first `count` items of the batch."""
        names = ("low_res", "high_res", "baseline", "known", "noise", "damping", "true_samples", "known_samples")
        values = {name: value[:count] for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **values, conditions=self.conditions.first(count), portion=self.portion.first(count))


class Applier:
    """Holds the volumes on the device and turns plans into samples."""

    def __init__(
        self,
        volumes: list[Fine],
        device: torch.device,
        profile_map: ProfileMap,
        *,
        latents: bool,
    ) -> None:
        self.volumes, self.device = volumes, device
        self.profile_map, self.latents = profile_map, latents
        self.arrays = [torch.tensor(volume.array).to(device) for volume in volumes]

    def apply(self, plan: Plan, portion: Portion | None = None) -> Sample:
        """The sample of a plan, the same on every call; `portion` says which items of a whole batch the plan's are."""
        draw, acquisition = plan.draw, plan.draw.acquisition
        portion = portion or Portion.all_of(len(draw.items))
        operator = Acquisition((None, None, acquisition))
        crops = self._recoloured(self._crops(plan), plan.crops)
        padded = self._shaded(self._blended(crops, draw), draw)
        low_res = self._noisy(operator.apply(padded), draw, portion)
        noise = estimate_noise(low_res)
        column = noise[:, None, None, None, None]
        damping = damping_for(column)
        baseline = operator.baseline(low_res, damping)
        high_res = operator.crop(padded)
        true_samples, known_samples = self._samples(acquisition, high_res, low_res, damping)
        return Sample(
            low_res=low_res,
            high_res=high_res,
            baseline=baseline,
            known=operator.crop(operator.project(baseline, low_res, column, damping)),
            noise=column,
            damping=damping,
            conditions=self._conditions(draw, noise),
            to_target=acquisition.like(f"to_target_{self.profile_map}", low_res),
            acquisition=acquisition,
            portion=portion,
            true_samples=true_samples,
            known_samples=known_samples,
        )

    def _samples(
        self, acquisition: AxisAcquisition, high_res: Tensor, low_res: Tensor, damping: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        if not self.latents:
            return None, None
        wide = Acquisition((None, None, acquisition.on_profile_grid()))
        known = wide.crop(wide.baseline(low_res, damping))
        return fold(along(acquisition.like("to_profile", high_res), high_res, -1)), fold(known)

    def _crops(self, plan: Plan) -> Tensor:
        """Resampled crops (C, 1, I, J, n + 2 m) in [0, 1], air beyond the volume."""
        lengths = [matrix.shape[2] for matrix in plan.matrices]
        source = torch.zeros((len(plan.starts), *lengths), device=self.device)
        for b, (item, starts) in enumerate(zip(plan.crops, plan.starts, strict=True)):
            array = self.arrays[item.volume].permute(item.axes)
            spans = [_overlap(int(s), n, size) for s, n, size in zip(starts, lengths, array.shape, strict=True)]
            source[b][tuple(target for target, _ in spans)] = array[tuple(inside for _, inside in spans)].float()
        rows, columns, slices = (torch.from_numpy(m).to(self.device, non_blocking=True) for m in plan.matrices)
        batch, _, width, depth = source.shape
        x = (rows @ source.reshape(batch, -1, width * depth)).reshape(batch, -1, width, depth)
        x = columns[:, None] @ x
        x = x @ slices[:, None].transpose(-1, -2)
        return (x[:, None] / 255).clamp(0, CURVE_TOP)

    def _recoloured(self, crops: Tensor, items: list[Item]) -> Tensor:
        curves = torch.from_numpy(np.stack([item.curve for item in items])).to(self.device)
        position = crops.flatten(1) * ((CURVE_POINTS - 1) / CURVE_TOP)
        index = position.long().clamp(max=CURVE_POINTS - 2)
        low, high = curves.gather(1, index), curves.gather(1, index + 1)
        return torch.lerp(low, high, position - index).reshape(crops.shape)

    def _blended(self, crops: Tensor, draw: Draw) -> Tensor:
        """Crops of the items (B, 1, I, J, n + 2 m), with what is laid over some of them."""
        base, others = crops[: len(draw.items)], crops[len(draw.items) :]
        fields = [item.field for item in draw.items if item.field is not None]
        if not fields:
            return base
        places = torch.tensor([b for b, item in enumerate(draw.items) if item.field is not None], device=self.device)
        share = share_of(fields, tuple(crops.shape[2:]), self.device)[:, None]
        return base.index_copy(0, places, torch.lerp(base[places], others, share))

    def _shaded(self, crops: Tensor, draw: Draw) -> Tensor:
        """Crops under each item's receive field, exp of a sum of Legendre polynomials over the crop."""
        if all(item.bias is None for item in draw.items):
            return crops
        none = np.zeros((BIAS_DEGREE + 1,) * 3, np.float32)
        fields = np.stack([none if item.bias is None else item.bias for item in draw.items])
        field = legendre_field(torch.from_numpy(fields).to(self.device), tuple(crops.shape[2:]))
        return crops * field.exp()[:, None]

    def _noisy(self, scan: Tensor, draw: Draw, portion: Portion) -> Tensor:
        """Gaussian or Rician noise of each item's deviation."""
        if not any(item.noise for item in draw.items):
            return scan
        generator = torch.Generator(self.device).manual_seed(draw.seed)
        real, imaginary = (portion.normal(tuple(scan.shape[1:]), generator) for _ in range(2))
        deviation = scan.new_tensor([item.noise for item in draw.items])[:, None, None, None, None]
        rician = scan.new_tensor([float(item.rician) for item in draw.items])[:, None, None, None, None]
        plain = scan + deviation * real
        return torch.where(rician > 0, torch.hypot(plain, deviation * imaginary), plain)

    def _conditions(self, draw: Draw, noise: Tensor) -> Conditions:
        count = len(draw.items)
        acquisition = draw.acquisition
        ratios = []
        for item in draw.items:
            spacing = [self.volumes[item.volume].spacing[a] * z for a, z in zip(item.axes, item.zoom, strict=True)]
            ratios.append(acquisition.ratio * spacing[2] / np.sqrt(spacing[0] * spacing[1]))
        soft = [item.soft for item in draw.items]
        return Conditions(
            spacing_ratio=noise.new_tensor(ratios),
            ratio=noise.new_full((count,), acquisition.ratio),
            thickness=noise.new_full((count,), acquisition.thickness),
            noise=noise,
            soft=noise.new_tensor(soft),
            contrast=torch.tensor([item.contrast for item in draw.items], device=self.device),
        )


def _overlap(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Where a window of the source lies inside it: (in the window, in the source); empty if it does not."""
    low, high = max(start, 0), min(start + length, size)
    high = max(low, high)
    return slice(low - start, high - start), slice(low, high)
