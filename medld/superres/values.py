"""What is asked of a SuperResolver and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from medld.acquisition import Acquisition, AxisAcquisition, Profile
from medld.geometry import Grid, Target
from medld.scratch import Scratch
from medld.volume import Volume

Consistency = Literal["auto", "exact", "gated", "off"]
Mode = Literal["fidelity", "balanced", "detail"]
Flips = Literal[1, 2, 4, 8]


@dataclass(frozen=True)
class Request:
    """What to make of a scan, see `medld enhance --help`; `thickness` in mm per array axis, None = the spacing.

    `flips` (1, 2, 4 or 8): the one-step answer is the mean of those to so many mirrored copies of the scan.

    Sample d of `samples`, counted from 0, is what `realism` 1 gives with the seed `seed` + d. `scratch` says where what
    is too large for memory lies meanwhile.
    """

    target: Target
    thickness: tuple[float | None, float | None, float | None] = (None, None, None)
    profile: Profile = "gaussian"
    consistency: Consistency = "auto"
    mode: Mode = "fidelity"
    realism: float | None = None
    steps: int | None = None
    samples: int = 1
    flips: int = 1
    seed: int = 0
    memory_gib: float | None = None
    scratch: Scratch = field(default_factory=Scratch)

    def acquisition_of(self, grid: Grid, axis: int) -> AxisAcquisition | None:
        """How the scan on `grid` sampled one array axis; None if the target leaves it alone."""
        if axis not in self.target.axes:
            return None
        thickness = self.thickness[axis]
        spacings = 1.0 if thickness is None else thickness / grid.spacing[axis]
        return AxisAcquisition(self.target.grid.shape[axis], grid.shape[axis], spacings, self.profile)

    def acquisition(self, grid: Grid) -> Acquisition:
        """How the scan on `grid` sampled the target's grid."""
        i, j, k = (self.acquisition_of(grid, axis) for axis in range(3))
        return Acquisition((i, j, k), slice_axis=self.target.axes[0])


@dataclass(frozen=True)
class Restoration:
    """The result: `volume` and, of samples, `mean` and `spread` (standard deviation), or None, in scanner units on the
    target grid.

    `noise` is the scan's, in its units, 0 where none stands out; `timings` are seconds per stage.
    """

    volume: Volume
    mean: Volume | None
    spread: Volume | None
    noise: float
    method: str
    precision: str
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Residual:
    """Re-imaged output minus scan: RMS and largest in scanner units, RMS relative to the scan's noise and range."""

    rms: float
    largest: float
    relative_to_noise: float | None
    relative_to_range: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """One where the noise does not explain it."""
        if self.relative_to_noise is None or self.relative_to_noise <= 1:
            return ()
        return (
            f"W_RESIDUAL: imaged again, the result differs from the scan by {self.relative_to_noise:.2f} times its "
            "noise: perhaps its slices are thinner, or have sharper edges, than they were taken for; try "
            "--slice-profile auto or --slice-thickness",
        )
