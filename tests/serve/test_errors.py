from __future__ import annotations

from http import HTTPStatus
from typing import get_args

import pytest

from eyas.serve.errors import WIRES, Kind, Refused, ServeError, all_refused


def test_every_kind_has_its_wire() -> None:
    assert set(WIRES) == set(get_args(Kind))


@pytest.mark.parametrize("kind", WIRES)
def test_codes_mean_what_their_names_say(kind: Kind) -> None:
    wire = WIRES[kind]
    assert wire.http == 499 or (wire.http >= 400 and wire.http in set(HTTPStatus))
    assert wire.retry == (wire.http in (429, 503)), "exactly the refusals that pass by themselves invite another try"


def test_an_error_carries_its_wire_and_words() -> None:
    error = ServeError("overloaded", "too much", retry_after=0.5)
    assert (str(error), error.wire.http, error.wire.grpc, error.retry_after) == (
        "too much",
        429,
        "RESOURCE_EXHAUSTED",
        0.5,
    )


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("too_large", "too_large"), "too_large"),
        (("too_large", "unprocessable"), "unprocessable"),
        (("unprocessable", "unavailable"), "unavailable"),
    ],
)
def test_many_refusals_are_one_that_says_whose_fault_it_is(kinds: tuple[Kind, ...], expected: Kind) -> None:
    error = all_refused({number: Refused(kind, f"words {number}") for number, kind in enumerate(kinds)})
    assert (error.kind, error.message) == (expected, "None of the 2 images could be answered. The first: words 0")
