"""Reason codes are stable and known."""

from __future__ import annotations

import pickle

import pytest

from medld import errors
from medld.errors import CODES, GridError, InputError, LabelMapError, MedldError


def all_errors() -> list[type[MedldError]]:
    """Every error class of medld."""
    return [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, MedldError)]


@pytest.mark.parametrize("kind", all_errors())
def test_every_error_has_a_known_code_and_stands_in_the_drawing(kind: type[MedldError]) -> None:
    assert kind("x").code in CODES
    assert kind.__name__ in (errors.__doc__ or "")


def test_a_code_given_where_it_is_raised_wins() -> None:
    assert InputError("cut", "E_TRUNC").code == "E_TRUNC"
    assert InputError.code == "E_NOT_IMAGE"


def test_the_code_survives_the_way_out_of_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(InputError("cut", "E_TRUNC")))
    assert (type(error), str(error), error.code) == (InputError, "cut", "E_TRUNC")


def test_callers_can_catch_them_together() -> None:
    assert issubclass(GridError, MedldError)
    assert issubclass(LabelMapError, InputError)
