"""Which version a request goes to: words, aliases, weights, headers, shadows."""

from __future__ import annotations

from collections import Counter

import pytest

from eyas.artifacts.model_key import ModelKey
from eyas.serve.api import ModelStatus, Request
from eyas.serve.engine.routing import Router, Split, unknown
from eyas.serve.errors import ServeError

ONE, TWO = ModelKey("birds", "1"), ModelKey("birds", "2")
STATUSES = (
    ModelStatus(ONE, "ready", aliases=("champion",), default=True),
    ModelStatus(TWO, "ready", aliases=("challenger",)),
    ModelStatus(ModelKey("birds", "3"), "draining"),
    ModelStatus(ModelKey("birds", "4"), "unloaded", on_demand=True),
    ModelStatus(ModelKey("birds", "5"), "unloaded"),
)


def request(number: int = 0, version: str = "", **fields: str) -> Request:
    """Return a request with headers."""
    return Request(str(number), "birds", version, (b"",), headers=fields)


@pytest.mark.parametrize(
    ("version", "found"), [("", "1"), ("2", "2"), ("@champion", "1"), ("@challenger", "2"), ("4", "4")]
)
def test_a_request_is_taken_at_its_word(version: str, found: str) -> None:
    assert Router().route(request(version=version), STATUSES).key.version == found


@pytest.mark.parametrize(
    ("version", "kind"), [("3", "unavailable"), ("5", "not_found"), ("6", "not_found"), ("@x", "not_found")]
)
def test_a_version_that_cannot_answer(version: str, kind: str) -> None:
    with pytest.raises(ServeError) as error:
        Router().route(request(version=version), STATUSES)
    assert error.value.kind == kind


def test_a_model_must_be_named_when_there_are_several() -> None:
    several = (*STATUSES, ModelStatus(ModelKey("cats", "1"), "ready", default=True))
    with pytest.raises(ServeError, match="birds, cats"):
        Router().route(Request("1", "", "", (b"",)), several)
    with pytest.raises(ServeError, match="did you mean 'birds'"):
        Router().route(Request("1", "bird", "", (b"",)), several)
    assert Router().route(Request("1", "", "", (b"",)), STATUSES).key == ONE


def test_requests_are_shared_out_by_weight_and_a_client_sees_one_version() -> None:
    router = Router({"birds": Split({"@champion": 3.0, "@challenger": 1.0}, sticky="x-user")})
    counts = Counter(router.route(request(i), STATUSES).key for i in range(4000))
    assert 0.22 < counts[TWO] / 4000 < 0.28
    for user in range(20):
        keys = {router.route(request(i, **{"x-user": str(user)}), STATUSES).key for i in range(20)}
        assert len(keys) == 1


def test_a_header_and_a_version_overrule_the_weights_and_shadows_see_copies() -> None:
    router = Router({"birds": Split({"1": 1.0}, header="x-version", shadows=("@challenger", "1"))})
    assert router.route(request(), STATUSES).shadows == (TWO,)
    chosen = router.route(request(**{"x-version": "@challenger"}), STATUSES)
    assert (chosen.key, chosen.shadows) == (TWO, (ONE,))
    assert router.route(request(version="2"), STATUSES).key == TWO


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("shapes", "7", "The model 'shapes' has no version '7'."),
        ("shapes", "@best", "The model 'shapes' has no alias 'best'."),
        ("shape", "", "There is no model 'shape' (did you mean 'shapes'?)."),
        ("shape", "7", "There is no model 'shape' (did you mean 'shapes'?)."),
        ("", "", "No model was named."),
        ("other", "", "There is no model 'other'."),
        ("shapes", "", "The model 'shapes' has no version that could be loaded."),
    ],
)
def test_what_is_not_there_is_told_in_whole_words(name: str, version: str, words: str) -> None:
    assert unknown(name, version, [ModelKey("shapes", "1")]).message == words
