"""What is to be predicted on, cut into parts: a part is given to a worker, saved, or done again, as a whole."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2

from eyas.errors import UserError, shorten
from eyas.files import real
from eyas.image_files import IMAGE_SUFFIXES
from eyas.predict.containers import open_video, tar_members
from eyas.renamed import PLANNED_IMAGES
from eyas.runtime.sources import VIDEO_SUFFIXES, ImageFile, Video, expand
from eyas.text import to_utf8

Kind = Literal["images", "tar", "video", "parquet"]
TAR, PARQUET = ".tar", ".parquet"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
COLUMNS = ("image", "images", "jpg", "jpeg", "png", "bytes", "path", "image_path", "file_name")  # the first one found


@dataclass(frozen=True)
class Part:
    """Some images that follow each other, of one folder, archive, video or parquet file.

    Attributes:
        index: which part of the whole.
        kind: of what.
        path: the folder, archive or file.
        root: the source that it was found in; what lies outside it, and outside the job's other roots, is not read.
        name: what names are given below: "" for a folder.
        start: the first frame or row.
        count: how many images, as far as that can be known before.
        last: whether a video's frames go on to its end, however many come.
        names: of the images of a folder or archive.
        spans: offset and size of each, for an archive.
        column: of a parquet file.
    """

    index: int
    kind: Kind
    path: str
    root: str = ""
    name: str = ""
    start: int = 0
    count: int = 0
    last: bool = False
    names: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    column: str = ""


def to_line(part: Part) -> str:
    """Return the part as a line of JSON."""
    fields = {key: value for key, value in asdict(part).items() if value or key == "index"}
    if part.kind == "images":
        fields["kind"] = PLANNED_IMAGES
    return json.dumps(fields) + "\n"


def from_line(line: str) -> Part:
    """Return the part of such a line."""
    fields = json.loads(line)
    if fields["kind"] == PLANNED_IMAGES:
        fields["kind"] = "images"
    fields["names"] = tuple(fields.get("names", ()))
    fields["spans"] = tuple((offset, size) for offset, size in fields.get("spans", ()))
    return Part(**fields)


def plan(
    sources: Sequence[str],
    size: int,
    *,
    column: str | None = None,
    without: Path | None = None,
    roots: Sequence[Path] = (),
) -> Iterator[Part]:
    """Yield the parts of everything in the sources, in order; little of a long list is held at once.

    Args:
        sources: images, folders (searched to their depths), globs, videos, tar archives, parquet files.
        size: most images of a part.
        column: of parquet files, the column with images or paths; None looks for one.
        without: a file or folder that is no source: the output.
        roots: folders that archives, videos and parquet files may lie below besides the sources' own.

    Raises:
        UserError: a source is missing, can't be read or holds no image.
    """
    index = 0
    for source in sources:
        begin = index
        for part in _of_source(source, _Cut(size, column, without, tuple(roots))):
            fields = {**vars(part), "index": index}
            index += 1
            yield Part(**fields)
        if index == begin:
            kinds = "images, videos, .tar archives or .parquet files"
            raise UserError(f"There is nothing to predict on at {source}.", expected=kinds)


@dataclass(frozen=True)
class _Cut:
    """How sources are cut into parts: `plan`'s arguments."""

    size: int
    column: str | None
    without: Path | None
    roots: tuple[Path, ...]


def _of_source(source: str, cut: _Cut) -> Iterator[Part]:
    path = Path(source)
    if path.is_dir():
        yield from _of_files(_walk(path, "", cut.without), path, cut)
    elif path.is_file() and (_container(path.name) or path.name.lower().endswith(_COMPRESSED)):
        yield from _of_container(path, path.name, real(path).parent, cut)
    else:
        for item in expand(source):  # a glob, one image, and the words for what is missing
            if isinstance(item, ImageFile):
                folder = str(real(item.path.parent))
                yield Part(0, "images", folder, str(real(item.path).parent), count=1, names=(item.path.name,))
            elif isinstance(item, Video):
                yield from _of_container(item.path, item.name, real(item.path).parent, cut)
            else:
                raise UserError(f"{source} never ends.", expected="files", fix="use 'eyas detect' for cameras")


