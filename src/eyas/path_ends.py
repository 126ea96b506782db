"""Finding a file by a path that was written on another machine: by the longest end that the two paths share."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SEPARATORS = re.compile(r"[\\/]+")


def path_parts(text: str) -> tuple[str, ...]:
    r"""Return the parts of a path of any system, without roots, "." and "..": "C:\x\a.jpg" is ("C:", "x", "a.jpg")."""
    return tuple(part for part in _SEPARATORS.split(text) if part not in ("", ".", ".."))


class PathEnds:
    """Known paths, to be found by how they end.

    Args:
        known: paths with forward slashes.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._by_name: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        for number, path in enumerate(known):
            parts = tuple(part for part in path.split("/") if part not in ("", "."))
            if parts:
                self._by_name.setdefault(parts[-1], []).append((number, parts))

    def find(self, path: str) -> list[int]:
        """Return the numbers of the known paths that fit best: one, several that fit alike, or none.

        The file's name must be the same. A known path that is the end of `path` as a whole fits better than one of
        which only a part is; of two, the one that shares more parts does. Backslashes separate parts where no known
        name has them.
        """
        literal = tuple(part for part in path.split("/") if part not in ("", ".", ".."))
        for parts in (literal, path_parts(path)):
            found = self._by_name.get(parts[-1], []) if parts else []
            if found:
                ranks = [_rank(parts, known) for _, known in found]
                best = max(ranks)
                return [number for (number, _), rank in zip(found, ranks, strict=True) if rank == best]
        return []


def _rank(path: tuple[str, ...], known: tuple[str, ...]) -> tuple[bool, int]:
    """Return (whether the known path is the end of the other, how many parts at their ends are the same)."""
    shared = 0
    for one, other in zip(reversed(path), reversed(known), strict=False):
        if one != other:
            break
        shared += 1
    return shared == len(known), shared
