"""The function that is run for each part, wherever it is run: images in, lines of JSON out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from eyas.decode import MAX_PIXELS, TooMuchMemory
from eyas.errors import UserError
from eyas.predict.parts import Part
from eyas.predict.reading import PartReader, ReadImage
from eyas.read_ahead import prefetched
from eyas.runtime.detection_formats import to_dict
from eyas.runtime.detector import Detector
from eyas.runtime.loading import load
from eyas.text import json_text
from eyas.types import Detections, Suppression

Tick: TypeAlias = Callable[[int], None]
_AHEAD = 2  # batches that are decoded while one is run


@dataclass(frozen=True)
class PredictSettings:
    """What decides the results; a job that is resumed must have the same.

    Attributes:
        bundle: the bundle's folder.
        confidence, iou, suppression, classes: as for `eyas.runtime.detector.Detector`.
        batch: images that go through the network at once.
        max_pixels: images with more are not decoded.
        roots: folders that files may lie below besides the source that they were found in.
    """

    bundle: str
    confidence: float | None = None
    iou: float | None = None
    suppression: Suppression | None = None
    classes: tuple[str, ...] | None = None
    batch: int = 1
    max_pixels: int = MAX_PIXELS
    roots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """A part's results: a line of JSON for each image, how many images, how many that can't be read."""

    lines: bytes
    images: int
    unreadable: int


class Predictor:
    """A detector and a reader that do one part after another.

    Args:
        settings: what decides the results.
        threads: of the engine; None lets the engine choose.
        device: "auto", "cpu" or "cuda".
    """

    def __init__(self, settings: PredictSettings, threads: int | None = None, device: str = "auto") -> None:
        self._detector: Detector = load(Path(settings.bundle), threads=threads, device=device, spin=threads is None)
        self._thresholds = self._detector.limits(settings.confidence, settings.iou, settings.suppression)
        self._only = self._detector.labels_of(settings.classes)
        self._reader = PartReader(settings.max_pixels, tuple(map(Path, settings.roots)))
        self._batch = settings.batch

    def run(self, part: Part, tick: Tick = lambda _: None, *, without: Mapping[int, str] | None = None) -> Done:
        """Return what is found in the part's images.

        Args:
            part: which images.
            tick: called with the number of images that are done; with `without`, before each image instead.
            without: position in the part -> what that image did to a worker: it is told as unreadable. Where it is
                given, one image is run at a time, so that the next one that does so is known.
        """
        lines: list[bytes] = []
        unreadable = 0
        for group in self._groups(part, tick, without):
            good = [found.image for found in group if not isinstance(found.image, UserError)]
            detections = iter(self._detector.predict(good, self._thresholds, self._only) if good else ())
            for found in group:
                if isinstance(found.image, UserError):
                    unreadable += 1
                    lines.append(to_line(found, found.image))
                else:
                    lines.append(to_line(found, next(detections)))
            if without is None:
                tick(len(lines))
        return Done(b"".join(lines), len(lines), unreadable)

    def _groups(self, part: Part, tick: Tick, without: Mapping[int, str] | None) -> Iterator[list[ReadImage]]:
        """Yield what goes through the network together; batches are decoded ahead in a thread."""
        images = self._reader.read(part, without or {})
        if without is not None:
            yield from ([found] for found in _one_by_one(images, tick))
            return
        group: list[ReadImage] = []
        for found in prefetched(images, _AHEAD * self._batch):
            if isinstance(found.image, TooMuchMemory):  # others were in memory with it: it is tried again alone
                raise MemoryError
            group.append(found)
            if len(group) == self._batch:
                yield group
                group = []
        if group:
            yield group

    def close(self) -> None:
        """Free the engine."""
        self._detector.close()


def _one_by_one(images: Iterator[ReadImage], tick: Tick) -> Iterator[ReadImage]:
    """Yield the images; before each is read, tick with its position."""
    for position in itertools.count():
        tick(position)
        found = next(images, None)
        if found is None:
            return
        yield found


def to_line(found: ReadImage, result: Detections | UserError) -> bytes:
    """Return an image's line of JSON: its name, its frame or row if it has one, and its detections or the error."""
    row: dict[str, Any] = {"name": found.name}
    if found.index is not None:
        row["index"] = found.index
    if isinstance(result, UserError):
        row["error"] = result.problem
    else:
        fields = to_dict(result)
        detections = [
            {"box": one["box"], "score": one["score"], "label": label, "class": one["class"]}
            for one, label in zip(fields["detections"], result.labels.tolist(), strict=True)
        ]
        row |= {"height": result.height, "width": result.width, "detections": detections}
    return json_text(row).encode() + b"\n"
