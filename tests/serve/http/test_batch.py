"""`POST /v1/detect/batch`: order, and a result of its own for each image, the broken ones too."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.serve.fake import FakeEngine, encoded, make_image

from eyas.renamed import METRICS
from eyas.serve.errors import ServeError
from eyas.serve.http.app import public_app
from eyas.serve.limits import Limits
from eyas.serve.observe.events import EventLog, EventSettings
from eyas.serve.observe.metrics import Metrics
from eyas.serve.service import Service

LIMITS = Limits(images=8, pixels=100_000)
GOOD = encoded()
CUT = encoded(suffix=".jpg")[:200]  # its header is whole, so only who decodes it sees that it is broken
LARGE = encoded(make_image(400, 400))


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventLog]:
    log = EventLog(EventSettings(tmp_path, images=1.0))
    yield log
    log.close()


@pytest.fixture
def client(engine: FakeEngine, events: EventLog) -> Iterator[TestClient]:
    async def fetch(url: str) -> bytes:
        if "gone" in url:
            raise ServeError("unprocessable", "The URL can't be had.")
        return GOOD

    service = Service(engine, Metrics(engine), LIMITS, events)
    with TestClient(public_app(service, fetch=fetch), raise_server_exceptions=False) as made:
        yield made


def ask(client: TestClient, *files: bytes, **fields: Any) -> Any:
    """Ask for a batch of files."""
    texts = [base64.b64encode(each).decode() for each in files]
    return client.post("/v1/detect/batch", json={"images": texts, **fields})


def kinds(answer: Any) -> list[str]:
    """Return of each image "ok", or the kind of its refusal."""
    return [each["kind"] if "error" in each else "ok" for each in answer.json()["images"]]


def test_a_broken_image_has_its_reason_and_the_others_their_detections(client: TestClient) -> None:
    files = [
        encoded(make_image(box=(0, 4, 10, 24))),
        CUT,
        encoded(make_image(box=(20, 4, 30, 24))),
        b"no image",
        LARGE,
        b"",
    ]
    answer = ask(client, *files)
    assert answer.status_code == 200
    assert kinds(answer) == ["ok", "unprocessable", "ok", "unprocessable", "too_large", "unprocessable"]
    images = answer.json()["images"]
    assert answer.json()["pictures"] == images  # as it was called a release ago
    assert [images[at]["detections"][0]["box"][0] for at in (0, 2)] == [0, 20]
    assert images[4]["error"] == "The image is 400x400 pixels; at most 100000 pixels and 16384 per side are allowed."
    assert set(images[1]) == {"error", "kind"}
    form = client.post("/v1/detect/batch", files=[("files", each) for each in files])
    assert kinds(form) == kinds(answer)


def test_text_that_is_no_base64_and_urls_that_fail_cost_their_image_alone(client: TestClient) -> None:
    text = base64.b64encode(GOOD).decode()
    assert kinds(client.post("/v1/detect/batch", json={"images": ["???", text]})) == ["invalid", "ok"]
    urls = ["https://a.org/1.png", "https://a.org/gone.png", "https://a.org/2.png"]
    assert kinds(client.post("/v1/detect/batch", json={"urls": urls})) == ["ok", "unprocessable", "ok"]


@pytest.mark.parametrize(
    ("files", "status"),
    [((CUT, b"x"), 422), ((CUT,), 422), ((b"", b"x"), 422), ((LARGE, LARGE), 413), ((LARGE, b""), 422)],
)
def test_a_batch_without_one_good_image_is_refused(client: TestClient, files: tuple[bytes, ...], status: int) -> None:
    answer = ask(client, *files)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "kind"}
    assert ("None of the 2 images" in answer.json()["error"]) == (len(files) == 2)


def test_what_is_wrong_with_the_request_is_no_image_s_fault(client: TestClient, engine: FakeEngine) -> None:
    assert ask(client, GOOD, CUT, classes=["unicorn"]).status_code == 400
    assert ask(client, GOOD, CUT, version="9").status_code == 404
    engine.welcome = False
    assert ask(client, GOOD, CUT).status_code == 429


def test_the_other_addresses_refuse_the_request(client: TestClient) -> None:
    assert client.post("/v1/detect", content=CUT, headers={"content-type": "image/jpeg"}).status_code == 422
    texts = [base64.b64encode(each).decode() for each in (GOOD, CUT)]
    infer = {"inputs": [{"name": "images", "shape": [2], "datatype": "BYTES", "data": texts}]}
    assert client.post("/v2/models/shapes/infer", json=infer).status_code == 422


def test_metrics_and_events_tell_a_partial_answer(client: TestClient, events: EventLog, tmp_path: Path) -> None:
    assert ask(client, GOOD, CUT, b"x", LARGE).status_code == 200
    assert ask(client, GOOD, GOOD).status_code == 200
    text = client.get("/metrics").text
    assert 'eyas_requests_total{model="shapes",outcome="partial",protocol="rest"} 1.0' in text
    assert 'eyas_requests_total{model="shapes",outcome="ok",protocol="rest"} 1.0' in text
    head = 'eyas_images_refused_total{kind="%s",model="shapes",version="2"} %s'
    assert head % ("unprocessable", "2.0") in text and head % ("too_large", "1.0") in text
    for name in ("eyas_images", METRICS["eyas_images"]):  # by today's name and by that of a release ago
        assert f'{name}_total{{model="shapes",version="2"}} 3.0' in text
    events.flush()
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    partial, whole = lines
    assert (partial["outcome"], whole["outcome"]) == ("partial", "ok")
    assert [each.get("refused") for each in partial["images"]] == [
        None,
        "unprocessable",
        "unprocessable",
        "too_large",
    ]
    assert partial["images"][1] == {"refused": "unprocessable", "bytes": len(CUT)}
    assert len(list((tmp_path / "images").iterdir())) == 3  # those that were answered