def _walk(folder: Path, below: str, without: Path | None) -> Iterator[str]:
    """Yield the names of the files below the folder, by name, as "a/b.jpg".

    Hidden ones are left out; links to folders too, which is told: they may lead anywhere, or around in a circle.
    """
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries)
    for name, is_folder, is_link in found:
        path = folder / name
        if name.startswith(".") or (without is not None and real(path) == without):
            continue
        if is_link and path.is_dir():
            warnings.warn(
                f"{to_utf8(str(path))} is a link to a folder and is skipped; give that folder as a source of its own.",
                stacklevel=2,
            )
        elif is_folder:
            yield from _walk(path, f"{below}{name}/", without)
        elif Path(name).suffix.lower() in IMAGE_SUFFIXES or _container(name):
            yield f"{below}{name}"


def _container(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES | {TAR, PARQUET}


def _of_files(names: Iterator[str], folder: Path, cut: _Cut) -> Iterator[Part]:
    """Yield parts of the files: images that follow each other together, whatever holds many images by itself."""
    root = real(folder)
    waiting: list[str] = []
    for name in names:
        if not _container(name):
            waiting.append(name)
        if waiting and (_container(name) or len(waiting) == cut.size):
            yield Part(0, "images", str(root), str(root), count=len(waiting), names=tuple(waiting))
            waiting = []
        if _container(name):
            yield from _of_container(folder / name, name, root, cut)
    if waiting:
        yield Part(0, "images", str(root), str(root), count=len(waiting), names=tuple(waiting))


def _of_container(path: Path, name: str, root: Path, cut: _Cut) -> Iterator[Part]:
    """Yield the parts of an archive, a video or a parquet file."""
    suffix = path.suffix.lower()
    path = real(path)
    if path.name.lower().endswith(_COMPRESSED):
        raise UserError(f"The archive {name} is compressed.", expected="a plain .tar", fix=f"gunzip {name}")
    below = (root, *cut.roots)
    if suffix == TAR:
        found = tar_members(path, cut.size, below)
        yield from (Part(0, "tar", str(path), str(root), name, 0, len(names), names=names, spans=spans)
                    for names, spans in found)  # fmt: skip
    elif suffix == PARQUET:
        yield from _of_parquet(path, name, root, cut)
    else:
        total = count_video(path, below)
        for start in range(0, max(total, 1), cut.size):
            count = min(cut.size, total - start)
            yield Part(0, "video", str(path), str(root), name, start, count, last=start + cut.size >= total)


def count_video(path: Path, below: Sequence[Path] = ()) -> int:
    """Return how many frames the video says it has; one that doesn't say, or says too much, is run through.

    Raises:
        UserError: it can't be opened, is no file, or lies outside the folders that may be read.
    """
    capture, size = open_video(path, below)
    try:
        said = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if 0 < said <= size:  # no frame takes less than a byte
            return int(said)
        total = 0
        while capture.grab():
            total += 1
        return total
    finally:
        capture.release()


def _of_parquet(path: Path, name: str, root: Path, cut: _Cut) -> Iterator[Part]:
    """Yield the parts of a parquet file; only its footer is read."""
    from eyas.predict.tables import open_parquet

    with open_parquet(path, (root, *cut.roots)) as table:
        names = table.schema_arrow.names
        chosen = cut.column or next((one for one in COLUMNS if one in names), None)
        if chosen not in names:
            raise UserError(
                f"The parquet file has no column '{chosen}'." if chosen else "No column seems to contain images.",
                where=str(path),
                expected="one of " + shorten(names, 20),
                fix="name the column with the encoded images or their paths: --column NAME",
            )
        total = table.metadata.num_rows
    if not 0 <= total <= 8 * path.stat().st_size:  # no image or path takes less than a bit
        raise UserError(f"The parquet file claims {total} rows, which it can't contain.", where=str(path))
    for start in range(0, total, cut.size):
        yield Part(0, "parquet", str(path), str(root), name, start, min(cut.size, total - start), column=str(chosen))
