"""The splits that a format finds in a dataset's root, and the names of splits."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eyas.data.index import DatasetIndex, SizeArray
from eyas.decode import read_size
from eyas.errors import UserError, shorten, suggest
from eyas.image_files import search_folder

_SAME_SPLIT = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}


class BrokenImages(UserWarning):
    """Images can't be read; a check that decodes all of them tells it better."""


class StrayLabels(UserWarning):
    """Label files belong to no image; a check lists them."""


@dataclass(frozen=True)
class Found:
    """A split that a format sees in a root.

    Attributes:
        split: its name as it stands on the disk.
        source: the file or folder that the annotations come from.
        root: the dataset's root.
        rows: what long rows of YOLO label files hold, if the user says it: "polygon", "keypoints" or "oriented".
    """

    split: str
    source: Path
    root: Path
    rows: str | None = None


@dataclass(frozen=True)
class Format:
    """A format on disk: three functions and where its images go.

    Attributes:
        name: what the user calls it.
        title: what a message calls it, with the files that it consists of.
        sniff: root (a folder, or one file) -> the splits it finds there; empty when the root is not of this format.
        read: one of those splits -> its index; raises UserError for rubbish.
        write: (splits whose images already lie in `images(out, split)`, out) -> writes the annotations.
        images: (out, split) -> the folder that the format wants the split's images in.
        strays: split -> label files there that belong to no image.
        has_crowd: whether the format can say that a box stands for a crowd.
        says_sizes: whether image sizes stand in the label files, and boxes are meant for these.
        refuse: splits -> raises UserError if the format can't hold them at all; asked before images are copied.
    """

    name: str
    title: str
    sniff: Callable[[Path], tuple[Found, ...]]
    read: Callable[[Found], DatasetIndex]
    write: Callable[[Sequence[DatasetIndex], Path], None]
    images: Callable[[Path, str], Path]
    strays: Callable[[Found], tuple[Path, ...]]
    has_crowd: bool
    says_sizes: bool = True
    refuse: Callable[[Sequence[DatasetIndex]], None] = lambda _: None


def canonical(split: str) -> str:
    """Return the split's plain name: "valid" and "validation" are "val", "train2017" is "train"."""
    plain = re.sub(r"[-_]?20\d\d$", "", split.lower())
    return _SAME_SPLIT.get(plain, plain)


def pick(found: Sequence[Found], split: str | None, where: str) -> Found:
    """Return the one split that `split` names.

    Args:
        found: the splits of the dataset.
        split: its name on the disk or its plain name; None is fine when there is only one.
        where: the dataset, for messages.

    Raises:
        UserError: there is no such split, or the name fits several.
    """
    names = [f.split for f in found]
    if split is None:
        fitting = list(found)
    else:
        fitting = [f for f in found if f.split == split] or [f for f in found if canonical(f.split) == canonical(split)]
    if len(fitting) == 1:
        return fitting[0]
    if split is None or fitting:
        given = f"The split '{split}'" if split else "No split was named, and the dataset"
        raise UserError(
            f"{given} could be any of: {', '.join(f.split for f in fitting)}.",
            where=where,
            expected="the name of one split",
        )
    raise UserError(
        f"There is no split '{split}'{suggest(split, names)}.", where=where, expected="one of " + ", ".join(names)
    )


def plain_names(found: Sequence[Found]) -> Mapping[str, Found]:
    """Return the splits by plain name; those that share a plain name keep the names they have on the disk."""
    plain = [canonical(f.split) for f in found]
    return {(name if plain.count(name) == 1 else f.split): f for name, f in zip(plain, found, strict=True)}


def list_images(folder: Path) -> list[Path]:
    """Return the images below the folder in order of name; what else may have been meant is counted and told."""
    listing = search_folder(folder)
    if listing.left_out:
        warnings.warn(f"Skipped in {folder}: {listing.told()}.", stacklevel=2)
    return listing.files


def label_files(folder: Path, suffix: str) -> dict[str, Path]:
    """Return stem -> label file right in the folder, by name; suffixes in any case, hidden files left out.

    Of two that differ in the suffix's case the one in lower case is taken. {} where there is no such folder.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(suffix))
    except OSError:
        return {}
    return {Path(name).stem: folder / name for name in names if not name.startswith(".")}


def tell_unlabelled(split: str, labelled: int, images: int) -> None:
    """Warn when most images of a split have no label file: meant as background, or the labels were not found."""
    if labelled < images / 2:
        warnings.warn(
            f"Only {labelled} of {images} images of '{split}' have a label file; the others count as background.",
            stacklevel=3,
        )


def read_sizes(paths: Sequence[Path]) -> SizeArray:
    """Return int32 [N, 2], the (height, width) from each image's header; (0, 0) and one warning for broken ones."""
    sizes = np.zeros((len(paths), 2), np.int32)
    broken = []
    for i, path in enumerate(paths):
        try:
            sizes[i] = read_size(path)
        except UserError:
            broken.append(path)
    if broken:
        warnings.warn(
            f"{len(broken)} of {len(paths)} images can't be read, so their boxes are left out: {shorten(broken, 3)}. "
            "'eyas data check' shows details.",
            BrokenImages,
            stacklevel=2,
        )
    return sizes


def relative_name(path: Path, root: Path) -> str:
    """Return the path relative to `root` with forward slashes, or absolute when it lies elsewhere."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.resolve().as_posix()


class Problems:
    """Collects faults of an annotation file, so that one message names the first few and counts the rest."""

    def __init__(self, where: Path, what: str = "", limit: int = 5) -> None:
        """Collect for the file or folder `where`, called `what` (its name if ""); `limit` faults are spelled out."""
        self.where = where
        self.what = what or where.name
        self.limit = limit
        self.lines: list[str] = []
        self.count = 0

    def add(self, problem: str) -> None:
        """Note one fault."""
        self.count += 1
        if len(self.lines) < self.limit:
            self.lines.append(problem)

    def raise_any(self, expected: str = "") -> None:
        """Raise a UserError when a fault was noted."""
        if self.count:
            raise UserError(
                f"{self.what}: {f'{self.count} faults' if self.count > 1 else 'a fault'}. {self._text()}",
                expected=expected,
                where=str(self.where),
                fix="correct it, or export the dataset again",
            )

    def _text(self) -> str:
        """Return one fault as it is; several indented under each other, with the number of those left out."""
        if self.count == 1:
            return self.lines[0]
        rest = [f"and {self.count - len(self.lines)} more"] if self.count > len(self.lines) else []
        return "".join(f"\n    {line}" for line in [*self.lines, *rest])
