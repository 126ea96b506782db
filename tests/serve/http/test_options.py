"""What a client may ask: texts of a query and JSON's own types mean the same; what has no sense is refused."""

from __future__ import annotations

from typing import Any

import pytest

from eyas.serve.errors import ServeError
from eyas.serve.http.options import asked, from_query


def test_a_query_and_json_mean_the_same() -> None:
    query = [("conf", "0.5"), ("classes", "a, b"), ("max_detections", "7"), ("timeout", "2"), ("priority", "batch")]
    fields = {"conf": 0.5, "classes": ["a", "b"], "max_detections": 7, "timeout": 2, "priority": "batch"}
    found = from_query(query)
    assert found == asked(fields)
    assert (found.options.classes, found.options.max_detections, found.lane) == (("a", "b"), 7, "batch")
    assert asked({}) == from_query([])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"clases": "a"}, "did you mean 'classes'"),
        ({"boxes": 1}, "the fields are model, version, conf"),
        ({"conf": None}, "null"),
        ({"conf": True}, "number"),
        ({"conf": "١"}, "number"),
        ({"iou": [0.5]}, "number"),
        ({"max_detections": 1.5}, "whole"),
        ({"max_detections": float("inf")}, "whole"),
        ({"model": 3}, "text"),
        ({"classes": [1]}, "list of names"),
        ({"priority": "high"}, "interactive, stream, batch"),
    ],
)
def test_what_has_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ServeError, match=words) as error:
        asked(fields)
    assert error.value.kind == "invalid"


def test_a_field_may_be_given_once() -> None:
    with pytest.raises(ServeError, match="given twice"):
        from_query([("conf", "0.1"), ("conf", "0.1")])
