"""The event log: a line a request, for monitoring to read later; feedback; and, if asked for, some of the images.

`events.jsonl` holds three kinds of lines. "detect": time, id, trace, protocol, model, version, outcome, where the time
went, and for each image its size, statistics of a share of them (brightness, contrast, sharpness), and a summary of
what was found (number, classes, histogram of scores); in an answer whose outcome is "partial" some have "refused" and
the kind in their place. "feedback": what somebody said about an answer, by request id. "shadow": what another version
made of a copy of the request whose id is in "of"; no client ever saw it.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from eyas.artifacts.model_key import ModelKey
from eyas.decode import decode
from eyas.draw import write_png
from eyas.errors import UserError
from eyas.image_header import parse_header
from eyas.renamed import KEYS
from eyas.serve.api import Answer, Request
from eyas.serve.errors import Refused, ServeError
from eyas.serve.observe.jsonl_log import Journal
from eyas.types import Detections, UInt8Array

NAME = "events.jsonl"
IMAGES = "images"
STATISTICS = 0.1  # share of the requests whose images' statistics are taken
RECENT = 100_000  # request ids that are remembered, to tell whether feedback belongs to one
_BINS = np.linspace(0.0, 1.0, 11)
_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}


@dataclass(frozen=True)
class EventSettings:
    """What the event log holds.

    Attributes:
        folder: where it lies.
        images: share of requests whose images are kept, 0 to 1; none unless asked for, since images show people.
        keep_seconds: after which a kept image is deleted.
    """

    folder: Path
    images: float = 0.0
    keep_seconds: float = 7 * 86_400.0


class EventLog:
    """Writes events; see the module's text for what they hold.

    Args:
        settings: what is written, and where.
        on_drop: called with the number of events that were lost.
    """

    def __init__(self, settings: EventSettings, on_drop: Callable[[int], None] = lambda _count: None) -> None:
        self._settings = settings
        self._journal = Journal(settings.folder / NAME, on_drop)
        self._recent = Recent(RECENT)
        self._swept = 0.0

    def detected(self, request: Request, answer: Answer, *, protocol: str, trace: str) -> None:
        """Log an answer."""
        statistics, keep = random.random() < STATISTICS, random.random() < self._settings.images
        now = time.time()
        self._recent.add(answer.id)
        self._journal.submit(lambda: self._line(request, answer, protocol, trace, now, statistics, keep))

    def refused(self, request_id: str, model: str, *, protocol: str, trace: str, outcome: str) -> None:
        """Log a request that was not answered."""
        head = {"event": "detect", "time": time.time(), "id": request_id, "trace": trace}
        self._journal.write({**head, "protocol": protocol, "model": model, "outcome": outcome})

    def shadowed(self, request: Request, key: ModelKey, result: Answer | ServeError, *, trace: str) -> None:
        """Log what a version made of a copy of a request."""
        now = time.time()
        head = {"event": "shadow", "of": request.id.rpartition("~")[0]}
        if isinstance(result, Answer):
            answer = result
            self._journal.submit(lambda: {**self._line(request, answer, "shadow", trace, now, False, False), **head})
        else:
            told = {"time": now, "id": request.id, "trace": trace, "model": key.name, "version": key.version}
            self._journal.write({**head, **told, "outcome": result.kind})

    def feedback(self, request_id: str, content: dict[str, Any]) -> bool:
        """Log what somebody says about an answer, and return whether the request is one of the recent ones."""
        known = request_id in self._recent
        self._journal.write({"event": "feedback", "time": time.time(), "id": request_id, "known": known, **content})
        return known

    def flush(self) -> None:
        """Wait until everything lies in the file."""
        self._journal.flush()

    def close(self) -> None:
        """Write what waits."""
        self._journal.close()

    def _line(
        self, request: Request, answer: Answer, protocol: str, trace: str, now: float, statistics: bool, keep: bool
    ) -> dict[str, Any]:
        """Return the line of an answer; runs in the journal's thread."""
        timing = answer.timing
        names = ("queue", "decode", "preprocess", "inference", "postprocess", "total")
        images = []
        for index, (image, found) in enumerate(zip(request.images, answer.images(), strict=True)):
            size = len(image) if isinstance(image, bytes) else image.nbytes
            if isinstance(found, Refused):
                images.append({"refused": found.kind, "bytes": size})
                continue
            entry = {"height": found.height, "width": found.width, **summary(found), "bytes": size}
            if statistics:
                entry.update(image_statistics(image))
            if keep:
                entry["kept"] = self._keep(f"{now:.3f}-{_safe(answer.id)}-{index}", image)
            images.append(entry)
        self._sweep(now)
        event: dict[str, Any] = {
            "event": "detect",
            "time": now,
            "id": answer.id,
            "trace": trace,
            "protocol": protocol,
            "model": answer.model.name,
            "version": answer.model.version,
            "outcome": "partial" if answer.refused else "ok",
            "lane": request.lane,
            "stream": request.stream,
            "seconds": {name: round(getattr(timing, name), 6) for name in names},
            "batch": timing.batch,
            "images": images,
        }
        return event | {KEYS["images"]: images}

    def _keep(self, name: str, image: bytes | UInt8Array) -> str:
        """Write the image beside the log and return its file's name."""
        folder = self._settings.folder / IMAGES
        folder.mkdir(exist_ok=True)
        if isinstance(image, bytes):
            header = parse_header(image)
            path = folder / (name + _SUFFIXES.get(header.kind if header else "", ".bin"))
            path.write_bytes(image)
        else:
            path = folder / f"{name}.png"
            write_png(image, path)
        return path.name

    def _sweep(self, now: float) -> None:
        """Delete, once a minute, the images that are too old."""
        folder = self._settings.folder / IMAGES
        since = now - self._swept  # below 0 when the clock was set back
        if 0 <= since < min(60.0, self._settings.keep_seconds) or not folder.is_dir():
            return
        self._swept = now
        for path in folder.iterdir():
            if abs(now - path.stat().st_mtime) > self._settings.keep_seconds:  # one from the future is of another clock
                path.unlink(missing_ok=True)


