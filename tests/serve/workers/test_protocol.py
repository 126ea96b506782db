"""The messages: what goes in comes out, in whatever pieces; nonsense is told and never believed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.serve.errors import Refused
from eyas.serve.workers.base import MAX_WORDS, Broken, ImageResult, Ran, Ready, Task, WorkerSpec
from eyas.serve.workers.protocol import (
    HEAD,
    MARK,
    MAX_BYTES,
    BadMessage,
    FromWorker,
    MessageReader,
    NotStarted,
    SentRan,
    StartWorker,
    StopWorker,
    ToWorker,
    batch_of,
    pack,
    ran_of,
    sent_ran,
    tasks_of,
)
from eyas.serve.workers.shared_memory import KEPT_BYTES, SharedMemory
from eyas.types import Detections, Thresholds

CLASSES = ("a", "b", "c")
RNG = np.random.default_rng(0)


def at_front(data: bytes) -> Any:
    """Return the one message that a worker sent, read as the front does that waits for one result."""
    (message,) = MessageReader(FromWorker).feed(data)
    return ran_of(message, len(message.results), CLASSES) if isinstance(message, SentRan) else message


def at_worker(data: bytes) -> Any:
    """Return the one message that the front sent."""
    (message,) = MessageReader(ToWorker).feed(data)
    return message


def framed(content: object) -> bytes:
    """Return a message whose content may be anything."""
    encoded = content if isinstance(content, bytes) else msgspec.msgpack.encode(content)
    return HEAD.pack(MARK, len(encoded)) + encoded


def detections(num: int) -> Detections:
    """Return random detections."""
    boxes, scores = RNG.random((num, 4), np.float32), RNG.random(num, np.float32)
    return Detections(boxes, scores, RNG.integers(0, 3, num), CLASSES, 40, 60)


def test_specs_and_readiness_come_through() -> None:
    start = StartWorker(WorkerSpec(Path("b"), threads=2, memory=5))
    assert at_worker(pack(start)) == start
    for message in (
        Ready("engine", ((1, 0.5), (2, 0.75)), 1234),
        NotStarted("no"),
        Broken("", Refused("internal", "x")),
    ):
        assert at_front(pack(message)) == message


@pytest.mark.parametrize("size", [0, 100_000, 20_000])
def test_batches_come_through_the_shared_memory_or_beside_it(size: int) -> None:
    memory = SharedMemory.create(size)
    array = RNG.integers(0, 255, (50, 60, 3), dtype=np.uint8)
    tasks = [
        Task(RNG.bytes(15_000), Thresholds(0.3, 0.4, 5, 6, "soft", 0.7), (0, 2), True),
        Task(array[:, ::-1], Thresholds()),
        Task(RNG.bytes(15_000), Thresholds(suppression="none")),
    ]
    message = at_worker(pack(batch_of(tasks, memory)))
    assert sum(len(each.data) for each in message.images) == {0: 39_000, 100_000: 0, 20_000: 24_000}[size]
    for task, given_task in zip(tasks_of(message, memory), tasks, strict=True):
        assert (task.thresholds, task.only, task.annotate) == (
            given_task.thresholds,
            given_task.only,
            given_task.annotate,
        )
        np.testing.assert_array_equal(task.image, given_task.image)


def test_results_come_through() -> None:
    given_results = (
        ImageResult(detections(3), b"jpeg", 0.1, 0.2, 0.3),
        Refused("too_large", "no"),
        ImageResult(detections(0)),
    )
    ran = at_front(pack(sent_ran(Ran(given_results, 0.5))))
    assert ran.inference == 0.5 and ran.results[1] == given_results[1]
    for result, expected in zip(ran.results, given_results, strict=True):
        if isinstance(result, ImageResult) and isinstance(expected, ImageResult):
            for name in ("boxes", "scores", "labels"):
                array, wanted = vars(result.detections)[name], vars(expected.detections)[name]
                np.testing.assert_array_equal(array, wanted)
                assert array.dtype == wanted.dtype and array.flags.aligned and array.flags.writeable
            assert result.annotated == expected.annotated
            assert (result.decode, result.postprocess) == (expected.decode, expected.postprocess)


@settings(max_examples=30)
@given(st.integers(1, 500), st.integers(0, 3))
def test_pieces_make_no_difference(step: int, number: int) -> None:
    sent = [*(Broken("x" * 50 * i) for i in range(number)), NotStarted("")]
    data = b"".join(map(pack, sent))
    reader, found = MessageReader(FromWorker), []
    for start in range(0, len(data), step):
        found += list(reader.feed(data[start : start + step]))
    assert found == sent and not reader.torn
    assert list(reader.feed(data[: HEAD.size])) == [] and reader.torn


BOX = bytes(16), bytes(4), bytes(8)
FOUND = ["found", 10, 10, *BOX, b"", 0.0, 0.0, 0.0]


def ran(*results: object, inference: object = 0.1) -> bytes:
    """Return the message of a batch's results, which may make no sense."""
    return framed({"type": "ran", "inference": inference, "results": results})


