"""Projection in place: a correction becomes the answer, a few rows of the fine grid at a time.

    x  =  b + A^T c + correction          c of the baseline; without it, the spline b alone
    x +=  A^T (A A^T + lambda)^-1 w (y - A x)

Beside the correction, which becomes x, three arrays of the scan's size and one strip are held, the scan itself and c
among them; where rows are coarse too, also two of the scan's rows by the fine grid's columns and slices. Margins exist
in strips only. A small scan is one strip. Tensors are (1, 1, I, J, K), those of the scan's size on its own grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from medld.acquisition import GATE_WINDOW, Acquisition, along

STRIP_VOXELS = 16_000_000
"""On the fine grid; up to so many it is one strip."""


@dataclass(frozen=True)
class Strength:
    """How hard a scan binds: `noise` for the gate (0 = exactly) and `damping` of the inverse, tensors of one value."""

    noise: Tensor
    damping: Tensor
    project: bool


def baseline_core(acquisition: Acquisition, scan: Tensor, damping: Tensor) -> Tensor:
    """c of the baseline b + A^T c, on the scan's grid."""
    fine = [size if axis is None else axis.fine for axis, size in zip(acquisition.axes, scan.shape[2:], strict=True)]
    strips = padded_strips(acquisition, fine)
    residual = _residual(acquisition, scan, strips, lambda rows: _rows(acquisition, "spline", scan, rows))
    if acquisition.axes[0] is not None:
        return acquisition.solve(residual, damping)  # type: ignore[no-any-return]
    for rows in strips:
        residual[:, :, rows] = acquisition.solve(residual[:, :, rows], damping)
    return residual


def subtract_baseline(acquisition: Acquisition, fine: Tensor, scan: Tensor, core: Tensor) -> None:
    """`fine` becomes a correction of the baseline of `core`."""
    for rows in padded_strips(acquisition, fine.shape[2:]):
        own, inner = _inside(acquisition, rows, fine, _baseline(acquisition, scan, core, rows))
        own -= inner


def complete(acquisition: Acquisition, fine: Tensor, scan: Tensor, strength: Strength, core: Tensor | None) -> None:
    """`fine`, a correction of the baseline of `core` (without one, of the spline), becomes the projected answer."""
    strips = padded_strips(acquisition, fine.shape[2:])

    def completed(rows: slice) -> Tensor:
        padded = _baseline(acquisition, scan, core, rows)
        own, inner = _inside(acquisition, rows, fine, padded)
        inner += own
        own.copy_(inner)
        return padded

    if not strength.project:
        for rows in strips:
            completed(rows)
        return
    known = _known(acquisition, _residual(acquisition, scan, strips, completed), strips, strength)
    for rows in strips:
        own, inner = _inside(acquisition, rows, fine, _rows(acquisition, "adjoint", known, rows))
        own += inner


def padded_strips(acquisition: Acquisition, shape: tuple[int, ...] | list[int]) -> list[slice]:
    """Rows of the padded fine grid that are made together."""
    first = acquisition.axes[0]
    rows = shape[0] + (2 * first.margin if first else 0)
    step = rows if prod(shape) <= STRIP_VOXELS else max(1, STRIP_VOXELS // (shape[1] * shape[2]))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _baseline(acquisition: Acquisition, scan: Tensor, core: Tensor | None, rows: slice) -> Tensor:
    padded = _rows(acquisition, "spline", scan, rows)
    return padded if core is None else padded + _rows(acquisition, "adjoint", core, rows)


def _rows(acquisition: Acquisition, name: str, slices: Tensor, rows: slice) -> Tensor:
    """Some rows of the padded fine array that `spline` or `adjoint` makes of slices."""
    first, others = acquisition.axes[0], Acquisition((None, *acquisition.axes[1:]))
    if first is None:
        return others.through(name, slices[:, :, rows])  # type: ignore[no-any-return]
    return others.through(name, along(first.like(name, slices)[rows], slices, -3))  # type: ignore[no-any-return]


def _residual(acquisition: Acquisition, scan: Tensor, strips: list[slice], padded: Callable[[slice], Tensor]) -> Tensor:
    """The scan less A of a padded array whose rows `padded` makes."""
    first, others = acquisition.axes[0], Acquisition((None, *acquisition.axes[1:]))
    if first is None:
        residual = torch.empty_like(scan)
        for rows in strips:
            residual[:, :, rows] = scan[:, :, rows] - others.apply(padded(rows))
        return residual
    total: Tensor | None = None
    for rows in strips:
        part = padded(rows)
        part = along(first.like("apply", part)[:, rows], part, -3)
        total = part if total is None else total.add_(part)
    return scan - others.apply(total)  # type: ignore[no-any-return]


def _known(acquisition: Acquisition, residual: Tensor, strips: list[slice], strength: Strength) -> Tensor:
    """(A A^T + lambda)^-1 of the gated residual; of some rows the gate also sees their neighbours."""
    if acquisition.axes[0] is not None:
        return acquisition.solve(acquisition.gated(residual, strength.noise), strength.damping)  # type: ignore[no-any-return]
    known = torch.empty_like(residual)
    for rows in strips:
        top = max(rows.start - GATE_WINDOW // 2, 0)
        seen = acquisition.gated(residual[:, :, top : rows.stop + GATE_WINDOW // 2], strength.noise)
        known[:, :, rows] = acquisition.solve(seen[:, :, rows.start - top : rows.stop - top], strength.damping)
    return known


def _inside(acquisition: Acquisition, rows: slice, fine: Tensor, padded: Tensor) -> tuple[Tensor, Tensor]:
    """Views of `fine` and of some padded rows where they are the same voxels."""
    first = acquisition.axes[0]
    margin = first.margin if first else 0
    start, stop = max(rows.start - margin, 0), max(min(rows.stop - margin, fine.shape[2]), 0)
    skipped = start + margin - rows.start
    inner = Acquisition((None, *acquisition.axes[1:])).crop(padded)
    return fine[:, :, start:stop], inner[:, :, skipped : skipped + max(stop - start, 0)]
