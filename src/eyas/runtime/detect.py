"""Detection on many images and videos, with the results written to disk: the work behind `eyas detect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from eyas.decode import MAX_PIXELS
from eyas.errors import UserError
from eyas.renamed import renamed_arguments
from eyas.runtime.detector import Detector
from eyas.runtime.loading import load
from eyas.runtime.outputs import LABELS, Output, OutputWriter, Result, plan
from eyas.runtime.sources import Frame, ImageFile, Item, Source, Video, expand
from eyas.types import Detections, Suppression

DEFAULT_FOLDER = "detections"


@dataclass(frozen=True)
class DetectReport:
    """The result of `detect`.

    Attributes:
        results: one for each source of which anything could be read, in order.
        problems: (source's name, what was wrong), for each image skipped and each video that broke off.
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


@renamed_arguments(save_pictures="save_images")
def detect(
    model: str | Path | Detector,
    source: Source,
    *,
    out: str | Path = DEFAULT_FOLDER,
    confidence: float | None = None,
    iou: float | None = None,
    suppression: Suppression | None = None,
    classes: Sequence[str] | None = None,
    save_images: bool = True,
    save_json: str | Path | None = None,
    like: str | Path | None = None,
    save_txt: bool = False,
    batch: int = 1,
    device: str = "auto",
    size: int | None = None,
    max_pixels: int = MAX_PIXELS,
    on_frame: Callable[[Frame, Detections], None] | None = None,
) -> DetectReport:
    """Detect on everything in the source and write the requested outputs; unreadable images are skipped.

    Args:
        model: a run's folder, or a detector.
        source: an image, folder, glob, video, camera number, stream address or array, or a list of these.
        out: the folder for what is written; annotated copies keep their sources' names below it.
        confidence, iou, suppression, classes: what a prediction must pass; None takes the run's own, and all classes.
        save_images: whether to write annotated images and videos.
        save_json: where to write COCO results; a bare name goes into `out`.
        like: a COCO annotation file whose image and category ids the results are to use.
        save_txt: whether to write YOLO txt files into `out`/labels.
        batch: how many images go through the network at once.
        device: "cpu", "cuda" or "auto"; only used when `model` is a folder.
        size: side of the network's input in pixels, None for the run's own; only used when `model` is a folder.
        max_pixels: images with more pixels are skipped; only used when `model` is a folder.
        on_frame: called after each frame, for a progress bar.

    Raises:
        UserError: nothing was found at the source, the model can't be loaded, a class is unknown, or what would be
            written would overwrite a source.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file.", expected="a new or existing folder", where="out")
    items = _without(expand(source), folder)
    output = Output(folder, save_images, _beside(save_json, folder), Path(like) if like else None, save_txt)
    paths = plan(items, output)
    problems: list[tuple[str, str]] = []
    with ExitStack() as stack:
        if isinstance(model, Detector):
            detector = model
        else:
            detector = stack.enter_context(load(model, device=device, size=size, max_pixels=max_pixels))
        writer = stack.enter_context(OutputWriter(output, items, paths, detector.classes))
        found = detector.stream(
            items,
            confidence=confidence,
            iou=iou,
            suppression=suppression,
            classes=classes,
            batch=batch,
            draw=save_images,
            on_problem=lambda name, error: problems.append((name, str(error))),
        )
        for frame, detections in found:
            writer.write(frame, detections)
            if on_frame is not None:
                on_frame(frame, detections)
    labels = folder / LABELS if save_txt else None
    return DetectReport(tuple(writer.results), tuple(problems), folder, output.json, labels)


def _without(items: list[Item], out: Path) -> list[Item]:
    """Return the items less those that an earlier run left in `out`, when that lies inside a folder searched.

    Raises:
        UserError: there is nothing else.
    """
    target = out.resolve()

    def left_by_us(item: Item) -> bool:
        if not isinstance(item, ImageFile | Video):
            return False
        searched = item.path.absolute().parents[len(Path(item.name).parts) - 1].resolve()
        inside = (searched / item.name).is_relative_to(target)
        return inside and target != searched and target.is_relative_to(searched)

    others = [item for item in items if not left_by_us(item)]
    if not others:
        raise UserError(
            f"The source contains nothing but the output folder {out}.",
            expected="images that were not written by an earlier run",
        )
    return others


def _beside(path: str | Path | None, folder: Path) -> Path | None:
    """Return where a file goes: a bare name into the folder, a path where it says."""
    if path is None:
        return None
    return folder / path if len(Path(path).parts) == 1 else Path(path)
