"""A batch from bytes to detections. An image that can't be read fails by itself, never the batch it is in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import simplejpeg

from eyas.artifacts.manifest import Manifest
from eyas.decode import TooMuchMemory, decode
from eyas.draw import annotate
from eyas.errors import UserError
from eyas.letterbox import Placement, letterbox
from eyas.runtime.detector import Detector
from eyas.runtime.loading import load
from eyas.runtime.postprocess import select
from eyas.runtime.preprocess import checked_image
from eyas.serve.errors import Refused, ServeError
from eyas.serve.limits import Limits, check_file, check_size
from eyas.serve.workers.base import MAX_WORDS, ImageResult, Ran, Task, WorkerFailed, WorkerSpec, too_much_memory
from eyas.types import FloatArray, UInt8Array

DEFAULT_LIMITS = Limits()
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
        memory: bytes that the process may take for it, which is told to those who want more; 0 for no limit.
        limits: which images are decoded.
    """

    def __init__(self, detector: Detector, memory: int = 0, limits: Limits = DEFAULT_LIMITS) -> None:
        self._memory = memory
        self._detector = detector
        self._limits = limits
        self._frames: UInt8Array = self._room(1)

    def _room(self, num: int) -> UInt8Array:
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
        start = time.perf_counter()
        try:
            image = self._decode(task.image)
            middle = time.perf_counter()
            placement = letterbox(image, self._detector.input, slot)[1]
        except TooMuchMemory:
            return too_much_memory(self._memory)
        except ServeError as error:
            return Refused(error.kind, error.message[:MAX_WORDS])
        except UserError as error:
            wanted = f" Expected: {error.expected}." if error.expected else ""
            return Refused("unprocessable", (error.problem + wanted)[:MAX_WORDS])
        except MemoryError:
            return too_much_memory(self._memory)
        except Exception:  # whatever a decoder's library raises is about this image alone
            return Refused("unprocessable", "The image can't be decoded.")
        end = time.perf_counter()
        kept = image if task.annotate else None
        return _Image(task, placement, image.shape[0], image.shape[1], kept, middle - start, end - middle)

    def _decode(self, image: bytes | UInt8Array) -> UInt8Array:
        """Return the pixels of an image, if its header promises no harm."""
        if isinstance(image, bytes):
            check_file(image, self._limits, "The image")
            return decode(image, max_pixels=self._limits.pixels)
        pixels = checked_image(image)
        check_size(pixels.shape[0], pixels.shape[1], self._limits, "The image")
        return pixels

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

    def _finish(self, image: _Image, boxes: FloatArray, scores: FloatArray) -> ImageResult | Refused:
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
        return ImageResult(found, drawn, image.decode, image.preprocess, time.perf_counter() - start)

    def close(self) -> None:
        """Free the engine."""
        self._detector.close()


def _no_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "failed to allocate" in text


def open_pipeline(spec: WorkerSpec) -> tuple[Pipeline, str, list[tuple[int, float]]]:
    """Return the warm pipeline of a bundle, its engine's description, and the warm-up's (batch size, seconds).

    Raises:
        WorkerFailed: the bundle can't be opened or run.
    """
    try:
        Manifest.read(spec.bundle, verify=False)  # a folder without a manifest is a run, which needs torch
        most = DEFAULT_LIMITS.pixels
        detector = load(spec.bundle, device=spec.device, threads=spec.threads, max_pixels=most, spin=False)
        pipeline = Pipeline(detector, spec.memory)
        return pipeline, detector.engine, pipeline.warm_up(spec.max_batch)
    except UserError as error:
        raise WorkerFailed(str(error)) from error
    except BatchFailed as error:
        raise WorkerFailed(f"The network does not run: {error}") from error
