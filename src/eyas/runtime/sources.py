"""Where images come from: files, folders, globs, videos, cameras, addresses, arrays, and lists of these."""

from __future__ import annotations

import glob
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeAlias, Union

import cv2
import numpy as np

from eyas.decode import MAX_PIXELS, check_pixels, read_image
from eyas.errors import UserError, suggest
from eyas.image_files import IMAGE_SUFFIXES, search_folder
from eyas.opencv_limits import quiet_library
from eyas.runtime.download import is_address, look_up
from eyas.runtime.images import Image, is_image, is_many, not_an_image, read_one
from eyas.types import UInt8Array

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".3gp", ".ogv",
})  # fmt: skip
_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "udp://", "srt://")
_USUAL_FPS = 25.0  # of a video that doesn't say


@dataclass(frozen=True)
class ImageFile:
    """An image file; `name` is where it lies below the folder that was given."""

    path: Path
    name: str


@dataclass(frozen=True)
class Video:
    """A video file; `name` as for an image."""

    path: Path
    name: str


@dataclass(frozen=True)
class Live:
    """A camera's number or a network stream's address: it doesn't wait for us, and its end is not planned.

    Attributes:
        address: of the camera or stream.
        name: of what is written.
        ends: it is a video file at an address: it waits, and comes to an end.
    """

    address: int | str
    name: str
    ends: bool = False


@dataclass(frozen=True)
class Pixels:
    """An image that is already an array, uint8 [H, W, 3], RGB."""

    image: UInt8Array
    name: str


@dataclass(frozen=True)
class InMemory:
    """An image that is at hand in another form: a PIL image, a file's bytes, or what lay at an address.

    Attributes:
        image: the image; it is decoded when its turn comes.
        name: of what is written.
        address: where it was fetched from, "" where it was not.
    """

    image: Image
    name: str
    address: str = ""


Item: TypeAlias = ImageFile | Video | Live | Pixels | InMemory
OneSource: TypeAlias = Union[Image, int, Item]  # noqa: UP007  # `Image` holds names in quotes
Source: TypeAlias = Union[OneSource, Iterable[OneSource]]  # noqa: UP007


def is_live(item: Item) -> bool:
    """Return whether the source doesn't wait for us, and has no planned end."""
    return isinstance(item, Live) and not item.ends


@dataclass(frozen=True)
class Frame:
    """An image on its way: a file's, or one of a video or camera.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        item: where it came from.
        index: the frame's number in its video or camera, from 0; gaps are frames that were dropped.
        fps: frames a second of the video or camera, 0 for an image.
        drawn: a copy of `image` with the detections drawn, if that was asked for.
    """

    image: UInt8Array
    item: Item
    index: int = 0
    fps: float = 0.0
    drawn: UInt8Array | None = None


def expand(source: Source) -> list[Item]:
    """Return everything that the source stands for, in order; folders are searched to their depths.

    What lies at an http address is looked up: an image is fetched, anything else is left to be streamed. An iterator
    is read to its end.

    Raises:
        UserError: a path is missing, a folder has no images or videos, a glob matches none, nothing usable lies at an
            address, something is no source, or nothing was given.
    """
    items: list[Item] = []
    for one in source if is_many(source) else [source]:
        if isinstance(one, Item):
            items.append(one)
        elif isinstance(one, str | PathLike):
            items += _expand_path(os.fsdecode(one))
        elif isinstance(one, np.ndarray):
            items.append(Pixels(read_one(one, where=f"sources[{len(items)}]"), f"array_{len(items):06d}.png"))
        elif is_image(one):
            items.append(InMemory(one, f"image_{len(items):06d}.png"))
        elif isinstance(one, int | np.integer) and not isinstance(one, bool) and one >= 0:
            items.append(Live(int(one), f"camera_{one}"))
        elif isinstance(one, int):
            raise UserError(f"A camera is given as {one}.", expected="its number, at least 0")
        else:
            raise not_an_image(one, f"sources[{len(items)}]" if is_many(source) else "")
    if not items:
        raise UserError("No source is given.", expected="images, folders, globs, videos or a camera number")
    return items


def frames(item: Item, max_pixels: int = MAX_PIXELS) -> Iterator[Frame]:
    """Yield the images of one item, in order.

    Raises:
        UserError: it can't be read, or, after the frames before, it breaks off.
    """
    if isinstance(item, Pixels):
        yield Frame(item.image, item)
    elif isinstance(item, InMemory):
        yield Frame(read_one(item.image, max_pixels, item.address), item)
    elif isinstance(item, ImageFile):
        yield Frame(read_image(item.path, max_pixels=max_pixels), item)
    else:
        yield from _captured(item, max_pixels)


def count_frames(items: Sequence[Item]) -> int | None:
    """Return how many frames there will be, for a progress bar; None if that can't be known."""
    total = 0
    for item in items:
        if isinstance(item, Live):
            return None
        if isinstance(item, Video):
            capture = _opened(str(item.path))
            num = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            capture.release()
            if num <= 0:
                return None
            total += num
        else:
            total += 1
    return total


