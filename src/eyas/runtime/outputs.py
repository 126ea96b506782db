"""What `detect` writes for all its sources together: which file goes where, and what was found in which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from eyas.errors import UserError
from eyas.files import writing
from eyas.runtime.sources import Frame, ImageFile, Item, Live, Video
from eyas.runtime.writers import CocoFile, Names, VideoFile, out_suffix, write_image, write_yolo
from eyas.types import Detections

LABELS = "labels"  # the folder of YOLO txt files below the output folder


@dataclass(frozen=True)
class Output:
    """What is to be written, and where.

    Attributes:
        folder: where everything goes.
        images: whether annotated images and videos are written.
        json: where the COCO results file goes; None writes none.
        like: a COCO annotation file whose image and category ids the results file is to use.
        txt: whether YOLO txt files are written, into `folder`/labels.
    """

    folder: Path
    images: bool = True
    json: Path | None = None
    like: Path | None = None
    txt: bool = False


@dataclass
class Result:
    """What was found in one image or video.

    Attributes:
        name: the source's name.
        frames: how many images of it were looked at: 1, or the frames of a video.
        counts: class name -> objects, over all frames.
        written: the annotated copy, None if none was written.
    """

    name: str
    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    written: Path | None = None


@dataclass(frozen=True)
class Paths:
    """Where the files for one source go; None for those that are not wanted."""

    image: Path | None
    labels: Path | None


def plan(items: Sequence[Item], output: Output) -> dict[int, Paths]:
    """Return the paths for each item, by the item's `id`.

    Raises:
        UserError: something would overwrite a source.
    """
    sources = frozenset(item.path.resolve() for item in items if isinstance(item, ImageFile | Video))
    images, labels = Names(output.folder, sources), Names(output.folder / LABELS, sources)
    return {
        id(item): Paths(
            images.path(item, out_suffix(item)) if output.images else None,
            labels.path(item, ".txt") if output.txt else None,
        )
        for item in items
    }


class OutputWriter:
    """Writes what is found, frame by frame; whatever ends it, what was written until then is kept.

    Args:
        output: what is wanted, and where.
        items: all that will come.
        paths: where the files for each source go, by the item's `id`.
        classes: the model's class names.
    """

    def __init__(
        self, output: Output, items: Sequence[Item], paths: Mapping[int, Paths], classes: tuple[str, ...]
    ) -> None:
        self.results: list[Result] = []
        self._folder = output.folder
        self._paths = paths
        self._item: Item | None = None
        self._video: VideoFile | None = None
        self._coco = CocoFile(output.json, items, classes, output.like) if output.json else None

    def write(self, frame: Frame, detections: Detections) -> None:
        """Write what is found in one frame."""
        if frame.item is not self._item:
            self._begin(frame)
        result = self.results[-1]
        result.frames += 1
        result.counts.update(detections.classes[label] for label in detections.labels)
        if self._coco is not None:
            self._coco.write(frame, detections)
        labels = self._paths[id(frame.item)].labels
        if labels is not None:
            write_yolo(labels, frame, detections)
        if self._video is not None and frame.drawn is not None:
            self._video.write(frame.drawn)
        elif result.written is not None and frame.drawn is not None:
            write_image(result.written, frame.drawn)

    def _begin(self, frame: Frame) -> None:
        """Start on the next source."""
        self._end_video()
        self._item = frame.item
        written = self._paths[id(frame.item)].image
        if written is not None and isinstance(frame.item, Video | Live):
            self._video = VideoFile(written, frame.fps, *frame.image.shape[:2])
        self.results.append(Result(frame.item.name, written=written))

    def _end_video(self) -> None:
        if self._video is not None:
            video, self._video = self._video, None
            video.close()

    def __enter__(self) -> OutputWriter:
        """Make the output folder and return the writer itself."""
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what is open; of several faults the first is told, for the others follow from it."""
        with suppress(UserError) if error is not None else nullcontext(), ExitStack() as stack:
            if self._coco is not None:
                stack.callback(self._coco.close)
            self._end_video()
