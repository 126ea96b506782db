"""What `detect` leaves on disk: annotated images and videos, a COCO results file, YOLO txt files."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TextIO

import cv2
import numpy as np
import simplejpeg

from eyas.errors import UserError
from eyas.files import atomic_path, read_json, write_bytes, write_text, writing
from eyas.runtime.detection_formats import to_coco, to_yolo_txt
from eyas.runtime.like import ImageIds
from eyas.runtime.sources import Frame, ImageFile, Item, Live, Video
from eyas.text import json_text, readable_name
from eyas.types import Detections, Id, UInt8Array, plain_id

JPEG_QUALITY = 92
_LOOK_EVERY = 30  # frames of a video between two looks at the room on the disk
_LOST = "the results are lost"
_LOSSLESS = frozenset({".png", ".bmp", ".tif", ".tiff", ".webp"})
_JPEGS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})


class Names:
    """Gives every source a file name of its own below one folder, though two sources may have equal names.

    Args:
        folder: where the files go.
        sources: files that must not be overwritten.
    """

    def __init__(self, folder: Path, sources: frozenset[Path] = frozenset()) -> None:
        self._folder = folder
        self._sources = sources
        self._taken: set[str] = set()

    def path(self, item: Item, suffix: str) -> Path:
        """Return where the file for the item goes; call it once an item.

        Raises:
            UserError: that is a source itself.
        """
        name = PurePosixPath(item.name)
        chosen = name.with_name(name.stem + suffix)
        number = 2
        while str(chosen).lower() in self._taken:  # some file systems take "A.jpg" and "a.jpg" for one
            chosen = name.with_name(f"{name.stem}-{number}{suffix}")
            number += 1
        self._taken.add(str(chosen).lower())
        path = self._folder / chosen
        if path.resolve() in self._sources:
            raise UserError(
                f"The output for {item.name} would overwrite a source.",
                where=str(path),
                fix="choose another folder with --out",
            )
        return path


def out_suffix(item: Item) -> str:
    """Return the suffix of the annotated copy: the source's own where we can write that kind, else .jpg or .mp4."""
    if isinstance(item, Video | Live):
        return ".mp4"
    suffix = PurePosixPath(item.name).suffix
    return suffix if suffix.lower() in _LOSSLESS | _JPEGS else f"{suffix}.jpg"


def write_image(path: Path, image: UInt8Array) -> None:
    """Write uint8 RGB [H, W, 3] to `path`, as the kind that its suffix says."""
    if path.suffix.lower() in _JPEGS:
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=JPEG_QUALITY)
    else:
        done, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        assert done, path.suffix
        data = encoded.tobytes()
    write_bytes(path, data)


class VideoFile:
    """An MP4 that grows by a frame at a time; it gets its name when it is closed, so a half-written one is never met.

    OpenCV tells nothing of a disk that is full, so the room is looked at on the way and the finished file is read.

    Args:
        path: where it goes in the end.
        fps: frames a second.
        height, width: its size; frames of another size are resized.

    Raises:
        UserError: videos of that size can't be written here.
    """

    def __init__(self, path: Path, fps: float, height: int, width: int) -> None:
        self._path = path
        self._size = (width, height)
        self._count = 0
        self._temporary = path.with_name(f".{path.stem}.part.mp4")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.write_bytes(b"")
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(self._temporary), fourcc, fps, self._size)
        if not self._writer.isOpened():
            self._temporary.unlink(missing_ok=True)
            raise UserError(f"This system can't write a video of {width} x {height} pixels.", where=str(path))

    def write(self, image: UInt8Array) -> None:
        """Add a frame, uint8 RGB [H, W, 3].

        Raises:
            UserError: the disk is full.
        """
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if (bgr.shape[1], bgr.shape[0]) != self._size:
            bgr = cv2.resize(bgr, self._size)
        self._writer.write(bgr)
        self._count += 1
        if self._count % _LOOK_EVERY == 0 and shutil.disk_usage(self._path.parent).free < bgr.nbytes:
            self._give_up()

    def close(self) -> None:
        """Finish the file, see that all of it is there, and give it its name.

        Raises:
            UserError: it could not be written.
        """
        if not self._temporary.exists():
            return  # given up already
        self._writer.release()
        if _count_frames(self._temporary) != self._count:
            self._give_up()
        self._temporary.replace(self._path)

    def _give_up(self) -> NoReturn:
        self._writer.release()
        self._temporary.unlink(missing_ok=True)
        with writing(self._path, "its video is lost"):
            raise OSError(errno.ENOSPC, "the video is incomplete")


