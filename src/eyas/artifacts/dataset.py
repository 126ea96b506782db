"""A data set as what a run was made from: how a card names it, and what stood in it, to tell later what was changed."""

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
    """What stood in a data set; `eyas.data.record` gives the rows of an index.

    Attributes:
        rows: one for each image of each split, in their order.
    """

    rows: tuple[Row, ...]

    @classmethod
    def read(cls, path: Path) -> DatasetRecord:
        """Return what `write` wrote.

        Raises:
            UserError: the file is another one.
        """
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = [tuple(row) for row in csv.reader(file)]
        if not rows or rows[0] not in (FIELDS, OLD_FIELDS) or any(len(row) != len(FIELDS) for row in rows):
            raise UserError(f"{path.name} is not as the run wrote it.", where=str(path), fix="put it back")
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
        """Return what is different in a later record, in words; nothing if they are equal."""
        if self == now:
            return []
        old, new = ({row[:2]: row[2:] for row in record.rows} for record in (self, now))
        both = [key for key in old if key in new]
        kinds = {
            "removed": [key for key in old if key not in new],
            "added": [key for key in new if key not in old],
            "another file": [key for key in both if old[key][0] != new[key][0]],
            "other labels": [key for key in both if old[key][1] != new[key][1]],
        }
        found = [
            f"{len(keys)} {'image' if len(keys) == 1 else 'images'} {kind} "
            f"({shorten([f'{split}: {name}' for split, name in keys], 3)})"
            for kind, keys in kinds.items()
            if keys
        ]
        return found or ["the order of the images"]


def class_changes(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Return what is different between two lists of classes, in words; nothing if they are equal."""
    if tuple(before) == tuple(now):
        return []
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    changes = []
    if len(before) == len(now):
        renamed = {old: name for old, name in zip(before, now, strict=True) if old in gone and name in new}
        if renamed:
            changes.append("renamed: " + shorten([f"'{old}' is '{name}' now" for old, name in renamed.items()]))
        gone = [name for name in gone if name not in renamed]
        new = [name for name in new if name not in renamed.values()]
    if gone:
        changes.append("removed: " + shorten([f"'{name}'" for name in gone]))
    if new:
        changes.append("added: " + shorten([f"'{name}'" for name in new]))
    moved = [
        f"'{name}' was number {before.index(name)}, now {now.index(name)}"
        for name in before
        if name in now and before.index(name) != now.index(name)
    ]
    if moved:
        changes.append("moved: " + shorten(moved))
    return changes


def split_as_parent(root: str | Path, split: str, sha256: str) -> dict[str, str]:
    """Return how what was made from a split of a data set names it.

    Args:
        root: the data set's folder or file.
        split: the split's name.
        sha256: `eyas.data.record.hash_index` of its index.
    """
    return {"kind": "dataset", "path": str(Path(root).resolve()), "sha256": sha256, "split": split}
