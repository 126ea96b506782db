"""The whole server on real sockets: slow and lying clients, streams, TLS, drain, the admin's port."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from tests.serve.fake import FakeEngine, encoded, make_image
from tests.serve.processes import wait_until
from tests.serve.running import Running, running
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from eyas.errors import UserError
from eyas.serve.errors import ServeError
from eyas.serve.launch import named
from eyas.serve.limits import Limits
from eyas.serve.observe.events import EventSettings
from eyas.serve.security import Keys, hash_key, new_key, read_keys
from eyas.serve.server_settings import ServerSettings

FILE = encoded()
LIMITS = Limits(
    body=100_000, headers=4000, header_seconds=1.0, body_seconds=1.0, idle_seconds=3.0, connections=40, images=8
)
TOKEN = "a token of the admin's"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(FakeEngine, limits=LIMITS, admin_port=0, admin_token=TOKEN) as started:
        yield started


def raw(server: Running, *parts: bytes, pause: float = 0.0, seconds: float = 60.0) -> bytes:
    """Send the parts over a bare connection and return everything that comes back until it closes."""
    host, _, port = server.addresses.rest.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
                if select.select([connection], [], [], pause)[0]:
                    break  # the server has spoken; to go on sending would make the system throw its words away
            while data := connection.recv(65_536):
                answer += data
        except (TimeoutError, ConnectionError):
            pass
        return answer


HEAD = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


def test_an_image_is_answered(server: Running) -> None:
    answer = httpx.post(f"{server.url}/v1/detect", content=FILE, headers={"content-type": "image/png"})
    assert answer.json()["detections"][0]["box"] == [8, 4, 40, 24]
    assert "server" not in answer.headers


def test_a_dripping_body_is_cut_off(server: Running) -> None:
    answer = raw(server, HEAD + b"Content-Length: 50\r\n\r\n", *[b"x"] * 20, pause=0.1)
    assert answer.startswith(b"HTTP/1.1 408") and b"connection: close" in answer.lower()


def test_a_dripping_chunked_body_is_cut_off(server: Running) -> None:
    answer = raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 20, pause=0.1)
    assert answer.startswith(b"HTTP/1.1 408")


def test_dripping_headers_are_cut_off(server: Running) -> None:
    assert raw(server, b"GET /livez HTTP/1.1\r\n", *[b"X-A: b\r\n"] * 20, pause=0.1).startswith(b"HTTP/1.1 408")
    assert raw(server).startswith(b"HTTP/1.1 408")  # a connection on which nothing comes


def test_endless_headers_are_cut_off(server: Running) -> None:
    endless = (b"X-%d: %s\r\n" % (number, b"a" * 500) for number in range(100))
    answer = raw(server, b"GET /livez HTTP/1.1\r\n", *endless)
    assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")) or answer == b""


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: -5\r\n\r\nabc",
        b"Content-Length: abc\r\n\r\nabc",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        b"Bad Header\r\n\r\n",
        b"Transfer-Encoding: gzip\r\n\r\nabc",
    ],
)
def test_lies_about_the_body_are_refused(server: Running, lines: bytes) -> None:
    assert raw(server, HEAD + lines).startswith((b"HTTP/1.1 400", b"HTTP/1.1 408", b"HTTP/1.1 501"))


def test_an_announced_body_that_is_too_large_is_refused_unread(server: Running) -> None:
    answer = raw(server, HEAD + b"Content-Length: 99999999999\r\n\r\nab")
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_host_that_is_not_ours_is_refused(server: Running) -> None:
    assert httpx.get(f"{server.url}/livez", headers={"host": "rebound.example"}).status_code == 403


def test_a_client_that_goes_away_frees_its_place(server: Running) -> None:
    engine: Any = server.server.engine
    engine.hold = server.call(asyncio.Event)
    before, seen = engine.cancelled, len(engine.seen)
    try:
        host, _, port = server.addresses.rest.rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(HEAD + f"Content-Length: {len(FILE)}\r\n\r\n".encode() + FILE)
            assert wait_until(lambda: len(engine.seen) > seen)
        assert wait_until(lambda: engine.cancelled == before + 1)
    finally:
        server.call(engine.hold.set)
        engine.hold = None


def test_a_client_that_goes_away_in_its_body_is_no_fault_of_the_server(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    raw(server, HEAD + b"Content-Length: 50\r\n\r\nx", seconds=0.1)
    assert httpx.get(f"{server.url}/livez").status_code == 200
    time.sleep(0.1)
    assert "Traceback" not in caplog.text and not [each for each in caplog.records if each.levelname == "ERROR"]


def test_too_many_connections_are_told_to_come_back(server: Running) -> None:
    host, _, port = server.addresses.rest.rpartition(":")
    held = [socket.create_connection((host, int(port))) for _ in range(LIMITS.connections + 3)]
    try:
        held[-1].settimeout(60)
        answer = held[-1].recv(1000)
        assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer
    finally:
        for each in held:
            each.close()


def frames(server: Running, query: str = "", **options: Any) -> Any:
    return connect(f"ws://{server.addresses.rest}/v1/stream{query}", **options)


def test_frames_are_answered_in_order(server: Running) -> None:
    with frames(server, "?conf=0.5&model=shapes") as stream:
        for left in (0, 10, 20):
            stream.send(encoded(make_image(box=(left, 4, left + 8, 24))))
            answer = json.loads(stream.recv())
            assert (answer["frame"], answer["detections"][0]["box"][0]) == (left // 10, left)
        stream.send(b"no image")
        assert json.loads(stream.recv())["kind"] == "unprocessable"
        stream.send(FILE)
        assert json.loads(stream.recv())["frame"] == 4


def test_a_newer_frame_overtakes(server: Running) -> None:
    engine: Any = server.server.engine
    engine.hold = server.call(asyncio.Event)
    with frames(server) as stream:
        for _ in range(3):
            stream.send(FILE)
        first = [json.loads(stream.recv()) for _ in range(2)]
        server.call(engine.hold.set)
        last = json.loads(stream.recv())
    engine.hold = None
    assert first == [{"frame": 0, "dropped": True}, {"frame": 1, "dropped": True}]
    assert last["frame"] == 2 and last["detections"]


def test_a_stream_ends_for_its_reasons(server: Running) -> None:
    with pytest.raises(ConnectionClosed) as caught, frames(server) as stream:
        stream.send("text")
        stream.recv()
    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1003
    with pytest.raises(ConnectionClosed) as caught, frames(server) as stream:
        stream.recv()  # idle
    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1008
    with pytest.raises(ConnectionClosed), frames(server) as stream:
        stream.send(b"\0" * (LIMITS.body + 1))
        stream.recv()
    for options in ({"origin": "https://evil.org"}, {}):
        with pytest.raises(InvalidStatus), frames(server, "" if options else "?conf=7x", **options):
            pass


def test_the_admin_loads_unloads_and_flips(server: Running) -> None:
    admin = httpx.Client(base_url=f"http://{server.addresses.admin}", headers={"authorization": f"Bearer {TOKEN}"})
    with admin:
        assert [each["version"] for each in admin.post("/v2/repository/index").json()] == ["1", "2"]
        unload = {"parameters": {"version": "1"}}
        assert admin.post("/v2/repository/models/shapes/unload", json=unload).status_code == 200
        listed = admin.post("/v2/repository/index", json={"ready": True}).json()
        assert [each["version"] for each in listed] == ["2"]
        assert admin.post("/v2/repository/models/shapes/load", json=unload).json() == {"name": "shapes", "version": "1"}
        flipped = admin.put("/v1/models/shapes/aliases/champion", json={"version": "1"})
        assert flipped.json() == {"name": "shapes", "alias": "champion", "version": "1"}
        query = f"{server.url}/v1/detect?version=@champion"
        assert httpx.post(query, content=FILE, headers={"content-type": "image/png"}).json()["model"]["version"] == "1"
        for path, content, status in (
            ("gone/load", {}, 404),
            ("shapes/load", {"parameters": {"file:1/model.onnx": "AAAA"}}, 400),
            ("shapes/load", {"parameters": {"config": "{}"}}, 400),
            ("shapes/load", {"parameters": 3}, 400),
        ):
            assert admin.post(f"/v2/repository/models/{path}", json=content).status_code == status, path
        assert admin.put("/v1/models/shapes/aliases/x", json={"version": "77"}).status_code == 404


@pytest.mark.parametrize(
    "alias",
    ["Champion", "latest", "v1", "1st", "a b", "a.b", "a%2Fb", "..%2Fa", "a%00", "a%1B%5B31m", "a%0Ab", "%C3%A9",
     "a" * 65, "-a", "@a", "%E2%80%AEa", "a%ED%A0%80"],
)  # fmt: skip
def test_an_alias_over_the_admins_port_is_one_of_the_registry(server: Running, alias: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    url = f"http://{server.addresses.admin}/v1/models/shapes/aliases/{alias}"
    answer = httpx.put(url, json={"version": "2"}, headers=headers)
    assert answer.status_code in (400, 404), "404: a slash makes another address of it"
    assert answer.text.isprintable()
    assert not any("\x1b" in text for text in httpx.get(f"{server.url}/v1/models").text)


@pytest.mark.parametrize("version", ["../1", "1/2", "1\n", "\x1b[31m1", "x" * 65, "-1", "@champion\0", "é"])
@pytest.mark.parametrize("path", ["/v1/models/shapes/aliases/best", "/v2/repository/models/shapes/load"])
def test_a_version_over_the_admins_port_is_one(server: Running, version: str, path: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    method, body = ("PUT", {"version": version}) if "alias" in path else ("POST", {"parameters": {"version": version}})
    answer = httpx.request(method, f"http://{server.addresses.admin}{path}", json=body, headers=headers)
    assert answer.status_code == 404 and "x1b" not in answer.text


def test_the_admin_needs_a_token_and_a_port_of_its_own(server: Running) -> None:
    index = "/v2/repository/index"
    assert httpx.post(f"http://{server.addresses.admin}{index}").status_code == 401
    wrong = {"authorization": "Bearer wrong"}
    assert httpx.post(f"http://{server.addresses.admin}{index}", headers=wrong).status_code == 401
    right = {"authorization": f"Bearer {TOKEN}"}
    assert httpx.post(f"{server.url}{index}", headers=right).status_code == 404
    assert httpx.get(f"http://{server.addresses.admin}/livez").status_code == 200


def test_metrics_tell_what_happened(server: Running) -> None:
    httpx.post(f"{server.url}/v1/detect", content=FILE, headers={"content-type": "image/png"})
    httpx.post(f"{server.url}/v1/detect?model=made-up", content=FILE, headers={"content-type": "image/png"})
    text = httpx.get(f"{server.url}/metrics").text
    for line in (
        'eyas_requests_total{model="shapes",outcome="ok",protocol="rest"}',
        'eyas_requests_total{model="other",outcome="not_found",protocol="rest"}',
        'eyas_stage_seconds_bucket{le="0.005",model="shapes",stage="inference",version="2"}',
        'eyas_batch_images_count{model="shapes",version="2"}',
        'eyas_detections_total{class="bright",model="shapes",version="2"}',
        'eyas_confidence_bucket{le="0.9",model="shapes",version="2"}',
        'eyas_model_ready{model="shapes",version="2"} 1.0',
        "eyas_ready 1.0",
    ):
        assert line in text, line
    assert "made-up" not in text


def test_what_was_accepted_is_answered_when_the_server_ends() -> None:
    answers: list[Any] = []
    with running(FakeEngine, pre_stop=5.0, grace=20.0) as server:
        engine: Any = server.server.engine
        engine.hold = server.call(asyncio.Event)

        def ask() -> None:
            answers.append(
                httpx.post(f"{server.url}/v1/detect", content=FILE, headers={"content-type": "image/png"}, timeout=60)
            )

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(engine.seen) < 4:
            time.sleep(0.01)
        ending = threading.Thread(target=server.call, args=(server.server.stop,))
        ending.start()
        while not server.server.service.phase.draining:
            time.sleep(0.01)
        assert httpx.get(f"{server.url}/readyz").status_code == 503  # before it stops accepting
        with pytest.raises(httpx.TransportError):
            while True:
                assert httpx.get(f"{server.url}/livez").status_code == 200
                time.sleep(0.1)
        server.call(engine.hold.set)
        for thread in (*threads, ending):
            thread.join(60)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert engine.draining


def test_a_port_that_is_taken_is_told() -> None:
    with running(FakeEngine, grpc_port=None) as server:
        port = int(server.addresses.rest.rpartition(":")[2])
        with pytest.raises(UserError, match="can't listen"), running(FakeEngine, port=port, grpc_port=None):
            pass
        with pytest.raises(UserError, match="can't listen"), running(FakeEngine, grpc_port=port):
            pass


@pytest.mark.parametrize("mutual", [False, True])
def test_tls_and_client_certificates(tmp_path: Path, mutual: bool) -> None:
    from tests.serve.certificates import make_certificates

    made = make_certificates(tmp_path)
    with running(FakeEngine, grpc_port=None, tls=made.server(mutual=mutual)) as server:
        url = f"https://{server.addresses.rest}/livez"
        plain = ssl.create_default_context(cafile=str(made.authority))
        known = ssl.create_default_context(cafile=str(made.authority))
        known.load_cert_chain(made.client_certificate, made.client_key)
        assert httpx.get(url, verify=known).status_code == 200
        if mutual:
            with pytest.raises(httpx.TransportError):
                httpx.get(url, verify=plain)
        else:
            assert httpx.get(url, verify=plain).status_code == 200


def test_events_and_access_log_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyas.serve.observe.events.STATISTICS", 1.0)
    events = EventSettings(tmp_path / "events")
    log = tmp_path / "access.jsonl"
    with running(FakeEngine, grpc_port=None, events=events, access_log=str(log)) as server:
        httpx.post(f"{server.url}/v1/detect", content=FILE, headers={"content-type": "image/png", "x-request-id": "a1"})
    event = json.loads((tmp_path / "events" / "events.jsonl").read_text())
    assert (event["id"], event["outcome"], event["model"], event["version"]) == ("a1", "ok", "shapes", "2")
    assert event["images"][0]["classes"] == {"bright": 1} and event["images"][0]["contrast"] > 0.1
    line = json.loads(log.read_text())
    assert (line["id"], line["status"], line["trace"]) == ("a1", 200, event["trace"])


@pytest.mark.parametrize(
    "fields",
    [{"admin_port": 9000}, {"admin_grpc_port": 0, "admin_token": "short"}, {"port": 70_000}, {"grace": -1.0},
     {"port": 9000, "grpc_port": 9000}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        ServerSettings(**fields)


def test_only_loopback_hosts_by_default() -> None:
    assert "localhost" in ServerSettings().allowed_hosts
    assert ServerSettings(host="0.0.0.0").allowed_hosts == frozenset()
    assert ServerSettings(host="0.0.0.0", hosts=frozenset({"a"})).allowed_hosts == {"a"}


def test_keys_are_kept_as_hashes(tmp_path: Path) -> None:
    key, line = new_key("ann")
    path = tmp_path / "keys"
    path.write_text(f"# people\n{line}\n\n")
    keys = read_keys(path)
    assert keys.client({"x-api-key": key}) == "ann" and key not in path.read_text()
    assert keys == Keys({hash_key(key): "ann"})
    with pytest.raises(ServeError):
        Keys({hash_key(""): "nobody"}).client({})
    for wrong in ("ann:abc\n", "# none\n", key):
        path.write_text(wrong)
        with pytest.raises(UserError):
            read_keys(path)


def test_bundles_get_names_and_versions(tmp_path: Path) -> None:
    from tests.serve.bundles import write_bundle

    one, two = write_bundle(tmp_path / "one"), write_bundle(tmp_path / "two")
    found = named([str(one), f"one={two}", f"other={two}"])
    assert [(each.key.name, each.key.version, each.bundle) for each in found] == [
        ("one", "1", one),
        ("one", "2", two),
        ("other", "1", two),
    ]