def _count_frames(path: Path) -> int:
    """Return how many frames the video file says it has; 0 if it can't be opened."""
    video = cv2.VideoCapture(str(path))
    try:
        return round(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    finally:
        video.release()


class CocoFile:
    """A COCO results file that is written as the detections come, so that a long video needs no memory.

    Entries carry "file_name" (and "frame" for videos) beside COCO's own fields, which readers of results ignore.

    Args:
        path: where it goes; it appears when it is closed.
        items: all that will come.
        classes: the model's class names.
        like: a COCO annotation file whose image and category ids are to be used; None numbers from 1.

    Raises:
        UserError: the annotation file can't be read, or lacks a class of the model or one of the items.
    """

    def __init__(self, path: Path, items: Sequence[Item], classes: tuple[str, ...], like: Path | None = None) -> None:
        self._image_ids: Mapping[int, Id] | None = None
        self._category_ids: list[Id] | None = None
        if like is not None:
            names, self._category_ids = read_ids(like, classes)
            ids = ImageIds(names, str(like))
            self._image_ids = {id(item): ids.find(_place(item)) for item in items}
        self._count = 0
        self._separator = "[\n"
        self._path = path
        self._place = ExitStack()
        with writing(path):
            temporary = self._place.enter_context(atomic_path(path))
            self._file: TextIO = temporary.open("w", encoding="utf-8")

    def write(self, frame: Frame, detections: Detections) -> None:
        """Add the detections of one frame."""
        self._count += 1
        about: dict[str, Any] = {"file_name": frame.item.name}
        if isinstance(frame.item, Video | Live):
            about["frame"] = frame.index
        image_id = self._count if self._image_ids is None else self._image_ids[id(frame.item)]
        for entry in to_coco(detections, image_id, self._category_ids):
            with writing(self._path, _LOST):
                self._file.write(self._separator + json_text({**entry, **about}))
            self._separator = ",\n"

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            UserError: the disk is full; nothing of the file stays.
        """
        with self._place, writing(self._path, _LOST):
            try:
                self._file.write("[]\n" if self._separator == "[\n" else "\n]\n")
            finally:
                self._file.close()


def _place(item: Item) -> str | Path:
    return item.path.absolute() if isinstance(item, ImageFile | Video) else item.name


def read_ids(annotations: Path, classes: tuple[str, ...]) -> tuple[Mapping[str, Id], list[Id]]:
    """Return (file name -> image id, the category id of each class) of a COCO annotation file.

    Raises:
        UserError: it can't be read, is no annotation file, or lacks a class.
    """
    fields = read_json(annotations)
    try:
        images = {str(image["file_name"]): plain_id(image["id"]) for image in fields["images"]}
        categories = {readable_name(str(entry["name"])): plain_id(entry["id"]) for entry in fields["categories"]}
    except (KeyError, TypeError):
        raise UserError("This is not a COCO annotation file.", where=str(annotations)) from None
    image_ids = {name: number for name, number in images.items() if number is not None}
    category_ids = {name: number for name, number in categories.items() if number is not None}
    strange = [name for name in images if name not in image_ids] + [
        name for name in categories if name not in category_ids
    ]
    if strange:
        raise UserError(
            f"The id of '{strange[0]}' is not valid.",
            where=str(annotations),
            expected="an integer or text for every id",
        )
    missing = [name for name in classes if name not in category_ids]
    if missing:
        raise UserError(
            f"The annotation file has no category for the model's class '{missing[0]}'.",
            where=str(annotations),
            expected="all classes of the model",
        )
    return image_ids, [category_ids[name] for name in classes]


def write_yolo(path: Path, frame: Frame, detections: Detections) -> None:
    """Write YOLO's lines to `path`, NAME.txt; for a frame of a video, to NAME/000123.txt."""
    if isinstance(frame.item, Video | Live):
        path = path.with_suffix("") / f"{frame.index:06d}.txt"
    write_text(path, to_yolo_txt(detections))
