"""Demo: thick slices of a brain, restored, beside the truth (`make demo`).

The brain is the MNI152 T1 average at 1 mm that the nilearn package ships in its own files, so nothing is
downloaded. It is an average of 152 heads, softer than any single scan. By the protocol `through-plane-4x` it
becomes a scan with 4 mm slices, `medld enhance` restores that, and a picture shows before, after and truth on
a coronal and a sagittal cut, both across the slices.

    python pipelines/demo.py [FOLDER]          demo/ unless said
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medld import cli
from medld.evaluation import load_protocol, simulate, upsample_cubic
from medld.geometry import choose_target
from medld.io import Storage, read_volume, write_volume
from medld.metrics import Reference
from medld.superres import Request, SuperResolver
from medld.volume import Volume

AVERAGE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
PROTOCOL = "through-plane-4x"

CUTS = {"coronal": (1, 112), "sagittal": (0, 92)}
"""Array axis and voxel: through thalamus and temporal lobes; beside the midline, through the cerebellum."""
WINDOWS = {"coronal": (slice(28, 128), slice(20, 100)), "sagittal": (slice(50, 150), slice(20, 100))}
"""The part that the picture shows, in voxels: across the picture, up the picture."""
ZOOM = 4
CAPTION, MARGIN = 28, 6
"""Pixels above each panel, and between panels."""


def main(folder: Path) -> int:
    """Simulate, enhance, compare and draw; returns the exit code of `medld enhance`."""
    folder.mkdir(parents=True, exist_ok=True)
    truth, scan = simulate(read_average(), load_protocol(PROTOCOL))
    scan_file, enhanced_file = folder / "mni152_4mm_T1w.nii.gz", folder / "mni152_1mm_T1w.nii.gz"
    write_volume(scan_file, scan, Storage(), description="MNI152 average, simulated 4 mm slices")
    command = [
        "enhance",
        str(scan_file),
        "-o",
        str(enhanced_file),
        "--spacing",
        "1",
        "--consistency",
        "exact",
    ]
    print("$ medld " + " ".join(command))
    code: int = cli.main([*command, "--overwrite"])
    if code != 0:
        return code
    enhanced = nibabel.Nifti1Image.from_filename(enhanced_file).get_fdata(dtype=np.float32)
    outputs = {
        "cubic": upsample_cubic(scan, truth.grid.shape),
        "B": restore_without_a_model(scan, truth),
        "medld": enhanced,
    }
    print(f"\nMNI152 T1 average at 1 mm, 4 mm slices simulated ({PROTOCOL}), numbers over the foreground:")
    reference = Reference(truth.array)
    for method, array in outputs.items():
        print(f"  {method:<6} PSNR {reference.psnr(array):6.2f} dB   SSIM {reference.ssim(array):.4f}")
    slices = np.repeat(scan.array, truth.grid.shape[2] // scan.grid.shape[2], axis=2)
    panels = {"4 mm slices": slices, "cubic": outputs["cubic"], "medld": enhanced, "truth, 1 mm": truth.array}
    picture = folder / "before-after-truth.png"
    draw(panels, brightest=float(np.percentile(truth.array, 99.9))).save(picture)
    print(f"picture: {picture}")
    return 0


def read_average() -> Volume:
    """The MNI152 T1 average out of the nilearn package's own files; nilearn itself is not run."""
    package = find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("Expected the nilearn package, whose brain average the demo enhances: pip install nilearn")
    return read_volume(Path(package.submodule_search_locations[0]) / AVERAGE)[0]


def restore_without_a_model(scan: Volume, truth: Volume) -> np.ndarray:
    """The baseline B: cubic B-spline made consistent with the scan, what can be had without a network."""
    request = Request(choose_target(scan.grid, spacing=truth.grid.spacing), consistency="exact")
    return SuperResolver(None).restore(scan, request).volume.array


def draw(volumes: Mapping[str, np.ndarray], brightest: float) -> Image.Image:
    """One row a cut, one column a volume; all in one grey scale, enlarged without inventing detail."""
    rows = []
    for cut, (axis, voxel) in CUTS.items():
        panels = []
        for array in volumes.values():
            plane = np.take(array, voxel, axis)[WINDOWS[cut]].T[::-1]
            grey = (plane.clip(0, brightest) * (255 / brightest)).astype(np.uint8)
            panels.append(
                Image.fromarray(grey).resize((grey.shape[1] * ZOOM, grey.shape[0] * ZOOM), Image.Resampling.BICUBIC)
            )
        rows.append(panels)
    width, height = rows[0][0].size
    sheet = Image.new("L", (len(volumes) * (width + MARGIN) - MARGIN, len(rows) * (height + CAPTION)))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    for i, (cut, panels) in enumerate(zip(CUTS, rows, strict=True)):
        for j, (name, panel) in enumerate(zip(volumes, panels, strict=True)):
            corner = (j * (width + MARGIN), i * (height + CAPTION))
            pen.text((corner[0] + 4, corner[1] + 3), f"{name} ({cut})", fill=255, font=font)
            sheet.paste(panel, (corner[0], corner[1] + CAPTION))
    return sheet


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
