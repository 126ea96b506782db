"""What a run began with, kept beside it, so that resuming it under other conditions is noticed and told."""

from __future__ import annotations

import csv
import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyas.artifacts import run as runfolder
from eyas.artifacts.run import read_config
from eyas.data.index import DatasetIndex
from eyas.errors import UserError, shorten
from eyas.files import atomic_path, read_json, write_json
from eyas.training.override import flatten
from eyas.training.recipe import Recipe
from eyas.training.saved import anew

FIELDS = ("split", "picture", "bytes", "labels")
Row = tuple[str, str, str, str]  # as FIELDS: which split, the file's name, its size, a hash of its boxes and labels


def write_origin(
    folder: Path, recipe: Recipe, train: DatasetIndex, val: DatasetIndex, parents: list[dict[str, str]]
) -> None:
    """Write what a new run begins with: `origin.json` (recipe, parents) and `pictures.csv` (the data set)."""
    with (
        atomic_path(folder / runfolder.PICTURES) as path,
        path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(pictures(train, val))
    write_json(folder / runfolder.ORIGIN, {"recipe": recipe.to_dict(), "parents": parents})


def read_parents(folder: Path) -> list[dict[str, str]] | None:
    """Return what the run was made from, as it was found when the run began; None where that was not written."""
    if not (folder / runfolder.ORIGIN).is_file():
        return None
    return list(_origin(folder)["parents"])


def check_recipe(folder: Path, recipe: Recipe) -> None:
    """Raise a UserError if the settings of the run in `folder` were changed since it began."""
    config = read_config(folder)
    if config.input != recipe.data.input_spec():
        raise UserError(
            f"{runfolder.CONFIG} and {runfolder.RECIPE} disagree about the input.", where=str(folder),
            expected="the files as the run wrote them", fix="put them back",
        )  # fmt: skip
    if not (folder / runfolder.ORIGIN).is_file():
        return  # begun by an older Eyas
    began = flatten(_origin(folder)["recipe"])
    path = shlex.quote(str(folder / runfolder.RECIPE))
    now = flatten(json.loads(json.dumps(recipe.to_dict())))  # JSON knows no tuples
    changed = [f"{name} was {began[name]}, now {now[name]}" for name in began if began[name] != now.get(name)]
    if changed:
        raise UserError(
            f"{runfolder.RECIPE} was changed since the run began: {shorten(changed)}.",
            expected="the settings that the run was begun with: a resumed run goes on as if it had never stopped",
            where=str(folder / runfolder.RECIPE),
            fix=f"put them back, or begin a run with them: eyas train --config {path}",
        )


def check_data(folder: Path, recipe: Recipe, train: DatasetIndex, val: DatasetIndex) -> None:
    """Raise a UserError if classes, pictures or labels are not those that the run in `folder` began with."""
    before = read_config(folder).classes
    changed = class_changes(before, train.classes)
    what = "The classes"
    if not changed:
        path = folder / runfolder.PICTURES
        if not path.is_file():
            return  # begun by an older Eyas
        changed = picture_changes(_read_pictures(path), list(pictures(train, val)))
        what = "The pictures or their labels"
    if changed:
        raise UserError(
            f"{what} of the data set were changed since the run began: {'; '.join(changed)}.",
            expected="the same data: a resumed run goes on as if it had never stopped",
            where=str(recipe.data.root),
            fix="put the data back as it was, or " + anew(folder, recipe.data.root),
        )


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


def picture_changes(before: Sequence[Row], now: Sequence[Row]) -> list[str]:
    """Return what is different between two lists of pictures, in words; nothing if they are equal."""
    if list(before) == list(now):
        return []
    old, new = ({row[:2]: row[2:] for row in rows} for rows in (before, now))
    both = [key for key in old if key in new]
    kinds = {
        "removed": [key for key in old if key not in new],
        "added": [key for key in new if key not in old],
        "another file": [key for key in both if old[key][0] != new[key][0]],
        "other labels": [key for key in both if old[key][1] != new[key][1]],
    }
    changes = [
        f"{len(keys)} {'picture' if len(keys) == 1 else 'pictures'} {kind} "
        f"({shorten([f'{split}: {name}' for split, name in keys], 3)})"
        for kind, keys in kinds.items()
        if keys
    ]
    return changes or ["the order of the pictures"]


def pictures(train: DatasetIndex, val: DatasetIndex) -> Iterator[Row]:
    """Yield a row for each picture of both splits.

    The pictures' bytes are not read: hashing a large data set at each run would take longer than a short run.
    """
    for split, index in (("train", train), ("val", val)):
        for number in range(len(index)):
            digest = hashlib.blake2b(digest_size=8)
            for column in index.truth(number):
                digest.update(np.ascontiguousarray(column).tobytes())
            path = index.path(number)
            size = path.stat().st_size if path.is_file() else -1
            yield split, index.files.name(number), str(size), digest.hexdigest()


def _origin(folder: Path) -> dict[str, Any]:
    """Return what `origin.json` holds."""
    fields = read_json(folder / runfolder.ORIGIN)
    if not (isinstance(fields, dict) and isinstance(fields.get("recipe"), dict) and "parents" in fields):
        raise UserError(f"{runfolder.ORIGIN} does not say what the run began with.", where=str(folder))
    return fields


def _read_pictures(path: Path) -> list[Row]:
    """Return the rows of `pictures.csv`."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = [tuple(row) for row in csv.reader(file)]
    if not rows or rows[0] != FIELDS or any(len(row) != len(FIELDS) for row in rows):
        raise UserError(f"{path.name} is not as the run wrote it.", where=str(path), fix="put it back")
    return rows[1:]  # type: ignore[return-value]  # their lengths were just looked at
