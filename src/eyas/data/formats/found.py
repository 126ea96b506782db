"""What a format finds in a dataset's root, and the names of splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eyas.data.index import DatasetIndex, shorten
from eyas.errors import UserError, suggest

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm"})
_SAME_SPLIT = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}


@dataclass(frozen=True)
class Found:
    """A split that a format sees in a root.

    Attributes:
        split: its name as it stands on the disk.
        source: the file or folder that the annotations come from.
        root: the dataset's root.
    """

    split: str
    source: Path
    root: Path


@dataclass(frozen=True)
class Format:
    """A format on disk: three functions and where its pictures go.

    Attributes:
        name: what the user calls it.
        title: what a message calls it, with the files that it consists of.
        sniff: root (a folder, or one file) -> the splits it finds there; empty when the root is not of this format.
        read: one of those splits -> its index; raises UserError for rubbish.
        write: (splits whose pictures already lie in `pictures(out, split)`, out) -> writes the annotations.
        pictures: (out, split) -> the folder that the format wants the split's pictures in.
    """

    name: str
    title: str
    sniff: Callable[[Path], tuple[Found, ...]]
    read: Callable[[Found], DatasetIndex]
    write: Callable[[Sequence[DatasetIndex], Path], None]
    pictures: Callable[[Path, str], Path]


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


def is_picture(path: Path) -> bool:
    """Return whether the file's suffix is a picture's."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def relative_name(path: Path, root: Path) -> str:
    """Return the path relative to `root` with forward slashes, or absolute when it lies elsewhere."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.resolve().as_posix()


class Problems:
    """Collects faults of an annotation file, so that one message names the first few and counts the rest."""

    def __init__(self, where: Path | str, limit: int = 5) -> None:
        """Collect for the file `where`; `limit` faults are spelled out."""
        self.where = where
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
            name = Path(self.where).name
            many = f"{self.count} faults" if self.count > 1 else "a fault"
            raise UserError(
                f"{name} has {many}: {shorten_lines(self.lines, self.count)}",
                expected=expected,
                where=str(self.where),
                fix="correct the file, or export it again",
            )


def shorten_lines(lines: Sequence[str], count: int) -> str:
    """Return one line as it is; several indented under each other, with the number of those left out."""
    if count == 1:
        return lines[0]
    rest = [f"and {count - len(lines)} more"] if count > len(lines) else []
    return "".join(f"\n    {line}" for line in [*lines, *rest])


__all__ = ["Format", "Found", "Problems", "canonical", "is_picture", "pick", "plain_names", "relative_name", "shorten"]
