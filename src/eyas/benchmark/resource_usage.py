"""Times a detector at work, stage by stage, through the very calls that a user makes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eyas.benchmark.stage_timer import Cost, now, since
from eyas.runtime.detector import Detector
from eyas.runtime.sessions.base import Session
from eyas.types import FloatArray, UInt8Array

STAGES = ("decode", "preprocess", "inference", "postprocess")
Stages = tuple[float, float, float, float]


@dataclass(frozen=True)
class Round:
    """Some calls in a row.

    Attributes:
        calls: milliseconds of each call's stages, in the order of `STAGES`.
        images: how many images they took together.
        found: how many objects they gave together.
        cost: of all of it.
    """

    calls: tuple[Stages, ...]
    images: int
    found: int
    cost: Cost


@dataclass(frozen=True)
class Streamed:
    """Frames that went through `Detector.stream`, and what that cost."""

    frames: int
    cost: Cost


class WatchedSession:
    """A session that notes when it was last entered and left.

    Args:
        session: does the work.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.name = session.name
        self.description = session.description
        self.entered = 0.0
        self.left = 0.0

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return (boxes, scores) of a batch; see `Session.run`."""
        self.entered = time.perf_counter()
        answer = self._session.run(images)
        self.left = time.perf_counter()
        return answer

    def close(self) -> None:
        """Free the session."""
        self._session.close()


class Meter:
    """A detector and the images that it is measured on.

    Args:
        detector: with its engine.
        images: files, any number from one; their bytes are kept in memory, so that no disk is measured.
        batch: how many images a call takes.
    """

    def __init__(self, detector: Detector, images: Sequence[Path], batch: int = 1) -> None:
        self._watched = WatchedSession(detector.session)
        self._detector = Detector(
            self._watched, detector.classes, detector.input, detector.thresholds, max_pixels=detector.max_pixels
        )
        self._files = list(images)
        self._batches = _batches([path.read_bytes() for path in images], batch)
        self._batch = batch

    def round(self, seconds: float) -> Round:
        """Return the calls that fill `seconds`, one at least."""
        calls: list[Stages] = []
        found = 0
        start = now()
        while not calls or time.perf_counter() - start.wall < seconds:
            stages, objects = self.call()
            calls.append(stages)
            found += objects
        return Round(tuple(calls), len(calls) * self._batch, found, since(start))

    def call(self) -> tuple[Stages, int]:
        """Return what one call cost, from the files' bytes to the detections, and how many these are."""
        data = next(self._batches)
        began = time.perf_counter()
        images = [self._detector.read(one) for one in data]
        decoded = time.perf_counter()
        found = self._detector.predict(images, self._detector.thresholds)
        ended = time.perf_counter()
        marks = (began, decoded, self._watched.entered, self._watched.left, ended)
        decode, preprocess, inference, postprocess = (1000 * (b - a) for a, b in itertools.pairwise(marks))
        return (decode, preprocess, inference, postprocess), sum(map(len, found))

    def stream(self, frames: int) -> Streamed:
        """Return what it cost to stream so many frames, beginning and end included."""
        source = [self._files[i % len(self._files)] for i in range(frames)]
        start = now()
        num = sum(1 for _ in self._detector.stream(source, batch=self._batch))
        return Streamed(num, since(start))


def _batches(data: Sequence[bytes], batch: int) -> Iterator[list[bytes]]:
    forever = itertools.cycle(data)
    while True:
        yield list(itertools.islice(forever, batch))
