"""What the config of a MONAI bundle instantiates: the model as one module, and the run over files.

MONAI finds both by their full names (`_target_`), so a bundle holds no code, only JSON and weights.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from medld.batch.plan import Job, make_plan
from medld.batch.prepare import Prepared
from medld.batch.run import run_plan
from medld.batch.settings import EnhanceSettings, Outcome
from medld.checkpoint import PARTS, load_model
from medld.errors import ConfigError, InputError
from medld.geometry import Grid, choose_target
from medld.superres import Request, SuperResolver
from medld.volume import Contrast, Modality, Volume

logger = logging.getLogger(__name__)

RATIO = 4
"""Target over acquired slices that a bundle's `network_def` has unless its config says otherwise."""


class BundleNetwork(nn.Module):
    """A whole model as one module: a scan to a scan `ratio` times finer along its last axis, mode `fidelity`.

    Scanner units go in and come out: units, baseline, networks and projection are all inside, as in
    `medld enhance`. Pixels count as 1 mm and slices as `ratio` mm, so that the result is isotropic. The parts keep
    their names in `state_dict`; no gradients pass.

    Args:
        model: Name of a shipped model, or a model folder.
        ratio: 1.2 to 8.
        thickness: FWHM of the slice profile, in slice spacings.
        modality: "mr" or "ct".
        contrast: "T1w", "T2w", "FLAIR", "ce-T1w" or "unknown".

    Raises:
        CheckpointError: The model is missing or damaged.
        ConfigError: An unknown modality or contrast.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        ratio: float = RATIO,
        thickness: float = 1.0,
        modality: Modality = "mr",
        contrast: Contrast = "unknown",
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("modality", modality, get_args(Modality)),
            ("contrast", contrast, get_args(Contrast)),
        ):
            if value not in known:
                raise ConfigError(f"{name}: expected one of {', '.join(known)}, got {value}")
        self.networks = load_model(model).networks
        for part in PARTS:
            if (module := getattr(self.networks, part)) is not None:
                self.add_module(part, module)
        self.ratio, self.thickness = ratio, thickness
        self.modality, self.contrast = modality, contrast

    def forward(self, image: Tensor) -> Tensor:
        """Scans (B, 1, I, J, K) in scanner units to (B, 1, I, J, round(ratio K)), float32, on the same device.

        Raises:
            InputError: Another shape, a ratio out of range (E_NOTHING_TO_DO), or too few slices.
        """
        if image.ndim != 5 or image.shape[1] != 1:
            raise InputError(f"Expected scans of shape (B, 1, I, J, K), got {tuple(image.shape)}.")
        resolver = SuperResolver(self, device=str(image.device))
        finer = [self._restore(scan, resolver) for scan in image[:, 0].float().cpu().numpy()]
        return torch.from_numpy(np.stack(finer))[:, None].to(image.device)

    def _restore(self, scan: np.ndarray, resolver: SuperResolver) -> np.ndarray:
        grid = Grid(scan.shape, np.diag([1.0, 1.0, self.ratio, 1.0]))
        request = Request(choose_target(grid, factor=self.ratio), (None, None, self.thickness * self.ratio))
        return resolver.restore(Volume(scan, grid, self.modality, self.contrast), request).volume.array


class Enhancer:
    """`medld enhance` over the scans of a MONAI data set: the same outputs and records, the same refusals.

    Args:
        model: Name of a shipped model, or a model folder.
        dataset: Items with the path of a scan under "image"; MONAI's `Dataset` without a transform is one.
        output_dir: Gets the outputs; made if missing.
        device: "auto", "cpu", "cuda", "cuda:1" or a `torch.device`.
        settings: Further fields of `EnhanceSettings`, such as {"spacing": [1.0]} or {"mode": "detail"}.

    Raises:
        ConfigError: Unknown settings, or values out of their range.
    """

    def __init__(
        self,
        model: str | Path,
        dataset: Iterable[Mapping[str, Any]],
        output_dir: str | Path,
        device: Any = "auto",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.dataset, self.output_dir = dataset, Path(output_dir)
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in (settings or {}).items()
        }
        fixed: dict[str, Any] = {"model": str(model), "device": str(device), "output": self.output_dir}
        known = {field.name for field in fields(EnhanceSettings)} - set(fixed)
        if unknown := sorted(set(given) - known):
            raise ConfigError(f"settings: expected some of {', '.join(sorted(known))}, got {', '.join(unknown)}")
        self.settings = EnhanceSettings(**given, **fixed)

    def run(self) -> list[Outcome]:
        """Enhance every scan; one that cannot be does not stop the rest.

        Raises:
            InputError: There is no scan, or some were refused or failed; raised after all are through.
        """
        paths = [Path(str(item["image"])) for item in self.dataset]
        if not paths:
            raise InputError("Expected scans in the data set, found none. Check dataset_dir.")
        self.output_dir.mkdir(parents=True, exist_ok=True)
        outcomes = run_plan(make_plan(paths, self.settings), self.settings, _Log())
        bad = [outcome for outcome in outcomes if outcome.status in ("refused", "failed")]
        if bad:
            reasons = "; ".join(f"{o.path.name}: {o.code}: {o.reason}" for o in bad)
            raise InputError(f"{len(bad)} of {len(outcomes)} scans were not enhanced. {reasons}", bad[0].code)
        return outcomes


class _Log:
    """Tells the log how a run goes, as MONAI's engines do."""

    def started(self, job: Job, prepared: Prepared) -> None:
        logger.info("%s: %s voxels", job.path.name, "x".join(map(str, prepared.volume.grid.shape)))

    def progressed(self, fraction: float) -> None:
        return None

    def finished(self, outcome: Outcome) -> None:
        logger.info("%s: %s %s %s", outcome.path.name, outcome.status, outcome.code, outcome.reason)
