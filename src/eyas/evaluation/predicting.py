"""Running a detector over a dataset: images are read ahead in threads while the detector works."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eyas.data.index import DatasetIndex
from eyas.decode import read_image
from eyas.errors import UserError, shorten
from eyas.evaluation.predictions import Predictions, PredictionsBuilder
from eyas.terminal import open_console
from eyas.types import Detections, UInt8Array

READERS = 2  # threads that read and decode; more than the detector needs to be kept busy on a CPU


class DetectsBatches(Protocol):
    """What is asked of a detector: images in, detections out, one for each image and in their order."""

    def __call__(self, images: list[UInt8Array], /) -> Sequence[Detections]:
        """Return the detections of each image, uint8 RGB [H, W, 3]."""


@dataclass(frozen=True)
class PredictionRun:
    """What running a detector over a dataset gave.

    Attributes:
        predictions: the detections.
        unreadable: for each image that could not be read, its index and why; its objects count as missed.
        resized: indices of the images whose size is not what the annotations say.
        seconds: time spent in the detector, without reading the images.
    """

    predictions: Predictions
    unreadable: tuple[tuple[int, str], ...]
    resized: tuple[int, ...]
    seconds: float

    def warnings(self, index: DatasetIndex) -> tuple[str, ...]:
        """Return a sentence for each thing that makes the numbers doubtful."""
        lines = []
        if self.unreadable:
            names = shorten([index.files.name(i) for i, _ in self.unreadable], 3)
            lines.append(
                f"{len(self.unreadable)} of {len(index)} images could not be read, so their objects count as "
                f"missed: {names}."
            )
        if self.resized:
            names = shorten([index.files.name(i) for i in self.resized], 3)
            lines.append(
                f"{len(self.resized)} of {len(index)} images differ in size from their annotations, so the "
                f"ground-truth boxes may be misplaced: {names}."
            )
        return tuple(lines)


def predict_dataset(
    detector: DetectsBatches, index: DatasetIndex, *, batch: int = 8, progress: bool = False
) -> PredictionRun:
    """Run the detector over every image of the dataset.

    Args:
        detector: called with lists of up to `batch` images.
        index: the images.
        batch: images a call, at least 1.
        progress: show a progress bar on stderr.

    Raises:
        UserError: not one image could be read.
    """
    builder = PredictionsBuilder()
    unreadable: list[tuple[int, str]] = []
    resized: list[int] = []
    seconds = 0.0
    with _bar(progress) as bar:
        task = bar.add_task("evaluating", total=len(index))
        for images in _batches(index, batch):
            readable = []
            for i, image in images:
                if isinstance(image, UserError):
                    unreadable.append((i, image.problem))
                    continue
                readable.append((i, image))
                height, width = (int(size) for size in index.sizes[i])
                if height and (height, width) != image.shape[:2]:
                    resized.append(i)
            if readable:
                started = time.perf_counter()
                found = detector([image for _, image in readable])
                seconds += time.perf_counter() - started
                for (i, _), detections in zip(readable, found, strict=True):
                    builder.add(i, detections)
            bar.advance(task, len(images))
    if unreadable and len(unreadable) == len(index):
        raise UserError(
            f"None of the {len(index)} images can be read. The first: {unreadable[0][1]}",
            where=str(index.path(unreadable[0][0])),
            fix="check the dataset folder: eyas data check",
        )
    return PredictionRun(builder.build(), tuple(unreadable), tuple(resized), seconds)


def _read(index: DatasetIndex, i: int) -> UInt8Array | UserError:
    try:
        return read_image(index.path(i))
    except UserError as error:
        return error


def _batches(index: DatasetIndex, batch: int) -> Iterator[list[tuple[int, UInt8Array | UserError]]]:
    """Yield the images in order, `batch` at a time; at most two batches are held beside the one given out."""
    order = iter(range(len(index)))
    with ThreadPoolExecutor(READERS, thread_name_prefix="eyas-read") as readers:
        ahead: deque[tuple[int, Future[UInt8Array | UserError]]] = deque()

        def fill() -> None:
            ahead.extend((i, readers.submit(_read, index, i)) for i in islice(order, 2 * batch - len(ahead)))

        fill()
        while ahead:
            images = [(i, future.result()) for i, future in (ahead.popleft() for _ in range(min(batch, len(ahead))))]
            fill()
            yield images


def _bar(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=open_console(stderr=True),
        disable=not shown,
        transient=True,
    )
