"""UIDs of results: valid, the same for the same job, and for no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from dicom_factory import make_enhanced, make_series
from dicom_result import only_series
from hypothesis import given
from hypothesis import strategies as st

from medld.io.dicom import list_series
from medld.io.dicom.uids import derive_instance_uid, derive_series_uid, hash_to_uid

# PS3.5 9.1: components without leading zeros.
UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(st.lists(plain_values, max_size=4))
def test_every_uid_is_valid(parts: list[Any]) -> None:
    uid = hash_to_uid(*parts)
    assert UID.fullmatch(uid)
    assert len(uid) <= 64


@given(st.dictionaries(st.text(), st.integers(), min_size=2, max_size=5))
def test_the_order_of_settings_does_not_matter(settings: dict[str, int]) -> None:
    assert hash_to_uid(settings) == hash_to_uid(dict(reversed(list(settings.items()))))


def test_a_uid_belongs_to_source_grid_model_settings_and_kind(tmp_path: Path) -> None:
    make_series(tmp_path / "a", slices=4)
    make_series(tmp_path / "b", slices=4, series=2)
    one, other = only_series(tmp_path / "a"), only_series(tmp_path / "b")
    assert one.grid is not None
    fine = one.grid.with_shape((*one.grid.shape[:2], 9))
    jobs: list[tuple[Any, Any, dict[str, str], dict[str, Any], str]] = [
        (one, fine, {"m": "1"}, {"steps": 4}, "image"),
        (other, fine, {"m": "1"}, {"steps": 4}, "image"),
        (one, one.grid, {"m": "1"}, {"steps": 4}, "image"),
        (one, fine, {"m": "2"}, {"steps": 4}, "image"),
        (one, fine, {"m": "1"}, {"steps": 5}, "image"),
        (one, fine, {"m": "1"}, {"steps": 4}, "spread"),
    ]
    uids = [derive_series_uid(*job[:4], kind=job[4]) for job in jobs]
    assert len(set(uids)) == len(jobs)
    assert uids == [derive_series_uid(*job[:4], kind=job[4]) for job in jobs]
    instances = {derive_instance_uid(uid, number) for uid in uids for number in range(1, 4)}
    assert len(instances) == 3 * len(jobs)


@pytest.mark.parametrize("echoes", [2, 3])
def test_volumes_of_one_series_become_several_series(echoes: int, tmp_path: Path) -> None:
    make_enhanced(tmp_path / "a.dcm", slices=4, echo_times=[4.6 * (n + 1) for n in range(echoes)])
    volumes = list_series(tmp_path).usable
    assert len({volume.uid for volume in volumes}) == 1
    uids = {derive_series_uid(volume, volume.grid, {}, {}, kind="image") for volume in volumes if volume.grid}
    assert len(uids) == echoes
