"""Writing a dataset anew in some format: file names that can't clash, the images first, the annotations last."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from eyas.data.formats.base import Format
from eyas.data.index import DatasetIndex
from eyas.data.paths import FileTable
from eyas.errors import UserError, shorten
from eyas.files import open_regular, writing
from eyas.image_files import is_image
from eyas.image_header import parse_header
from eyas.progress import track
from eyas.text import file_stem

Place = Callable[[Path, Path], None]
_LONGEST = 180  # bytes of a stem; with a split, a number and a suffix a name may have 255
_SUFFIXES: Mapping[str, str] = MappingProxyType({"jpeg": ".jpg", "jpeg2000": ".jp2", "pnm": ".ppm"})


@dataclass(frozen=True)
class Losses:
    """What a format can't hold of a dataset, in numbers of boxes.

    Attributes:
        crowds: boxes of crowds, left out.
        empty: boxes without area inside the frame, left out.
        cut: boxes that were cut at the frame.
    """

    crowds: int
    empty: int
    cut: int


def require_new_folder(out: Path) -> None:
    """Raise a UserError if `out` exists and is not an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out} exists already.", expected="a new or an empty folder", fix="remove it or choose another"
        )


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to write into; it becomes `out` on success and vanishes on failure.

    Raises:
        UserError: `out` exists and is not an empty folder, or the disk is full.
    """
    require_new_folder(out)
    with writing(out, "no output was left"):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            yield partial
            partial.chmod(0o777 & ~_umask())
            partial.replace(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def require_images(splits: Mapping[str, DatasetIndex]) -> None:
    """Raise a UserError if an image's file is missing."""
    missing = [path for index in splits.values() for path in index.files if not path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} images are missing: {shorten(missing, 3)}.",
            fix="restore them or remove their annotations; 'eyas data check' lists them all",
        )


def plan_names(splits: Sequence[DatasetIndex], *, shared: bool, suffix: str = "") -> list[list[str]]:
    """Return a file name for each image of each split, unique by stem and whatever the case.

    Args:
        splits: the indexes.
        shared: the images of all splits go into one folder.
        suffix: replaces the images' own suffixes, ".jpg" for example.
    """
    plans: list[list[str]] = []
    taken: set[str] = set()
    for index in splits:
        if not shared:
            taken = set()
        names = []
        for path in index.files:
            own = _safe(path.name if not is_image(path) else path.stem)
            candidates = [own, f"{index.split}_{own}", _safe(f"{path.parent.name}_{own}")]
            stem = next((c for c in candidates if c.lower() not in taken), "")
            number = 2
            while not stem or stem.lower() in taken:
                stem = f"{own}_{number}"
                number += 1
            taken.add(stem.lower())
            names.append(stem + (suffix or (path.suffix if is_image(path) else _true_suffix(path))))
        plans.append(names)
    return plans


def _safe(stem: str) -> str:
    """Return a stem that a list of images, an XML file and a search of folders give back.

    No ends of lines, control characters or halves of a character, no dot in front (it hides a file), not blanks alone,
    and short enough for a label file's name.
    """
    plain = file_stem(stem).encode()[:_LONGEST].decode(errors="ignore")
    return "_" + plain.lstrip(".") if plain.startswith(".") or not plain.strip() else plain


def _true_suffix(path: Path) -> str:
    with open_regular(path) as file:
        header = parse_header(file.read(1 << 16))
    return _SUFFIXES.get(header.kind, f".{header.kind}") if header else path.suffix


def place_images(
    splits: Sequence[DatasetIndex], out: Path, target: Format, place: Place, text: str
) -> list[DatasetIndex]:
    """Put every image where the format wants it and return the indexes of the new files.

    Args:
        splits: the indexes, sizes known.
        out: the new dataset's root.
        target: its format.
        place: (source, destination) -> makes the image there.
        text: what the progress bar says.

    Raises:
        UserError: the format can't hold the dataset; no image is placed then.
    """
    target.refuse(splits)
    shared = target.images(out, "a") == target.images(out, "b")
    plans = plan_names(splits, shared=shared)
    pairs = []
    for index, names in zip(splits, plans, strict=True):
        folder = target.images(out, index.split)
        folder.mkdir(parents=True, exist_ok=True)
        pairs += [(source, folder / name) for source, name in zip(index.files, names, strict=True)]
    for source, destination in track(pairs, len(pairs), text):
        place(source, destination)
    return [moved(index, out, target, names) for index, names in zip(splits, plans, strict=True)]


def moved(index: DatasetIndex, out: Path, target: Format, names: Sequence[str]) -> DatasetIndex:
    """Return the index with its images at `names` in the format's folder below `out`."""
    folder = target.images(out, index.split).relative_to(out).as_posix()
    return dataclasses.replace(index, root=out, files=FileTable.build(out, [f"{folder}/{name}" for name in names]))


def losses(splits: Sequence[DatasetIndex], target: Format) -> Losses:
    """Return what the format can't hold: COCO holds everything, the others need boxes with area inside the frame."""
    if target.name == "coco":
        return Losses(0, 0, 0)
    crowds, empty, cut = 0, 0, 0
    for index in splits:
        inside, sticks_out = clipped(index)
        crowd = index.crowd if not target.has_crowd else np.zeros_like(index.crowd)
        flat = ((inside[:, 2:] - inside[:, :2]) <= 0).any(axis=1)
        crowds += int(crowd.sum())
        empty += int((flat & ~crowd).sum())
        cut += int((sticks_out & ~flat & ~crowd).sum())
    return Losses(crowds, empty, cut)


def clipped(index: DatasetIndex) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the boxes cut to their images' frames, [M, 4], and which of them stuck out by over half a pixel, [M]."""
    limit = index.sizes[index.image_of_row()][:, [1, 0, 1, 0]].astype(np.float32)
    limit[limit == 0] = np.inf  # a size that is unknown cuts nothing
    inside = np.clip(index.boxes, 0, limit)
    return inside, np.asarray((np.abs(inside - index.boxes) > 0.5).any(axis=1))


def copy(source: Path, destination: Path) -> None:
    """Copy the image's bytes."""
    shutil.copyfile(source, destination)


def link(source: Path, destination: Path) -> None:
    """Hard-link the image: no bytes are copied, and both names are the same file.

    Raises:
        UserError: the two folders lie on different file systems.
    """
    try:
        os.link(source.resolve(), destination)
    except OSError as error:
        raise UserError(
            f"The images can't be hard-linked: {error.strerror}.",
            where=str(destination.parent),
            fix="leave out --link to copy them, or choose a folder on the same disk",
        ) from None
