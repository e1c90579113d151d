"""Labels: label maps of the truth and of methods' outputs, made by a segmentation tool of the user's choice.

    --labels truth=FOLDER --labels medld=FOLDER2 ...

    FOLDER/[PROTOCOL/]scan*.nii.gz      named like the scan, longer by what a tool adds (scan_dseg, scan_synthseg)
    FOLDER/[PROTOCOL/]*_dseg.nii.gz     or by BIDS: the scan's name with dseg for its suffix (sub-01_desc-aseg_dseg)

A map lies on the grid of what it segments: the truth's, cut to whole slices or not, or the output's, which is the cut
one. Axes may be stored in another order or direction; beyond that nothing is resampled, because a label map that is
moved by half a voxel measures the move. The maps of methods lie in a folder for each protocol as `--write-outputs`
gives them, unless there is one protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from medld.errors import ConfigError, GridError, InputError
from medld.evaluation.exchange import OtherTool, align_axes, lies_on, told
from medld.geometry import Grid
from medld.io import file_sha256, read_volume

TRUTH = "truth"
BIDS_SUFFIX = "dseg"


@dataclass(frozen=True)
class LabelMaps:
    """Folders of label maps by whose they are: the truth's under "truth", else a method's."""

    folders: Mapping[str, Path]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods whose outputs were segmented."""
        return tuple(name for name in self.folders if name != TRUTH)

    def hashes(self, scan: str, protocol: str, scans: Sequence[str], *, alone: bool) -> dict[str, str]:
        """SHA-256 of the map of each, "" where there is none or several."""
        found = {}
        for name in self.folders:
            try:
                found[f"labels of {name}"] = file_sha256(self._find(name, scan, protocol, scans, alone=alone))
            except InputError:
                found[f"labels of {name}"] = ""
        return found

    def of_truth(self, scan: str, protocol: str, scans: Sequence[str], whole: Grid, cut: Grid) -> np.ndarray:
        """The truth's map on its grid `cut`; the file may lie on the `whole` one, of which that is the first part.

        Raises:
            InputError: There is none, or several.
            GridError: It lies on another grid.
        """
        i, j, k = cut.shape
        return self._read(self._find(TRUTH, scan, protocol, scans, alone=True), (whole, cut))[:i, :j, :k]

    def of_output(
        self, method: str, scan: str, protocol: str, scans: Sequence[str], grid: Grid, *, alone: bool
    ) -> np.ndarray:
        """The map of a method's output on `grid`.

        Raises:
            InputError: There is none, or several.
            GridError: It lies on another grid.
        """
        return self._read(self._find(method, scan, protocol, scans, alone=alone), (grid,))

    def _find(self, name: str, scan: str, protocol: str, scans: Sequence[str], *, alone: bool) -> Path:
        tool = OtherTool(f"the labels of {name}", self.folders[name])
        path = tool.find(scan, protocol, scans, alone=alone) or tool.find(by_bids(scan), protocol, (), alone=alone)
        if path is None:
            raise InputError(
                f"Expected a label map of {name} for {Path(scan).name} below the folder of --labels, found none. "
                "Segment this one too."
            )
        return path

    def _read(self, path: Path, grids: Sequence[Grid]) -> np.ndarray:
        own, _ = read_volume(path, force=True, allow_output=True)
        for grid in grids:
            aligned = align_axes(own, grid)
            if lies_on(aligned.grid, grid):
                return aligned.array
        raise GridError(
            f"Expected the label map {path.name} on the grid of what it segments, {told(grids[0])}, got "
            f"{told(own.grid)}. Label maps are not resampled: have the tool write that grid."
        )


def make_label_maps(folders: Mapping[str, Path | str], methods: Sequence[str]) -> LabelMaps:
    """The folders that are named, checked.

    Raises:
        ConfigError: The truth's is missing, it is alone, or one is of no method here.
    """
    own = [name for name in folders if name != TRUTH]
    if not folders:
        return LabelMaps({})
    if TRUTH not in folders or not own or not set(own) <= set(methods):
        raise ConfigError(
            f"Expected label maps of {TRUTH} and of methods out of {', '.join(methods)}, got {', '.join(folders)}. "
            "Give --labels truth=FOLDER --labels METHOD=FOLDER."
        )
    return LabelMaps({name: Path(folder) for name, folder in folders.items()})


def by_bids(scan: str) -> str:
    """The name that BIDS gives a scan's segmentation: `anat/sub-01_T1w.nii.gz` to `anat/sub-01_dseg.nii.gz`."""
    path = PurePosixPath(scan)
    stem, _, _ = path.name.partition(".")
    entities, _, _ = stem.rpartition("_")
    return str(path.with_name(f"{entities or stem}_{BIDS_SUFFIX}.nii.gz"))
