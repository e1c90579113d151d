"""Geometry: the frames of one volume in slice order, and the grid that they make, or why none.

What decides is millimetres: every slice must lie where the affine puts it (`residual`), since
tolerances on steps let errors add up and one on the stacking direction straightens a tilted
gantry. The slice column of the affine is (last - first) / (n - 1), taken from the positions.

    repeats     E_DUP where a few positions occur twice, E_4D where all do
    tilt        E_TILT: the stack leans over by more than rounding explains
    gaps        E_GAP: whole steps are missing; names the first slice
    the rest    E_SPACING
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from highdicom.spatial import get_volume_positions

from medld.errors import GridError
from medld.geometry import Grid
from medld.io.checks import MIN_SLICES
from medld.io.dicom.privacy import quiet
from medld.io.dicom.series import Frame, Refusal

__all__ = ["arrange"]

RESIDUAL_MM = 0.1  # from a slice's centre to where the affine puts it; straight real series show 0.001
RESIDUAL_PART = 0.1  # of the smallest voxel side, where that is less
ROUNDING_MM = 0.05  # never stricter than this: coordinates of two decimals, jitter of table and gradient
TILT_DEGREES = 0.1  # within the shear that a Grid takes
SAME_MM = 0.01  # slices nearer than this, or than `SAME_PART` of a step, lie at one position
SAME_PART = 0.02
GAP_TOLERANCE = 0.05  # of a step: how near a distance must come to a whole number of steps

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class _Stack:
    """Frames in the order of their distance along the normal.

    Args:
        frames: In that order.
        positions: (n, 3) mm, LPS.
        row: (3,) unit vector along a row.
        column: (3,) unit vector along a column, at right angles to the row.
    """

    frames: tuple[Frame, ...]
    positions: np.ndarray
    row: np.ndarray
    column: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector of row x column."""
        return np.cross(self.row, self.column)

    @property
    def distances(self) -> np.ndarray:
        """(n,) mm along the normal, ascending."""
        return np.asarray(self.positions @ self.normal)

    @property
    def steps(self) -> np.ndarray:
        """(n - 1,) mm from slice to slice along the normal."""
        return np.diff(self.distances)

    @property
    def axis(self) -> int:
        """The patient axis (x, y, z) nearest to the normal."""
        return int(np.argmax(np.abs(self.normal)))


@quiet()
def arrange(frames: Sequence[Frame]) -> tuple[tuple[Frame, ...], Grid | Refusal]:
    """Put the frames of one volume in slice order and find their grid.

    Args:
        frames: Of one kind, size and orientation, in any order.

    Returns:
        The frames in the order of row x column, and the grid (RAS+), whose k axis counts them; or
        the frames as they came, and the reason why they make no volume.
    """
    stack = _sort(frames)
    refusal = _refuse_repeats(stack)
    if refusal is None:
        if len(frames) < MIN_SLICES:
            return tuple(frames), Refusal("E_TOO_FEW", f"expected at least {MIN_SLICES} slices, got {len(frames)}")
        step = _slice_step(stack)
        refusal = _refuse_tilt(stack) or _refuse_uneven(stack, step) or _refuse_turned(stack)
    if refusal is not None:
        return tuple(frames), refusal
    head = stack.frames[0].head
    affine = np.eye(4)
    affine[:3, 0] = stack.row * stack.frames[0].pixel_spacing[1]
    affine[:3, 1] = stack.column * stack.frames[0].pixel_spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = stack.positions[0]
    try:
        return stack.frames, Grid((head.Columns, head.Rows, len(frames)), LPS_TO_RAS @ affine)
    except GridError as error:
        return tuple(frames), Refusal(error.code, str(error))


def _sort(frames: Sequence[Frame]) -> _Stack:
    """The frames along their normal; of equal ones the first found comes first."""
    row, column = _directions(frames[0].orientation)
    positions = np.array([frame.position for frame in frames])
    order = np.argsort(positions @ np.cross(row, column), kind="stable")
    return _Stack(tuple(frames[i] for i in order), positions[order], row, column)


