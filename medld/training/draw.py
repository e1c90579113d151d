"""What a training sample shall be, drawn as plain numbers; `apply.py` makes it.

Every draw is a pure function of (seed, rank, step), so a run resumes exactly and any sample can be
made again. A batch shares one acquisition (ratio, thickness, profile); its items differ in volume, axis,
place, zoom, contrast and noise: mixed within a batch, since batches of one kind pull the weights to and fro.
Source: reference design, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medld.acquisition import AxisAcquisition, Profile
from medld.config import DataConfig
from medld.dataset import THICK, Fine
from medld.nn.conditions import CONTRASTS
from medld.training.blend import Field, draw_field

BLOCK = 8
"""Edge of the cells in which a volume's tissue is counted."""

LEAST_TISSUE = 0.2
TRIES = 12
BIAS_DEGREE = 3
BIAS_DEVIATION = 0.08
"""Over a crop, such a field has a deviation of 15 % of its mean (median of 200)."""

LEAST_KEPT = 0.6

CURVE_POINTS = 256
CURVE_TOP = 1.25
"""Contrast curves are tabulated over [0, CURVE_TOP]: a windowed sinc overshoots a little."""

CT_CURVE = np.linspace(0, CURVE_TOP, CURVE_POINTS, dtype=np.float32)
"""Hounsfield units are absolute: neither their scale nor their order is ever changed."""


@dataclass(frozen=True, eq=False)
class Item:
    """One crop. Positions are in source voxels, along the source axes `axes` (coarse axis last).

    `zoom` is source voxels per crop voxel; `blur` the FWHM, in crop voxels, by which the two in-plane axes are
    softened (0 = not); `stretched` says which of them was thick slices and is interpolated; `curve` maps intensity
    over [0, CURVE_TOP]; `bias` (4, 4, 4), if any, the Legendre coefficients of the log of a receive field; `kept` the
    share of spatial frequencies that each in-plane axis shows, as where a scanner fills k-space with zeros; `other` a
    crop that is laid over this one where `field` says, before field and noise of the scan.
    """

    volume: int
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    zoom: tuple[float, float, float]
    centre: tuple[float, float, float]
    blur: tuple[float, float]
    curve: NDArray[np.float32]
    contrast: int
    noise: float
    rician: bool
    stretched: tuple[bool, bool] = (False, False)
    bias: NDArray[np.float32] | None = None
    kept: tuple[float, float] = (1.0, 1.0)
    other: Item | None = None
    field: Field | None = None

    @property
    def soft(self) -> float:
        """Share of the in-plane axes that show less than their voxels could."""
        return sum(width > 0 or thick for width, thick in zip(self.blur, self.stretched, strict=True)) / 2


@dataclass(frozen=True)
class Draw:
    """A batch: the acquisition along the coarse axis, the items, and the seed of their noise."""

    acquisition: AxisAcquisition
    items: tuple[Item, ...]
    seed: int


