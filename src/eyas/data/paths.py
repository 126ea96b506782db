"""Many paths in two arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eyas.types import IntArray


@dataclass(frozen=True, eq=False)
class FileTable:
    """The paths of the images as one block of bytes, so that a million of them are two arrays.

    Attributes:
        root: the folder that relative names start from.
        text: uint8 [T], the UTF-8 names one after another, relative to `root` where they lie below it.
        offsets: int64 [N + 1], name i is text[offsets[i]:offsets[i + 1]].
    """

    root: Path
    text: npt.NDArray[np.uint8]
    offsets: IntArray

    @classmethod
    def build(cls, root: Path, names: Iterable[str]) -> FileTable:
        """Return the table of `names`, each relative to `root` or absolute."""
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        lengths = np.fromiter((len(name) for name in encoded), np.int64, len(encoded))
        text = np.frombuffer(b"".join(encoded), np.uint8)
        return cls(root, text, offsets_of(lengths))

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.offsets) - 1

    def name(self, index: int) -> str:
        """Return the name of file `index`, relative to `root` (absolute where it lies elsewhere)."""
        start, stop = self.offsets[index], self.offsets[index + 1]
        return self.text[start:stop].tobytes().decode("utf-8", "surrogateescape")

    def path(self, index: int) -> Path:
        """Return the path of file `index`."""
        return self.root / self.name(index)

    def __iter__(self) -> Iterator[Path]:
        """Yield the path of each file in order."""
        return (self.path(i) for i in range(len(self)))

    def take(self, indices: IntArray) -> FileTable:
        """Return the table of the files that `indices` picks, in that order."""
        return FileTable.build(self.root, (self.name(int(i)) for i in indices))


def offsets_of(lengths: npt.NDArray[np.integer]) -> IntArray:
    """Return int64 [N + 1] offsets of N runs with the given lengths."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
