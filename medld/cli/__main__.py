"""`python -m medld.cli` is `medld`."""

from __future__ import annotations

import sys

from medld.cli import main

sys.exit(main())
