"""Reading the images of a part. Videos and parquet files are read on from where the part before ended."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import cv2
import numpy as np

from eyas.decode import MAX_BYTES, MAX_PIXELS, decode, read_image
from eyas.errors import UserError
from eyas.files import OUTSIDE, open_regular
from eyas.predict.containers import open_video
from eyas.predict.parts import Part
from eyas.types import UInt8Array


@dataclass(frozen=True)
class ReadImage:
    """An image that is there.

    Attributes:
        name: below its source; of a video or parquet file, that one's name.
        index: the frame or row, None for a file.
        image: uint8 [H, W, 3], RGB, or why it can't be read.
    """

    name: str
    index: int | None
    image: UInt8Array | UserError


Stream: TypeAlias = Iterator[Any]
NOTHING: Mapping[int, str] = MappingProxyType({})


class PartReader:
    """Reads parts; one reader serves one thread.

    Args:
        max_pixels: an image with more is not decoded.
        roots: folders that files may lie below besides the source that they were found in.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS, roots: Sequence[Path] = ()) -> None:
        self._max_pixels = max_pixels
        self._roots = tuple(roots)
        self._video: tuple[str, cv2.VideoCapture] | None = None
        self._frame = 0  # the video's next one
        self._table: tuple[str, str, Stream] | None = None
        self._row = 0  # the parquet file's next one

    def read(self, part: Part, without: Mapping[int, str] = NOTHING) -> Iterator[ReadImage]:
        """Yield the part's images, in order.

        Args:
            part: which.
            without: position of an image that is not to be decoded -> why; a video's frames can't be left out.
        """
        if part.kind == "images":
            return self._images(part, without)
        if part.kind == "tar":
            return self._archive(part, without)
        return self._frames(part) if part.kind == "video" else self._rows(part, without)

    def _below(self, part: Part) -> tuple[Path, ...]:
        return (Path(part.root), *self._roots)

    def _images(self, part: Part, without: Mapping[int, str]) -> Iterator[ReadImage]:
        for position, name in enumerate(part.names):
            path = Path(part.path) / name
            why = without.get(position)
            ended = None if why is None else UserError(why, where=str(path))
            yield ReadImage(name, None, self._file(path, part) if ended is None else ended)

    def _archive(self, part: Part, without: Mapping[int, str]) -> Iterator[ReadImage]:
        try:
            with open_regular(part.path, below=self._below(part)) as file:
                descriptor = os.dup(file.fileno())
        except (OSError, UserError) as error:
            reason = error.problem if isinstance(error, UserError) else f"The archive can't be read: {error.strerror}."
            yield from (
                ReadImage(f"{part.name}/{name}", None, UserError(reason, where=part.path)) for name in part.names
            )
            return
        with os.fdopen(descriptor, "rb") as file:
            total = os.fstat(descriptor).st_size
            for position, (name, (offset, size)) in enumerate(zip(part.names, part.spans, strict=True)):
                full = f"{part.name}/{name}"
                if position in without:
                    yield ReadImage(full, None, UserError(without[position], where=full))
                elif size > MAX_BYTES or offset + size > total:
                    yield ReadImage(full, None, UserError(f"The member claims a size of {size} bytes.", where=full))
                else:
                    yield ReadImage(full, None, self._decoded(os.pread(descriptor, size, offset), full))

    def _file(self, path: Path, part: Part) -> UInt8Array | UserError:
        try:
            return read_image(path, max_pixels=self._max_pixels, below=self._below(part))
        except UserError as error:
            if error.problem == OUTSIDE:
                return UserError(f"{error.problem} Allow further folders with --root FOLDER.", where=error.where)
            return error

    def _decoded(self, data: bytes, where: str) -> UInt8Array | UserError:
        try:
            return decode(data, max_pixels=self._max_pixels, where=where)
        except UserError as error:
            return error

    def _frames(self, part: Part) -> Iterator[ReadImage]:
        if self._video is None or self._video[0] != part.path or self._frame > part.start:
            if self._video is not None:
                self._video[1].release()
                self._video = None
            try:
                self._video = (part.path, open_video(Path(part.path), self._below(part))[0])
            except UserError as error:
                yield ReadImage(part.name, None, error)
                return
            self._frame = 0
        capture = self._video[1]
        while self._frame < part.start and capture.grab():  # seeking is not exact to the frame
            self._frame += 1
        end = part.start + part.count
        while self._frame >= part.start and (part.last or self._frame < end):
            good, image = capture.read()
            if not good:
                break
            self._frame += 1
            yield ReadImage(part.name, self._frame - 1, np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8))
        # Containers count a little wrong, so a few frames less are no fault.
        if part.last and self._frame < end - max(2.0, 0.02 * end):
            reason = f"The video ends early, after {self._frame} of {end} frames."
            yield ReadImage(part.name, None, UserError(reason, where=part.path))

    def _rows(self, part: Part, without: Mapping[int, str]) -> Iterator[ReadImage]:
        from eyas.predict.tables import column_values, open_parquet

        if self._table is None or self._table[:2] != (part.path, part.column) or self._row > part.start:
            below = self._below(part)
            groups: list[int] = []
            with suppress(UserError), open_parquet(Path(part.path), below) as table:  # told below, row by row
                groups = [table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)]
            group = self._row = 0
            while group < len(groups) and self._row + groups[group] <= part.start:
                self._row += groups[group]
                group += 1
            self._table = (part.path, part.column, column_values(Path(part.path), part.column, group, below))
        values = self._table[2]
        while self._row < part.start + part.count:
            try:
                value = next(values)
            except (StopIteration, UserError) as error:
                # The rows that follow can't be had either; the next part looks for its own from the start.
                self._table = None
                reason = (
                    error.problem if isinstance(error, UserError) else "The parquet file has fewer rows than it claims."
                )
                for row in range(max(self._row, part.start), part.start + part.count):
                    yield ReadImage(part.name, row, UserError(reason, where=f"{part.name}, row {row}"))
                return
            self._row += 1
            if self._row > part.start:
                row = self._row - 1
                why = without.get(row - part.start)
                ended = None if why is None else UserError(why, where=f"{part.name}, row {row}")
                yield ReadImage(part.name, row, self._of_value(value, part) if ended is None else ended)

    def _of_value(self, value: Any, part: Part) -> UInt8Array | UserError:
        """Return the image of a cell: a file's bytes, a path, or both as {"bytes", "path"}."""
        where = f"{part.name}, row {self._row - 1}"
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return self._decoded(value, where)
        if not isinstance(value, str):
            return UserError("The cell contains neither encoded image bytes nor a path.", where=where)
        return self._file(Path(part.path).parent / value, part)
