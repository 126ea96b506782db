"""Broken images in a run: one warning for each file, a count at the end, and a stop when there are too many."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from eyas.data.index import DatasetIndex
from eyas.errors import UserError

LIMIT = 0.01  # part of the dataset that may be broken
_LISTED = 20


class SkippedImages:
    """Remembers which images of an index could not be read.

    Args:
        index: the dataset.
    """

    def __init__(self, index: DatasetIndex) -> None:
        self.index = index
        self.known: set[int] = set()

    def note(self, indices: Iterable[int]) -> None:
        """Warn of each image that has not been met before.

        Raises:
            UserError: more than 1 % of the dataset is broken; the images are listed.
        """
        fresh = [index for index in indices if index not in self.known]
        for index in fresh:
            self.known.add(index)
            warnings.warn(
                f"{self.index.path(index)} can't be read and is skipped (replaced by another image).",
                stacklevel=3,
            )
        if fresh and len(self.known) > LIMIT * len(self.index):
            paths = [str(path) for path in self.paths()]
            more = [f"... and {len(paths) - _LISTED} more"] if len(paths) > _LISTED else []
            raise UserError(
                f"{len(paths)} of {len(self.index)} images can't be read, more than {LIMIT:.0%}:\n    "
                + "\n    ".join(paths[:_LISTED] + more),
                expected="a dataset in which nearly every image can be read",
                where=str(self.index.root),
                fix="repair or delete these files and their labels; 'eyas data check' finds all of them",
            )

    def paths(self) -> tuple[Path, ...]:
        """Return the paths of the broken images met so far, in the order of the index."""
        return tuple(self.index.path(index) for index in sorted(self.known))

    def summary(self) -> str:
        """Return one sentence for the end of a run, empty if every image could be read."""
        if not self.known:
            return ""
        return f"{len(self.known)} of {len(self.index)} images could not be read and were skipped."
