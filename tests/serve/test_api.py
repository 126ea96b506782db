from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.artifacts.model_key import ModelKey
from eyas.serve.api import Request, Timing


def test_versions_are_ordered_as_numbers() -> None:
    keys = [ModelKey("b", "1"), ModelKey("a", "10"), ModelKey("a", "x"), ModelKey("a", "9")]
    assert [(key.name, key.version) for key in sorted(keys)] == [("a", "9"), ("a", "10"), ("a", "x"), ("b", "1")]


def test_a_request_needs_little() -> None:
    request = Request("1", "birds", "", (b"\xff\xd8",))
    assert (request.lane, request.timeout, request.stream, dict(request.headers)) == ("interactive", None, "", {})
    assert request.options.confidence is None


@given(st.lists(st.floats(0, 10), min_size=6, max_size=6))
def test_the_stages_add_up_to_no_more_than_the_total(times: list[float]) -> None:
    queue, decode, preprocess, inference, postprocess, total = times
    found = Timing(queue, decode, preprocess, inference, postprocess, total, 2).within_total()
    parts = (found.queue, found.decode, found.preprocess, found.inference, found.postprocess)
    assert sum(parts) <= total + 1e-9 and min(parts) >= 0 and found.total == total
    if sum(times[:5]) <= total:
        assert parts == pytest.approx(times[:5], abs=1e-9)
