"""Messages that are made of many small parts: weighed before they are parsed."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.serve.grpc.test_service import FILE, files
from tests.serve.ticking import longest_hold

from eyas.serve.blocking import AT_ONCE, Desk
from eyas.serve.errors import ServeError
from eyas.serve.grpc.codec import parse_request
from eyas.serve.grpc.parsing import FEW, TooMany, count_fields, parsed
from eyas.serve.grpc.protocol import inference_pb2 as pb
from eyas.serve.limits import Limits
from eyas.serve.oip.detection import InferRequest

MIB = 2**20
HOLD = 0.25
KIND = pb.ModelInferRequest.DESCRIPTOR


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def contents(number: int, content: bytes, shape: bytes = b"\x01") -> bytes:
    """Return a message with one input of typed contents."""
    kind = b"BYTES" if number == 8 else b"UINT8"
    return field(5, field(1, b"images") + field(2, kind) + field(3, shape) + field(5, content))


HEAVY = {
    "empty items": contents(8, field(8, b"") * (8 * MIB)),
    "numbers, each a field": contents(4, b"\x20\x01" * (8 * MIB)),
    "raw contents": field(7, b"") * (8 * MIB),
    "inputs": field(5, b"") * (8 * MIB),
    "parameters": field(4, b"") * (8 * MIB),
    "packed numbers": contents(4, field(4, b"\x01" * (16 * MIB))),
    "a long shape": contents(4, b"", b"\x01" * (16 * MIB)),
    "fields that nobody knows": field(99, b"") * (8 * MIB),
    "groups": b"\x0b" * (8 * MIB),
    "half a length": field(7, b"a" * 20_000) + b"\x3a\xff",
}


async def read(data: bytes) -> InferRequest:
    desk = Desk()
    message = await parsed(pb.ModelInferRequest, data, desk)
    assert isinstance(message, pb.ModelInferRequest)
    return await desk.read(AT_ONCE + 1, parse_request, message, Limits())


@pytest.mark.parametrize("name", HEAVY)
def test_many_small_parts_are_refused_and_hold_nobody_up(name: str) -> None:
    found, hold = longest_hold(lambda: read(HEAVY[name]), HOLD)
    assert isinstance(found, ServeError) and found.kind in ("invalid", "too_large")
    assert hold < HOLD


def test_an_honest_message_is_counted_and_read() -> None:
    data = files(FILE, FILE).SerializeToString()
    fields, packed = count_fields(KIND, data, FEW)
    assert 5 < fields < 20 and packed <= 2
    assert asyncio.run(read(data)).images == (FILE, FILE)


def test_numbers_one_by_one_are_read_beside_the_loop() -> None:
    image = np.arange(300 * 400 * 3, dtype=np.uint32) % 256
    message = pb.ModelInferRequest()
    entry = message.inputs.add(name="images", datatype="UINT8", shape=[1, 300, 400, 3])
    entry.contents.uint_contents.extend(image.tolist())
    found = asyncio.run(read(message.SerializeToString())).images
    assert np.array_equal(np.ravel(found), image)


def test_counting_ends_soon() -> None:
    with pytest.raises(TooMany):
        count_fields(KIND, HEAVY["raw contents"], FEW)
