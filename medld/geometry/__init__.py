"""Where voxels lie (`Grid`), and which grid a scan is brought to (`Target`); numpy only."""

from medld.geometry.grid import Grid, format_mm
from medld.geometry.target import Target, choose_target, coarsest_first, is_isotropic

__all__ = ["Grid", "Target", "choose_target", "coarsest_first", "format_mm", "is_isotropic"]
