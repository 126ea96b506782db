"""What a run began with, kept beside it, so that resuming it under other conditions is noticed and told."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from eyas.artifacts.card import hash_file
from eyas.artifacts.dataset import DatasetRecord, class_changes
from eyas.artifacts.run import Run, RunFolder
from eyas.data.index import DatasetIndex
from eyas.data.record import rows_of
from eyas.errors import UserError, shorten
from eyas.files import read_json, write_json
from eyas.training.config_overrides import flatten
from eyas.training.recipe import Recipe
from eyas.training.saved import anew
from eyas.training.teacher import ROLE, teacher_file


def write_origin(
    folder: Path, recipe: Recipe, train: DatasetIndex, val: DatasetIndex, parents: list[dict[str, str]]
) -> None:
    """Write what a new run begins with: `origin.json` (recipe, parents) and `images.csv` (the dataset)."""
    run = RunFolder(folder)
    DatasetRecord.write(run.images, rows_of({"train": train, "val": val}))
    write_json(run.origin, {"recipe": recipe.to_dict(), "parents": parents})


def read_parents(folder: Path) -> list[dict[str, str]] | None:
    """Return what the run was made from, as it was found when the run began; None where that was not written."""
    if not RunFolder(folder).origin.is_file():
        return None
    return list(_origin(folder)["parents"])


def check_recipe(folder: Path, recipe: Recipe) -> None:
    """Raise a UserError if the settings of the run in `folder` were changed since it began."""
    run = Run.read(folder)
    if run.config.input != recipe.data.input_spec():
        raise UserError(
            f"{run.settings.name} and {run.recipe.name} disagree about the input.", where=str(folder),
            expected="the files as the run wrote them", fix="restore them",
        )  # fmt: skip
    if not run.origin.is_file():
        return  # begun by an older Eyas
    began = flatten(_origin(folder)["recipe"])
    path = shlex.quote(str(run.recipe))
    now = flatten(json.loads(json.dumps(recipe.to_dict())))  # JSON knows no tuples
    changed = [f"{name} was {began[name]}, now {now[name]}" for name in began if began[name] != now.get(name)]
    if changed:
        raise UserError(
            f"{run.recipe.name} was changed after the run began: {shorten(changed)}.",
            expected="the original settings: a resumed run continues as if it had never stopped",
            where=str(run.recipe),
            fix=f"restore them, or start a run with them: eyas train --config {path}",
        )


def check_data(folder: Path, recipe: Recipe, train: DatasetIndex, val: DatasetIndex) -> None:
    """Raise a UserError if classes, images or labels are not those that the run in `folder` began with."""
    run = Run.read(folder)
    changed = class_changes(run.config.classes, train.classes)
    what = "The classes"
    if not changed:
        if not run.images.is_file():
            return  # begun by an older Eyas
        now = DatasetRecord(tuple(rows_of({"train": train, "val": val})))
        changed = DatasetRecord.read(run.images).changes(now)
        what = "The images or their labels"
    if changed:
        raise UserError(
            f"{what} of the dataset were changed after the run began: {'; '.join(changed)}.",
            expected="the same data: a resumed run continues as if it had never stopped",
            where=str(recipe.data.root),
            fix="restore the data, or " + anew(folder, recipe.data.root),
        )


def check_teacher(folder: Path, recipe: Recipe) -> None:
    """Raise a UserError if the teacher of the run in `folder` is gone or not the one that it began with."""
    if recipe.distill.teacher is None:
        return
    path = Path(recipe.distill.teacher)
    known = [parent["sha256"] for parent in read_parents(folder) or () if parent.get("role") == ROLE]
    if not teacher_file(path).is_file():
        problem = f"The run's teacher is missing: there are no weights at {path}."
    elif known and hash_file(teacher_file(path)) not in known:
        problem = f"The weights of the run's teacher, {path}, were changed after the run began."
    else:
        return
    raise UserError(
        problem,
        expected="the same teacher: a resumed run continues as if it had never stopped",
        where="distill.teacher",
        fix="restore it, or " + anew(folder, recipe.data.root),
    )


def _origin(folder: Path) -> dict[str, Any]:
    path = RunFolder(folder).origin
    fields = read_json(path)
    if not (isinstance(fields, dict) and isinstance(fields.get("recipe"), dict) and "parents" in fields):
        raise UserError(f"{path.name} does not record what the run began with.", where=str(folder))
    return fields
