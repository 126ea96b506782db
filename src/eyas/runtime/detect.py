"""Detecting on many pictures and videos, and leaving what was found on disk: the work behind `eyas detect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from eyas.decode import MAX_PIXELS
from eyas.errors import UserError
from eyas.runtime.detector import Detector
from eyas.runtime.loading import load
from eyas.runtime.sources import Frame, Item, Live, Picture, Source, Video, expand
from eyas.runtime.writers import CocoFile, Names, VideoFile, out_suffix, write_picture, write_yolo
from eyas.types import Detections

DEFAULT_FOLDER = "detections"
LABELS = "labels"  # the folder of YOLO txt files below the output folder


@dataclass
class Result:
    """What was found in one picture or video.

    Attributes:
        name: the source's name.
        frames: how many pictures of it were looked at: 1, or the frames of a video.
        counts: class name -> objects, over all frames.
        written: the annotated copy, None if none was written.
    """

    name: str
    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    written: Path | None = None


@dataclass(frozen=True)
class Report:
    """What `detect` did.

    Attributes:
        results: one for each source of which anything could be read, in order.
        problems: (source's name, what was wrong), for each picture skipped and each video that broke off.
        folder: where everything lies.
        json: the COCO results file, None if none was asked for.
        labels: the folder of YOLO txt files, None if none were asked for.
    """

    results: tuple[Result, ...]
    problems: tuple[tuple[str, str], ...]
    folder: Path
    json: Path | None
    labels: Path | None

    @property
    def counts(self) -> Counter[str]:
        """Return class name -> objects, over everything."""
        return sum((result.counts for result in self.results), Counter())


@dataclass(frozen=True)
class Output:
    """What is to be written, and where.

    Attributes:
        folder: where everything goes.
        pictures: whether annotated pictures and videos are written.
        json: where the COCO results file goes; None writes none.
        like: a COCO annotation file whose image and category ids the results file is to use.
        txt: whether YOLO txt files are written, into `folder`/labels.
    """

    folder: Path
    pictures: bool = True
    json: Path | None = None
    like: Path | None = None
    txt: bool = False


def detect(
    model: str | Path | Detector,
    source: Source,
    *,
    out: str | Path = DEFAULT_FOLDER,
    confidence: float | None = None,
    iou: float | None = None,
    classes: Sequence[str] | None = None,
    save_pictures: bool = True,
    save_json: str | Path | None = None,
    like: str | Path | None = None,
    save_txt: bool = False,
    batch: int = 1,
    device: str = "auto",
    size: int | None = None,
    max_pixels: int = MAX_PIXELS,
    on_frame: Callable[[Frame, Detections], None] | None = None,
) -> Report:
    """Detect on everything in the source and write what was asked for; pictures that can't be read are skipped.

    Args:
        model: a run's folder, or a detector.
        source: a picture, folder, glob, video, camera number, stream address or array, or a list of these.
        out: the folder for what is written; annotated copies keep their sources' names below it.
        confidence, iou, classes: what a prediction must pass; None takes the run's own, and all classes.
        save_pictures: whether to write annotated pictures and videos.
        save_json: where to write COCO results; a bare name goes into `out`.
        like: a COCO annotation file whose image and category ids the results are to use.
        save_txt: whether to write YOLO txt files into `out`/labels.
        batch: how many pictures go through the network at once.
        device: "cpu", "cuda" or "auto"; only used when `model` is a folder.
        size: side of the network's input in pixels, None for the run's own; only used when `model` is a folder.
        max_pixels: pictures with more pixels are skipped; only used when `model` is a folder.
        on_frame: called after each frame, for a progress bar.

    Raises:
        UserError: nothing was found at the source, the model can't be loaded, a class is unknown, or what would be
            written would overwrite a source.
    """
    folder = Path(out)
    items = _without(expand(source), folder)
    output = Output(folder, save_pictures, _beside(save_json, folder), Path(like) if like else None, save_txt)
    paths = _plan(items, output)
    problems: list[tuple[str, str]] = []
    with ExitStack() as stack:
        if isinstance(model, Detector):
            detector = model
        else:
            detector = stack.enter_context(load(model, device=device, size=size, max_pixels=max_pixels))
        writer = stack.enter_context(_Writer(output, paths, detector.classes))
        found = detector.stream(
            items,
            confidence=confidence,
            iou=iou,
            classes=classes,
            batch=batch,
            draw=save_pictures,
            on_problem=lambda name, error: problems.append((name, str(error))),
        )
        for frame, detections in found:
            writer.write(frame, detections)
            if on_frame is not None:
                on_frame(frame, detections)
    labels = folder / LABELS if save_txt else None
    return Report(tuple(writer.results), tuple(problems), folder, output.json, labels)


@dataclass(frozen=True)
class _Paths:
    """Where the files for one source go; None for those that are not wanted."""

    picture: Path | None
    labels: Path | None


def _plan(items: Sequence[Item], output: Output) -> dict[int, _Paths]:
    """Make the output folder and return the paths for each item, by the item's `id`.

    Raises:
        UserError: the folder can't be made, or something would overwrite a source.
    """
    if output.folder.exists() and not output.folder.is_dir():
        raise UserError(f"{output.folder} is a file.", expected="a folder, new or existing", where="out")
    output.folder.mkdir(parents=True, exist_ok=True)
    sources = frozenset(item.path.resolve() for item in items if isinstance(item, Picture | Video))
    pictures, labels = Names(output.folder, sources), Names(output.folder / LABELS, sources)
    return {
        id(item): _Paths(
            pictures.path(item, out_suffix(item)) if output.pictures else None,
            labels.path(item, ".txt") if output.txt else None,
        )
        for item in items
    }


class _Writer:
    """Writes what is found, frame by frame; whatever ends it, what was written until then is kept.

    Args:
        output: what is wanted, and where.
        paths: where the files for each source go, by the item's `id`.
        classes: the model's class names.
    """

    def __init__(self, output: Output, paths: Mapping[int, _Paths], classes: tuple[str, ...]) -> None:
        self.results: list[Result] = []
        self._paths = paths
        self._item: Item | None = None
        self._video: VideoFile | None = None
        self._coco = CocoFile(output.json, classes, output.like) if output.json else None

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
            write_picture(result.written, frame.drawn)

    def _begin(self, frame: Frame) -> None:
        """Start on the next source."""
        self._end_video()
        self._item = frame.item
        written = self._paths[id(frame.item)].picture
        if written is not None and isinstance(frame.item, Video | Live):
            self._video = VideoFile(written, frame.fps, *frame.image.shape[:2])
        self.results.append(Result(frame.item.name, written=written))

    def _end_video(self) -> None:
        """Finish the video that is being written."""
        if self._video is not None:
            self._video.close()
            self._video = None

    def __enter__(self) -> _Writer:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what is open."""
        self._end_video()
        if self._coco is not None:
            self._coco.close()


def _without(items: list[Item], out: Path) -> list[Item]:
    """Return the items less those that an earlier run left in `out`, when that lies inside a folder searched.

    Raises:
        UserError: there is nothing else.
    """
    target = out.resolve()

    def left_by_us(item: Item) -> bool:
        if not isinstance(item, Picture | Video):
            return False
        searched = item.path.absolute().parents[len(Path(item.name).parts) - 1].resolve()
        inside = (searched / item.name).is_relative_to(target)
        return inside and target != searched and target.is_relative_to(searched)

    others = [item for item in items if not left_by_us(item)]
    if not others:
        raise UserError(
            f"There is nothing at the source but what lies in the output folder {out}.",
            expected="pictures that an earlier run did not write",
        )
    return others


def _beside(path: str | Path | None, folder: Path) -> Path | None:
    """Return where a file goes: a bare name into the folder, a path where it says."""
    if path is None:
        return None
    return folder / path if len(Path(path).parts) == 1 else Path(path)
