"""Predictions over a dataset, and a detector run over its images to get them.

They are columns: no Python object for each detection, ready to be gathered across processes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from eyas.data.index import DatasetIndex
from eyas.errors import UserError, shorten
from eyas.progress import ProgressBar
from eyas.read_ahead import read_images
from eyas.types import Detections, FloatArray, IntArray, UInt8Array


@dataclass(frozen=True)
class Predictions:
    """What a model found in the images of a dataset; row k is one detection.

    Attributes:
        images: int64 [K], the image's index in the `DatasetIndex` (not its COCO id).
        boxes: float32 [K, 4], xyxy pixels of the original image.
        scores: float32 [K], in 0..1.
        labels: int64 [K], index into the classes of the `DatasetIndex`.
    """

    images: IntArray
    boxes: FloatArray
    scores: FloatArray
    labels: IntArray

    def __post_init__(self) -> None:
        """Refuse columns of different lengths (our own mistake, never the user's)."""
        count = len(self.images)
        shapes = (self.images.shape, self.boxes.shape, self.scores.shape, self.labels.shape)
        assert shapes == ((count,), (count, 4), (count,), (count,)), f"columns do not match: {shapes}"

    def __len__(self) -> int:
        """Return the number of detections, K."""
        return len(self.images)

    def __getitem__(self, rows: slice | IntArray | npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Predictions:
        """Return the rows that a slice, a mask or an index array picks."""
        return Predictions(self.images[rows], self.boxes[rows], self.scores[rows], self.labels[rows])

    @classmethod
    def empty(cls) -> Predictions:
        """Return no detection at all."""
        return cls(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """Return the rows of all parts, one part after another; images are taken as they come."""
        if not parts:
            return cls.empty()
        return cls(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )

    @classmethod
    def merge(cls, parts: Sequence[Predictions]) -> Predictions:
        """Return the parts of several processes as one, by image.

        A distributed sampler repeats a few images so that each process gets as many; an image's rows are taken
        from the first part that has them, else its detections would count twice and AP would fall.
        """
        kept: list[Predictions] = []
        seen = np.zeros(0, np.int64)
        for part in parts:
            fresh = part[~np.isin(part.images, seen)]
            seen = np.union1d(seen, fresh.images)
            kept.append(fresh)
        merged = cls.concatenate(kept)
        return merged[np.argsort(merged.images, kind="stable")]


class PredictionsBuilder:
    """Collects the detections of one image after another, in any order."""

    def __init__(self) -> None:
        self._images: list[int] = []
        self._parts: list[Detections] = []
        self._seen: set[int] = set()

    def add(self, image: int, detections: Detections) -> None:
        """Add what was found in image `image` of the dataset; an image that was added before is passed over."""
        if image in self._seen:
            return
        self._seen.add(image)
        self._images.append(image)
        self._parts.append(detections)

    def __len__(self) -> int:
        """Return the number of images added."""
        return len(self._images)

    def build(self) -> Predictions:
        """Return the columns of all that was added; the builder stays usable."""
        if not self._parts:
            return Predictions.empty()
        counts = np.array([len(part) for part in self._parts], np.int64)
        return Predictions(
            images=np.repeat(np.array(self._images, np.int64), counts),
            boxes=np.concatenate([part.boxes for part in self._parts]).astype(np.float32, copy=False),
            scores=np.concatenate([part.scores for part in self._parts]).astype(np.float32, copy=False),
            labels=np.concatenate([part.labels for part in self._parts]).astype(np.int64, copy=False),
        )


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


class DetectsBatches(Protocol):
    """What is asked of a detector: images in, detections out, one for each image and in their order."""

    def __call__(self, images: list[UInt8Array], /) -> Sequence[Detections]:
        """Return the detections of each image, uint8 RGB [H, W, 3]."""


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
    with ProgressBar("evaluating", len(index), shown=progress) as bar:
        coming = enumerate(read_images(map(index.path, range(len(index))), depth=2 * batch))
        while images := list(islice(coming, batch)):
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
            bar.advance(len(images))
    if unreadable and len(unreadable) == len(index):
        raise UserError(
            f"None of the {len(index)} images can be read. The first: {unreadable[0][1]}",
            where=str(index.path(unreadable[0][0])),
            fix="check the dataset folder: eyas data check",
        )
    return PredictionRun(builder.build(), tuple(unreadable), tuple(resized), seconds)
