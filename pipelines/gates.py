"""What the latents of a model carry: the gates of the autoencoder, on the T1 of a folder.

    python pipelines/gates.py MODEL_FOLDER SCANS_FOLDER [--protocol through-plane-4x ...]

For each scan, foreground dB: the autoencoder on the true latent before and after projection (posterior mean), the
bypass (latent of the baseline, no diffusion), latents of pure noise, and B. Gates: the true latent at least 42 dB at
4x, 49 at 2x, 36 at 6x before projection; bypass at most a tenth of the fidelity gain over B; bypass and noise each at
least 2 dB below the true latent. Mode `detail` is judged by `medld evaluate --mode detail`, column share.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medld.acquisition import Acquisition, AxisAcquisition, along
from medld.checkpoint import load_model
from medld.evaluation import load_protocol, simulate
from medld.intensity import estimate_noise, intensity_map
from medld.io import read_volume
from medld.metrics import Reference
from medld.nn.autoencoder import LatentSpace, fold, unfold
from medld.nn.conditions import CONTRASTS, Conditions

COLUMNS = ("B", "true latent", "projected", "bypass", "noise")


def main() -> None:
    """Every scan, every protocol, one line each, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--protocol", nargs="+", default=[f"through-plane-{r}x" for r in (2, 4, 6)])
    options = parser.parse_args()
    networks = load_model(options.model).networks
    assert networks.autoencoder is not None, "gates are those of an autoencoder"
    print(f"{'protocol':<18}{'scan':<24}" + "".join(f"{name:>13}" for name in COLUMNS))
    for protocol in options.protocol:
        rows = []
        for path in sorted(options.folder.glob("*_T1w.nii.gz")):
            rows.append(measure(networks.autoencoder, networks.profile_map, path, protocol))
            print(f"{protocol:<18}{path.name[:22]:<24}" + "".join(f"{value:13.2f}" for value in rows[-1]))
        print(f"{protocol:<18}{'mean':<24}" + "".join(f"{value:13.2f}" for value in np.mean(rows, axis=0)))


@torch.inference_mode()
def measure(autoencoder: LatentSpace, profile_map: str, path: Path, protocol: str) -> list[float]:
    """Foreground dB of each column for one scan."""
    volume, _ = read_volume(path)
    truth, scan = simulate(volume, load_protocol(protocol))
    units, reference = intensity_map(scan.array, "mr"), Reference(truth.array)
    fine, slab = (torch.from_numpy(units.forward(np.ascontiguousarray(v.array)))[None, None] for v in (truth, scan))
    axis = AxisAcquisition(fine.shape[-1], slab.shape[-1])
    acquisition, wide = Acquisition((None, None, axis)), Acquisition((None, None, axis.on_profile_grid()))
    conditions = _conditions(volume.contrast, scan.grid.spacing, axis, slab)
    geometry = conditions.geometry()
    true = autoencoder.encode(fold(along(axis.target_to_profile(), fine, -1)), geometry).mean
    known = autoencoder.encode(fold(wide.crop(wide.baseline(slab))), geometry).mean
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    baseline = acquisition.baseline(slab)

    def score(padded: Tensor, *, project: bool = True) -> float:
        padded = acquisition.project(padded, slab) if project else padded
        return reference.psnr(units.inverse(acquisition.crop(padded)[0, 0].numpy()))

    def decoded(latent: Tensor) -> Tensor:
        profile = autoencoder.decode(latent, slab, geometry)
        correction = along(axis.like(f"to_target_{profile_map}", slab), unfold(profile), -1)
        return baseline + acquisition.pad(correction)  # type: ignore[no-any-return]

    from_noise = decoded(autoencoder.unstandardise(noise, conditions.ratio))
    return [
        score(baseline),
        score(decoded(true), project=False),
        score(decoded(true)),
        score(decoded(known)),
        score(from_noise),
    ]


def _conditions(contrast: str, spacing: tuple[float, float, float], axis: AxisAcquisition, slab: Tensor) -> Conditions:
    def one(value: float) -> Tensor:
        return slab.new_tensor([value])

    return Conditions(
        spacing_ratio=one(spacing[2] / (spacing[0] * spacing[1]) ** 0.5),
        ratio=one(axis.ratio),
        thickness=one(axis.thickness),
        noise=estimate_noise(slab),
        soft=one(0.0),
        contrast=torch.tensor([CONTRASTS.index(contrast)]),
    )


if __name__ == "__main__":
    main()
