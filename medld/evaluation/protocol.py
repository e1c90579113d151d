"""Protocol: how a fine volume (the truth) becomes a coarse scan, as a frozen file that anybody can repeat.

    axes            through-plane: thick slices along one array axis; isotropic: coarse voxels
    ratio           slice spacing in voxels of the truth; or slice_thickness_mm and gap_mm, of which it follows
    thickness       FWHM of a slice in slice spacings
    profile         gaussian, box (a box as thick as the spacing is a block mean), slr; sinc: k-space cut to what
                    the coarse voxels hold
    noise           of the scan's 99.9th percentile
    crop            whole slices: the truth is cut to the first round(k r) voxels, so that outer faces agree
    mask            where the figures are taken: foreground, the truth above 5 % of its 99.5th percentile
    data_range      truth: its largest minus its smallest value; outputs are clipped to it
    told            profile and thickness that a restoration is told, where they are not the true ones
    lesions         spheres and rods, bright and dark, that are put into the truth before it is imaged

The three profiles that a restoration knows are told as they are. No one of them is k-space's: an ideal low-pass
passes everything up to the scan's Nyquist frequency, and what is restored after a profile that damps it gets too
sharp. `kspace-2x` tells the box, the least wrong of them: on four T1w, T2w and FLAIR scans of medld-mri-train B loses
.27 to .62 dB against cubic with it, and 3.7 to 5.7 dB with the Gaussian that is told by default.

`simulate.py` does what a protocol says. Source: reference design, section 6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medld.acquisition import Profile
from medld.config import Schema, read_config
from medld.errors import ConfigError, InputError

FOLDER = Path(__file__).parents[1] / "protocols"

SMALLEST_RATIO, LARGEST_RATIO = 1.2, 8.0
"""What networks know; see `medld.geometry.choose_target`."""


class ToldConfig(Schema):
    """The acquisition that a restoration is told; `thickness` in slice spacings."""

    profile: Profile
    thickness: float = Field(1.0, gt=0, le=3)


class LesionsConfig(Schema):
    """Lesions of every diameter, mm: bright and dark spheres and rods, `copies` of each, and as many controls."""

    diameters_mm: tuple[Annotated[float, Field(gt=0, le=50)], ...] = Field((2.0, 3.0, 4.0, 6.0, 8.0), min_length=1)
    copies: int = Field(1, ge=1, le=100)
    contrast: float = Field(0.3, gt=0, le=1)
    """In parts of the tissue's range, .5th to 99.5th percentile."""
    seed: int = Field(0, ge=0)

    @property
    def count(self) -> int:
        """Lesions in a scan."""
        return 4 * self.copies * len(self.diameters_mm)


class ProtocolConfig(Schema):
    """How a truth becomes a scan. A shipped one never changes once figures rest on it: add another."""

    name: str = Field(min_length=1)
    axes: Literal["through-plane", "isotropic"]
    axis: Literal[0, 1, 2] = 2
    """Array axis across the slices, of `through-plane`."""
    ratio: float | None = Field(None, ge=SMALLEST_RATIO, le=LARGEST_RATIO)
    slice_thickness_mm: float | None = Field(None, gt=0)
    gap_mm: float | None = None
    """Between slices; negative where they overlap."""
    thickness: float = Field(1.0, gt=0, le=3)
    profile: Literal["gaussian", "box", "slr", "sinc"] = "gaussian"
    noise: float = Field(0.0, ge=0, lt=1)
    """Standard deviation, as a fraction of the scan's 99.9th percentile; Rician, for CT Gaussian."""
    seed: int = Field(0, ge=0)
    crop: Literal["whole slices"] = "whole slices"
    mask: Literal["foreground"] = "foreground"
    data_range: Literal["truth"] = "truth"
    told: ToldConfig | None = None
    lesions: LesionsConfig | None = None

    @model_validator(mode="after")
    def _one_way_to_say_the_ratio(self) -> ProtocolConfig:
        in_mm = self.slice_thickness_mm is not None
        if in_mm == (self.ratio is not None):
            raise ValueError("expected either ratio or slice_thickness_mm with gap_mm, got both or neither")
        if in_mm and self.thickness != 1:
            raise ValueError("expected thickness (slice spacings) with ratio alone, slice_thickness_mm says it in mm")
        if not in_mm and self.gap_mm is not None:
            raise ValueError("expected gap_mm with slice_thickness_mm alone; with ratio, thickness below 1 is a gap")
        if self.slice_thickness_mm is not None and self.slice_thickness_mm + (self.gap_mm or 0) <= 0:
            raise ValueError("expected slices some way apart, gap_mm takes away all of their thickness")
        return self

    @model_validator(mode="after")
    def _k_space_needs_to_be_told_of(self) -> ProtocolConfig:
        if self.profile == "sinc" and (self.told is None or self.thickness != 1 or self.slice_thickness_mm is not None):
            raise ValueError("expected, with profile sinc, ratio, no thickness, and told: restorations do not know it")
        return self

    @property
    def consistency(self) -> Literal["exact", "auto"]:
        """The projection that a fair comparison asks for: a noisy scan must not be reproduced exactly."""
        return "auto" if self.noise else "exact"

    @property
    def coarse_axes(self) -> tuple[int, ...]:
        """Array axes along which the scan is coarse."""
        return (0, 1, 2) if self.axes == "isotropic" else (self.axis,)

    def ratio_on(self, spacing: float) -> float:
        """Slice spacing in voxels of a truth whose voxels are `spacing` mm apart.

        Raises:
            InputError: It is none that can be restored (E_NOTHING_TO_DO).
        """
        if self.ratio is not None:
            return self.ratio
        assert self.slice_thickness_mm is not None, "the schema asks for one of the two"
        ratio = (self.slice_thickness_mm + (self.gap_mm or 0.0)) / spacing
        if not SMALLEST_RATIO <= ratio <= LARGEST_RATIO:
            raise InputError(
                f"Expected voxels that make {SMALLEST_RATIO:g} to {LARGEST_RATIO:g} of the slice spacing of "
                f"{self.name}, got {ratio:.3g} of {spacing:.4g} mm. Choose another protocol for this scan.",
                "E_NOTHING_TO_DO",
            )
        return ratio

    def thickness_in(self, slice_spacing: float) -> float:
        """FWHM in slice spacings of slices that are `slice_spacing` mm apart."""
        return self.thickness if self.slice_thickness_mm is None else self.slice_thickness_mm / slice_spacing

    @property
    def told_profile(self) -> Profile:
        """The slice profile that a restoration is told."""
        if self.told is not None:
            return self.told.profile
        assert self.profile != "sinc", "the schema asks for what is told instead"
        return self.profile

    def told_thickness_mm(self, slice_spacing: float) -> float | None:
        """The slice thickness that a restoration is told, mm; None where it is the spacing, which is its default."""
        if self.told is None and self.slice_thickness_mm is not None:
            return self.slice_thickness_mm
        told = self.thickness if self.told is None else self.told.thickness
        return None if told == 1 else told * slice_spacing


def list_protocols() -> tuple[str, ...]:
    """Names of the protocols that ship with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_protocol(name: str) -> ProtocolConfig:
    """The shipped protocol of that name, or the one in a YAML file.

    Raises:
        ConfigError: If there is no such protocol, or the file does not fit the schema.
    """
    if name in list_protocols():
        return read_config(FOLDER / f"{name}.yaml", ProtocolConfig)
    if name.endswith((".yaml", ".yml")):
        return read_config(Path(name), ProtocolConfig)
    raise ConfigError(f"Expected a protocol out of {', '.join(list_protocols())}, or a .yaml file, got '{name}'.")
