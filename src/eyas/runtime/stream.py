"""The pipeline behind `Detector.stream`: reading, inference and drawing in a thread each, frames in order."""

from __future__ import annotations

import atexit
import dataclasses
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from eyas.draw import annotate
from eyas.errors import UserError
from eyas.runtime.bounded_queue import Channel, Closed
from eyas.runtime.choices import check_batch
from eyas.runtime.sources import Frame, Item, Source, expand, frames, is_live
from eyas.types import Detections, UInt8Array


@dataclass(frozen=True)
class StreamSettings:
    """How a stream is run; the fields are arguments of `Detector.stream`."""

    batch: int = 1
    drop: bool | None = None
    draw: bool = False

    def __post_init__(self) -> None:
        """Refuse an empty batch."""
        check_batch(self.batch)


@dataclass(frozen=True)
class Problem:
    """Something that went wrong on the way, passed along in its place among the frames.

    Attributes:
        item: what was being read; None for a fault of a later stage.
        error: what happened.
    """

    item: Item | None
    error: BaseException


Detect: TypeAlias = Callable[[Sequence[UInt8Array]], Sequence[Detections]]
Found: TypeAlias = tuple[Frame, Detections]
OnProblem: TypeAlias = Callable[[str, UserError], None]


def run_stream(
    detect: Detect, source: Source, settings: StreamSettings, max_pixels: int, on_problem: OnProblem | None
) -> Iterator[Found]:
    """Return the stream's iterator; the source is resolved at once, so a missing file is told before the first frame.

    Args:
        detect: finds what is in some images.
        source: see `Detector.stream`.
        settings: how to run.
        on_problem: see `Detector.stream`.
    """
    return _consume(detect, expand(source), settings, max_pixels, on_problem)


def _consume(
    detect: Detect, items: Sequence[Item], settings: StreamSettings, max_pixels: int, on_problem: OnProblem | None
) -> Iterator[Found]:
    """Start the threads, yield what comes out, and end them however the caller leaves."""
    capacity = max(2, settings.batch)
    read: Channel[Frame | Problem] = Channel(capacity)
    found: Channel[Found | Problem] = Channel(capacity)
    drawn: Channel[Found | Problem] = Channel(capacity)
    stages: list[tuple[Callable[..., None], tuple[Any, ...], Channel[Any] | None, Channel[Any]]] = [
        (_read, (items, settings.drop, max_pixels, read), None, read),
        (_infer, (detect, settings, read, found), read, found),
    ]
    stages += [(_draw, (found, drawn), found, drawn)] if settings.draw else []
    threads = [threading.Thread(target=_work, args=stage, daemon=True) for stage in stages]
    for thread in threads:
        thread.start()

    def end() -> None:
        for channel in (read, found, drawn):
            channel.cancel()
        for thread in threads:
            thread.join(timeout=5.0)  # a camera's driver may hang for longer than anyone wants to wait

    # An error of the caller's keeps this generator alive in its traceback to the end of the program, which would end a
    # thread in the middle of an inference, and by that abort.
    atexit.register(end)
    try:
        yield from _report(drawn if settings.draw else found, on_problem)
    finally:
        atexit.unregister(end)
        end()


def _report(results: Channel[Found | Problem], on_problem: OnProblem | None) -> Iterator[Found]:
    """Yield results; tell problems, and raise those that nobody was given to tell to."""
    first: UserError | None = None
    anything = False
    while True:
        try:
            entry = results.get()
        except Closed:
            break
        if not isinstance(entry, Problem):
            anything = True
            yield entry
        elif entry.item is None or not isinstance(entry.error, UserError):
            raise entry.error
        elif on_problem is not None:
            on_problem(entry.item.name, entry.error)
        elif is_live(entry.item):
            raise entry.error
        else:
            first = first or entry.error
            warnings.warn(f"{entry.item.name} was skipped: {entry.error}", stacklevel=3)
    if first is not None and not anything:
        raise first


def _work(
    stage: Callable[..., None], arguments: tuple[Any, ...], inbox: Channel[Any] | None, outbox: Channel[Any]
) -> None:
    """Run a stage in its thread; whatever it raises goes down the line to the caller."""
    try:
        stage(*arguments)
    except Closed:
        pass
    except BaseException as error:
        with suppress(Closed):
            outbox.put(Problem(None, error))
    finally:
        outbox.finish()
        if inbox is not None:
            inbox.cancel()


def _read(items: Sequence[Item], drop: bool | None, max_pixels: int, outbox: Channel[Frame | Problem]) -> None:
    """Decode the items one after another."""
    for item in items:
        stale = is_live(item) if drop is None else drop
        droppable = partial(_is_frame_of, item) if stale else None
        try:
            for frame in frames(item, max_pixels):
                outbox.put(frame, droppable)
        except UserError as error:
            outbox.put(Problem(item, error))


def _is_frame_of(item: Item, entry: Frame | Problem) -> bool:
    return isinstance(entry, Frame) and entry.item is item


def _infer(
    detect: Detect, settings: StreamSettings, inbox: Channel[Frame | Problem], outbox: Channel[Found | Problem]
) -> None:
    """Detect in batches; a live source never waits for a batch to be full."""
    waiting: list[Frame] = []

    def flush() -> None:
        if waiting:
            found = detect([frame.image for frame in waiting])
            for pair in zip(waiting, found, strict=True):
                outbox.put(pair)
            waiting.clear()

    while True:
        try:
            entry = inbox.get()
        except Closed:
            break
        if isinstance(entry, Problem):
            flush()
            outbox.put(entry)
            continue
        waiting.append(entry)
        hurry = is_live(entry.item) and not inbox.waiting()
        if hurry or len(waiting) >= settings.batch:
            flush()
    flush()


def _draw(inbox: Channel[Found | Problem], outbox: Channel[Found | Problem]) -> None:
    """Draw the detections into a copy of each frame."""
    while True:
        entry = inbox.get()
        if not isinstance(entry, Problem):
            frame, detections = entry
            entry = dataclasses.replace(frame, drawn=annotate(frame.image, detections)), detections
        outbox.put(entry)