class Drawer:
    """Draws batches from volumes as the config says."""

    def __init__(self, volumes: list[Fine], config: DataConfig, batch: int) -> None:
        self.volumes, self.config, self.batch = volumes, config, batch
        weights = np.array([volume.weight for volume in volumes], dtype=np.float64)
        self._shares = weights / weights.sum()
        self._tissue = [_tissue_cells(volume.array) for volume in volumes]

    def draw(self, seed: int, step: int, progress: float, rank: int = 0, ratio: float | None = None) -> Draw:
        """The batch of `step`; `progress` in [0, 1] opens the range of ratios, `ratio` fixes it."""
        rng = np.random.default_rng((seed, rank, step))
        acquisition = self._acquisition(rng, progress, ratio)
        known = bool(rng.random() < 0.5)
        items = tuple(self._item(rng, acquisition, known) for _ in range(self.batch))
        if self.config.blend_share > 0:
            apart = np.random.default_rng((seed, rank, step, 1))
            items = tuple(self._blended(apart, item, acquisition) for item in items)
        return Draw(acquisition, items, int(rng.integers(2**62)))

    def _acquisition(self, rng: np.random.Generator, progress: float, fixed: float | None) -> AxisAcquisition:
        """One ratio first, then a range that opens on a logarithmic scale; thickness and profile open with it."""
        config, slices = self.config, self.config.slices
        opened = (
            1.0 if fixed else float(np.clip((progress - config.first_share) / max(config.opening_share, 1e-9), 0, 1))
        )
        low, high = (
            config.first_ratio * (end / config.first_ratio) ** opened for end in (config.ratio_low, config.ratio_high)
        )
        whole = [r for r in (2, 3, 4, 5, 6) if low <= r <= high]
        if fixed is not None:
            ratio = fixed
        elif whole and rng.random() < config.integer_share:
            ratio = float(rng.choice(whole))
        else:
            ratio = float(rng.uniform(low, high))
        thickness, profile = 1.0, "gaussian"
        if config.degrade == "random" and rng.random() < opened:
            if rng.random() < 0.5:
                thickness = float(np.exp(rng.uniform(np.log(0.6), np.log(2.0))))
            profile = str(rng.choice(["gaussian", "box", "slr"], p=[0.6, 0.2, 0.2]))
        fine = min(max(round(ratio * slices), slices + 1), 8 * slices)
        chosen: Profile = "box" if profile == "box" else "slr" if profile == "slr" else "gaussian"
        return AxisAcquisition(fine, slices, thickness, chosen)

    def _item(self, rng: np.random.Generator, acquisition: AxisAcquisition, known: bool) -> Item:
        index = int(rng.choice(len(self.volumes), p=self._shares))
        volume = self.volumes[index]
        coarse = int(rng.choice(volume.axes))
        first, second = rng.permutation([axis for axis in range(3) if axis != coarse])
        axes = (int(first), int(second), coarse)
        blur, soft_zoom = self._softness(rng)
        zoom = _zoom(rng, self.config.zoom_out_share)
        stretch = _stretch(rng, [volume.spacing[axis] for axis in axes])
        zoom = (zoom[0] * soft_zoom[0] * stretch[0], zoom[1] * soft_zoom[1] * stretch[1], zoom[2])
        size = (self.config.in_plane, self.config.in_plane, acquisition.fine)
        zoom = _fitting(zoom, size, [volume.array.shape[axis] for axis in axes])
        centre = self._centre(rng, index, axes, zoom, size)
        ct = volume.modality == "ct"
        curve, altered = (CT_CURVE, False) if ct else _curve(rng)
        contrast = CONTRASTS.index(volume.contrast) if known and not altered else 0
        noise = float(rng.uniform(0, self.config.noise_high)) if rng.random() < self.config.noise_share else 0.0
        flips = tuple(bool(flip) for flip in rng.random(3) < 0.5)
        return Item(
            index,
            axes,
            (flips[0], flips[1], flips[2]),
            zoom,
            centre,
            blur,
            curve,
            contrast,
            noise,
            bool(rng.random() < 0.5) and not ct,
            (stretch[0] < 1, stretch[1] < 1),
            _bias(rng) if rng.random() < self.config.bias_share and not ct else None,
            _kept(rng) if rng.random() < self.config.truncated_share and not ct else (1.0, 1.0),
        )

    def _blended(self, rng: np.random.Generator, item: Item, acquisition: AxisAcquisition) -> Item:
        """The item with another crop laid over it; numbers of its own, so that the rest of a draw stays what it is."""
        wanted = rng.random() < self.config.blend_share
        other, field = self._item(rng, acquisition, known=False), draw_field(rng)
        modalities = {self.volumes[i.volume].modality for i in (item, other)}
        if not wanted or any((*item.stretched, *other.stretched)) or modalities != {"mr"}:
            return item
        other = replace(other, blur=item.blur, kept=item.kept)
        return replace(item, contrast=0, other=other, field=field)

    def _softness(self, rng: np.random.Generator) -> tuple[tuple[float, float], tuple[float, float]]:
        """In-plane blur and the zoom-out that goes with it: the passes of an isotropic restoration look so."""
        if rng.random() >= self.config.soft_share:
            return (0.0, 0.0), (1.0, 1.0)
        both = rng.random() < 0.6
        widths = rng.uniform(0.5, 1.3, size=2)
        zooms = rng.uniform(1.0, 2.5, size=2) if rng.random() < 0.7 else np.ones(2)
        if both:
            return (float(widths[0]), float(widths[1])), (float(zooms[0]), float(zooms[0]))
        return (float(widths[0]), 0.0), (float(zooms[0]), 1.0)

    def _centre(
        self,
        rng: np.random.Generator,
        index: int,
        axes: tuple[int, int, int],
        zoom: tuple[float, float, float],
        size: tuple[int, int, int],
    ) -> tuple[float, float, float]:
        """A place with enough tissue, or the best of a few; on whole voxels where nothing is resampled."""
        shape = [self.volumes[index].array.shape[axis] for axis in axes]
        cells = self._tissue[index].transpose(axes)
        best: tuple[float, tuple[float, float, float]] = (-1.0, (0.0, 0.0, 0.0))
        for _ in range(TRIES):
            centre = tuple(_place(rng, length, z * n, z, n) for length, z, n in zip(shape, zoom, size, strict=True))
            window = tuple(
                slice(max(0, int((c - z * n / 2) / BLOCK)), max(1, int(np.ceil((c + z * n / 2) / BLOCK))))
                for c, z, n in zip(centre, zoom, size, strict=True)
            )
            volume = np.prod([z * n / BLOCK for z, n in zip(zoom, size, strict=True)])
            share = float(cells[window].sum() / volume)
            if share > best[0]:
                best = (share, (centre[0], centre[1], centre[2]))
            if share >= LEAST_TISSUE:
                break
        return best[1]


