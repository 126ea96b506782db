"""A dataset as the input of a run: its reference in a card, and a record of its contents to detect later changes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eyas import renamed
from eyas.errors import UserError, shorten
from eyas.files import atomic_path

FIELDS = ("split", "image", "bytes", "labels")
OLD_FIELDS = ("split", renamed.IMAGE_COLUMN, "bytes", "labels")
Row = tuple[str, str, str, str]  # as FIELDS: which split, the file's name, its size, a hash of its boxes and labels


@dataclass(frozen=True)
class DatasetRecord:
    """The recorded contents of a dataset; `eyas.data.record` gives the rows of an index.

    Attributes:
        rows: one for each image of each split, in their order.
    """

    rows: tuple[Row, ...]

    @classmethod
    def read(cls, path: Path) -> DatasetRecord:
        """Read a record written by `write`.

        Raises:
            UserError: the file is another one.
        """
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = [tuple(row) for row in csv.reader(file)]
        if not rows or rows[0] not in (FIELDS, OLD_FIELDS) or any(len(row) != len(FIELDS) for row in rows):
            raise UserError(
                f"{path.name} differs from what the run wrote.", where=str(path), fix="restore the original file"
            )
        return cls(tuple(rows[1:]))  # type: ignore[arg-type]  # their lengths were just looked at

    @staticmethod
    def write(path: Path, rows: Iterable[Row]) -> None:
        """Write the rows as CSV, whole or not at all; one after another, for there may be millions."""
        with (
            atomic_path(path) as temporary,
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(FIELDS)
            writer.writerows(rows)

    def changes(self, now: DatasetRecord) -> list[str]:
        """Return the differences to a later record, in words; empty if they are equal."""
        if self == now:
            return []
        old, new = ({row[:2]: row[2:] for row in record.rows} for record in (self, now))
        both = [key for key in old if key in new]
        kinds = {
            "removed": [key for key in old if key not in new],
            "added": [key for key in new if key not in old],
            "with a different file": [key for key in both if old[key][0] != new[key][0]],
            "with different labels": [key for key in both if old[key][1] != new[key][1]],
        }
        found = [
            f"{len(keys)} {'image' if len(keys) == 1 else 'images'} {kind} "
            f"({shorten([f'{split}: {name}' for split, name in keys], 3)})"
            for kind, keys in kinds.items()
            if keys
        ]
        return found or ["the order of the images"]


def class_changes(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Return the differences between two lists of classes, in words; empty if they are equal."""
    if tuple(before) == tuple(now):
        return []
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    changes = []
    if len(before) == len(now):
        renamed = {old: name for old, name in zip(before, now, strict=True) if old in gone and name in new}
        if renamed:
            changes.append("renamed: " + shorten([f"'{old}' is now '{name}'" for old, name in renamed.items()]))
        gone = [name for name in gone if name not in renamed]
        new = [name for name in new if name not in renamed.values()]
    if gone:
        changes.append("removed: " + shorten([f"'{name}'" for name in gone]))
    if new:
        changes.append("added: " + shorten([f"'{name}'" for name in new]))
    moved = [
        f"'{name}' was at position {before.index(name)}, now at {now.index(name)}"
        for name in before
        if name in now and before.index(name) != now.index(name)
    ]
    if moved:
        changes.append("moved: " + shorten(moved))
    return changes


def split_as_parent(root: str | Path, split: str, sha256: str) -> dict[str, str]:
    """Return how what was made from a split of a dataset names it.

    Args:
        root: the dataset's folder or file.
        split: the split's name.
        sha256: `eyas.data.record.hash_index` of its index.
    """
    return {"kind": "dataset", "path": str(Path(root).resolve()), "sha256": sha256, "split": split}
