"""A batch from bytes to detections. An image that can't be read fails by itself, never the batch it is in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import simplejpeg

from eyas.decode import TooMuchMemory, decode
from eyas.errors import UserError
from eyas.image_header import parse_header
from eyas.letterbox import Placement, letterbox
from eyas.runtime.annotate import annotate
from eyas.runtime.detector import Detector
from eyas.runtime.postprocess import select
from eyas.runtime.preprocess import checked_image
from eyas.serve.errors import Refused
from eyas.serve.workers.base import Found, ImageLimits, Ran, Task, too_much_memory
from eyas.types import FloatArray, UInt8Array

JPEG_QUALITY = 90
WARM_SECONDS = 2.0  # larger batches are no longer tried after this


class BatchFailed(Exception):
    """The network did not run on a batch; says why, for the operator."""


@dataclass(slots=True)
class _Image:
    """An image that lies in the batch: what is needed to map its boxes back, and perhaps to draw."""

    task: Task
    placement: Placement
    height: int
    width: int
    image: UInt8Array | None
    decode: float
    preprocess: float


class Pipeline:
    """Runs batches on a detector. Not for several threads at once.

    Args:
        detector: the opened bundle.
        limits: which images are decoded.
        decoders: how many images of a batch are decoded side by side.
        memory: bytes that the process may take for it, which is told to those who want more; 0 for no limit.
    """

    def __init__(self, detector: Detector, limits: ImageLimits, decoders: int = 1, memory: int = 0) -> None:
        self._memory = memory
        self._detector = detector
        self._limits = limits
        self._frames: UInt8Array = self._room(1)
        self._threads = ThreadPoolExecutor(decoders, "decode") if decoders > 1 else None

    def _room(self, num: int) -> UInt8Array:
        """Return an array for a batch of `num` images."""
        return np.empty((num, self._detector.input.height, self._detector.input.width, 3), np.uint8)

    def warm_up(self, max_batch: int) -> list[tuple[int, float]]:
        """Run batches of 1, 2, 4 ... images up to `max_batch` and return (size, seconds) of each, at its second run.

        Engines allocate, and some compile, for each size that they see; clients should not wait for that.
        """
        sizes = sorted({min(1 << i, max_batch) for i in range(max_batch.bit_length() + 1)})
        begin, latencies = time.perf_counter(), []
        blank = np.full((*self._frames.shape[1:],), self._detector.input.pad_value, np.uint8)
        for size in sizes:
            if time.perf_counter() - begin > WARM_SECONDS:
                break
            tasks = [Task(blank, self._detector.thresholds)] * size
            self.run(tasks)
            start = time.perf_counter()
            self.run(tasks)
            latencies.append((size, time.perf_counter() - start))
        return latencies

    def run(self, tasks: Sequence[Task]) -> Ran:
        """Return the results of a batch.

        Raises:
            BatchFailed: the network did not run.
        """
        if len(self._frames) < len(tasks):
            self._frames = self._room(len(tasks))
        slots = self._frames[: len(tasks)]
        if self._threads is not None and len(tasks) > 1:
            start = time.perf_counter()
            at_once = list(self._threads.map(self._read, tasks, slots))
            images = _shares_of(time.perf_counter() - start, at_once)
        else:
            images = list(map(self._read, tasks, slots))
        good = [i for i, image in enumerate(images) if isinstance(image, _Image)]
        if not good:
            return Ran(tuple(image for image in images if isinstance(image, Refused)), 0.0)
        batch = slots if len(good) == len(tasks) else slots[good]
        start = time.perf_counter()
        boxes, scores = self._infer(batch)
        seconds = time.perf_counter() - start
        row = iter(range(len(good)))
        results = [
            image if isinstance(image, Refused) else self._finish(image, boxes[i := next(row)], scores[i])
            for image in images
        ]
        return Ran(tuple(results), seconds)

    def _read(self, task: Task, slot: UInt8Array) -> _Image | Refused:
        """Decode an image into its slot of the batch."""
        start = time.perf_counter()
        try:
            image = self._decode(task.image)
            if isinstance(image, Refused):
                return image
            middle = time.perf_counter()
            placement = letterbox(image, self._detector.input, slot)[1]
        except TooMuchMemory:
            return too_much_memory(self._memory)
        except UserError as error:
            wanted = f" Expected: {error.expected}." if error.expected else ""
            return Refused("unprocessable", error.problem + wanted)
        except MemoryError:
            return too_much_memory(self._memory)
        except Exception:  # whatever a decoder's library raises is about this image alone
            return Refused("unprocessable", "The image can't be decoded.")
        end = time.perf_counter()
        kept = image if task.annotate else None
        return _Image(task, placement, image.shape[0], image.shape[1], kept, middle - start, end - middle)

    def _decode(self, image: bytes | UInt8Array) -> UInt8Array | Refused:
        """Return the pixels of an image, if its header promises no harm."""
        limits = self._limits
        if not isinstance(image, bytes):
            pixels = checked_image(image)
            return self._too_large(pixels.shape[0], pixels.shape[1]) or pixels
        header = parse_header(image)
        if header is None:
            return Refused("unprocessable", "These bytes are not an image, or its header is incomplete.")
        if header.kind not in limits.formats:
            return Refused("unsupported", f"{header.kind} images are not supported; send {_listed(limits.formats)}.")
        if refused := self._too_large(header.height, header.width):
            return refused
        return decode(image, max_pixels=limits.max_pixels)

    def _too_large(self, height: int, width: int) -> Refused | None:
        """Return the refusal of an image of that size, None for one that is fine."""
        limits = self._limits
        if height * width <= limits.max_pixels and max(height, width) <= limits.max_side:
            return None
        most = f"at most {limits.max_pixels / 1e6:g} million pixels and {limits.max_side} per side are allowed"
        return Refused("too_large", f"The image has {width} x {height} pixels; {most}.")

    def _infer(self, batch: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Run the network; a batch that does not fit into memory is run in halves."""
        try:
            return self._detector.infer(batch)
        except Exception as error:  # an engine's own errors share no base class
            if len(batch) == 1 or not _no_memory(error):
                raise BatchFailed(f"{type(error).__name__}: {error}") from error
        half = len(batch) // 2
        parts = [self._infer(np.ascontiguousarray(part)) for part in (batch[:half], batch[half:])]
        return np.concatenate([boxes for boxes, _ in parts]), np.concatenate([scores for _, scores in parts])

    def _finish(self, image: _Image, boxes: FloatArray, scores: FloatArray) -> Found | Refused:
        """Return the detections of one image."""
        start = time.perf_counter()
        task = image.task
        only = None if task.only is None else np.array(task.only, np.int64)
        classes = self._detector.classes
        try:
            found = select(boxes, scores, image.placement, image.height, image.width, classes, task.thresholds, only)
            drawn = b""
            if image.image is not None:
                drawn = simplejpeg.encode_jpeg(annotate(image.image, found), quality=JPEG_QUALITY)
        except MemoryError:
            return too_much_memory(self._memory)
        return Found(found, drawn, image.decode, image.preprocess, time.perf_counter() - start)

    def close(self) -> None:
        """Free the engine."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._detector.close()


def _shares_of(wall: float, read: Sequence[_Image | Refused]) -> list[_Image | Refused]:
    """Return what was read with its times as shares of the seconds that reading took, since several were read at once.

    So the times of a batch add up to what its request waited for.
    """
    spent = sum(one.decode + one.preprocess for one in read if isinstance(one, _Image))
    share = min(1.0, wall / spent) if spent else 1.0
    return [
        replace(one, decode=one.decode * share, preprocess=one.preprocess * share) if isinstance(one, _Image) else one
        for one in read
    ]


def _no_memory(error: Exception) -> bool:
    """Return whether an engine ran out of memory, on a GPU or on the host."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "failed to allocate" in text


def _listed(names: Sequence[str]) -> str:
    """Return the names in a sentence."""
    return ", ".join(names[:-1]) + " or " * (len(names) > 1) + names[-1]
