"""Per-scan adaptation: the one-step network tuned on the very scan that it is to restore.

settings   what may be chosen
parts      a scan cut in two: one part teaches, the other judges
lessons    what the teaching part teaches, as draws
tune       the steps, and the weights between start and end
judge      what the judging part says of them
adapt      all of it, and whether to keep it

What fails, and why in-plane validation does not notice: method.md 2.7.
"""

from medld.adapt.adapt import Adapted, adapt
from medld.adapt.settings import AdaptConfig, settings_for

__all__ = ["AdaptConfig", "Adapted", "adapt", "settings_for"]
