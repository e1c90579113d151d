"""What the latents of a model carry: the gates of the autoencoder, on the T1 of a folder.

    python pipelines/gates.py MODEL_FOLDER SCANS_FOLDER [--protocol through-plane-4x ...]

For each scan, foreground dB: the autoencoder on the true latent before and after projection (posterior mean), the
bypass (latent of the baseline, no diffusion), latents of pure noise, and B. Gates: the true latent at least 42 dB at
4x, 49 at 2x, 36 at 6x before projection; bypass at most a tenth of the fidelity gain over B; bypass and noise each at
least 2 dB below the true latent. Mode `detail` is judged by `medld evaluate --mode detail`, column share.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medld.acquisition import SMALLEST_LAMBDA, AxisAcquisition, along
from medld.checkpoint import load_model
from medld.evaluation import load_protocol, simulate
from medld.intensity import estimate_noise, intensity_map
from medld.io import read_volume
from medld.metrics import Reference
from medld.nn.autoencoder import fold
from medld.nn.conditions import CONTRASTS, Conditions
from medld.nn.networks import Networks
from medld.superres.axis import AxisPass, Dials
from medld.superres.projection import Strength
from medld.superres.resolver import UNTILED_VOXELS
from medld.superres.work import Work

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
    networks = networks.to(torch.device("cpu"), torch.float32)
    print(f"{'protocol':<18}{'scan':<24}" + "".join(f"{name:>13}" for name in COLUMNS))
    for protocol in options.protocol:
        rows = []
        for path in sorted(options.folder.glob("*_T1w.nii.gz")):
            rows.append(measure(networks, path, protocol))
            print(f"{protocol:<18}{path.name[:22]:<24}" + "".join(f"{value:13.2f}" for value in rows[-1]))
        print(f"{protocol:<18}{'mean':<24}" + "".join(f"{value:13.2f}" for value in np.mean(rows, axis=0)))


@torch.inference_mode()
def measure(networks: Networks, path: Path, protocol: str) -> list[float]:
    """Foreground dB of each column for one scan."""
    volume, _ = read_volume(path)
    truth, scan = simulate(volume, load_protocol(protocol))
    units, reference = intensity_map(scan.array, "mr"), Reference(truth.array)
    fine, slab = (torch.from_numpy(units.forward(np.ascontiguousarray(v.array)))[None, None] for v in (truth, scan))
    axis = AxisAcquisition(fine.shape[-1], slab.shape[-1])
    one = AxisPass(
        networks=networks,
        axis=axis,
        slab=slab,
        conditions=_conditions(volume.contrast, scan.grid.spacing, axis, slab),
        remaining=0,
        strength=Strength(torch.tensor(0.0), torch.tensor(SMALLEST_LAMBDA), project=True),
        dials=Dials(realism=0.0, steps=1, seed=0, untiled_voxels=UNTILED_VOXELS),
        dtype=torch.float32,
        work=Work(torch.device("cpu"), 1, lambda _: None),
    )
    unprojected = replace(one, strength=replace(one.strength, project=False))
    true = one.decode(one.encode(fold(along(axis.target_to_profile(), fine, -1))))
    known = one.encode(one.known_samples())
    noise = torch.randn(known.shape, generator=torch.Generator().manual_seed(0))
    answers = (
        one.completed(torch.zeros_like(true)),
        unprojected.completed(true.clone()),  # in its own place
        one.completed(true),
        one.completed(one.decode(known)),
        one.completed(one.decode(noise)),
    )
    return [reference.psnr(units.inverse(answer[0, 0].numpy())) for answer in answers]


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
