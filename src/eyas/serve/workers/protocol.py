"""The messages between the front and a worker: a length, then MessagePack. Pickle has no place here.

    front -> worker   StartWorker, then RunBatch by RunBatch, perhaps StopWorker
    worker -> front   Ready or NotStarted, then SentRan or Broken for each batch

Whatever arrives is checked before it is believed: a worker decodes hostile images and may be anybody's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import numpy as np

from eyas.serve.errors import Refused
from eyas.serve.workers.base import Broken, ImageResult, Ran, Ready, Task, Words, WorkerSpec
from eyas.serve.workers.shared_memory import SharedMemory
from eyas.types import Detections, Thresholds, UInt8Array

HEAD = struct.Struct("<4sI")  # mark, bytes behind it
MARK = b"EYAS"
MAX_BYTES = 2 << 30
Positive = Annotated[int, msgspec.Meta(ge=1)]
T = TypeVar("T")
_ENCODER = msgspec.msgpack.Encoder(enc_hook=str)  # of paths


class StartWorker(msgspec.Struct, frozen=True, tag="start"):
    """Tells a worker what it serves."""

    spec: WorkerSpec


class NotStarted(msgspec.Struct, frozen=True, tag="failed"):
    """The worker can't serve that; the reason is for the operator."""

    reason: Words


class StopWorker(msgspec.Struct, frozen=True, tag="stop"):
    """Tells a worker to end."""


class SentImage(msgspec.Struct, frozen=True, array_like=True):
    """A `Task` on its way.

    Attributes:
        data: its bytes; empty when they lie in the shared memory.
        start, length: where they lie there.
        shape: height and width of an array, None for a file.
    """

    data: bytes
    start: int
    length: int
    shape: tuple[int, int] | None
    thresholds: Thresholds
    only: tuple[int, ...] | None
    annotate: bool


class RunBatch(msgspec.Struct, frozen=True, tag="batch"):
    """Images to be run."""

    images: tuple[SentImage, ...]


class SentFound(msgspec.Struct, frozen=True, tag="found", array_like=True):
    """A `ImageResult` on its way: the arrays of its detections as bytes, without the classes' names."""

    height: Positive
    width: Positive
    boxes: bytes
    scores: bytes
    labels: bytes
    annotated: bytes
    decode: float
    preprocess: float
    postprocess: float


class SentRan(msgspec.Struct, frozen=True, tag="ran"):
    """A `Ran` on its way."""

    results: tuple[SentFound | Refused, ...]
    inference: float


ToWorker = StartWorker | RunBatch | StopWorker
FromWorker = Ready | NotStarted | SentRan | Broken


class BadMessage(Exception):
    """What arrived is not a message, or makes no sense."""


def pack(message: ToWorker | FromWorker) -> bytearray:
    """Return a message, ready to be sent."""
    packed = bytearray(HEAD.size)
    _ENCODER.encode_into(message, packed, HEAD.size)
    HEAD.pack_into(packed, 0, MARK, len(packed) - HEAD.size)
    return packed


class MessageReader(Generic[T]):
    """Puts messages together from what a socket gives, in whatever pieces.

    Args:
        kinds: `FromWorker` or `ToWorker`.
    """

    def __init__(self, kinds: Any) -> None:
        self._decoder = msgspec.msgpack.Decoder(kinds, dec_hook=lambda kind, value: kind(value))
        self._held = bytearray()

    @property
    def torn(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._held)

    def feed(self, data: bytes) -> Iterator[T]:
        """Yield the messages that are complete now.

        Raises:
            BadMessage: the bytes are no message that this side awaits; nothing that comes after makes sense.
        """
        self._held += data
        while len(self._held) >= HEAD.size:
            mark, length = HEAD.unpack_from(self._held)
            if mark != MARK or length > MAX_BYTES:
                raise BadMessage("the header of a message is invalid")
            end = HEAD.size + length
            if len(self._held) < end:
                return
            content = bytes(memoryview(self._held)[HEAD.size : end])
            del self._held[:end]
            try:
                yield self._decoder.decode(content)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise BadMessage(f"a message is wrong: {error}") from None


def sent_ran(ran: Ran) -> SentRan:
    """Return the message of a batch's results."""
    return SentRan(tuple(each if isinstance(each, Refused) else _sent(each) for each in ran.results), ran.inference)


def _sent(result: ImageResult) -> SentFound:
    found = result.detections
    arrays = found.boxes.tobytes(), found.scores.tobytes(), found.labels.tobytes()
    times = result.decode, result.preprocess, result.postprocess
    return SentFound(found.height, found.width, *arrays, result.annotated, *times)


def ran_of(message: SentRan, num: int, classes: tuple[str, ...]) -> Ran:
    """Return the results that a message brings.

    Args:
        message: what arrived.
        num: how many images were asked for.
        classes: the model's classes.

    Raises:
        BadMessage: it makes no sense.
    """
    if len(message.results) != num:
        raise BadMessage("another number of results than of images")
    try:
        found = [each if isinstance(each, Refused) else _found(each, classes) for each in message.results]
    except ValueError as error:
        raise BadMessage(f"the results of a batch are wrong: {error}") from None
    return Ran(tuple(found), message.inference)


def _found(sent: SentFound, classes: tuple[str, ...]) -> ImageResult:
    boxes = np.frombuffer(sent.boxes, np.float32).reshape(-1, 4).copy()
    scores, labels = np.frombuffer(sent.scores, np.float32).copy(), np.frombuffer(sent.labels, np.int64).copy()
    if not len(boxes) == len(scores) == len(labels):
        raise ValueError("numbers of boxes, scores and labels that differ")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise ValueError("a label is out of range")
    found = Detections(boxes, scores, labels, classes, sent.height, sent.width)
    return ImageResult(found, sent.annotated, sent.decode, sent.preprocess, sent.postprocess)


def batch_of(tasks: Sequence[Task], memory: SharedMemory | None) -> RunBatch:
    """Return the message of a batch. Its images go into the shared memory, or into it where they do not fit."""
    images = []
    for task in tasks:
        image = task.image
        data = memoryview(image) if isinstance(image, bytes) else np.ascontiguousarray(image).data.cast("B")
        start = memory.put(data) if memory is not None else None
        shape = None if isinstance(image, bytes) else (image.shape[0], image.shape[1])
        inside = data.tobytes() if start is None else b""
        images.append(SentImage(inside, start or 0, len(data), shape, task.thresholds, task.only, task.annotate))
    return RunBatch(tuple(images))


def tasks_of(batch: RunBatch, memory: SharedMemory | None) -> list[Task]:
    """Return the tasks of a batch; arrays are views of the shared memory, files copies of it."""
    tasks = []
    for each in batch.images:
        data: bytes | memoryview = each.data
        if memory is not None and not each.data:
            data = memory.view[each.start : each.start + each.length]
        image: bytes | UInt8Array
        image = bytes(data) if each.shape is None else np.frombuffer(data, np.uint8).reshape(*each.shape, 3)
        tasks.append(Task(image, each.thresholds, each.only, each.annotate))
    return tasks
