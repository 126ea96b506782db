"""Faults that only the protocols and the real engine together can show, through a server on real sockets."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from tests.serve.bundles import jpeg, make_image, write_bundle
from tests.serve.fake import FakeEngine, encoded
from tests.serve.running import Running, running

from eyas.serve.engine.engine import LocalEngine
from eyas.serve.engine.settings import EngineSettings
from eyas.types import Detections

KIND = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of the models `good`, and `nan`, whose network gives scores that are no numbers."""
    folder = tmp_path_factory.mktemp("survives")
    bundles = write_bundle(folder / "good"), write_bundle(folder / "nan", scale=math.nan)
    with running(lambda: LocalEngine(EngineSettings(in_process=True, workers=1, threads=1, goal=20.0))) as started:
        for bundle in bundles:
            started.call(started.server.engine.load, bundle.name, "1", bundle)
        yield started


def tensor(image: Any) -> dict[str, Any]:
    """Return the body of an inference request."""
    shape = [1, *image.shape]
    return {"inputs": [{"name": "images", "datatype": "UINT8", "shape": shape, "data": image.ravel().tolist()}]}


def test_a_broken_image_of_several_is_named_and_harms_no_other_request(server: Running) -> None:
    whole, broken = jpeg(), jpeg()[:400]
    url = f"{server.url}/v1/detect/batch?model=good"
    texts = [base64.b64encode(each).decode() for each in (whole, broken, whole)]
    answer = httpx.post(url, json={"images": [*texts, base64.b64encode(b"no image").decode()]}, timeout=60)
    assert answer.status_code == 200
    told = [each.get("kind") or len(each["detections"]) for each in answer.json()["images"]]
    assert told == [1, "unprocessable", 1, "unprocessable"]
    answer = httpx.post(url, json={"images": [texts[1]] * 2}, timeout=60)
    assert (answer.status_code, answer.json()["kind"]) == (422, "unprocessable")
    inputs = [{"name": "images", "datatype": "BYTES", "shape": [3], "data": texts}]
    answer = httpx.post(f"{server.url}/v2/models/good/infer", json={"inputs": inputs}, timeout=60)
    assert (answer.status_code, answer.json()["kind"]) == (422, "unprocessable")
    assert answer.json()["error"].startswith("Image 2 of 3"), "this protocol has no place for the error of one image"


def test_a_network_that_gives_no_numbers_finds_nothing(server: Running) -> None:
    answer = httpx.post(f"{server.url}/v1/detect?model=nan", content=jpeg(), headers=KIND, timeout=60)
    assert (answer.status_code, answer.json()["detections"]) == (200, [])
    answer = httpx.post(f"{server.url}/v2/models/nan/infer", json=tensor(make_image()), timeout=60)
    outputs = {each["name"]: each for each in answer.json()["outputs"]}
    assert outputs["num_detections"]["data"] == [0] and outputs["boxes"]["shape"] == [1, 0, 4]


@pytest.mark.parametrize(
    "path",
    ["/v2/models/..%2f..%2fetc/infer", "/v2/models/good/versions/..%2f1/infer", "/v2/models/good/versions/-1/infer",
     "/v2/models/good/versions/999/infer", "/v2/models/a%00b/infer", "/v2/models/%ff%fe/infer",
     f"/v2/models/{'a' * 10_000}/infer"],
)  # fmt: skip
def test_odd_names_in_an_address_are_not_found(server: Running, path: str) -> None:
    answer = httpx.post(f"{server.url}{path}", json=tensor(make_image()), timeout=60)
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["kind"] in ("invalid", "not_found")


@pytest.mark.parametrize("name", ["a" * 1_000_000, "a\0b", "../good", "good/1", "\u202egood", ""])
def test_odd_names_in_a_body_are_the_clients_fault(server: Running, name: str) -> None:
    body = json.dumps({"image": base64.b64encode(jpeg()).decode(), "model": name}).encode()
    answer = httpx.post(f"{server.url}/v1/detect", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 404), "an empty name is none where there are several models"
    assert len(answer.content) < 1000


@pytest.mark.parametrize("count", [0, 10_000])
def test_no_detection_and_ten_thousand_are_written_down(count: int) -> None:
    def many(found: Detections) -> Detections:
        boxes = np.tile(found.boxes[:1], (count, 1))
        scores, labels = np.full(count, 0.5, np.float32), np.zeros(count, np.int64)
        return Detections(boxes, scores, labels, found.classes, found.height, found.width)

    def make() -> FakeEngine:
        engine = FakeEngine()
        engine.change = many
        return engine

    with running(make) as server:
        answer = httpx.post(f"{server.url}/v1/detect", content=encoded(), headers=KIND, timeout=60)
        assert len(answer.json()["detections"]) == count
        batch = [base64.b64encode(encoded()).decode()] * 2
        inputs = [{"name": "images", "datatype": "BYTES", "shape": [2], "data": batch}]
        answer = httpx.post(f"{server.url}/v2/models/shapes/infer", json={"inputs": inputs}, timeout=60)
        outputs = {each["name"]: each for each in answer.json()["outputs"]}
        assert outputs["num_detections"]["data"] == [count] * 2 and outputs["boxes"]["shape"] == [2, count, 4]
