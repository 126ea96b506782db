"""Files that hold many images, as strangers may have made them: opened only where they are files, within bounds."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2

from eyas.errors import UserError
from eyas.files import open_regular
from eyas.image_files import IMAGE_SUFFIXES
from eyas.text import to_utf8

_MOST_AT_ONCE = 2**20  # bytes of a member's long name and other headers

Span = tuple[int, int]


class _Headers:
    """An archive of which no more than headers are read: a header may say that its name has gigabytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            ReadError: they are more than headers have.
        """
        if not 0 <= size <= _MOST_AT_ONCE:
            raise tarfile.ReadError("a header is too long")
        return self._file.read(size)


def tar_members(path: Path, size: int, below: Sequence[Path]) -> Iterator[tuple[tuple[str, ...], tuple[Span, ...]]]:
    """Yield the images of an archive, so many at a time: names, and (offset, size) of their bytes.

    Only the members' headers are read. Links, devices and the like are no images, whatever they are called.

    Args:
        path: the archive.
        size: most images at a time.
        below: where it must lie, see `eyas.files.open_regular`.

    Raises:
        UserError: it can't be read, or is no archive.
    """
    names: list[str] = []
    spans: list[Span] = []
    try:
        with open_regular(path, below=below) as file:
            total, place = os.fstat(file.fileno()).st_size, -1
            with tarfile.open(fileobj=_Headers(file), mode="r:") as archive:  # type: ignore[call-overload]
                for member in archive:
                    archive.members = []  # it would remember each
                    if member.offset <= place or not 0 <= member.size <= total:
                        raise tarfile.ReadError("a member has an impossible size")
                    place = member.offset
                    if member.isreg() and Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                        names.append(member.name)
                        spans.append((member.offset_data, member.size))
                    if len(names) == size:
                        yield tuple(names), tuple(spans)
                        names, spans = [], []
    except (tarfile.TarError, OSError, ValueError, RecursionError, OverflowError) as error:
        raise UserError(f"The archive can't be read: {error}.", where=str(path)) from None
    if names:
        yield tuple(names), tuple(spans)


def open_video(path: Path, below: Sequence[Path] = ()) -> tuple[cv2.VideoCapture, int]:
    """Return a video, opened, and the bytes of its file.

    Args:
        path: the file.
        below: where it must lie, see `eyas.files.open_regular`.

    Raises:
        UserError: it can't be opened, is no file, or lies elsewhere.
    """
    try:
        with open_regular(path, below=below) as file:
            size = os.fstat(file.fileno()).st_size
            name = str(path)
            if name != to_utf8(name):
                name = f"/proc/self/fd/{file.fileno()}"  # OpenCV takes text only, and this name is none
            capture = cv2.VideoCapture(name)
    except OSError as error:
        reason = error.strerror or "it is empty"
        raise UserError(f"The video can't be opened: {reason}.", where=str(path)) from None
    if not capture.isOpened():
        raise UserError("The video can't be opened: it is damaged, or its format is not supported.", where=str(path))
    return capture, size
