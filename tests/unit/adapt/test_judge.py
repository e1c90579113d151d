"""What the judging part says of networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medld.adapt.judge import TESTS, Judgement, judge
from medld.adapt.parts import Cut, cut
from medld.nn.networks import Networks
from medld.superres import Request, SuperResolver
from medld.volume import Volume


class Silent(nn.Module):
    """A network that never corrects anything."""

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Zeros on the profile grid."""
        return torch.zeros(x.shape[0], 8, *x.shape[2:], dtype=x.dtype)


def judged(scan: Volume, request: Request, start: Networks, other: Networks) -> Judgement | None:
    """`start` against interpolation, and `other` against `start`."""
    place = cut(scan, 2)
    assert isinstance(place, Cut)
    restored = SuperResolver(device="cpu").restore(scan, request).volume
    return judge(place, scan, restored, request, start, {1.0: other}, "cpu")


def test_the_same_networks_gain_nothing(scan: Volume, request_for_scan: Request, networks: Networks) -> None:
    result = judged(scan, request_for_scan, networks, networks)
    assert result is not None
    assert [result.blends[1.0][test]["gain_db"] for test in TESTS] == [0.0] * len(TESTS)


def test_networks_lose_to_the_start_what_it_gains_over_none(
    scan: Volume, request_for_scan: Request, networks: Networks
) -> None:
    result = judged(scan, request_for_scan, networks, Networks(one_step=Silent()))
    assert result is not None
    for test in TESTS:
        assert result.blends[1.0][test]["gain_db"] == pytest.approx(-result.start[test]["gain_db"], abs=1e-3)


def test_only_the_judging_part_counts(scan: Volume, request_for_scan: Request, networks: Networks) -> None:
    place = cut(scan, 2)
    assert isinstance(place, Cut)
    restored = SuperResolver(device="cpu").restore(scan, request_for_scan).volume
    other = scan.with_array(np.where(np.arange(scan.grid.shape[0])[:, None, None] < place.place, 7, scan.array))
    results = [
        judge(place, volume, restored, request_for_scan, networks, {1.0: networks}, "cpu") for volume in (scan, other)
    ]
    assert results[0] == results[1]


def test_air_says_nothing(scan: Volume, request_for_scan: Request, networks: Networks) -> None:
    place = cut(scan, 2)
    assert isinstance(place, Cut)
    empty = scan.with_array(np.zeros_like(scan.array))
    restored = SuperResolver(device="cpu").restore(scan, request_for_scan).volume
    assert judge(place, empty, restored, request_for_scan, networks, {1.0: networks}, "cpu") is None
