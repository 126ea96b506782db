"""`POST /v1/detect` and its neighbours: what they answer, and what they refuse without a 500."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tests.serve.fake import FakeEngine, encoded, make_image

from eyas.decode import decode
from eyas.serve.api import Engine
from eyas.serve.http.app import public_app
from eyas.serve.http.detect import prefers_jpeg
from eyas.serve.limits import Limits
from eyas.serve.observe.events import EventLog, EventSettings
from eyas.serve.observe.metrics import Metrics
from eyas.serve.security import Keys, hash_key
from eyas.serve.service import Service

LIMITS = Limits(body=200_000, images=4, pixels=1_000_000, side=2000, headers=4000)
JPEG = encoded(suffix=".jpg")


def service_of(engine: Engine, **more: Any) -> Service:
    return Service(engine, Metrics(engine), **{"limits": LIMITS, **more})


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def client(engine: FakeEngine) -> Iterator[TestClient]:
    lines: list[dict[str, Any]] = []
    app = public_app(service_of(engine), log=lines.append)
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made


def post(client: TestClient, body: bytes, kind: str = "image/jpeg", query: str = "", **headers: str) -> Any:
    return client.post(f"/v1/detect{query}", content=body, headers={"content-type": kind, **headers})


def test_a_raw_image_is_answered_with_its_detections(client: TestClient) -> None:
    answer = post(client, encoded(), "image/png")
    assert answer.status_code == 200
    body = answer.json()
    assert body["detections"] == [{"box": [8, 4, 40, 24], "score": 0.9, "label": 0, "class": "bright"}]
    assert (body["height"], body["width"], body["model"]) == (48, 64, {"name": "shapes", "version": "2"})
    assert body["id"] == answer.headers["x-request-id"]
    assert body["milliseconds"]["inference"] == 3.0


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_every_way_to_send_an_image_gives_the_same(client: TestClient, suffix: str) -> None:
    data = encoded(suffix=suffix)
    text = base64.b64encode(data).decode()
    answers = [
        post(client, data),  # the bytes tell their kind; the header only says "an image"
        client.post("/v1/detect", json={"image": text}),
        client.post("/v1/detect", json={"image": f"data:image/jpeg;base64,{text}"}),
        client.post("/v1/detect", json={"image": "\n".join(text[i : i + 60] for i in range(0, len(text), 60))}),
        client.post("/v1/detect", json={"image": text.replace("+", "-").replace("/", "_").rstrip("=")}),
        client.post("/v1/detect", files={"file": ("../../etc/passwd", data, "image/jpeg")}),
    ]
    assert [each.status_code for each in answers] == [200] * len(answers)
    assert len({str(each.json()["detections"]) for each in answers}) == 1


def test_options_reach_the_engine_from_query_json_and_form(client: TestClient, engine: FakeEngine) -> None:
    query = "?model=shapes&version=1&conf=0.5&iou=0.4&classes=dark,bright&max_detections=7&suppression=soft"
    assert post(client, JPEG, query=query + "&timeout=2.5&priority=batch").status_code == 200
    fields = {"version": "1", "conf": 0.5, "classes": ["dark", "bright"], "max_detections": 7}
    assert client.post("/v1/detect", json={"image": base64.b64encode(JPEG).decode(), **fields}).status_code == 200
    form = {"version": "1", "conf": "0.5", "classes": "dark,bright", "max_detections": "7"}
    assert client.post("/v1/detect", files={"file": JPEG}, data=form).status_code == 200
    first, *others = engine.seen
    assert (first.lane, first.timeout, first.options.iou, first.options.suppression) == ("batch", 2.5, 0.4, "soft")
    for each in (first, *others):
        assert (each.version, each.options.confidence, each.options.classes) == ("1", 0.5, ("dark", "bright"))
        assert each.options.max_detections == 7


@pytest.mark.parametrize(
    "query",
    ["conf=2", "conf=nan", "conf=1e999", "conf=", "conf=x", "conf=1_0", "iou=-1", "max_detections=0", "timeout=0",
     "max_detections=1.5", "max_detections=1e30", "timeout=1e9", "suppression=hard", "priority=9", "confidence=0.5",
     "conf=0.1&conf=0.2", "classes=unicorn", "conf=%00"],
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_refused(client: TestClient, query: str) -> None:
    answer = post(client, JPEG, query="?" + query)
    assert (answer.status_code, answer.json()["kind"]) == (400, "invalid")


def test_an_unknown_option_is_told_with_the_nearest(client: TestClient) -> None:
    assert "did you mean 'classes'" in post(client, JPEG, query="?clases=a").json()["error"]


@pytest.mark.parametrize("query", ["model=gone", "version=9", "version=-1", "version=999", "version=../1", "version=@x",
                                   "model=..%2Fetc", "model=%00", f"model={'a' * 3000}"])  # fmt: skip
def test_an_unknown_model_is_404(client: TestClient, query: str) -> None:
    assert post(client, JPEG, query="?" + query).status_code == 404


def bomb(height: int, width: int) -> bytes:
    """Return a PNG header that claims a size; no pixel follows."""
    ihdr = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dIHDR" + ihdr + b"\0\0\0\0"


def saved(mode: str, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (64, 48)).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 422),
        (b"no image at all", 422),
        (JPEG[: len(JPEG) // 2], 422),
        (JPEG[:3], 422),
        (bomb(12_000, 12_000), 413),
        (bomb(65_535, 65_535), 413),
        (bomb(1, 65_000), 413),
        (bomb(0, 0), 422),
        (bomb(2**31, 2**31), 413),
        (saved("RGB", "BMP"), 415),
        (saved("RGB", "GIF"), 415),
        (saved("RGB", "TIFF"), 415),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64, 422),
    ],
)
def test_hostile_images_are_refused_before_they_are_decoded(client: TestClient, data: bytes, status: int) -> None:
    assert post(client, data).status_code == status


@pytest.mark.parametrize(
    "data",
    [
        saved("L", "JPEG"),
        saved("CMYK", "JPEG"),
        saved("P", "PNG"),
        saved("RGBA", "PNG"),
        saved("I;16", "PNG"),
        saved("1", "PNG"),
        saved("RGB", "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 48), "red")]),
        saved("RGB", "PNG", save_all=True, append_images=[Image.new("RGB", (64, 48), "red")]),
        saved("RGB", "JPEG") + b"PK\x03\x04" + b"\0" * 100,
        encoded(np.zeros((1, 1, 3), np.uint8)),
    ],
)
def test_odd_images_are_answered(client: TestClient, data: bytes) -> None:
    assert post(client, data).status_code in (200, 422)  # a harmless one, or told to be damaged; never a crash


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b"[]",
        b"null",
        b'{"image": 3}',
        b'{"image": "???"}',
        b'{"image": "aaaa", "image": "bbbb"}',
        b'{"conf": NaN, "image": "aaaa"}',
        b'{"conf": 1e999, "image": "aaaa"}',
        b'{"conf": ' + b"9" * 5000 + b', "image": "aaaa"}',
        b'{"image": "aaaa", "url": "https://a.org/x"}',
        b'{"image": "aaaa", "model": 3}',
        b'{"image": "aaaa", "classes": [1]}',
        b'{"image": "aaaa", "conf": null}',
        b'{"image": "aaaa", "colour": "red"}',
        b'{"a":' * 30_000,
        b"[" * 100_000,
        b'{"image": "\\ud800"}',
    ],
)
def test_broken_json_is_the_senders_fault(client: TestClient, body: bytes) -> None:
    answer = post(client, body, "application/json")
    assert (answer.status_code, answer.json()["kind"]) == (400, "invalid"), answer.text


def test_brackets_in_a_text_are_no_depth(client: TestClient) -> None:
    answer = post(client, b'{"image": "' + b"[" * 500 + b'"}', "application/json")
    assert "base64" in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x\r\n\r\n--x--"),
        ("multipart/form-data; boundary=", b"--\r\n"),
        ("multipart/form-data; boundary=x", b"no parts"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: " + b"b" * 50_000 + b"\r\n\r\n\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x",
         b"".join(b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n1\r\n' % i for i in range(2000))),
        ("multipart/form-data; boundary=" + "x" * 3000, b"--x--"),
    ],
)  # fmt: skip
def test_broken_multipart_is_the_senders_fault(client: TestClient, kind: str, body: bytes) -> None:
    answer = post(client, body, kind)
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("kind", ["", "text/plain", "image/heic", "application/x-www-form-urlencoded"])
def test_another_content_type_is_415(client: TestClient, kind: str) -> None:
    assert post(client, JPEG, kind).status_code == 415


def test_a_compressed_body_is_refused_unread(client: TestClient) -> None:
    assert post(client, JPEG, **{"content-encoding": "gzip"}).status_code == 415


def test_a_body_may_be_too_large_announced_or_not(client: TestClient) -> None:
    large = b"\0" * (LIMITS.body + 1)
    assert post(client, large).status_code == 413
    parts = (large[at : at + 50_000] for at in range(0, len(large), 50_000))  # chunked: no Content-Length
    answer = client.post("/v1/detect", content=parts, headers={"content-type": "image/jpeg"})
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")


def test_large_headers_are_refused(client: TestClient) -> None:
    assert post(client, JPEG, **{"x-long": "a" * 5000}).status_code == 400


def test_the_annotated_image_is_sent_to_who_prefers_it(client: TestClient) -> None:
    answer = post(client, encoded(), "image/png", accept="image/jpeg")
    assert (answer.headers["content-type"], answer.headers["x-eyas-detections"]) == ("image/jpeg", "1")
    image = decode(answer.content)
    assert image.shape == (48, 64, 3)
    drawn = np.abs(image.astype(int) - make_image()).max(axis=2) > 60
    assert drawn.any(), "nothing was drawn"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [("image/jpeg", True), ("*/*", False), ("", False), ("image/jpeg;q=0.5, application/json", False),
     ("application/json;q=0.1, image/jpeg", True), ("text/html, image/avif, */*;q=0.8", False),
     ("image/jpeg;q=x", False)],
)  # fmt: skip
def test_accept_is_weighed(accept: str, expected: bool) -> None:
    assert prefers_jpeg(accept) is expected


def test_a_batch_keeps_the_order(client: TestClient) -> None:
    files = [encoded(make_image(box=(at, 4, at + 10, 24))) for at in (0, 10, 20)]
    body = {"images": [base64.b64encode(each).decode() for each in files], "conf": 0.5}
    json = client.post("/v1/detect/batch", json=body).json()
    form = client.post("/v1/detect/batch", files=[("files", each) for each in files]).json()
    for answer in (json, form):
        assert [each["detections"][0]["box"][0] for each in answer["images"]] == [0, 10, 20]


def test_a_batch_has_limits(client: TestClient) -> None:
    text = base64.b64encode(JPEG).decode()
    assert client.post("/v1/detect/batch", json={"images": [text] * 5}).status_code == 413
    assert client.post("/v1/detect/batch", json={"images": []}).status_code == 400
    assert client.post("/v1/detect/batch", files=[("f", JPEG)] * 5).status_code == 400
    assert post(client, JPEG, query="/batch").status_code == 415


def test_overload_says_when_to_come_back(client: TestClient, engine: FakeEngine) -> None:
    engine.welcome = False
    answer = post(client, JPEG)
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["kind"]) == (429, "3", "overloaded")
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json(), ready.headers["retry-after"]) == (503, {"ready": False}, "1")
    assert client.get("/livez").status_code == 200


def test_a_crash_tells_nothing_of_the_inside(client: TestClient, engine: FakeEngine) -> None:
    engine.crash = RuntimeError("secret path")
    answer = post(client, JPEG)
    assert (answer.status_code, answer.json()["kind"]) == (500, "internal")
    assert "secret" not in answer.text


def test_numbers_that_are_none_are_left_out_and_counted(client: TestClient, engine: FakeEngine) -> None:
    def spoil(found: Any) -> Any:
        found.scores[:] = np.nan
        return found

    engine.change = spoil
    assert post(client, JPEG).json()["detections"] == []
    assert 'eyas_nonfinite_detections_total{model="shapes",version="2"} 1.0' in client.get("/metrics").text


def test_request_ids_come_from_the_client_or_are_made(client: TestClient) -> None:
    assert post(client, JPEG, **{"x-request-id": "my-1"}).headers["x-request-id"] == "my-1"
    bad = post(client, JPEG, **{"x-request-id": "a\tb"})
    assert bad.status_code == 400 and len(bad.headers["x-request-id"]) == 32


def test_a_trace_goes_on_and_credentials_do_not(client: TestClient, engine: FakeEngine) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    post(client, JPEG, traceparent=parent, authorization="Bearer secret", **{"x-api-key": "secret", "x-site": "7"})
    headers = engine.seen[0].headers
    assert headers["traceparent"][:36] == parent[:36] and headers["traceparent"] != parent
    assert headers["x-site"] == "7" and "secret" not in str(headers)


@pytest.mark.parametrize(("path", "method", "status"), [("/v1/detect", "GET", 405), ("/nothing", "GET", 404),
                                                        ("/v1/detect/", "POST", 404), ("//v1/detect", "POST", 404),
                                                        ("/v2/repository/index", "POST", 404)])  # fmt: skip
def test_addresses_and_methods_that_are_not_there(client: TestClient, path: str, method: str, status: int) -> None:
    answer = client.request(method, "http://testserver" + path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")


def test_no_other_origin_is_let_in(client: TestClient) -> None:
    answer = post(client, JPEG, origin="https://evil.org")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.options("/v1/detect", headers={"origin": "https://evil.org"}).status_code == 405


def test_keys_are_asked_for_everywhere_but_at_the_probes(engine: FakeEngine) -> None:
    app = public_app(service_of(engine), keys=Keys({hash_key("right"): "ann"}))
    with TestClient(app) as client:
        assert post(client, JPEG).status_code == 401
        assert post(client, JPEG, **{"x-api-key": "wrong"}).headers["www-authenticate"] == "Bearer"
        assert post(client, JPEG, authorization="Bearer right").status_code == 200
        assert post(client, JPEG, **{"x-api-key": "right"}).status_code == 200
        for path in ("/", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        for path in ("/metrics", "/v1/models", "/v2", "/v2/models/shapes", "/v1/detect", "/nothing"):
            assert client.get(path).status_code == 401, path
        # The path that is authorised is the one that is routed, whatever the Host header holds.
        assert client.get("/v1/models", headers={"host": "x/livez?"}).status_code == 400


def test_only_our_own_host_names_are_answered(engine: FakeEngine) -> None:
    with TestClient(public_app(service_of(engine), hosts=frozenset({"localhost", "::1"}))) as client:
        for host, status in (("localhost:8000", 200), ("[::1]:8000", 200), ("evil.org", 403), ("", 403), ("a b", 400)):
            assert client.get("/livez", headers={"host": host}).status_code == status, host


def test_feedback_is_tied_to_its_request(engine: FakeEngine, tmp_path: Path) -> None:
    events = EventLog(EventSettings(tmp_path))
    with TestClient(public_app(service_of(engine, events=events))) as client:
        request_id = post(client, JPEG).json()["id"]
        body = {"id": request_id, "verdict": "missed", "objects": [{"box": [1, 2, 3, 4.5], "class": "dark"}]}
        assert client.post("/v1/feedback", json=body).json() == {"id": request_id, "known": True}
        assert client.post("/v1/feedback", json={"id": "other", "picture": 2, "note": "?"}).json()["known"] is False
        for wrong in ({}, {"id": request_id}, {**body, "verdict": "x"}, {**body, "objects": [{"box": [1]}]},
                      {**body, "more": 1}, {**body, "image": -1}, {**body, "id": "a b"}):  # fmt: skip
            assert client.post("/v1/feedback", json=wrong).status_code == 400, wrong
    events.close()
    text = (tmp_path / "events.jsonl").read_text()
    assert text.count('"event":"feedback"') == 2 and '"class":"dark"' in text and '"image":2' in text


def test_feedback_needs_an_event_log(client: TestClient) -> None:
    assert client.post("/v1/feedback", json={"id": "a", "note": "b"}).status_code == 404


def test_models_are_listed(client: TestClient) -> None:
    found = client.get("/v1/models").json()["models"]
    assert [(each["name"], each["version"], each["default"]) for each in found] == [
        ("shapes", "1", False),
        ("shapes", "2", True),
    ]
    assert found[0]["classes"] == ["bright", "dark"]


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not [word for word in ("http://", "https://", "src=", "@import") if word in answer.text]
    assert "v1/detect" in answer.text and "canvas" in answer.text


def test_urls_are_off(client: TestClient) -> None:
    answer = client.post("/v1/detect", json={"url": "https://example.org/a.jpg"})
    assert (answer.status_code, answer.json()["kind"]) == (403, "forbidden")


def test_the_access_log_has_a_line_a_request(engine: FakeEngine) -> None:
    lines: list[dict[str, Any]] = []
    with TestClient(public_app(service_of(engine), log=lines.append)) as client:
        post(client, JPEG, **{"x-request-id": "abc", "authorization": "Bearer secret"}, query="?conf=0.3")
        client.get("/nothing")
    assert [(line["id"], line["method"], line["path"], line["status"]) for line in lines[:1]] == [
        ("abc", "POST", "/v1/detect", 200)
    ]
    assert lines[1]["status"] == 404 and "secret" not in str(lines)
