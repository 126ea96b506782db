"""What is to be predicted on, cut into parts: a part is given to a worker, saved, or done again, as a whole."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2

from eyas.errors import UserError
from eyas.picture_files import PICTURE_SUFFIXES
from eyas.runtime.sources import VIDEO_SUFFIXES, Picture, Video, expand

Kind = Literal["pictures", "tar", "video", "parquet"]
TAR, PARQUET = ".tar", ".parquet"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
COLUMNS = ("image", "images", "jpg", "jpeg", "png", "bytes", "path", "image_path", "file_name")  # the first one found


@dataclass(frozen=True)
class Part:
    """Some pictures that follow each other, of one folder, archive, video or parquet file.

    Attributes:
        index: which part of the whole.
        kind: of what.
        path: the folder, archive or file.
        name: what names are given below: "" for a folder.
        start: the first frame or row.
        count: how many pictures, as far as that can be known before.
        last: whether a video's frames go on to its end, however many come.
        names: of the pictures of a folder or archive.
        spans: offset and size of each, for an archive.
        column: of a parquet file.
    """

    index: int
    kind: Kind
    path: str
    name: str = ""
    start: int = 0
    count: int = 0
    last: bool = False
    names: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    column: str = ""


def to_line(part: Part) -> str:
    """Return the part as a line of JSON."""
    return json.dumps({key: value for key, value in asdict(part).items() if value or key == "index"}) + "\n"


def from_line(line: str) -> Part:
    """Return the part of such a line."""
    fields = json.loads(line)
    fields["names"] = tuple(fields.get("names", ()))
    fields["spans"] = tuple((offset, size) for offset, size in fields.get("spans", ()))
    return Part(**fields)


def plan(
    sources: Sequence[str], size: int, *, column: str | None = None, without: Path | None = None
) -> Iterator[Part]:
    """Yield the parts of everything in the sources, in order; little of a long list is held at once.

    Args:
        sources: pictures, folders (searched to their depths), globs, videos, tar archives, parquet files.
        size: most pictures of a part.
        column: of parquet files, the column with pictures or paths; None looks for one.
        without: a file or folder that is no source: the output.

    Raises:
        UserError: a source is missing, can't be read or holds no picture.
    """
    index = 0
    for source in sources:
        begin = index
        for part in _of_source(source, size, column, without):
            fields = {**vars(part), "index": index}
            index += 1
            yield Part(**fields)
        if index == begin:
            kinds = "pictures, videos, .tar archives or .parquet files"
            raise UserError(f"There is nothing to predict on at {source}.", expected=kinds)


def _of_source(source: str, size: int, column: str | None, without: Path | None) -> Iterator[Part]:
    path = Path(source)
    if path.is_dir():
        yield from _of_files(_walk(path, "", without), path, size, column)
    elif path.is_file() and (_container(path.name) or path.name.lower().endswith(_COMPRESSED)):
        yield from _of_container(path, path.name, size, column)
    else:
        for item in expand(source):  # a glob, one picture, and the words for what is missing
            if isinstance(item, Picture):
                yield Part(0, "pictures", str(item.path.parent.resolve()), count=1, names=(item.path.name,))
            elif isinstance(item, Video):
                yield from _of_container(item.path, item.name, size, column)
            else:
                raise UserError(f"{source} has no end.", expected="files", fix="use 'eyas detect' for cameras")


def _walk(folder: Path, below: str, without: Path | None) -> Iterator[str]:
    """Yield the names of the files below the folder, by name, as "a/b.jpg"; hidden ones are left out."""
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_folder in found:
        path = folder / name
        if name.startswith(".") or (without is not None and path.resolve() == without):
            continue
        if is_folder:
            yield from _walk(path, f"{below}{name}/", without)
        elif Path(name).suffix.lower() in PICTURE_SUFFIXES or _container(name):
            yield f"{below}{name}"


def _container(name: str) -> bool:
    """Return whether the file's name says that it holds many pictures."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES | {TAR, PARQUET}


def _of_files(names: Iterator[str], folder: Path, size: int, column: str | None) -> Iterator[Part]:
    """Yield parts of the files: pictures that follow each other together, whatever holds many pictures by itself."""
    root = str(folder.resolve())
    waiting: list[str] = []
    for name in names:
        if not _container(name):
            waiting.append(name)
        if waiting and (_container(name) or len(waiting) == size):
            yield Part(0, "pictures", root, count=len(waiting), names=tuple(waiting))
            waiting = []
        if _container(name):
            yield from _of_container(folder / name, name, size, column)
    if waiting:
        yield Part(0, "pictures", root, count=len(waiting), names=tuple(waiting))


def _of_container(path: Path, name: str, size: int, column: str | None) -> Iterator[Part]:
    """Yield the parts of an archive, a video or a parquet file."""
    suffix = path.suffix.lower()
    path = path.resolve()
    if path.name.lower().endswith(_COMPRESSED):
        raise UserError(f"The archive {name} is compressed.", expected="a plain .tar", fix=f"gunzip {name}")
    if suffix == TAR:
        yield from _of_tar(path, name, size)
    elif suffix == PARQUET:
        yield from _of_parquet(path, name, size, column)
    else:
        total = count_video(path)
        for start in range(0, max(total, 1), size):
            count = min(size, total - start)
            yield Part(0, "video", str(path), name, start, count, last=start + size >= total)


def _of_tar(path: Path, name: str, size: int) -> Iterator[Part]:
    """Yield the parts of an archive; only the members' headers are read."""
    names: list[str] = []
    spans: list[tuple[int, int]] = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would remember each
                if member.isreg() and Path(member.name).suffix.lower() in PICTURE_SUFFIXES:
                    names.append(member.name)
                    spans.append((member.offset_data, member.size))
                if len(names) == size:
                    yield Part(0, "tar", str(path), name, 0, size, names=tuple(names), spans=tuple(spans))
                    names, spans = [], []
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"The archive can't be read: {error}.", where=str(path)) from None
    if names:
        yield Part(0, "tar", str(path), name, 0, len(names), names=tuple(names), spans=tuple(spans))


def count_video(path: Path) -> int:
    """Return how many frames the video says it has; one that doesn't say is run through.

    Raises:
        UserError: it can't be opened.
    """
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise UserError("The video can't be opened: it is damaged, or of an unknown kind.", where=str(path))
        said = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if said > 0:
            return said
        total = 0
        while capture.grab():
            total += 1
        return total
    finally:
        capture.release()


def _of_parquet(path: Path, name: str, size: int, column: str | None) -> Iterator[Part]:
    """Yield the parts of a parquet file; only its footer is read."""
    from eyas.serve.predict.tables import open_parquet

    with open_parquet(path) as table:
        names = table.schema_arrow.names
        chosen = column or next((one for one in COLUMNS if one in names), None)
        if chosen not in names:
            raise UserError(
                f"The parquet file has no column '{chosen}'." if chosen else "No column looks like pictures.",
                where=str(path),
                expected="one of " + ", ".join(names),
                fix="name the column with the encoded pictures or their paths: --column NAME",
            )
        total = table.metadata.num_rows
    for start in range(0, total, size):
        yield Part(0, "parquet", str(path), name, start, min(size, total - start), column=str(chosen))
