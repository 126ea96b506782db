"""Shares, headers and shadows from the command line to the answers of a server."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import httpx2 as httpx
import pytest
from tests.serve.bundles import jpeg, write_bundle
from tests.serve.engine.test_routing import ONE, STATUSES, TWO, request
from tests.serve.started import started

from eyas.errors import UserError
from eyas.serve.api import ModelStatus
from eyas.serve.engine.routing import Router, Split
from eyas.serve.engine.routing_settings import read_routes, splits_of

KIND = {"content-type": "image/jpeg"}


def test_the_command_line_shares_out_and_shadows_are_logged_and_never_returned(tmp_path: Path) -> None:
    bundles = [f"m={write_bundle(tmp_path / name, scale=scale)}" for name, scale in (("a", 1.0), ("b", 0.5))]
    words = [*bundles, "--in-process", "--threads", "1", "--slo", "20000", "--events", str(tmp_path / "events")]
    words += ["--weights", "1=1,2=1", "--sticky", "X-User", "--version-header", "X-Version", "--shadow", "2"]
    asked: dict[str, tuple[str, float]] = {}
    with started(tmp_path, *words) as server, httpx.Client(base_url=server.address("REST"), timeout=60) as client:

        def ask(number: int, **headers: str) -> str:
            head = {**KIND, "x-request-id": f"r{number}", **headers}
            document = client.post("/v1/detect", content=jpeg(), headers=head).json()
            asked[document["id"]] = (document["model"]["version"], document["detections"][0]["score"])
            return str(document["model"]["version"])

        users = [{ask(3 * user + turn, **{"x-user": f"user {user}"}) for turn in range(3)} for user in range(16)]
        assert all(len(versions) == 1 for versions in users), "a user sees one version"
        assert {version for versions in users for version in versions} == {"1", "2"}
        assert ask(100, **{"x-user": "user 0", "x-version": "2"}) == "2"
        assert ask(101, **{"x-version": "1"}) == "1"
        refused = client.post("/v1/detect", content=jpeg(), headers={**KIND, "x-version": "7"})
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
    assert all(sum(line["pictures"][0]["scores"][3:5]) == 1 for line in shadows), "0.39, the second version's score"
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
