"""The detector: images in, detections out, whatever engine runs the network."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import overload

from eyas.decode import MAX_PIXELS
from eyas.errors import UserError
from eyas.runtime.choices import check_batch, labels_of, shortened
from eyas.runtime.images import Image, batches, is_image, is_many, not_an_image, read_one
from eyas.runtime.postprocess import select
from eyas.runtime.preprocess import Preprocessor
from eyas.runtime.sessions.base import Session
from eyas.runtime.sessions.contract import check_results
from eyas.runtime.sources import Frame, Source
from eyas.types import DETECT, Detections, FloatArray, InputSpec, IntArray, Suppression, Thresholds, UInt8Array

__all__ = ["Detector", "Image"]


class Detector:
    """A network, its classes and its input contract, ready for use from any number of threads.

    `eyas.load` makes one; it works as a context manager, which frees the engine at the end.

    Args:
        session: the engine with the network.
        classes: class names in label order.
        input_spec: how images become the network's input.
        thresholds: what a prediction must pass unless a call says otherwise.
        max_pixels: images with more pixels are refused before they are decoded.
    """

    def __init__(
        self,
        session: Session,
        classes: Sequence[str],
        input_spec: InputSpec,
        thresholds: Thresholds = DETECT,
        *,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.classes = tuple(classes)
        self.input = input_spec
        self.thresholds = thresholds
        self.max_pixels = max_pixels
        self._session = session
        self._preprocess = Preprocessor(input_spec)
        self._closed = False
        self._running = 0  # calls inside the engine
        self._changed = threading.Condition()

    @property
    def session(self) -> Session:
        """Return the engine."""
        return self._session

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str too; the first overload is meant
        self,
        images: Image,
        *,
        confidence: float | None = ...,
        iou: float | None = ...,
        suppression: Suppression | None = ...,
        classes: Sequence[str] | None = ...,
        batch: int = ...,
    ) -> Detections: ...

    @overload
    def __call__(
        self,
        images: Iterable[Image],
        *,
        confidence: float | None = ...,
        iou: float | None = ...,
        suppression: Suppression | None = ...,
        classes: Sequence[str] | None = ...,
        batch: int = ...,
    ) -> list[Detections]: ...

    def __call__(
        self,
        images: Image | Iterable[Image],
        *,
        confidence: float | None = None,
        iou: float | None = None,
        suppression: Suppression | None = None,
        classes: Sequence[str] | None = None,
        batch: int = 8,
    ) -> Detections | list[Detections]:
        """Return the detections of one image, or of each image of a list or an iterator.

        Args:
            images: a path, an http address, an image file's bytes, an open file, uint8 [H, W, 3] RGB, a PIL image
                (turned upright as its EXIF says), or a torch tensor [3, H, W] or [H, W, 3], RGB, uint8 or floats from
                0 to 1; or a list or an iterator of these, which is read a batch at a time.
            confidence, iou, suppression: thresholds for this call, in place of the detector's.
            classes: names of the only classes wanted.
            batch: how many images of a list go through the network at once.

        Raises:
            UserError: an image can't be read or is none, a class is unknown, a threshold is out of range.
        """
        thresholds = self.limits(confidence, iou, suppression)
        only = self.labels_of(classes)
        if is_image(images):
            return self.predict([self.read(images)], thresholds, only)[0]
        if not is_many(images):
            raise not_an_image(images)
        check_batch(batch)
        found: list[Detections] = []
        for group in batches(images, batch, self.read):
            found += self.predict(group, thresholds, only)
        return found

    def predict(
        self,
        images: Sequence[UInt8Array],
        thresholds: Thresholds | Sequence[Thresholds],
        only: IntArray | None = None,
    ) -> list[Detections]:
        """Return the detections of each image; all go through the network as one batch.

        Args:
            images: uint8 [H, W, 3], RGB, at least one.
            thresholds: what a prediction must pass, for all images or one for each.
            only: the labels wanted; None means all.
        """
        limits = [thresholds] * len(images) if isinstance(thresholds, Thresholds) else thresholds
        batch, placements = self._preprocess(images)
        boxes, scores = self.infer(batch)
        return [
            select(boxes[i], scores[i], placements[i], image.shape[0], image.shape[1], self.classes, limit, only)
            for i, (image, limit) in enumerate(zip(images, limits, strict=True))
        ]

    def infer(self, batch: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return the network's candidates for images that are letterboxed already; see `Session.run`.

        Raises:
            UserError: the detector was closed, or the network gives something else than it should.
        """
        with self._open():
            boxes, scores = self._session.run(batch)
        check_results(boxes, scores, len(batch), len(self.classes))
        return boxes, scores

    def stream(
        self,
        source: Source,
        *,
        confidence: float | None = None,
        iou: float | None = None,
        suppression: Suppression | None = None,
        classes: Sequence[str] | None = None,
        batch: int = 1,
        drop: bool | None = None,
        draw: bool = False,
        on_problem: Callable[[str, UserError], None] | None = None,
    ) -> Iterator[tuple[Frame, Detections]]:
        """Yield (frame, detections) of everything in the source, in order, while the next frames are made ready.

        Reading and decoding, inference, and drawing run in a thread each; a few frames wait between them at most.

        Args:
            source: an image, folder, glob, video, camera number, stream address or array, or a list of these.
            confidence, iou, suppression, classes: as for a call.
            batch: how many frames go through the network at once.
            drop: True: when inference is slower than the source, the oldest waiting frame is dropped (the gaps show
                in `frame.index`); False: the source waits; None: drop for cameras and network streams, else wait.
            draw: whether to draw the detections into a copy of the image, `frame.drawn`.
            on_problem: called with (what, error) for an image that can't be read and a video that breaks off;
                None warns instead, and raises if nothing at all could be read.

        Raises:
            UserError: nothing was found at the source, the detector was closed, or a camera stopped; whatever came
                before has been yielded.
        """
        from eyas.runtime.stream import StreamSettings, run_stream

        with self._open():
            pass  # told here, and not when the first frame is asked for
        limits, settings = self.limits(confidence, iou, suppression), StreamSettings(batch, drop, draw)
        detect = partial(self.predict, thresholds=limits, only=self.labels_of(classes))
        return run_stream(detect, source, settings, self.max_pixels, on_problem)

    def read(self, image: Image, where: str = "") -> UInt8Array:
        """Return any supported image input as uint8 [H, W, 3] RGB; see `eyas.runtime.images.read_one`.

        Raises:
            UserError: it can't be read, or is of another type or shape.
        """
        return read_one(image, self.max_pixels, where)

    def limits(
        self, confidence: float | None = None, iou: float | None = None, suppression: Suppression | None = None
    ) -> Thresholds:
        """Return the detector's thresholds with those given in their place."""
        return dataclasses.replace(
            self.thresholds,
            confidence=self.thresholds.confidence if confidence is None else confidence,
            iou=self.thresholds.iou if iou is None else iou,
            suppression=suppression or self.thresholds.suppression,
        )

    def labels_of(self, classes: Sequence[str] | None) -> IntArray | None:
        """Return the labels of the class names, sorted; None for None.

        Raises:
            UserError: the model has no such class (the nearest one is suggested).
        """
        return labels_of(classes, self.classes)

    @property
    def engine(self) -> str:
        """Return the engine in one line: which one, device, precision."""
        return self._session.description

    def describe(self) -> str:
        """Return a readable summary of this detector, a few lines."""
        limits = self.thresholds
        overlap = "no suppression" if limits.suppression == "none" else f"IoU {limits.iou:g} ({limits.suppression})"
        return (
            f"engine:     {self._session.description}\n"
            f"input:      {self.input.width} x {self.input.height} RGB, longest side fitted, padded\n"
            f"classes:    {len(self.classes)}: {shortened(self.classes)}\n"
            f"thresholds: confidence {limits.confidence:g}, {overlap}, "
            f"at most {limits.max_detections} detections"
        )

    def close(self) -> None:
        """Free the engine, as soon as calls under way in other threads have ended. Closing twice is fine."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: self._running == 0)
        self._session.close()

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Keep the engine from being freed meanwhile.

        Raises:
            UserError: it was closed before.
        """
        with self._changed:
            if self._closed:
                raise UserError("The detector is closed.", fix="load it again, or use it inside its 'with' block")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def __enter__(self) -> Detector:
        """Return the detector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the detector."""
        self.close()
