"""medld: 3D latent-diffusion super-resolution of MRI and CT scans.

    >>> import medld
    >>> volume, storage = medld.read_volume("scan.nii.gz")  # doctest: +SKIP
    >>> target = medld.choose_target(volume.grid)  # doctest: +SKIP

Names are loaded when first used, so that `import medld` costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medld.checkpoint import load_model
    from medld.errors import MedldError
    from medld.geometry import Grid, Target, choose_target
    from medld.io import read_header, read_volume, write_volume
    from medld.superres import Request, SuperResolver
    from medld.volume import Volume

__version__ = "0.1.0"

# Feature maps in large pages, where torch has not begun yet: to fill them page by page took a fifth of a restoration.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__all__ = [
    "Grid",
    "MedldError",
    "Request",
    "SuperResolver",
    "Target",
    "Volume",
    "__version__",
    "choose_target",
    "load_model",
    "read_header",
    "read_volume",
    "write_volume",
]

_HOMES = {
    "Grid": "geometry",
    "MedldError": "errors",
    "Request": "superres",
    "SuperResolver": "superres",
    "Target": "geometry",
    "Volume": "volume",
    "choose_target": "geometry",
    "load_model": "checkpoint",
    "read_header": "io",
    "read_volume": "io",
    "write_volume": "io",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'medld' has no attribute {name!r}")
    value = getattr(import_module(f"medld.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
