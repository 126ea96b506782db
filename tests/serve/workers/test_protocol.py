"""The messages: what goes in comes out, in whatever pieces; nonsense is told and never believed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.serve.errors import Refused
from eyas.serve.workers.base import Found, ImageLimits, Ran, Ready, Task, WorkerSpec
from eyas.serve.workers.protocol import (
    HEAD,
    MARK,
    BadMessage,
    Message,
    Reader,
    Type,
    pack,
    pack_batch,
    pack_ran,
    pack_ready,
    pack_spec,
    read_batch,
    read_ran,
    read_ready,
    read_spec,
)
from eyas.serve.workers.shared_memory import KEPT_BYTES, Slab
from eyas.types import Detections, Thresholds

CLASSES = ("a", "b", "c")
RNG = np.random.default_rng(0)


def arrived(data: bytes) -> Message:
    """Return the one message in the bytes."""
    (message,) = Reader().feed(data)
    return message


def detections(num: int) -> Detections:
    """Return random detections."""
    boxes, scores = RNG.random((num, 4), np.float32), RNG.random(num, np.float32)
    return Detections(boxes, scores, RNG.integers(0, 3, num), CLASSES, 40, 60)


def test_specs_and_readiness_come_through() -> None:
    spec = WorkerSpec(Path("b"), threads=2, limits=ImageLimits(max_side=7, formats=("png",)), memory=5)
    assert read_spec(arrived(pack_spec(spec))) == spec
    ready = Ready("engine", ((1, 0.5), (2, 0.75)), 1234)
    assert read_ready(arrived(pack_ready(ready))) == ready


@pytest.mark.parametrize("size", [0, 100_000, 20_000])
def test_batches_come_through_the_slab_or_beside_it(size: int) -> None:
    slab = Slab.create(size)
    array = RNG.integers(0, 255, (50, 60, 3), dtype=np.uint8)
    tasks = [
        Task(RNG.bytes(15_000), Thresholds(0.3, 0.4, 5, 6, "soft", 0.7), (0, 2), True),
        Task(array[:, ::-1], Thresholds()),
        Task(RNG.bytes(15_000), Thresholds(suppression="none")),
    ]
    message = arrived(pack_batch(tasks, slab))
    assert len(message.data) == {0: 39_000, 100_000: 0, 20_000: 24_000}[size]
    for task, given_task in zip(read_batch(message, slab), tasks, strict=True):
        assert (task.thresholds, task.only, task.annotate) == (
            given_task.thresholds,
            given_task.only,
            given_task.annotate,
        )
        np.testing.assert_array_equal(task.image, given_task.image)


def test_results_come_through() -> None:
    given_results = (Found(detections(3), b"jpeg", 0.1, 0.2, 0.3), Refused("too_large", "no"), Found(detections(0)))
    ran = read_ran(arrived(pack_ran(Ran(given_results, 0.5))), 3, CLASSES)
    assert ran.inference == 0.5 and ran.results[1] == given_results[1]
    for result, expected in zip(ran.results, given_results, strict=True):
        if isinstance(result, Found) and isinstance(expected, Found):
            for name in ("boxes", "scores", "labels"):
                array, wanted = vars(result.detections)[name], vars(expected.detections)[name]
                np.testing.assert_array_equal(array, wanted)
                assert array.dtype == wanted.dtype and array.flags.aligned and array.flags.writeable
            assert result.annotated == expected.annotated
            assert (result.decode, result.postprocess) == (expected.decode, expected.postprocess)


@settings(max_examples=30)
@given(st.integers(1, 500), st.integers(0, 3))
def test_pieces_make_no_difference(step: int, number: int) -> None:
    data = b"".join(pack(Type.BROKEN, i, bytes(i * 50)) for i in range(number)) + pack(Type.STOP, None)
    reader, found = Reader(), []
    for start in range(0, len(data), step):
        found += list(reader.feed(data[start : start + step]))
    assert [message.fields for message in found] == [*range(number), None] and not reader.torn
    assert list(reader.feed(data[: HEAD.size])) == [] and reader.torn


@pytest.mark.parametrize(
    "data",
    [
        b"EYAZ" + bytes(12),
        HEAD.pack(MARK, 99, 0, 0),
        HEAD.pack(MARK, 1, 2**31, 0),
        HEAD.pack(MARK, 1, 0, 2**32 - 1),
        HEAD.pack(MARK, 1, 3, 0) + b"{x}",
        HEAD.pack(MARK, 1, 100_000, 0) + b"[" * 100_000,
        HEAD.pack(MARK, 1, 2, 0) + b"\xff\xfe",
    ],
)
def test_what_is_no_message_is_told(data: bytes) -> None:
    with pytest.raises(BadMessage):
        list(Reader().feed(data))


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        [0.1],
        [0.1, []],
        [0.1, [["no kind", "words"]]],
        [0.1, [[1, 10, 10, 0, 0, 0]]],
        [0.1, [[-1, 10, 10, 0, 0, 0, 0]]],
        [0.1, [[2**40, 10, 10, 0, 0, 0, 0]]],
        [0.1, [[1, 10, 10, 5, 0, 0, 0]]],
        [0.1, [[1, 0, 10, 0, 0, 0, 0]]],
        [0.1, [[0, 10, 10, 0, 0, 0, 0]]],
        [0.1, [[1, 10, 10, 0, "x", 0, 0]]],
        ["x", [[1, 10, 10, 0, 0, 0, 0]]],
        [0.1, {"a": 1}],
    ],
)
def test_results_that_make_no_sense_are_not_believed(fields: object) -> None:
    with pytest.raises(BadMessage):
        read_ran(arrived(pack(Type.RAN, fields, bytes(28))), 1, CLASSES)


def test_a_label_that_is_no_class_is_not_believed() -> None:
    found = Detections(
        np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.array([3], np.int64), (*CLASSES, "d"), 1, 1
    )
    with pytest.raises(BadMessage, match="label"):
        read_ran(arrived(pack_ran(Ran((Found(found),), 0.0))), 1, CLASSES)


JSON = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=8),
    max_leaves=20,
)


@settings(max_examples=40)
@given(JSON, st.binary(max_size=200))
def test_no_message_of_a_worker_does_more_than_be_refused(fields: object, data: bytes) -> None:
    for kind, read in ((Type.RAN, lambda m: read_ran(m, 1, CLASSES)), (Type.READY, read_ready)):
        with contextlib.suppress(BadMessage):
            read(arrived(pack(kind, fields, data)))


@settings(max_examples=60)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_bytes_do_more_than_be_refused(noise: bytes, place: int) -> None:
    data = bytearray(pack_ran(Ran((Found(detections(2)),), 0.0)))
    place = min(place, len(data))
    data[place : place + len(noise)] = noise
    try:
        for message in Reader().feed(bytes(data)):
            if message.type is Type.RAN:
                read_ran(message, 1, CLASSES)
    except BadMessage:
        pass


def test_memory_of_a_large_batch_is_given_back() -> None:
    slab = Slab.create(4 * KEPT_BYTES)
    if slab is None:
        pytest.skip("no memory without a name on this system")
    assert slab.put(memoryview(bytes([7]) * (3 * KEPT_BYTES))) == 0
    slab.clear()
    assert slab.view[KEPT_BYTES - 1] == 7 and slab.view[KEPT_BYTES] == 0
    assert slab.put(memoryview(bytes(5 * KEPT_BYTES))) is None
    slab.close()
    slab.close()
