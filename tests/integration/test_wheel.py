"""The wheel works by itself: all that is needed at run time is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import medld

ROOT = Path(__file__).parents[2]
PARTS = ("medld", "configs", "data_cards", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installed wheel; built from a copy, so that nothing old slips in."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in PARTS:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    command = [
        *pip,
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def data_files() -> list[Path]:
    """Everything in the package that is not code, relative to the package."""
    package = ROOT / "medld"
    found = []
    for folder, _, names in os.walk(package, followlinks=True):
        found += [Path(folder, name).relative_to(package) for name in names if not name.endswith((".py", ".pyc"))]
    return sorted(found)


def test_every_data_file_of_the_package_is_in_the_wheel(installed: Path) -> None:
    files = data_files()
    assert Path("py.typed") in files
    assert any(path.parts[0] == "configs" for path in files)
    for path in files:
        assert (installed / "medld" / path).read_bytes() == (ROOT / "medld" / path).read_bytes(), path


def test_every_module_is_in_the_wheel(installed: Path) -> None:
    modules = sorted(path.relative_to(ROOT) for path in (ROOT / "medld").rglob("*.py"))
    assert [path for path in modules if not (installed / path).is_file()] == []


def test_the_installed_command_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import medld, medld.cli; print(medld.__file__); medld.cli.main(['--version'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(installed) in done.stdout, done.stdout + done.stderr
    assert medld.__version__ in done.stdout
