"""Bodies that are made to take long: each is read or refused without holding up the event loop."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.serve.fake import FakeEngine
from tests.serve.ticking import longest_hold

from eyas.serve.http.app import public_app
from eyas.serve.limits import Limits
from eyas.serve.observe.events import EventLog, EventSettings
from eyas.serve.observe.metrics import Metrics
from eyas.serve.service import Service

MIB = 2**20
SIZE = 8 * MIB - 256
LARGE = 32 * MIB - 256
HOLD = 0.25  # seconds of processor time; a quiet machine needs a fifth of it, and what came before needed seconds
DETECT, FEEDBACK, INFER = "/v1/detect", "/v1/feedback", "/v2/models/shapes/infer"
JSON, FORM = "application/json", "multipart/form-data; boundary=x"


def filled(head: bytes, item: bytes, tail: bytes, size: int = SIZE) -> bytes:
    """Return as many items as there is room for between head and tail."""
    return head + item * ((size - len(head) - len(tail)) // len(item)) + tail


def tensor(data: bytes, shape: bytes = b"[1,1,1,3]", datatype: bytes = b"UINT8") -> tuple[bytes, bytes]:
    """Return what stands before and after the data of an input, split at its first bracket."""
    head = b'{"inputs":[{"name":"images","datatype":"%b","shape":%b,"data":[' % (datatype, shape)
    return head + data, b"]}]}"


def raw(shape: list[int], datatype: str, size: int) -> tuple[bytes, dict[str, str]]:
    entry = {"name": "images", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [entry]}).encode()
    return text + bytes(size), {"inference-header-content-length": str(len(text))}


PART = b'Content-Disposition: form-data; name="a"; filename="a"\r\n'
NUMBERS = (SIZE - 200) // 2 // 3 * 3
BODIES: dict[str, tuple[str, str, bytes, int]] = {
    "lists": (DETECT, JSON, filled(b'{"image":[', b"[],", b"[]]}"), 400),
    "lists of a batch": (DETECT + "/batch", JSON, filled(b'{"images":[', b"[],", b"[]]}"), 400),
    "objects": (DETECT, JSON, filled(b'{"classes":[', b"{},", b"{}]}"), 400),
    "floats": (DETECT, JSON, filled(b'{"conf":[', b"0.5,", b"1]}"), 400),
    "texts": (DETECT, JSON, filled(b'{"classes":[', b'"",', b'""]}'), 400),
    "keys": (DETECT, JSON, b"{" + b",".join(b'"%06d":1' % key for key in range(SIZE // 11)) + b"}", 400),
    "one key": (DETECT, JSON, filled(b'{"', b"a", b'":1}'), 400),
    "depth": (DETECT, JSON, filled(b'{"image":', b"[", b""), 400),
    "depth of objects": (DETECT, JSON, filled(b"", b'{"a":', b""), 400),
    "one number": (DETECT, JSON, filled(b'{"conf":', b"9", b"}"), 400),
    "escapes": (DETECT, JSON, filled(b'{"image":"', b"\\u0041", b'"}'), 422),
    "slashes": (DETECT, JSON, filled(b'{"image":"', b"\\/", b'"}'), 422),
    "quotes": (DETECT, JSON, filled(b'{"image":"', b'\\"', b'"}'), 400),
    "blanks": (DETECT, JSON, filled(b'{"image":"', b"A ", b'"}'), 422),
    "spaces": (DETECT, JSON, filled(b"", b" ", b"{}"), 400),
    "a large image": (DETECT, JSON, filled(b'{"image":"', b"AAAA", b'"}'), 422),
    "JSON beyond its limit": (DETECT, JSON, filled(b'{"image":[', b"[],", b"[]]}", LARGE), 413),
    "feedback": (FEEDBACK, JSON, filled(b'{"objects":[', b"[],", b"[]]}", MIB), 400),
    "boxes": (FEEDBACK, JSON, filled(b'{"objects":[{"class":"a","box":[', b"1,", b"1]}]}", MIB), 400),
    "feedback beyond its limit": (FEEDBACK, JSON, filled(b'{"objects":[', b"[],", b"[]]}"), 413),
    "lists of a tensor": (INFER, JSON, filled(tensor(b"")[0], b"[],", b"[]]}]}"), 400),
    "numbers of a tensor": (INFER, JSON, filled(tensor(b"")[0], b"1,", b"1]}]}"), 400),
    "rows of a tensor": (INFER, JSON, filled(tensor(b"")[0], b"[1,2,3],", b"[1,2,3]]}]}"), 400),
    "a tensor": (
        INFER, JSON, tensor(b"", b"[1,1,%d,3]" % (NUMBERS // 3))[0] + b"1," * (NUMBERS - 1) + b"1]}]}", 413,
    ),
    "inputs": (INFER, JSON, filled(b'{"inputs":[', b"{},", b"{}]}"), 400),
    "a shape": (INFER, JSON, filled(b'{"inputs":[{"name":"a","datatype":"UINT8","shape":[', b"1,", b"1]}]}"), 400),
    "empty items": (INFER, JSON, filled(tensor(b"", b"[1]", b"BYTES")[0], b'"",', b'""]}]}'), 400),
    "fields that nobody knows": (INFER, JSON, filled(b'{"inputs":[],"more":[', b"[],", b"[]]}"), 400),
    "parts": (DETECT, FORM, filled(b"", b"--x\r\n" + PART + b"\r\n1\r\n", b"--x--", LARGE), 400),
    "headers of a part": (DETECT, FORM, filled(b"--x\r\n", b"a:b\r\n", b"\r\n\r\n--x--", LARGE), 400),
    "one header": (DETECT, FORM, filled(b"--x\r\na:", b"b", b"\r\n\r\n\r\n--x--", LARGE), 400),
    "near boundaries": (DETECT, FORM, filled(b"--x\r\n" + PART + b"\r\n", b"\r\n--", b"\r\n--x--", LARGE), 422),
}  # fmt: skip


@pytest.fixture
def app(tmp_path: Path) -> Any:
    engine = FakeEngine()
    events = EventLog(EventSettings(tmp_path))
    yield public_app(Service(engine, Metrics(engine), Limits(), events))
    events.close()


async def post(app: Any, path: str, headers: dict[str, str], body: bytes) -> int:
    """Send the body in pieces, as a server does, and return the answer's status."""
    pieces = [body[at : at + 256 * 1024] for at in range(0, len(body), 256 * 1024)]
    status: list[int] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        if not pieces:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": len(pieces) > 0}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    named = {"host": "localhost", "content-length": str(len(body)), **headers}
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": [(name.encode(), value.encode()) for name, value in named.items()],
             "client": ("127.0.0.1", 1), "root_path": "", "scheme": "http", "http_version": "1.1"}  # fmt: skip
    await app(scope, receive, send)
    return status[0]


