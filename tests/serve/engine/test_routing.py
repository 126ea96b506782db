"""Which version a request goes to: words, aliases, weights, headers, shadows, as the command line or a file says."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import httpx2 as httpx
import pytest
from tests.serve.bundles import jpeg, write_bundle
from tests.serve.started import started

from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError
from eyas.serve.api import ModelStatus, Request
from eyas.serve.engine.routing import Router, Split, read_routes, splits_of, unknown
from eyas.serve.errors import ServeError

JPEG = {"content-type": "image/jpeg"}
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
        ("", "", "No model is named."),
        ("other", "", "There is no model 'other'."),
        ("shapes", "", "The model 'shapes' has no version that could be loaded."),
    ],
)
def test_what_is_not_there_is_told_in_whole_words(name: str, version: str, words: str) -> None:
    assert unknown(name, version, [ModelKey("shapes", "1")]).message == words


def test_the_command_line_shares_out_and_shadows_are_logged_and_never_returned(tmp_path: Path) -> None:
    bundles = [f"m={write_bundle(tmp_path / name, scale=scale)}" for name, scale in (("a", 1.0), ("b", 0.5))]
    words = [*bundles, "--in-process", "--threads", "1", "--slo", "20000", "--events", str(tmp_path / "events")]
    words += ["--weights", "1=1,2=1", "--sticky", "X-User", "--version-header", "X-Version", "--shadow", "2"]
    asked: dict[str, tuple[str, float]] = {}
    with started(tmp_path, *words) as server, httpx.Client(base_url=server.address("REST"), timeout=60) as client:

        def ask(number: int, **headers: str) -> str:
            head = {**JPEG, "x-request-id": f"r{number}", **headers}
            document = client.post("/v1/detect", content=jpeg(), headers=head).json()
            asked[document["id"]] = (document["model"]["version"], document["detections"][0]["score"])
            return str(document["model"]["version"])

        users = [{ask(3 * user + turn, **{"x-user": f"user {user}"}) for turn in range(3)} for user in range(16)]
        assert all(len(versions) == 1 for versions in users), "a user sees one version"
        assert {version for versions in users for version in versions} == {"1", "2"}
        assert ask(100, **{"x-user": "user 0", "x-version": "2"}) == "2"
        assert ask(101, **{"x-version": "1"}) == "1"
        refused = client.post("/v1/detect", content=jpeg(), headers={**JPEG, "x-version": "7"})
        assert refused.status_code == 404, "who names a version gets it, or is told"
        metrics = client.get("/metrics").text
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    for version, score in asked.values():
        assert score == pytest.approx(200 / 255 / int(version), abs=0.02)
    lines = [json.loads(line) for line in (tmp_path / "events" / "events.jsonl").read_text().splitlines()]
    shadows = [line for line in lines if line["event"] == "shadow" and line["outcome"] == "ok"]
    assert {line["version"] for line in shadows} == {"2"}
    first = {name for name, (version, _) in asked.items() if version == "1"}
    assert shadows and {line["of"] for line in shadows} <= first, "who is answered by 2 needs no copy there"
    answered = Counter(line["id"] for line in lines if line["event"] == "detect" and line["outcome"] == "ok")
    assert answered == Counter(list(asked)), "each request is in the log once, and no shadow is one of them"
    assert all(sum(line["images"][0]["scores"][3:5]) == 1 for line in shadows), "0.39, the second version's score"
    assert 'eyas_shadow_requests_total{model="m",outcome="ok",version="2"}' in metrics


def test_what_cannot_answer_fails_nobody() -> None:
    router = Router({"": Split({"@gone": 1.0, "3": 1.0}, shadows=("@gone", "5", "2", "@challenger"))})
    for number in range(20):
        route = router.route(request(number), STATUSES)
        assert (route.key, route.shadows) == (ONE, (TWO,))


def test_a_user_sees_the_same_version_named_or_not() -> None:
    router = Router({"": Split({"1": 1.0, "2": 1.0}, sticky="x-user")})
    only: tuple[ModelStatus, ...] = STATUSES
    for user in range(10):
        named = request(**{"x-user": str(user)})
        keys = {
            router.route(each, only).key for each in (named, type(named)("x", "", "", (b"",), headers=named.headers))
        }
        assert len(keys) == 1


def test_words_become_splits() -> None:
    found = splits_of(["@champion=9,@challenger=1", "birds:1=0,2=1"], ["@challenger", "birds:3"], "X-User", "X-Version")
    assert found == {
        "": Split({"@champion": 9.0, "@challenger": 1.0}, "x-user", "x-version", ("@challenger",)),
        "birds": Split({"1": 0.0, "2": 1.0}, "x-user", "x-version", ("3",)),
    }
    assert splits_of([], [], "", "") == {} and splits_of([], [], "", "X-Version") == {"": Split(header="x-version")}


@pytest.mark.parametrize(
    "weights", ["1", "1=a", "1=-1", "1=0", "1=nan", "1=inf", "@=1", "latest version=1", "m:=1", "1=1,,2=1"]
)
def test_senseless_shares_are_refused(weights: str) -> None:
    with pytest.raises(UserError):
        splits_of([weights], [], "", "")


@pytest.mark.parametrize(("sticky", "shadow"), [("a b", "1"), ("a\r\nb", "1"), ("a", "x/y"), ("a", "m:")])
def test_senseless_names_are_refused(sticky: str, shadow: str) -> None:
    with pytest.raises(UserError):
        splits_of([], [shadow], sticky, "")


def test_a_file_says_it_for_each_model(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    path.write_text('{"birds": {"weights": {"@champion": 9, "2": 1.5}, "sticky": "X-User", "shadows": ["3"]}}')
    assert read_routes(path) == {"birds": Split({"@champion": 9.0, "2": 1.5}, "x-user", shadows=("3",))}


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '{"m": 1}', '{"m": {"weight": {}}}', '{"m": {"weights": {"1": "9"}}}',
        '{"m": {"weights": {"1": true}}}',
        '{"m": {"weights": [1]}}', '{"m": {"shadows": "2"}}', '{"m": {"sticky": 1}}', '{"m": {"weights": {"x y": 1}}}',
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "routes.json"
    path.write_text(text)
    with pytest.raises(UserError):
        read_routes(path)
    with pytest.raises(UserError):
        read_routes(tmp_path / "gone.json")
