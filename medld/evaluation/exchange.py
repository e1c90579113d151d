"""Exchange: simulated scans for another tool, and what that tool made of them.

    DIR/PROTOCOL/scan.nii.gz          a simulated scan, and scan.json with its thickness, spacing and target
    FOLDER/PROTOCOL/scan*.nii.gz      the other tool's output; with one protocol it may lie in FOLDER itself
    DIR/METHOD/PROTOCOL/scan.nii.gz   what was compared, METHOD "truth" for the truth, to look at or to segment

An output belongs to the scan whose name it has: the same, longer by what a tool adds (scan_SynthSR), or with another
desc-, res- or space- in a BIDS name. Its axes may be stored in another order or direction, which is undone without
loss. Beyond that its grid must be the truth's: a table that resamples in silence measures the resampling.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.ndimage import affine_transform

from medld.errors import GridError, InputError, OutputError
from medld.evaluation.protocol import ProtocolConfig
from medld.evaluation.simulate import Simulated, image
from medld.evaluation.sources import UNUSABLE, Source
from medld.geometry import Grid, format_mm
from medld.io import OUTPUT_MARK, SUFFIXES, Storage, file_sha256, read_volume, sidecar_path, split_suffix, write_volume
from medld.volume import Volume

GRID_TOLERANCE = 0.01
"""Of a voxel's shortest edge: how far a corner of an output's box may lie from the truth's, or 1 um."""

LEAST_COVERED = 0.9
"""Share of the truth's box that an output must cover to be resampled onto it."""
LATTICE = 10
"""Points along each axis by which the covered share is found."""

BIDS_ADDITIONS = ("desc-", "res-", "space-")
JOINTS = "_-."
"""What may stand between a scan's name and what a tool adds."""


@dataclass(frozen=True)
class Found:
    """An output of another tool on the truth's grid: its array, its file's hash, and how it came there."""

    array: np.ndarray
    sha256: str
    how: str


@dataclass(frozen=True)
class OtherTool:
    """The outputs of another tool below `folder`; `resample` brings those on another grid to the truth's."""

    name: str
    folder: Path
    resample: bool = False

    def find(self, scan: str, protocol: str, scans: Sequence[str], *, alone: bool) -> Path | None:
        """The output for a scan by its name below the source's folder, None if there is none.

        Args:
            scan: The name.
            protocol: Its name; `alone` says that no other one is evaluated.
            scans: The names of all scans: a longer one of them is not an output of a shorter one.
            alone: Whether the outputs may lie in the folder itself.

        Raises:
            InputError: Several files may be meant.
        """
        own = PurePosixPath(scan)
        others = {stem_of(name) for name in scans} - {stem_of(scan)}
        for folder in self._folders(own, protocol, alone):
            matches = matching(stem_of(scan), others, _images(folder))
            if len(matches) > 1:
                names = ", ".join(path.name for path in matches)
                raise InputError(f"Expected one output of {self.name} for {own.name}, got {names}. Leave one of them.")
            if matches:
                return matches[0]
        return None

    def _folders(self, scan: PurePosixPath, protocol: str, alone: bool) -> Iterable[Path]:
        return dict.fromkeys(place for top in self._tops(protocol, alone) for place in (top / scan.parent, top))

    def _tops(self, protocol: str, alone: bool) -> tuple[Path, ...]:
        return (self.folder / protocol, self.folder) if alone else (self.folder / protocol,)

    def read(self, path: Path, grid: Grid) -> Found:
        """An output on the truth's grid.

        Raises:
            GridError: It lies on another one (E_NO_GEOM), and nobody asked to resample, or it covers too little.
            InputError: It cannot be read, or holds NaN.
        """
        output = align_axes(read_volume(path, force=True, allow_output=True)[0], grid)
        how = path.name
        if not lies_on(output.grid, grid):
            if not self.resample:
                raise GridError(_another_grid(self.name, output.grid, grid))
            output = resample(output, grid)
            how += ", resampled to the truth's grid"
        return Found(output.array, file_sha256(path), how)

    def unmatched(self, scans: Sequence[str], protocol: str, *, alone: bool) -> tuple[str, ...]:
        """Outputs for a protocol that belong to no scan: their truth is missing."""
        stems = {stem_of(name) for name in scans}
        tops = self._tops(protocol, alone)
        there = next((found for top in tops if (found := _images(top, "**/*"))), [])
        return tuple(path.name for path in there if not any(_belongs(path, stem) for stem in stems))


def write_scans(
    source: Source,
    protocols: Sequence[ProtocolConfig],
    folder: Path,
    report: Callable[[str], None] = lambda line: None,
) -> int:
    """Write every scan by every protocol below `folder`, for another tool; returns how many.

    A sidecar beside each says SliceThickness and SpacingBetweenSlices, as BIDS has them, and TargetSpacing (mm per
    array axis). Scans that cannot be used are left out, with a line of report.

    Raises:
        OutputError: `folder` lies inside the source's: its scans would be taken for fine ones next time.
    """
    check_outside(folder, source)
    count = 0
    for protocol in protocols:
        for scan in source.scans:
            path = folder / protocol.name / _nifti_name(scan.name)
            try:
                made = image(scan.read(), protocol, key=scan.key)
            except UNUSABLE as error:
                report(f"{protocol.name}  {scan.name}  not written, {error.code}: {error}")
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, made.scan, Storage(), description=f"simulated, {protocol.name}")
            text = json.dumps(_sidecar(made, protocol), indent=1) + "\n"
            sidecar_path(path).write_text(text, encoding="utf-8")
            count += 1
    return count


