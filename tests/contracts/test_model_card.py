"""The card of every shipped model is of these weights, whole, and small enough for a package."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medld.checkpoint import CARD, SHIPPED, list_models

ROOT = Path(__file__).parents[2]
MOST_PICTURES = 400_000
"""Bytes."""


@pytest.fixture(params=list_models())
def folder(request: pytest.FixtureRequest) -> Path:
    """A shipped model."""
    return SHIPPED / str(request.param)


def test_the_card_is_of_these_weights(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    hashes = json.loads((folder / CARD).read_text(encoding="utf-8"))["sha256"]
    stale = [name for name, sha256 in hashes.items() if sha256 not in text]
    assert not stale, "run pipelines/model_card.py"


def test_every_picture_is_there_and_used(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    used = set(re.findall(r"\]\(([^)]+\.png)\)", text))
    there = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*.png")}
    assert used == set(there)
    assert 0 < sum(there.values()) < MOST_PICTURES


def test_the_readme_leads_to_the_card(folder: Path) -> None:
    assert f"({(folder / 'README.md').relative_to(ROOT).as_posix()})" in (ROOT / "README.md").read_text("utf-8")