class Recent:
    """Remembers the last ids by their hashes, eight bytes each, all of it taken at the start.

    Two of 100,000 ids share a hash once in billions of questions; feedback that is then called known is logged anyway.

    Args:
        size: how many ids, 1 or more.
    """

    def __init__(self, size: int) -> None:
        self._hashes = np.full(size, hash(""), np.int64)  # written, so that the memory is really there
        self._next = 0

    def add(self, request_id: str) -> None:
        """Remember an id, and forget the oldest."""
        self._hashes[self._next] = hash(request_id)
        self._next = (self._next + 1) % len(self._hashes)

    def __contains__(self, request_id: str) -> bool:
        """Return whether the id is one of the last; nobody's is empty."""
        return bool(request_id) and bool((self._hashes == hash(request_id)).any())


def summary(found: Detections) -> dict[str, Any]:
    """Return the number of detections, of each class, and the histogram of scores in steps of a tenth."""
    numbers = Counter(found.classes[label] for label in found.labels.tolist())
    histogram = np.histogram(found.scores, _BINS)[0].tolist() if len(found) else [0] * 10
    areas = (found.boxes[:, 2] - found.boxes[:, 0]) * (found.boxes[:, 3] - found.boxes[:, 1])
    share = float(areas.mean() / max(1, found.height * found.width)) if len(found) else 0.0
    return {"detections": len(found), "classes": dict(numbers), "scores": histogram, "area": round(share, 6)}


def image_statistics(image: bytes | UInt8Array) -> dict[str, float]:
    """Return mean brightness, contrast (its deviation) and sharpness (variance of the Laplacian), all of grey 0..1."""
    try:
        pixels = decode(image, shrink=8, fast=True) if isinstance(image, bytes) else image[::4, ::4]
    except UserError:
        return {}
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0
    sharpness = cv2.Laplacian(grey, cv2.CV_32F).var()
    return {
        "brightness": round(float(grey.mean()), 4),
        "contrast": round(float(grey.std()), 4),
        "sharpness": round(float(sharpness), 6),
    }


def _safe(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)[:80]
