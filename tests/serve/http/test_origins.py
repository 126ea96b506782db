"""Who may ask: programs, our own page, and pages of the sites that were named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from tests.serve.fake import FakeEngine, encoded

from eyas.errors import UserError
from eyas.serve.http.app import admin_app, public_app
from eyas.serve.observe.metrics import Metrics
from eyas.serve.security import checked_origin
from eyas.serve.service import Service

FILE = encoded(suffix=".jpg")
STREAM = "ws://eyas.example:8000/v1/stream"
TOKEN = "a token of the admin's"


def served(**more: Any) -> TestClient:
    engine = FakeEngine()
    return TestClient(public_app(Service(engine, Metrics(engine)), **more), base_url="http://eyas.example:8000")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with served() as made:
        yield made


def status(client: TestClient, method: str = "POST", path: str = "/v1/detect", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = {"content-type": "image/jpeg"} if method == "POST" else {}
    return client.request(method, path, content=FILE if kind else None, headers={**kind, **named}).status_code


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "http://evil.example:8000"},
    {"origin": "http://eyas.example"},
    {"origin": "http://eyas.example:9000"},
    {"origin": "http://eyas.example.evil.example:8000"},
    {"origin": "http://user@eyas.example:8000"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "eyas.example:8000"},
    {"origin": "https://evil.example", "sec_fetch_site": "none"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "Same-Origin"},
    {"sec_fetch_site": ""},
    {"origin": "http://eyas.example:8000", "sec_fetch_site": "cross-site"},
    {"origin": "https://evil.example", "forwarded": "for=1.2.3.4;nohost=evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_is_refused_whatever_it_asks(client: TestClient, headers: dict[str, str]) -> None:
    assert status(client, **headers) == 403
    assert status(client, "POST", "/v1/feedback", **headers) == 403
    assert status(client, "POST", "/v2/models/shapes/infer", **headers) == 403
    for path in ("/v1/models", "/metrics", "/livez", "/openapi.json"):
        assert status(client, "GET", path, **headers) == 403, path
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(STREAM, headers=named),
    ):
        pass


OWN = [
    {},
    {"sec_fetch_site": "none"},
    {"sec_fetch_site": "same-origin"},
    {"origin": "http://eyas.example:8000"},
    {"origin": "HTTP://Eyas.Example:8000"},
    {"origin": "http://eyas.example:8000", "sec_fetch_site": "same-origin"},
    {"origin": "https://outside.example", "sec_fetch_site": "same-origin"},  # behind a proxy, and the browser says so
    {"origin": "https://outside.example", "x_forwarded_host": "outside.example"},
    {"origin": "https://outside.example", "x_forwarded_host": "outside.example:443, inner"},
    {"origin": "https://outside.example", "forwarded": 'for=1.2.3.4;host="outside.example";proto=https'},
]


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_programs_and_our_own_page_are_answered(client: TestClient, headers: dict[str, str]) -> None:
    assert status(client, **headers) == 200
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with client.websocket_connect(STREAM, headers=named) as stream:
        stream.send_bytes(FILE)
        assert stream.receive_json()["frame"] == 0


def test_a_link_leads_to_the_page_and_nowhere_else(client: TestClient) -> None:
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert status(client, "GET", "/", **link) == 200
    assert status(client, "GET", "/v1/models", **link) == 403
    assert status(client, "POST", "/", **link) == 403


def test_a_default_port_may_be_left_out() -> None:
    engine = FakeEngine()
    app = public_app(Service(engine, Metrics(engine)))
    with TestClient(app, base_url="http://eyas.example") as client:
        assert status(client, origin="http://eyas.example:80") == 200
        assert status(client, host="eyas.example:80", origin="http://eyas.example") == 200
        assert status(client, origin="https://eyas.example:80") == 403


@pytest.mark.parametrize("origins", [{"https://good.example"}, {"*"}, {"null", "https://good.example"}])
def test_pages_of_named_sites_may_ask_and_read(origins: set[str]) -> None:
    with served(origins=frozenset(origins)) as client:
        headers = {"origin": "https://good.example", "sec-fetch-site": "cross-site", "content-type": "image/jpeg"}
        answer = client.post("/v1/detect", content=FILE, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] in ("https://good.example", "*")
        asked = {"origin": "https://good.example", "access-control-request-method": "POST",
                 "access-control-request-headers": "content-type, x-api-key"}  # fmt: skip
        assert client.options("/v1/detect", headers=asked).status_code == 200
        refused = client.post("/v1/detect?conf=7", content=FILE, headers=headers)
        assert refused.status_code == 400 and refused.headers["access-control-allow-origin"], "the page can read why"
        evil = status(client, origin="https://evil.example", sec_fetch_site="cross-site")
        assert evil == (200 if "*" in origins else 403)
        assert status(client, origin="null") == (403 if origins == {"https://good.example"} else 200)


def test_the_admins_port_is_for_no_page() -> None:
    engine = FakeEngine()
    app = admin_app(Service(engine, Metrics(engine)), TOKEN)
    with TestClient(app) as client:
        path, token = "/v2/repository/index", {"authorization": f"Bearer {TOKEN}"}
        assert client.post(path, headers=token).status_code == 200
        assert client.post(path, headers={**token, "origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize("text", ["*", "null", "https://a.example", "http://127.0.0.1:3000", "http://[::1]:80"])
def test_an_origin_can_be_named(text: str) -> None:
    assert checked_origin(text) == text


@pytest.mark.parametrize("text", ["a.example", "https://", "https://a.example/", "https://a b", "", "https://*"])
def test_what_is_no_origin_is_told(text: str) -> None:
    with pytest.raises(UserError, match="not an origin"):
        checked_origin(text)