def _directions(orientation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column as unit vectors at right angles; what this moves is rounding in the header."""
    row = orientation[:3] / np.linalg.norm(orientation[:3])
    column = orientation[3:] - (orientation[3:] @ row) * row
    return row, column / np.linalg.norm(column)


def _refuse_repeats(stack: _Stack) -> Refusal | None:
    """Say what repeated positions mean: a few slices twice, or several volumes."""
    steps = stack.steps
    apart = steps[steps > SAME_MM]
    same = max(SAME_MM, SAME_PART * float(np.median(apart))) if len(apart) else SAME_MM
    edges = np.flatnonzero(steps > same) + 1
    groups = np.split(np.arange(len(stack.frames)), edges)
    counts = np.array([len(group) for group in groups])
    if counts.max() == 1:
        return None
    first = next(group for group in groups if len(group) > 1)
    if len(counts) < MIN_SLICES:
        return Refusal("E_TOO_FEW", f"expected at least {MIN_SLICES} slices, got {len(counts)} positions")
    if _width(stack, groups) > max(same, RESIDUAL_MM):
        return Refusal("E_MIXED", "slices side by side in one plane: several stacks in one series")
    if (counts == counts[0]).all():
        return Refusal(
            "E_4D", f"{counts[0]} volumes of {len(counts)} slices: a time, diffusion or repeated series; split it first"
        )
    if np.count_nonzero(counts > 1) > len(counts) / 2:
        return Refusal("E_4D", f"{len(counts)} positions, most of them several times: an incomplete time series")
    return Refusal("E_DUP", f"{counts.max()} images at one position, {_place(stack, first[0])}; remove the wrong one")


def _width(stack: _Stack, groups: Sequence[np.ndarray]) -> float:
    """mm by which images at one distance along the normal lie apart from each other."""
    return max(float(np.linalg.norm(np.ptp(stack.positions[group], axis=0))) for group in groups)


def _slice_step(stack: _Stack) -> np.ndarray:
    """(3,) mm from slice to slice: along the positions, or the normal where rounding is coarser than a Grid takes."""
    step = np.asarray((stack.positions[-1] - stack.positions[0]) / (len(stack.frames) - 1))
    along = (step @ stack.normal) * stack.normal
    return step if _angle(step, stack.normal) <= TILT_DEGREES else np.asarray(along)


def _angle(step: np.ndarray, normal: np.ndarray) -> float:
    """Degrees between a step and the normal."""
    across = np.linalg.norm(step - (step @ normal) * normal)
    return float(np.degrees(np.arctan2(across, step @ normal)))


def _refuse_tilt(stack: _Stack) -> Refusal | None:
    """Refuse a stack that leans over, as a whole and by more than rounding."""
    last = stack.positions[-1] - stack.positions[0]
    angle, n = _angle(last, stack.normal), len(stack.frames)
    leaning = float(np.linalg.norm(last - (last @ stack.normal) * stack.normal))
    if angle <= TILT_DEGREES or leaning <= _tolerance(stack):
        return None
    # Only a stack along one line is tilted; one slice out of line is not.
    line = stack.positions[0] + np.outer(stack.distances - stack.distances[0], last / (last @ stack.normal))
    if np.linalg.norm(stack.positions - line, axis=1).max() > max(_tolerance(stack), leaning / n):
        return None
    return Refusal(
        "E_TILT",
        f"the slices lean by {angle:.2f} degrees from right angles ({leaning:.2f} mm over the stack), as from a "
        "tilted gantry; straighten the series first, for example with dcm2niix",
    )


def _refuse_uneven(stack: _Stack, step: np.ndarray) -> Refusal | None:
    """Refuse slices that do not lie where the affine puts them, and say whether some are missing."""
    n = len(stack.frames)
    expected = stack.positions[0] + np.outer(np.arange(n), step)
    residual = np.linalg.norm(stack.positions - expected, axis=1)
    if residual.max() <= _tolerance(stack):
        return None
    missing = _missing_slices(stack)
    if missing is not None:
        return missing
    worst = int(np.argmax(residual))
    low, high = stack.steps.min(), stack.steps.max()
    return Refusal(
        "E_SPACING",
        f"uneven steps of {low:.3f} to {high:.3f} mm: {_place(stack, worst)} lies {residual[worst]:.3f} mm from "
        f"where even steps put it (at most {_tolerance(stack):.2f})",
    )


def _missing_slices(stack: _Stack) -> Refusal | None:
    """The refusal that names the missing slices, None if the distances are no whole numbers of steps."""
    step = float(np.median(stack.steps))
    whole = stack.steps / step
    if whole.min() < 1 - GAP_TOLERANCE:  # some of the gaps are the rule, so the smallest step counts
        step = float(stack.steps.min())
        whole = stack.steps / step
    counts = np.rint(whole).astype(int)
    spacing, _ = get_volume_positions(
        stack.positions.tolist(),
        np.concatenate([stack.row, stack.column]).tolist(),
        rtol=GAP_TOLERANCE,
        allow_missing_positions=True,
        spacing_hint=step,
    )
    if counts.max() < 2 or (np.abs(whole - counts) > GAP_TOLERANCE).any() or spacing is None:
        return None
    before = int(np.argmax(counts > 1))
    total, gone = int(counts.sum()) + 1, int((counts - 1).sum())
    number = int(counts[:before].sum()) + 2
    place = stack.positions[before] + (stack.positions[before + 1] - stack.positions[before]) / counts[before]
    which = f"slice {number} of {total} is" if gone == 1 else f"{gone} slices of {total} are"
    where = f"at {'xyz'[stack.axis]} = {place[stack.axis]:.1f}"
    start = where if gone == 1 else f"the first, slice {number}, {where}"
    return Refusal("E_GAP", f"{which} missing{' ' if gone == 1 else ', '}{start}; send the series again")


def _refuse_turned(stack: _Stack) -> Refusal | None:
    """Refuse slices turned or scaled against each other by more than a corner may move."""
    rows, columns = stack.frames[0].head.Rows, stack.frames[0].head.Columns
    tolerance = _tolerance(stack)
    first = _far_corner(stack.frames[0], rows, columns)
    for number, frame in enumerate(stack.frames):
        moved = float(np.abs(_far_corner(frame, rows, columns) - first).max())
        if moved > tolerance:
            place = _place(stack, number)
            return Refusal("E_MIXED", f"{place} is turned or scaled against the first by {moved:.2f} mm at its edge")
    return None


def _far_corner(frame: Frame, rows: int, columns: int) -> np.ndarray:
    """(2, 3) mm from the first pixel to the ends of its row and of its column."""
    across = frame.orientation[:3] * frame.pixel_spacing[1] * (columns - 1)
    down = frame.orientation[3:] * frame.pixel_spacing[0] * (rows - 1)
    return np.array([across, down])


def _tolerance(stack: _Stack) -> float:
    """mm that a slice may lie from its place."""
    smallest = min(*stack.frames[0].pixel_spacing, float(np.median(stack.steps)))
    return min(RESIDUAL_MM, max(ROUNDING_MM, RESIDUAL_PART * smallest))


def _place(stack: _Stack, number: int) -> str:
    """A slice for a message: its number along the stack and its coordinate."""
    coordinate = stack.positions[number][stack.axis]
    return f"slice {number + 1} of {len(stack.frames)} at {'xyz'[stack.axis]} = {coordinate:.1f}"