def write_output(folder: Path, method: str, protocol: str, scan: str, volume: Volume) -> None:
    """Write what a method made of a scan, or the truth, as folder/method/protocol/scan.nii.gz."""
    path = folder / method / protocol / _nifti_name(scan)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, volume, Storage(), description=f"{OUTPUT_MARK} evaluate, {method}, {protocol}")


def check_outside(folder: Path, source: Source) -> None:
    """Raises: OutputError, if `folder` lies inside the source's."""
    if folder.resolve().is_relative_to(source.folder.resolve()):
        raise OutputError(f"Expected a folder outside {source.folder} for scans and outputs. Choose another.")


def _nifti_name(scan: str) -> Path:
    return Path(scan).with_name(stem_of(scan) + ".nii.gz")


def _sidecar(made: Simulated, protocol: ProtocolConfig) -> dict[str, object]:
    grid = made.scan.grid
    axis = max(protocol.coarse_axes, key=lambda index: (grid.spacing[index], index))
    spacing = grid.spacing[axis]
    return {
        "Modality": "CT" if made.scan.modality == "ct" else "MR",
        "SliceThickness": protocol.thickness_in(spacing) * spacing,
        "SpacingBetweenSlices": spacing,
        "SliceProfile": protocol.profile,
        "TargetSpacing": list(made.truth.grid.spacing),
        "TargetShape": list(made.truth.grid.shape),
        "Protocol": protocol.name,
    }


def stem_of(name: str) -> str:
    """A file's name without folder and endings."""
    return split_suffix(PurePosixPath(name).name)[0]


def matching(stem: str, others: Iterable[str], files: Sequence[Path]) -> list[Path]:
    """The files whose names say that they were made of the scan `stem`, the same name before longer ones."""
    same = [path for path in files if _plain(stem_of(path.name)) == _plain(stem)]
    if same:
        return same
    longer = [other for other in others if other.startswith(stem)]
    return [path for path in files if _belongs(path, stem) and not any(_belongs(path, other) for other in longer)]


def _belongs(path: Path, stem: str) -> bool:
    own, wanted = _plain(stem_of(path.name)), _plain(stem)
    return own == wanted or any(own.startswith(wanted + joint) for joint in JOINTS)


def _plain(stem: str) -> str:
    """A BIDS name without what a derivative adds."""
    return "_".join(part for part in stem.split("_") if not part.startswith(BIDS_ADDITIONS))


def _images(folder: Path, pattern: str = "*") -> list[Path]:
    """Image files in a folder; with `**/*` also below it; none where there is no folder."""
    found = folder.glob(pattern) if folder.is_dir() else ()
    return sorted(path for path in found if path.name.lower().endswith(SUFFIXES) and path.is_file())


def align_axes(volume: Volume, grid: Grid) -> Volume:
    """The same voxels with the array's axes in the order and direction of `grid`'s, as near as flips bring them."""
    order = [volume.grid.world_axes.index(axis) for axis in grid.world_axes]
    aligned = volume.permuted((order[0], order[1], order[2]))
    for axis in range(3):
        if aligned.grid.direction[:, axis] @ grid.direction[:, axis] < 0:
            aligned = aligned.flipped(axis)
    return aligned


def lies_on(own: Grid, grid: Grid) -> bool:
    """Whether every corner of two grids' boxes agrees."""
    return own.is_close(grid, tolerance_mm=max(1e-3, GRID_TOLERANCE * min(grid.spacing)))


def told(grid: Grid) -> str:
    """A grid in a sentence."""
    return f"{grid.shape[0]} x {grid.shape[1]} x {grid.shape[2]} voxels of {format_mm(grid.spacing)}"


def _another_grid(name: str, own: Grid, grid: Grid) -> str:
    apart = float(np.linalg.norm(own.corners() - grid.corners(), axis=1).max())
    corners = f", corners up to {apart:.3g} mm apart" if own.shape == grid.shape else ""
    return (
        f"Expected the output of {name} on the truth's grid, {told(grid)}, got {told(own)}{corners}. "
        "Have the tool write that grid, or ask to resample its outputs (--resample-others)."
    )


def resample(volume: Volume, grid: Grid) -> Volume:
    """`volume` at the voxels of `grid`, by cubic splines, level beyond its outer voxels.

    Raises:
        GridError: It covers less than nine tenths of the grid's box.
    """
    into = np.linalg.inv(volume.grid.affine) @ grid.affine
    places = [(np.arange(LATTICE) + 0.5) * n / LATTICE - 0.5 for n in grid.shape]
    index = np.stack(np.meshgrid(*places, indexing="ij"), -1).reshape(-1, 3) @ into[:3, :3].T + into[:3, 3]
    inside = ((index >= -0.5) & (index <= np.array(volume.grid.shape) - 0.5)).all(1).mean()
    if inside < LEAST_COVERED:
        raise GridError(
            f"Expected an output that covers the truth, got one over {100 * inside:.0f} % of its box. It is of another "
            "scan, or cropped."
        )
    array = affine_transform(
        volume.array, into[:3, :3], into[:3, 3], output_shape=grid.shape, order=3, mode="nearest", output=np.float32
    )
    return Volume(array, grid, volume.modality, volume.contrast)
