"""The architecture holds: imports point one way, and importing costs nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "monai", "nibabel", "SimpleITK", "scipy", "skimage", "pydantic", "pydicom", "rich")


def test_imports_point_one_way() -> None:
    linter = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert linter, "import-linter belongs to the dev extra"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_import_medld_loads_nothing_heavy() -> None:
    code = f"import sys, medld; print([m for m in {('numpy', *HEAVY)!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_values_load_without_torch_and_file_formats() -> None:
    code = f"import sys, medld.io, medld.volume; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