@pytest.mark.parametrize("name", BODIES)
def test_no_body_holds_up_the_event_loop(app: Any, name: str) -> None:
    path, kind, body, status = BODIES[name]
    found, hold = longest_hold(lambda: post(app, path, {"content-type": kind}, body), HOLD)
    assert found == status
    assert hold < HOLD


@pytest.mark.parametrize(
    ("shape", "datatype", "size"),
    [
        ([LARGE // 4], "BYTES", LARGE // 4 * 4),
        ([1], "BYTES", LARGE // 4 * 4),
        ([LARGE // 3, 1, 1, 3], "UINT8", LARGE // 3 * 3),
    ],
)
def test_no_raw_tensor_does(app: Any, shape: list[int], datatype: str, size: int) -> None:
    body, headers = raw(shape, datatype, size - 4096 // 12 * 12)
    if datatype == "UINT8":
        body, headers = raw([(size - 4092) // 3, 1, 1, 3], datatype, (size - 4092) // 3 * 3)
    found, hold = longest_hold(lambda: post(app, INFER, headers, body), HOLD)
    assert found in (400, 413)
    assert hold < HOLD


@pytest.mark.parametrize(
    "text",
    [
        '{"image": "aaaa", "image": "bbbb"}',
        '{"image": "aaaa", "im\\u0061ge": "bbbb"}',
        '{"image" : "aaaa",\n"image"\t: "bbbb"}',
        '{"a\\\\": 1, "a\\\\": 2}',
        '{"a\\"": 1, "a\\"": 2}',
    ],
)
def test_a_key_is_given_once(app: Any, text: str) -> None:
    assert asyncio.run(post(app, DETECT, {"content-type": JSON}, text.encode())) == 400


def test_a_queue_of_large_bodies_ends(app: Any) -> None:
    body = BODIES["a large image"][2][:-2][:200_000] + b'"}'

    async def many() -> list[int]:
        return await asyncio.gather(*(post(app, DETECT, {"content-type": JSON}, body) for _ in range(100)))

    found = asyncio.run(many())
    assert set(found) == {422, 429} and found.count(422) >= 64
