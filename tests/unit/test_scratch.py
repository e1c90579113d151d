"""Scratch: an array beyond a size lies in a file, which leaves nothing behind."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from medld import scratch
from medld.errors import InputError
from medld.scratch import Scratch

MAPS = Path("/proc/self/maps")
SHAPE = (7, 5, 3)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly everything is large."""
    monkeypatch.setattr(scratch, "MAPPED_VOXELS", 100)


def mapped_into(folder: Path) -> bool:
    """Whether this process has a file of a folder in its memory."""
    gc.collect()
    return str(folder) in MAPS.read_text()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [SHAPE, (4, 5, 5)], ids=["mapped", "in memory"])
def test_it_is_an_array_like_any_other(tmp_path: Path, shape: tuple[int, int, int], order: str) -> None:
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    array = Scratch(tmp_path).empty(shape, order=order)  # type: ignore[arg-type]
    array[...] = values
    assert array.dtype == np.float32
    assert array.flags.c_contiguous == (order == "C")
    assert array.flags.f_contiguous == (order == "F")
    assert np.array_equal(array, values)


@pytest.mark.skipif(not MAPS.is_file(), reason="only Linux lists what is mapped")
@pytest.mark.usefixtures("small")
def test_a_large_array_lies_in_a_file_as_long_as_it_lives(tmp_path: Path) -> None:
    in_memory = Scratch(tmp_path).empty((4, 5, 5))
    assert not mapped_into(tmp_path)
    array = Scratch(tmp_path).empty(SHAPE)
    part = array[2:4].T
    del array
    part[...] = 1
    assert mapped_into(tmp_path)
    assert list(tmp_path.iterdir()) == []
    del part
    assert not mapped_into(tmp_path)
    assert in_memory.size == 100


def test_what_the_disk_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="of the output") as caught:
        Scratch(tmp_path).check_room(2.0**80)
    assert caught.value.code == "E_TOO_BIG"
    with pytest.raises(InputError, match="temporary") as caught:
        Scratch().check_room(2.0**80)
    assert caught.value.code == "E_TOO_BIG"
    Scratch(tmp_path).check_room(1.0)
    with pytest.raises(InputError) as caught:
        Scratch(tmp_path).empty((2**20, 2**20, 2**18))
    assert caught.value.code == "E_TOO_BIG"
    assert list(tmp_path.iterdir()) == []