def _expand_path(text: str) -> list[Item]:
    """Return what a path, glob, address or camera's number stands for."""
    path = Path(text)
    if path.is_dir():
        found = _search(path)
        if not found:
            raise UserError(f"There are no images or videos in the folder {text}.", expected=_kinds())
        return found
    if path.is_file():
        return [_file(path, path.name)]
    if text.isdecimal():
        return [Live(int(text), f"camera_{text}")]
    if is_address(text):
        there = look_up(text)
        return [Live(text, there.name, there.ends) if there.data is None else InMemory(there.data, there.name, text)]
    if text.lower().startswith(_STREAMS):
        return [Live(text, "stream")]
    if glob.has_magic(text):
        return _expand_glob(text)
    if path.exists():
        raise UserError(
            f"{text} is neither a file nor a folder.",
            expected="an image, a video, a folder, a quoted glob, or a camera number",
        )
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UserError(
        f"There is no file or folder {text}{suggest(path.name, beside)}.",
        expected="an image, a video, a folder, a quoted glob, or a camera number",
    )


def _expand_glob(pattern: str) -> list[Item]:
    """Return the images and videos that the pattern matches; matching folders are searched."""
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 (absolute too)
    items: list[Item] = []
    for match in matches:
        if match.is_dir() and "**" not in pattern:
            items += _search(match)
        elif match.is_file() and _known(match):
            items.append(_file(match, match.name))
    if not items:
        others = f"; none of the {len(matches)} files that it matches is one" if matches else ""
        raise UserError(f"The pattern {pattern} matches no image or video{others}.", expected=_kinds())
    return items


def _search(folder: Path) -> list[Item]:
    """Return the images and videos below the folder, by name; what else may have been meant is told."""
    listing = search_folder(folder, IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    if listing.left_out:
        warnings.warn(f"Skipped in {folder}: {listing.told()}.", stacklevel=3)
    return [_file(path, path.relative_to(folder).as_posix()) for path in listing.files]


def _known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _file(path: Path, name: str) -> Item:
    """Return the item for a file; one with a strange name is tried as an image."""
    return Video(path, name) if path.suffix.lower() in VIDEO_SUFFIXES else ImageFile(path, name)


def _kinds() -> str:
    return "files ending in " + ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))


def _captured(item: Video | Live, max_pixels: int) -> Iterator[Frame]:
    """Yield the frames of a video or camera."""
    address = str(item.path) if isinstance(item, Video) else item.address
    capture = _opened(address)
    try:
        if not capture.isOpened():
            raise _not_opened(item)
        height, width = capture.get(cv2.CAP_PROP_FRAME_HEIGHT), capture.get(cv2.CAP_PROP_FRAME_WIDTH)
        if height >= 1 and width >= 1:  # some cameras don't say it before the first frame
            check_pixels(int(height), int(width), max_pixels, str(address))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else _USUAL_FPS
        ends = isinstance(item, Video) or item.ends
        expected = capture.get(cv2.CAP_PROP_FRAME_COUNT) if ends else math.inf
        index = 0
        while True:
            good, image = capture.read()
            if not good:
                break
            yield Frame(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), item, index, fps)
            index += 1
        _check_end(item, index, expected)
    finally:
        capture.release()


def _opened(address: str | int) -> cv2.VideoCapture:
    """Return the video or camera, open or not; what OpenCV's readers of containers print meanwhile is kept quiet."""
    with quiet_library():
        return cv2.VideoCapture(address)


def _not_opened(item: Video | Live) -> UserError:
    """Return the error for a video or camera that gives nothing."""
    if isinstance(item, Video):
        return UserError(
            "The video can't be opened: it is damaged, or OpenCV's FFmpeg does not support its format.",
            where=str(item.path),
            fix="play it in a video player; convert it with: ffmpeg -i IN -c:v libx264 OUT.mp4",
        )
    camera = isinstance(item.address, int)
    return UserError(
        f"The {'camera' if camera else 'stream'} {item.address} can't be opened.",
        expected="a camera that is connected and not in use by another program"
        if camera
        else "an address that answers",
    )


def _check_end(item: Video | Live, read: int, expected: float) -> None:
    """Raise a UserError if a video ended before the frames that it announced, or a camera at all."""
    if isinstance(item, Live) and not item.ends:
        raise UserError(f"{item.name} stopped sending images after {read} frames.", where=str(item.address))
    # Containers count a little wrong, so a few frames less are no fault.
    if read == 0 or read < expected - max(2.0, 0.02 * expected):
        raise UserError(
            f"The video ends early, after {read} of {expected:.0f} frames.",
            where=str(item.address if isinstance(item, Live) else item.path),
            fix="copy the file again from its source; the frames up to there were used",
        )