def _place(rng: np.random.Generator, length: int, extent: float, zoom: float, count: int) -> float:
    slack = length - extent
    centre = length / 2 - 0.5 + rng.uniform(-0.5, 0.5) * (max(slack, 0.0) + 0.1 * extent)
    if zoom == 1.0:
        centre = round(centre - (count - 1) / 2) + (count - 1) / 2
    return float(centre)


def _tissue_cells(array: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share of tissue in each cell of BLOCK^3 voxels."""
    pad = [(0, -size % BLOCK) for size in array.shape]
    mask = np.pad(array > 0.05 * 255, pad)
    cells = mask.reshape(*(part for size in mask.shape for part in (size // BLOCK, BLOCK)))
    return np.asarray(cells.mean(axis=(1, 3, 5)), dtype=np.float32)


def _zoom(rng: np.random.Generator, zoom_out_share: float) -> tuple[float, float, float]:
    """Source voxels per crop voxel: zoom-out makes cleaner, sharper pseudo-scans, zoom-in scanner-interpolated ones."""
    kind = rng.random()
    if kind < zoom_out_share:
        factor = float(rng.uniform(1.1, 2.0))
        along = factor * (float(rng.uniform(0.7, 1.4)) if rng.random() < 0.3 else 1.0)
        return factor, factor, max(along, 1.0)
    if kind < zoom_out_share + 0.2:
        stretch = rng.uniform(0.85, 1.2, size=3)
        return float(stretch[0]), float(stretch[1]), float(stretch[2])
    if kind < zoom_out_share + 0.3:
        factor = float(rng.uniform(0.5, 1.0))
        return factor, factor, float(rng.uniform(1.0, 1.5))
    return 1.0, 1.0, 1.0


def _stretch(rng: np.random.Generator, spacing: list[float]) -> tuple[float, float]:
    """Zoom that brings an in-plane axis of thick slices some of the way to the finest spacing, 1 for other axes."""
    finest = min(spacing)
    share = float(rng.uniform(0.5, 1.0))
    first, second = ((finest / own) ** share if own >= THICK * finest else 1.0 for own in spacing[:2])
    return first, second


def _fitting(
    zoom: tuple[float, float, float], size: tuple[int, int, int], shape: list[int]
) -> tuple[float, float, float]:
    """Zoom-out no further than the volume reaches, so that crops are not mostly air."""
    limited = [
        max(1.0, min(z, 1.1 * length / n)) if z > 1 else z for z, n, length in zip(zoom, size, shape, strict=True)
    ]
    return limited[0], limited[1], limited[2]


def _curve(rng: np.random.Generator) -> tuple[NDArray[np.float32], bool]:
    """A contrast curve through zero, scaled by the jitter of the network's units; and whether contrast was altered."""
    x = np.linspace(0, CURVE_TOP, CURVE_POINTS)
    y, altered = x.copy(), False
    if rng.random() < 0.6:
        y = y ** float(np.exp(rng.uniform(np.log(0.55), np.log(1.7))))
    if rng.random() < 0.25:
        knots = np.concatenate([[0.0], np.cumsum(rng.uniform(0.2, 1.0, size=5))])
        y = np.interp(y, np.linspace(0, 1, 6), knots / knots[-1], right=1.0)
        altered = True
    if rng.random() < 0.15:
        # Tissue turns dark-for-bright but air stays air: the curve rises steeply, then falls.
        rise = rng.uniform(0.05, 0.15)
        y = np.minimum(y / rise, 1.0) * (1.0 - rng.uniform(0.6, 0.95) * np.clip(y, 0, 1))
        altered = True
    return (y * rng.uniform(0.7, 1.05)).astype(np.float32), altered


def _bias(rng: np.random.Generator) -> NDArray[np.float32]:
    """Coefficients up to total degree `BIAS_DEGREE`, as MONAI's RandBiasField has them; no constant."""
    coefficients = rng.normal(0, BIAS_DEVIATION, (BIAS_DEGREE + 1,) * 3)
    degree = np.indices(coefficients.shape).sum(0)
    return np.where((degree > 0) & (degree <= BIAS_DEGREE), coefficients, 0.0).astype(np.float32)


def _kept(rng: np.random.Generator) -> tuple[float, float]:
    """One axis, the phase-encoded one, or both."""
    first, second = rng.uniform(LEAST_KEPT, 1.0, size=2)
    return (float(first), float(second) if rng.random() < 0.5 else 1.0)
