"""Scope: is this scan one that the model should restore?

fingerprint  a dozen numbers of a scan that say what kind of image it is
domain       their ranges over the scans that the model learned from, a JSON in the model's folder
holdout      slices held out of the scan itself: does the model restore them better than interpolation?
"""

from medld.scope.domain import DOMAIN, Domain, load_domain
from medld.scope.fingerprint import take_fingerprint
from medld.scope.holdout import HeldOut, Restore, halved, hold_out, judge_held_out

__all__ = [
    "DOMAIN",
    "Domain",
    "HeldOut",
    "Restore",
    "halved",
    "hold_out",
    "judge_held_out",
    "load_domain",
    "take_fingerprint",
]
