from __future__ import annotations

from eyas.serve.api import ModelKey, Request


def test_versions_are_ordered_as_numbers() -> None:
    keys = [ModelKey("b", "1"), ModelKey("a", "10"), ModelKey("a", "x"), ModelKey("a", "9")]
    assert [(key.name, key.version) for key in sorted(keys)] == [("a", "9"), ("a", "10"), ("a", "x"), ("b", "1")]


def test_a_request_needs_little() -> None:
    request = Request("1", "birds", "", (b"\xff\xd8",))
    assert (request.lane, request.timeout, request.stream, dict(request.headers)) == ("interactive", None, "", {})
    assert request.options.confidence is None
