"""How networks do on the part of a scan that taught nothing, on what the scan itself says is true.

    through-plane  its slices, from slices twice as far apart
    in-plane       its pixels along an in-plane axis, from slices as far apart as its own. The part is first restored by
                   the start, so that it looks as a volume does; answers are imaged through the slices again, so that
                   they are compared with what was measured and not with what the start made up

The first notices what harm is done across the slices, but at another scale and ratio, and with voxels of a shape that
networks seldom learn from. The second is at the scale and ratio of the restoration, but notices no harm across the
slices (method.md 2.7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medld.acquisition import AxisAcquisition, along
from medld.adapt.parts import Cut
from medld.nn.networks import Networks
from medld.scope import HeldOut, Restore, halved, judge_held_out
from medld.superres import Request, SuperResolver, restore_onto
from medld.training.validation import Trained
from medld.volume import Volume

THROUGH_PLANE, IN_PLANE = TESTS = ("through_plane", "in_plane")
Gains = Mapping[str, Mapping[str, float]]
"""Of each test the numbers of `judge_held_out`: `gain_db` and `blocks_won`."""


@dataclass(frozen=True)
class Judgement:
    """What the start gains over interpolation, and each blend over the start."""

    start: Gains
    blends: Mapping[float, Gains]

    def record(self) -> dict[str, Any]:
        """As plain values."""
        rows = [{"blend": blend, **_rounded(gains)} for blend, gains in self.blends.items()]
        return {"start": _rounded(self.start), "blends": rows}


@dataclass(frozen=True)
class _Test:
    held: HeldOut
    answer: Callable[[SuperResolver], NDArray[np.float32]]


def judge(
    place: Cut,
    scan: Volume,
    restored: Volume,
    request: Request,
    start: Networks,
    candidates: Mapping[float, Networks],
    device: str,
) -> Judgement | None:
    """How all of them do on the judging part; None where it shows nothing but air.

    Args:
        place: Where the scan is cut.
        scan: The scan.
        restored: What the start makes of it.
        request: What is wanted of it.
        start: The networks before.
        candidates: The networks after, by blend.
        device: As `SuperResolver` takes it.
    """
    gains: dict[float | None, dict[str, Mapping[str, float]]] = {}
    for name, test in _tests(place, scan, restored, request).items():

        def answer(networks: Networks | None, test: _Test = test) -> NDArray[np.float32]:
            return test.answer(SuperResolver(None if networks is None else Trained(networks), device=device))

        of_start = answer(start)
        pairs = [(None, of_start, answer(None)), *((b, answer(n), of_start) for b, n in candidates.items())]
        for blend, model, other in pairs:
            result = judge_held_out(test.held, _constant(model), _constant(other))
            if result is None:
                return None
            gains.setdefault(blend, {})[name] = result
    return Judgement(gains[None], {blend: gains[blend] for blend in candidates})


def _tests(place: Cut, scan: Volume, restored: Volume, request: Request) -> dict[str, _Test]:
    part = place.judging(scan)
    return {
        THROUGH_PLANE: _through_plane(part, place, request),
        IN_PLANE: _in_plane(place, scan, restored, request),
    }


def _through_plane(part: Volume, place: Cut, request: Request) -> _Test:
    held = halved(part, place.axis)
    return _Test(held, lambda engine: restore_onto(engine, request)(held.coarse, held.truth.grid))


def _in_plane(place: Cut, scan: Volume, restored: Volume, request: Request) -> _Test:
    axis, ratio = 3 - place.axis - place.along, request.target.ratios[place.axis]
    slices = int(scan.grid.shape[axis] / ratio)
    length = round(slices * ratio)
    truth, fine = (_first(place.judging(volume), axis, length) for volume in (scan, restored))
    array = along(AxisAcquisition(length, slices).inner_matrix, fine.array, axis - 3)
    held = HeldOut(truth, replace(fine, array=array, grid=fine.grid.with_shape(array.shape)), axis)
    through_slices = request.acquisition(scan.grid)

    def answer(engine: SuperResolver) -> NDArray[np.float32]:
        return np.asarray(through_slices.reimage(restore_onto(engine, request)(held.coarse, fine.grid)))

    return _Test(held, answer)


def _first(volume: Volume, axis: int, count: int) -> Volume:
    """The first `count` voxels along an axis, in float32."""
    shape = list(volume.grid.shape)
    shape[axis] = count
    part = volume.cropped((0, 0, 0), (shape[0], shape[1], shape[2]))
    return part.with_array(np.asarray(part.array, dtype=np.float32))


def _constant(array: NDArray[np.float32]) -> Restore:
    return lambda *_: array


def _rounded(gains: Gains) -> dict[str, dict[str, float]]:
    return {test: {name: round(value, 4) for name, value in row.items()} for test, row in gains.items()}
