"""An engine for the tests of the protocols: small and honest.

It decodes every image really, finds one "bright" object (the box around pixels above 127) per image, obeys
thresholds, classes, deadlines, draining and cancelling, and drops frames of a stream that a newer one overtakes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.model_key import ModelKey
from eyas.decode import decode
from eyas.draw import annotate
from eyas.errors import UserError
from eyas.serve.api import Answer, ModelStatus, Request, Timing
from eyas.serve.errors import Refused, ServeError
from eyas.types import Detections, InputSpec, Thresholds, UInt8Array

CLASSES = ("bright", "dark")


def make_image(height: int = 48, width: int = 64, box: tuple[int, int, int, int] | None = (8, 4, 40, 24)) -> UInt8Array:
    """Return a black image with one white rectangle (or none)."""
    image = np.zeros((height, width, 3), np.uint8)
    if box is not None:
        image[box[1] : box[3], box[0] : box[2]] = 255
    return image


def encoded(image: UInt8Array | None = None, suffix: str = ".png") -> bytes:
    """Return the image as a file."""
    return cv2.imencode(suffix, cv2.cvtColor(make_image() if image is None else image, cv2.COLOR_RGB2BGR))[1].tobytes()


def manifest(name: str) -> Manifest:
    """Return a bundle's manifest."""
    return Manifest(
        name=name,
        classes=CLASSES,
        input=InputSpec(64, 64),
        batch=(1, 8),
        candidates=10,
        thresholds=Thresholds(),
        target="onnxruntime",
        precision="fp32",
        files={"model.onnx": "0" * 64},
        entry="model.onnx",
        created="2026-01-01T00:00:00Z",
        eyas="0",
    )


class FakeEngine:
    """See the module's text. `hold` makes requests wait until it is set; `crash` is raised in place of an answer."""

    def __init__(self, *names: str) -> None:
        self.statuses = [
            ModelStatus(ModelKey(name, version), "ready", manifest=manifest(name), default=version == "2")
            for name in names or ("shapes",)
            for version in ("1", "2")
        ]
        self.hold: asyncio.Event | None = None
        self.crash: Exception | None = None
        self.change: Callable[[Detections], Detections] = lambda found: found
        self.seen: list[Request] = []
        self.cancelled = 0
        self.welcome = True
        self.draining = False
        self._running: set[asyncio.Future[None]] = set()
        self._streams: dict[str, asyncio.Event] = {}

    async def detect(self, request: Request) -> Answer:
        """See `eyas.serve.api.Engine`."""
        key = self._route(request)
        if self.draining:
            raise ServeError("unavailable", "The server is ending.")
        if not self.welcome:
            raise ServeError("overloaded", "There is too much to do.", retry_after=2.4)
        self.seen.append(request)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running.add(done)
        try:
            return await self._answer(request, key)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._running.discard(done)
            done.set_result(None)

    def _route(self, request: Request) -> ModelKey:
        name = request.model or self.statuses[0].key.name
        version = request.version
        for each in self.statuses:
            wanted = version[1:] in each.aliases if version.startswith("@") else version == each.key.version
            if each.key.name == name and each.state == "ready" and (wanted or (not version and each.default)):
                return each.key
        raise ServeError("not_found", "There is no such model.")

    async def _answer(self, request: Request, key: ModelKey) -> Answer:
        start = time.perf_counter()
        options = request.options
        for name in options.classes or ():
            if name not in CLASSES:
                raise ServeError("invalid", f"There is no class {name!r}.")
        overtaken = asyncio.Event()
        if request.stream:
            self._streams.pop(request.stream, asyncio.Event()).set()
            self._streams[request.stream] = overtaken
        if self.hold is not None:
            waits = [asyncio.ensure_future(self.hold.wait()), asyncio.ensure_future(overtaken.wait())]
            try:
                await asyncio.wait(waits, timeout=request.timeout, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()
            if overtaken.is_set():
                raise ServeError("cancelled", "A newer frame came.")
            if not self.hold.is_set():
                raise ServeError("deadline", "The request was not answered in time.")
        if self.crash is not None:
            raise self.crash
        images, refused = [], dict(request.refused)
        for number, each in enumerate(request.images):
            try:
                images += [] if number in refused else [self._decode(each)]
            except ServeError as error:
                if not request.partial:
                    raise
                refused[number] = Refused(error.kind, error.message)
        found = tuple(self.change(self._find(image, request)) for image in images)
        drawn: tuple[bytes, ...] = ()
        if options.annotate:
            drawn = tuple(encoded(annotate(i, f), ".jpg") for i, f in zip(images, found, strict=True))
        timing = Timing(queue=0.001, decode=0.002, inference=0.003, total=time.perf_counter() - start)
        return Answer(request.id, key, found, drawn, timing, refused)

    def _decode(self, data: bytes | UInt8Array) -> UInt8Array:
        try:
            return decode(data) if isinstance(data, bytes) else data
        except UserError as error:
            raise ServeError("unprocessable", error.problem) from None

    def _find(self, image: UInt8Array, request: Request) -> Detections:
        height, width = image.shape[:2]
        rows, columns = np.nonzero(image[..., 0] > 127)
        options = request.options
        keep = len(rows) > 0 and (options.confidence or 0.25) <= 0.9 and "bright" in (options.classes or CLASSES)
        box = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if keep else []
        return Detections(
            np.array(box, np.float32).reshape(-1, 4),
            np.full(len(box), 0.9, np.float32),
            np.zeros(len(box), np.int64),
            CLASSES,
            height,
            width,
        )

    def models(self) -> tuple[ModelStatus, ...]:
        """See `eyas.serve.api.Engine`."""
        return tuple(self.statuses)

    async def load(self, name: str, version: str = "", bundle: Path | None = None) -> ModelKey:
        """See `eyas.serve.api.Engine`."""
        return self._set(name, version, "ready")

    async def unload(self, name: str, version: str = "") -> None:
        """See `eyas.serve.api.Engine`."""
        self._set(name, version, "unloaded")

    def _set(self, name: str, version: str, state: str) -> ModelKey:
        found = [e for e in self.statuses if e.key.name == name and version in ("", e.key.version)]
        if not found:
            raise ServeError("not_found", "There is no such model.")
        self.statuses = [
            dataclasses.replace(each, state=state) if each in found else each  # type: ignore[arg-type]
            for each in self.statuses
        ]
        return found[-1].key

    def alias(self, name: str, alias: str, version: str) -> None:
        """See `eyas.serve.api.Engine`."""
        if not any(e.key == ModelKey(name, version) and e.state == "ready" for e in self.statuses):
            raise ServeError("not_found", "There is no such version.")
        self.statuses = [
            dataclasses.replace(e, aliases=(alias,) if e.key == ModelKey(name, version) else ()) for e in self.statuses
        ]

    def ready(self) -> bool:
        """See `eyas.serve.api.Engine`."""
        return self.welcome and not self.draining

    async def drain(self) -> None:
        """See `eyas.serve.api.Engine`."""
        self.draining = True
        await asyncio.gather(*self._running)

    async def close(self) -> None:
        """See `eyas.serve.api.Engine`."""
        self.draining = True
