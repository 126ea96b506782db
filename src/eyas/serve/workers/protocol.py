"""The messages between the front and a worker: a fixed head, JSON, and raw bytes. Pickle has no place here.

    front -> worker   SPEC, then BATCH by BATCH, perhaps STOP
    worker -> front   READY or FAILED, then RAN or BROKEN for each batch

Whatever arrives is checked before it is believed: a worker decodes hostile images and may be anybody's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, cast, get_args

import msgspec
import numpy as np

from eyas.serve.errors import Kind, Refused
from eyas.serve.workers.base import Broken, Found, ImageLimits, Ran, Ready, Task, WorkerSpec
from eyas.serve.workers.shared_memory import Slab
from eyas.types import Detections, Thresholds, UInt8Array

HEAD = struct.Struct("<4sB3xII")  # mark, type, bytes of JSON, bytes behind it
MARK = b"EYAS"
MAX_JSON = 16 << 20
MAX_BYTES = 2 << 30
_JSON = msgspec.json.Encoder()
BOX_BYTES = 16 + 4 + 8  # box float32 [4], score float32, label int64


class Type(IntEnum):
    """What a message is."""

    SPEC = 1
    READY = 2
    FAILED = 3
    BATCH = 4
    RAN = 5
    BROKEN = 6
    STOP = 7


class BadMessage(Exception):
    """What arrived is not a message, or makes no sense."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that has arrived whole: its type, its JSON and the bytes behind it."""

    type: Type
    fields: Any
    data: memoryview


def pack(kind: Type, fields: object, *parts: bytes | memoryview) -> bytes:
    """Return a message, ready to be sent."""
    text = _JSON.encode(fields)
    return b"".join((HEAD.pack(MARK, kind, len(text), sum(len(part) for part in parts)), text, *parts))


class Reader:
    """Puts messages together from what a socket gives, in whatever pieces."""

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def torn(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._held)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that are complete now.

        Raises:
            BadMessage: the bytes are no message; nothing that comes after makes sense.
        """
        self._held += data
        while len(self._held) >= HEAD.size:
            mark, number, text, behind = HEAD.unpack_from(self._held)
            if mark != MARK or number not in Type._value2member_map_ or text > MAX_JSON or behind > MAX_BYTES:
                raise BadMessage("the header of a message is invalid")
            end = HEAD.size + text + behind
            if len(self._held) < end:
                return
            whole = bytes(self._held[:end])
            del self._held[:end]
            try:
                fields = msgspec.json.decode(whole[HEAD.size : HEAD.size + text])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise BadMessage("the JSON of a message is invalid") from None
            yield Message(Type(number), fields, memoryview(whole)[HEAD.size + text :])


# ------------------------------------------------------------------------------------------------ what is in them


def pack_spec(spec: WorkerSpec) -> bytes:
    """Return the message that tells a worker what it serves."""
    return pack(Type.SPEC, {**asdict(spec), "bundle": str(spec.bundle)})


def read_spec(message: Message) -> WorkerSpec:
    """Return what `pack_spec` wrote."""
    fields = dict(message.fields)
    limits = {**fields["limits"], "formats": tuple(fields["limits"]["formats"])}
    return WorkerSpec(**{**fields, "bundle": Path(fields["bundle"]), "limits": ImageLimits(**limits)})


def pack_ready(ready: Ready) -> bytes:
    """Return the message of a warm worker."""
    return pack(Type.READY, asdict(ready))


def read_ready(message: Message) -> Ready:
    """Return what `pack_ready` wrote.

    Raises:
        BadMessage: it makes no sense.
    """
    try:
        fields = message.fields
        latencies = tuple((int(size), float(seconds)) for size, seconds in fields["latencies"])
        return Ready(str(fields["description"]), latencies, int(fields["memory"]))
    except (TypeError, ValueError, KeyError) as error:
        raise BadMessage(f"the message of a warm worker is invalid: {error!r}") from None


def pack_batch(tasks: Sequence[Task], slab: Slab | None) -> bytes:
    """Return the message of a batch. Its images go into the slab; those that do not fit, behind the JSON."""
    rows, parts, behind = [], [], 0
    for task in tasks:
        image = task.image
        data = memoryview(image) if isinstance(image, bytes) else _bytes_of(image)
        place = slab.put(data) if slab is not None else None
        if place is None:
            parts.append(data)
        start = behind if place is None else place
        behind += len(data) if place is None else 0
        shape = None if isinstance(image, bytes) else image.shape[:2]
        rows.append((place is not None, start, len(data), shape, _limits(task.thresholds), task.only, task.annotate))
    return pack(Type.BATCH, rows, *parts)


def _bytes_of(image: UInt8Array) -> memoryview:
    """Return an array's bytes, row by row."""
    return np.ascontiguousarray(image).data.cast("B")


