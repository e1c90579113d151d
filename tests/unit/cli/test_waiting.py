"""How threads wait is said before torch is loaded, and the user has the first word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import medld

SEEN = """
import builtins, os, sys
from medld.cli import main

told = []
original = builtins.__import__

def watched(name, *args, **kwargs):
    if name == "torch" and "torch" not in sys.modules:
        told.append((os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY")))
    return original(name, *args, **kwargs)

builtins.__import__ = watched
main(["info"])
print(told[0])
"""


@pytest.mark.parametrize(
    ("own", "seen"),
    [
        ({}, ("10000", None)),
        ({"GOMP_SPINCOUNT": "5"}, ("5", None)),
        ({"OMP_WAIT_POLICY": "active"}, (None, "active")),
    ],
)
def test_torch_finds_how_to_wait(own: dict[str, str], seen: tuple[str | None, str | None]) -> None:
    kept = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = {**kept, **own, "PYTHONPATH": str(Path(medld.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", SEEN], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(seen)
