"""The Open Inference Protocol's bodies over HTTP: good ones mean the same in every encoding, bad ones are refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.fake import CLASSES, FakeEngine, encoded, make_image

from eyas.artifacts.model_key import ModelKey
from eyas.serve import jsons
from eyas.serve.api import Answer
from eyas.serve.errors import ServeError
from eyas.serve.limits import Limits
from eyas.serve.oip.detection import InferRequest, model_metadata, parameters, server_metadata, to_request
from eyas.serve.oip.images import DATATYPES
from eyas.serve.oip.rest import answer_body
from eyas.serve.oip.rest import parse_request as parse
from eyas.types import Detections

IMAGE = make_image(4, 6, (1, 1, 3, 3))
FILE = encoded(IMAGE)


def body(raw: bytes = b"", **entry: Any) -> tuple[bytes, str | None]:
    """Return a body with one input, and the header that tells where its JSON ends."""
    given: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": [1, 4, 6, 3], **entry}
    text = json.dumps({"inputs": [{name: value for name, value in given.items() if value is not None}]}).encode()
    return text + raw, str(len(text)) if raw else None


def parse_request(body: bytes, header: str | None, most: int = 64) -> InferRequest:
    return parse(body, header, Limits(images=most))


def request_of(infer: InferRequest) -> Any:
    return to_request(infer, model="m", version="", request_id="made", headers={})


@pytest.mark.parametrize(
    "made",
    [
        body(data=IMAGE[None].tolist()),
        body(data=IMAGE.ravel().tolist()),
        body(IMAGE.tobytes(), parameters={"binary_data_size": IMAGE.size}),
    ],
)
def test_images_come_as_numbers_nested_flat_or_raw(made: tuple[bytes, str | None]) -> None:
    found = request_of(parse_request(*made)).images
    assert len(found) == 1 and np.array_equal(found[0], IMAGE)


def test_files_come_with_their_length_or_as_base64() -> None:
    framed = b"".join(len(file).to_bytes(4, "little") + file for file in (FILE, FILE[:50]))
    raw = parse_request(*body(framed, datatype="BYTES", shape=[2], parameters={"binary_data_size": len(framed)}))
    text = [base64.b64encode(file).decode() for file in (FILE, FILE[:50])]
    assert request_of(raw).images == (FILE, FILE[:50])
    assert request_of(parse_request(*body(datatype="BYTES", shape=[2, 1], data=text))).images == (FILE, FILE[:50])


BAD: list[tuple[bytes, str | None]] = [
    body(shape=[1, 2**62, 6, 3], data=[1]),
    body(shape=[2**62, 2**62, 2**62, 3], data=[]),
    body(shape=[-1, 4, 6, 3], data=[1]),
    body(shape=[2**63, 1, 1, 3], data=[1]),
    body(shape=[2**64, 1, 1, 3], data=[1]),
    body(shape=[2**32, 2**32, 1, 3], data=[1]),
    body(shape=[2**31, 2**31, 2, 1], data=[]),
    body(shape=[0, 2**62, 2**62, 3], data=[]),
    body(shape=[0, 2**63, 1, 3], data=[]),
    body(shape=[2**62, 0, 4, 3], data=[]),
    body(b"\0" * 3, shape=[2**62, 4, 1, 1], parameters={"binary_data_size": 3}),
    body(b"\0" * 3, shape=[0, 2**63, 1, 3], parameters={"binary_data_size": 3}),
    body(b"\0" * 8, datatype="FP64", shape=[2**61 + 1, 8, 1, 1], parameters={"binary_data_size": 8}),
    body(b"\0" * 8, datatype="BYTES", shape=[2**63], parameters={"binary_data_size": 8}),
    body(b"\0" * 8, datatype="BYTES", shape=[2**62, 4], parameters={"binary_data_size": 8}),
    body(datatype="BYTES", shape=[-1], data=["aaaa"]),
    body(datatype="BYTES", shape=[2**62, 4], data=["aaaa"]),
    body(datatype="BYTES", shape=[], data=["aaaa"]),
    body(shape=[], data=[1]),
    body(shape=[[1], 4, 6, 3], data=[0] * 72),
    body(shape={"0": 1}, data=[0] * 72),
    body(shape=[1e3, 4, 6, 3], data=[0] * 72),
    body(data=[[0] * 36, [[0] * 36]]),
    body(data=[[0] * 71, 0]),
    body(data=[0, [0] * 71]),
    body(data=[None] * 72),
    body(data=[[]] * 72),
    body(data=[{}] * 72),
    body(data={"0": 1}),
    body(data=["]" * 72]),
    body(shape=[0, 4, 6, 3], data=[]),
    body(shape=[1, 4, 6, 4], data=[0] * 96),
    body(shape=[1, 4, 6], data=[0] * 24),
    body(shape=[1] * 9, data=[0]),
    body(shape=[True, 4, 6, 3], data=[0] * 72),
    body(shape=["1"], data=[1]),
    body(shape=None, data=[1]),
    body(shape=[1.0, 4, 6, 3], data=[0] * 72),
    body(datatype="STRING", data=["a"]),
    body(datatype=None, data=["a"]),
    body(datatype="FP32", data=[0.5] * 72),
    body(name="pixels", data=[0] * 72),
    body(name=7, data=[0] * 72),
    body(data=[0] * 71),
    body(data=[0] * 71 + [256]),
    body(data=[0] * 71 + [-1]),
    body(data=[0] * 71 + [0.5]),
    body(data=[0] * 71 + [True]),
    body(data=[0] * 71 + ["1"]),
    body(data=[0] * 71 + [10**400]),
    body(data=[[0] * 36, 0]),
    body(data=None),
    body(data="abc"),
    body(datatype="BYTES", shape=[1], data=["not base64!"]),
    body(datatype="BYTES", shape=[1], data=[3]),
    body(datatype="BYTES", shape=[1, 2], data=["aaaa", "aaaa"]),
    body(datatype="BYTES", shape=[0], data=[]),
    body(parameters={"binary_data_size": 5}),
    body(parameters={"binary_data_size": -1}),
    body(parameters={"binary_data_size": True}, data=[0]),
    body(parameters={"binary_data_size": [1]}),
    body(b"\0" * 72, parameters={"binary_data_size": 72}, data=[0] * 72),
    body(b"\0" * 73, parameters={"binary_data_size": 72}),
    body(b"\0" * 71, parameters={"binary_data_size": 71}),
    body(b"\xff\xff\xff\xff", datatype="BYTES", shape=[1], parameters={"binary_data_size": 4}),
    body(b"\1\0", datatype="BYTES", shape=[1], parameters={"binary_data_size": 2}),
    (b"{}", None),
    (b'{"inputs": []}', None),
    (b'{"inputs": {}}', None),
    (b'{"inputs": [1]}', None),
    (b'{"inputs": [], "inputs": []}', None),
    (b'{"inputs": [{}]}', None),
    (json.dumps({"inputs": [json.loads(body(data=[0] * 72)[0])["inputs"][0]] * 2}).encode(), None),
    (json.dumps({"inputs": [{}] * 65}).encode(), None),
    (body(data=[0] * 72)[0], "0"),
    (body(data=[0] * 72)[0], "-1"),
    (body(data=[0] * 72)[0], "99999999"),
    (body(data=[0] * 72)[0], "1e3"),
    (body(data=[0] * 72)[0], "10"),
    (b"\xff" * 20, None),
    (b"[" * 100_000, None),
]


@pytest.mark.parametrize("made", BAD)
def test_whatever_is_wrong_is_the_senders_fault(made: tuple[bytes, str | None]) -> None:
    with pytest.raises(ServeError) as caught:
        infer = parse_request(*made)
        request = request_of(infer)
        assert not request.images  # an empty request is refused by the service, for all protocols
        raise ServeError("invalid", "empty")
    assert caught.value.kind == "invalid"


@pytest.mark.parametrize(
    "extra",
    [
        {"outputs": [{"name": "masks"}]},
        {"outputs": "boxes"},
        {"outputs": [{"name": "boxes", "parameters": {"classification": 3}}]},
        {"parameters": {"confidenze": 0.5}},
        {"parameters": {"confidence": "high"}},
        {"parameters": {"max_detections": 2.5}},
        {"parameters": {"max_detections": True}},
        {"parameters": {"priority": 9}},
        {"parameters": {"timeout": -1}},
        {"parameters": {"suppression": "hard"}},
        {"parameters": {"classes": ["a"]}},
        {"parameters": [1]},
        {"id": 5},
    ],
)
def test_outputs_and_parameters_are_checked(extra: dict[str, Any]) -> None:
    fields = json.loads(body(data=[0] * 72)[0]) | extra
    with pytest.raises(ServeError):
        request_of(parse_request(json.dumps(fields).encode(), None))


def test_parameters_become_options() -> None:
    given = {"confidence": 0.5, "iou": 1, "suppression": "soft", "classes": "a, b", "max_detections": 3,
             "timeout": 250_000, "priority": 3, "sequence_id": 7, "sequence_start": True}  # fmt: skip
    infer = InferRequest("id", (IMAGE,), parameters=given)
    request = to_request(infer, model="m", version="3", request_id="x", headers={}, stream="s")
    assert (request.id, request.timeout, request.lane, request.stream) == ("id", 0.25, "batch", "s/7")
    options = request.options
    assert (options.confidence, options.iou, options.suppression) == (0.5, 1.0, "soft")
    assert (options.classes, options.max_detections) == (("a", "b"), 3)
    assert "sequence_start" not in parameters(given)


def answer(*numbers: int) -> Answer:
    """Return an answer with so many detections in each image."""
    found = [
        Detections(np.full((n, 4), n, np.float32), np.full(n, 0.5, np.float32), np.ones(n, np.int64), CLASSES, 4, 6)
        for n in numbers
    ]
    return Answer("id", ModelKey("m", "3"), tuple(found))


@pytest.mark.parametrize("numbers", [(2, 0, 1), (0,), (0, 0)])
def test_outputs_are_padded_to_the_most(numbers: tuple[int, ...]) -> None:
    text, length = answer_body(answer(*numbers), InferRequest("", ()))
    assert length is None
    found = {entry["name"]: np.reshape(entry["data"], entry["shape"]) for entry in json.loads(text)["outputs"]}
    assert list(found) == ["boxes", "scores", "labels", "num_detections"]
    assert found["boxes"].shape == (len(numbers), max(numbers), 4)
    assert found["num_detections"].tolist() == list(numbers)
    assert ((found["labels"] == -1).sum(axis=1) == max(numbers) - np.array(numbers)).all()


def test_ten_thousand_detections_go_out_raw() -> None:
    asked = json.loads(body(data=[0] * 72)[0])
    asked["outputs"] = [{"name": "scores"}, {"name": "boxes", "parameters": {"binary_data": True}}, {"name": "scores"}]
    infer = parse_request(json.dumps(asked).encode(), None)
    content, length = answer_body(answer(10_000), infer)
    assert length is not None
    head = json.loads(content[:length])
    assert [entry["name"] for entry in head["outputs"]] == ["scores", "boxes"]  # named twice, sent once
    boxes = np.frombuffer(content[length:], "<f4").reshape(head["outputs"][1]["shape"])
    assert head["outputs"][1]["parameters"]["binary_data_size"] == len(content) - length
    assert boxes.shape == (1, 10_000, 4) and (boxes == 10_000).all()


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_byte_strings_come_back(items: list[bytes]) -> None:
    framed = b"".join(len(item).to_bytes(4, "little") + item for item in items)
    made = body(framed, datatype="BYTES", shape=[len(items)], parameters={"binary_data_size": len(framed)})
    assert parse_request(*made).images == tuple(items)


@given(st.binary(min_size=1, max_size=60), st.sampled_from(["BYTES", "UINT8"]), st.lists(st.integers(0, 9), max_size=4))
def test_no_bytes_are_too_strange(data: bytes, datatype: str, shape: list[int]) -> None:
    made = body(data, datatype=datatype, shape=shape, parameters={"binary_data_size": len(data)})
    try:
        found = parse_request(*made).images
    except ServeError as error:
        assert error.kind == "invalid"
        return
    sizes = [len(each) + 4 if isinstance(each, bytes) else each.size for each in found]
    assert sum(sizes) == len(data) and len(found) == shape[0]


@given(st.binary(max_size=80))
def test_any_json_is_read_or_refused(data: bytes) -> None:
    try:
        jsons.parse(data, dict[str, Any], most=1000)
    except ServeError as error:
        assert error.kind == "invalid"


@given(st.binary(max_size=40))
def test_base64_comes_back_in_every_form(data: bytes) -> None:
    for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode().rstrip("=")):
        assert jsons.from_base64(text) == data
        assert jsons.from_base64(" \n".join(text)) == data
    with pytest.raises(ServeError):
        jsons.from_base64(base64.b64encode(data).decode() + "é")


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize(
    "shape", [(2**63,), (2**62, 4), (0, 2**63), (2**40, 2**40, 0), (2**31, 2**31, 2), (-1,), (2**70,)]
)
def test_a_shape_beyond_every_request_is_refused_in_every_way_it_comes(datatype: str, shape: tuple[int, ...]) -> None:
    raw = {"binary_data_size": 8}
    for made in (
        body(bytes(8), datatype=datatype, shape=shape, parameters=raw),
        body(datatype=datatype, shape=shape, data=[0] * 8),
        body(datatype=datatype, shape=shape, data=[]),
    ):
        with pytest.raises(ServeError) as caught:
            parse_request(*made)
        assert caught.value.kind == "invalid"


def test_numbers_of_a_long_text_are_those_of_a_list() -> None:
    image = np.arange(120 * 240 * 3).reshape(120, 240, 3) % 256
    given = json.dumps(
        {"inputs": [json.loads(body(shape=[1, 120, 240, 3], data=image[None].tolist())[0])["inputs"][0]]}
    )
    (found,) = parse_request(given.replace("], [", "],\n\t[").encode(), None).images
    assert np.array_equal(np.asarray(found), image)


def test_more_images_than_a_request_may_have_are_too_large() -> None:
    items = b"\0\0\0\0" * 9
    for made in (
        body(items, datatype="BYTES", shape=[9], parameters={"binary_data_size": len(items)}),
        body(datatype="BYTES", shape=[9], data=["aaaa"] * 9),
        body(bytes(27), shape=[9, 1, 1, 3], parameters={"binary_data_size": 27}),
    ):
        with pytest.raises(ServeError) as caught:
            parse_request(*made, most=8)
        assert caught.value.kind == "too_large"


def test_the_metadata_tell_all_that_is_taken_and_announce_nothing_else() -> None:
    engine = FakeEngine()
    found = model_metadata(engine, "shapes")
    assert [each["name"] for each in found["inputs"]] == ["images"], "one entry an input, or clients would send two"
    accepts = [(each["datatype"], each["shape"]) for each in found["parameters"]["accepts"]]
    assert accepts == [("BYTES", [-1]), ("UINT8", [-1, -1, -1, 3])]
    assert "model_repository" not in server_metadata()["extensions"]