def _limits(limits: Thresholds) -> tuple[float | int | str, ...]:
    """Return the thresholds' values in the order of their fields."""
    first = (limits.confidence, limits.iou, limits.candidates, limits.max_detections)
    return (*first, limits.suppression, limits.soft_sigma)


def read_batch(message: Message, slab: Slab | None) -> list[Task]:
    """Return what `pack_batch` wrote; arrays are views of the slab, files copies of it."""
    tasks = []
    for shared, start, length, shape, limits, only, annotate in message.fields:
        source = slab.view if shared and slab is not None else message.data
        data = source[start : start + length]
        image: bytes | UInt8Array
        image = bytes(data) if shape is None else np.frombuffer(data, np.uint8).reshape(*shape, 3)
        tasks.append(Task(image, Thresholds(*limits), None if only is None else tuple(only), annotate))
    return tasks


def pack_ran(ran: Ran) -> bytes:
    """Return the message of a batch's results."""
    rows: list[tuple[object, ...]] = []
    parts: list[bytes] = []
    for result in ran.results:
        if isinstance(result, Refused):
            rows.append((result.kind, result.message))
            continue
        found = result.detections
        times = (result.decode, result.preprocess, result.postprocess)
        rows.append((len(found), found.height, found.width, len(result.annotated), *times))
        parts += [found.boxes.tobytes(), found.scores.tobytes(), found.labels.tobytes(), result.annotated]
    return pack(Type.RAN, [ran.inference, rows], *parts)


def pack_broken(broken: Broken) -> bytes:
    """Return the message of a batch that failed as a whole."""
    told = broken.told
    return pack(Type.BROKEN, (broken.reason[:2000], None if told is None else (told.kind, told.message[:2000])))


def read_broken(message: Message) -> Broken:
    """Return what `pack_broken` wrote.

    Raises:
        BadMessage: it makes no sense.
    """
    try:
        reason, told = message.fields
        return Broken(str(reason)[:2000], None if told is None else _read_refused(told))
    except (TypeError, ValueError, IndexError) as error:
        raise BadMessage(f"the message of a failed batch is invalid: {error!r}") from None


def _read_refused(row: Any) -> Refused:
    """Return a refusal from its kind and its words."""
    if row[0] not in get_args(Kind):
        raise ValueError("an unknown kind of error")
    return Refused(cast(Kind, row[0]), str(row[1])[:2000])


def read_ran(message: Message, num: int, classes: tuple[str, ...]) -> Ran:
    """Return what `pack_ran` wrote.

    Args:
        message: what arrived.
        num: how many images were asked for.
        classes: the model's classes.

    Raises:
        BadMessage: it makes no sense.
    """
    try:
        inference, rows = message.fields
        if len(rows) != num:
            raise ValueError("the wrong number of results")
        results: list[Found | Refused] = []
        place = 0
        for row in rows:
            if isinstance(row[0], str):
                results.append(_read_refused(row))
                continue
            found, place = _read_found(row, message.data, place, classes)
            results.append(found)
        if place != len(message.data):
            raise ValueError("trailing bytes")
        return Ran(tuple(results), float(inference))
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise BadMessage(f"the results of a batch are invalid: {error!r}") from None


def _read_found(row: Any, data: memoryview, place: int, classes: tuple[str, ...]) -> tuple[Found, int]:
    """Return the detections of one image from its row and its bytes from `place` on, and where they end."""
    num, height, width, drawn, decode, preprocess, postprocess = row
    end = place + num * BOX_BYTES
    if num < 0 or drawn < 0 or height < 1 or width < 1 or end + drawn > len(data):
        raise ValueError("numbers out of range")
    boxes = np.frombuffer(data, np.float32, num * 4, place).reshape(num, 4).copy()
    scores = np.frombuffer(data, np.float32, num, place + num * 16).copy()
    labels = np.frombuffer(data, np.int64, num, place + num * 20).copy()
    if num and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise ValueError("a label is out of range")
    found = Detections(boxes, scores, labels, classes, height, width)
    image = bytes(data[end : end + drawn])
    return Found(found, image, float(decode), float(preprocess), float(postprocess)), end + drawn
