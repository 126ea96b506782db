"""Text files that list images, a path a line, as they come from any machine."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from eyas.data.formats.base import list_images
from eyas.data.formats.text import decode, split_lines, strip_blanks
from eyas.errors import UserError, shorten
from eyas.files import read_regular
from eyas.path_ends import PathEnds, path_parts


def exists(path: Path) -> bool:
    """Return whether there is such a file or folder; what can't be a name is none."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, a loop of links, or a zero byte
        return False


def read_list(path: Path, bases: Sequence[Path]) -> list[Path]:
    r"""Return the images that a list names, in order; blank lines are left out.

    A line is a path, absolute or from one of `bases`. Backslashes separate folders where there is no such file
    otherwise. A path of another machine ("C:\data\images\a.jpg") is the one image below `bases` that shares the
    longest end with it; that is told once. Images that are not there keep the path that their line says.

    Raises:
        UserError: no image is there, a foreign path fits several images, or two of them fit the same.
    """
    lines = [line for line in split_lines(decode(read_regular(path))) if strip_blanks(line)]
    found = [_literal(line, bases) for line in lines]
    lost = [number for number, image in enumerate(found) if image is None]
    if lost:
        moved = _by_ends([lines[number] for number in lost], path, bases)
        _refuse_twice(
            {**{n: p for n, p in enumerate(found) if p}, **dict(zip(lost, moved, strict=True))}, lines, lost, path
        )
        for number, image in zip(lost, moved, strict=True):
            found[number] = image
        told = [(lines[number], found[number]) for number in lost if found[number]]
        if told:
            warnings.warn(
                f"{path.name}: {len(told)} of its images are listed with paths that do not exist; each was matched by "
                f"the end of its path, for example {strip_blanks(told[0][0])} as {told[0][1]}.",
                stacklevel=2,
            )
    if lines and not any(found):
        raise UserError(
            f"None of the {len(lines)} images listed in {path.name} exists, for example {lines[0].strip()}.",
            where=str(path),
            expected="paths from " + " or ".join(str(base) for base in bases),
            fix="correct the paths in the list, or move the images there"
            + ("" if "".join(lines).isascii() else "; if it is not in UTF-8 or UTF-16, save it in one of them"),
        )
    return [
        image or bases[-1] / strip_blanks(line).replace("\\", "/") for image, line in zip(found, lines, strict=True)
    ]


def _literal(line: str, bases: Sequence[Path]) -> Path | None:
    """Return the file that a line names as it stands, None if there is none."""
    plain = strip_blanks(line)
    for text in dict.fromkeys((line, plain, plain.replace("\\", "/"))):
        for base in bases:
            if exists(base / text):
                return base / text
    return None


def _by_ends(lines: Sequence[str], path: Path, bases: Sequence[Path]) -> list[Path | None]:
    """Return for each line the image below `bases` that its path ends like, None where there is none."""
    known = list(dict.fromkeys(image for base in bases for image in list_images(base)))
    ends = PathEnds(image.as_posix() for image in known)
    found: list[Path | None] = []
    for line in lines:
        fitting = ends.find(strip_blanks(line))
        if len(fitting) > 1:
            raise UserError(
                f"{path.name} lists {strip_blanks(line)}, which does not exist and could be "
                f"{shorten([known[number] for number in fitting], 3)}.",
                where=str(path),
                expected="paths from " + " or ".join(str(base) for base in bases),
                fix="correct the paths in the list",
            )
        found.append(known[fitting[0]] if fitting else None)
    _keep_to_the_rule(lines, found)
    return found


def _keep_to_the_rule(lines: Sequence[str], found: list[Path | None]) -> None:
    """Drop images that lie elsewhere than the others of their foreign folder: a namesake, not the image meant."""
    swaps = []
    for line, image in zip(lines, found, strict=True):
        there, here = path_parts(strip_blanks(line)), image.parts if image else ()
        shared = next((i for i, (a, b) in enumerate(zip(reversed(there), reversed(here), strict=False)) if a != b),
                      min(len(there), len(here)))  # fmt: skip
        swaps.append((there[: len(there) - shared], here[: len(here) - shared]))
    counted = Counter(swap for swap, image in zip(swaps, found, strict=True) if image)
    if not counted:
        return
    prefix, folder = counted.most_common(1)[0][0]
    for number, line in enumerate(lines):
        there = path_parts(strip_blanks(line))
        if there[: len(prefix)] == prefix and swaps[number] != (prefix, folder):
            found[number] = None


def _refuse_twice(found: dict[int, Path | None], lines: Sequence[str], lost: Sequence[int], path: Path) -> None:
    """Refuse foreign paths that differ and lead to one image: at most one of them can mean it."""
    owner: dict[Path, int] = {}
    moved = set(lost)
    for number, image in found.items():
        if image is None:
            continue
        first = owner.setdefault(image, number)
        if strip_blanks(lines[first]) != strip_blanks(lines[number]) and moved & {first, number}:
            raise UserError(
                f"{path.name} lists {strip_blanks(lines[first])} and {strip_blanks(lines[number])}, and both match "
                f"only {image}.",
                where=str(path),
                fix="correct the paths in the list, or move the images there",
            )