def found(place: int, value: object) -> list[object]:
    """Return a result with something else in one place."""
    return [*FOUND[:place], value, *FOUND[place + 1 :]]


def test_the_results_that_the_senseless_ones_are_made_from_make_sense() -> None:
    assert len(at_front(ran(FOUND)).results[0].detections) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"EYAZ" + bytes(12),
        HEAD.pack(MARK, MAX_BYTES + 1),
        framed(b""),
        framed(b"\xc1"),
        framed(b"\x91" * 100_000),
        framed(b"\xa2\xff\xfe"),
        framed(pack(Broken(""))[HEAD.size :] + b"more"),
        framed(None),
        framed([]),
        framed({"type": "nothing"}),
        pack(StopWorker()),
        framed({"type": "ready", "description": "x", "latencies": [[1]], "memory": 0}),
        pack(Broken("x" * (MAX_WORDS + 1))),
        ran(FOUND, inference="x"),
        ran([]),
        ran(["refused", "no kind", "words"]),
        ran(["refused", "invalid", 1]),
        ran(FOUND[:2], 1),
        ran(FOUND[:-1]),
        *(
            ran(found(place, value))
            for place, value in [
                (0, "lost"), (1, 0), (1, 2.5), (2, -1), (3, bytes(15)), (3, bytes(32)), (3, "x"), (4, bytes(8)),
                (4, 7), (5, bytes([3, *bytes(7)])), (5, bytes([255] * 8)), (5, b""), (6, None), (7, "x"),
            ]
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_and_never_believed(data: bytes) -> None:
    with pytest.raises(BadMessage):
        at_front(data)


def test_as_many_results_come_as_images_were_sent() -> None:
    with pytest.raises(BadMessage, match="another number"):
        ran_of(SentRan((), 0.1), 1, CLASSES)


JSON = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=5)
    | st.booleans()
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=8),
    max_leaves=20,
)


@settings(max_examples=40)
@given(JSON, JSON)
def test_no_message_of_a_worker_does_more_than_be_refused(results: object, other: object) -> None:
    ready = {"type": "ready", "description": "", "latencies": results, "memory": other}
    ran = {"type": "ran", "results": results, "inference": other}
    for content in (results, ready, ran, {**ran, "results": [["found", *FOUND[1:6], results, 0.0, 0.0, 0.0]]}):
        with contextlib.suppress(BadMessage):
            at_front(framed(content))


@settings(max_examples=60)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_bytes_do_more_than_be_refused(noise: bytes, place: int) -> None:
    data = bytearray(pack(sent_ran(Ran((ImageResult(detections(2)),), 0.0))))
    place = min(place, len(data))
    data[place : place + len(noise)] = noise
    with contextlib.suppress(BadMessage):
        for message in MessageReader(FromWorker).feed(bytes(data)):
            if isinstance(message, SentRan):
                ran_of(message, 1, CLASSES)


def test_memory_of_a_large_batch_is_given_back() -> None:
    memory = SharedMemory.create(4 * KEPT_BYTES)
    if memory is None:
        pytest.skip("no memory without a name on this system")
    assert memory.put(memoryview(bytes([7]) * (3 * KEPT_BYTES))) == 0
    memory.clear()
    assert memory.view[KEPT_BYTES - 1] == 7 and memory.view[KEPT_BYTES] == 0
    assert memory.put(memoryview(bytes(5 * KEPT_BYTES))) is None
    memory.close()
    memory.close()
