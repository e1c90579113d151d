"""SuperResolver: a coarse Volume in, a fine Volume out."""

from medld.superres.onto import restore_onto
from medld.superres.resolver import SuperResolver
from medld.superres.values import Consistency, Flips, Mode, Request, Residual, Restoration

__all__ = ["Consistency", "Flips", "Mode", "Request", "Residual", "Restoration", "SuperResolver", "restore_onto"]
