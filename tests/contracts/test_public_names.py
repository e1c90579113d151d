"""`__all__` says exactly what is there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import medld

ROOT = Path(medld.__file__).parent


def module_names() -> list[str]:
    """Every module of medld, found without importing it."""
    files = sorted(path.relative_to(ROOT.parent) for path in ROOT.rglob("*.py") if path.name != "__main__.py")
    return [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files]


@pytest.mark.parametrize("name", module_names())
def test_every_name_in_all_exists_once(name: str) -> None:
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [])
    assert len(set(public)) == len(public)
    assert [p for p in public if not hasattr(module, p)] == []


def test_every_public_name_of_the_package_is_documented_and_comes_from_medld() -> None:
    for name in medld.__all__:
        value = getattr(medld, name)
        if name != "__version__":
            assert value.__module__.startswith("medld.")
            assert value.__doc__
    assert set(medld.__all__) <= set(dir(medld))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="upscale"):
        medld.upscale  # noqa: B018
