"""Which images a build is calibrated and judged on: those of the run's own dataset, or of a given one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eyas.artifacts.card import CARD, Card
from eyas.artifacts.run import RunFolder
from eyas.data.formats import load_dataset
from eyas.data.index import DatasetIndex
from eyas.data.shapes import make_scene
from eyas.errors import UserError
from eyas.types import UInt8Array


@dataclass(frozen=True)
class BuildImages:
    """The splits that a build uses.

    Attributes:
        judge: for parity and accuracy.
        calibrate: for the ranges of activations, never those that judge where there are others.
    """

    judge: DatasetIndex
    calibrate: DatasetIndex


def made_up_images(count: int, size: int) -> list[UInt8Array]:
    """Return drawn images of that side in pixels, the same ones each time: to compare answers, not to judge them."""
    return [make_scene(size, 0, number)[0] for number in range(count)]


def find_images(
    run: Path, data: str | Path | None = None, split: str | None = None, rows: str | None = None
) -> BuildImages:
    """Return the dataset to judge and to calibrate on.

    Args:
        run: the run; its recipe says what it was trained and validated on.
        data: another dataset; None for the run's own.
        split: the split to judge on; None for the one that the run was validated on, or "val".
        rows: what long rows of YOLO label files hold; None for what the recipe says of the run's own dataset.

    Raises:
        UserError: the run's dataset is not there any more, or has no such split.
    """
    recipe = _recipe_data(run)
    root = Path(data) if data is not None else _own_root(run, recipe)
    rows = rows or (recipe.get("rows") if data is None else None)
    judge = load_dataset(root, split or (recipe.get("val") if data is None else None) or "val", rows=rows)
    try:
        calibrate = load_dataset(root, (recipe.get("train") if data is None else None) or "train", rows=rows)
    except UserError:
        calibrate = judge  # a dataset of one split
    return BuildImages(judge, calibrate)


def spread(index: DatasetIndex, most: int | None) -> DatasetIndex:
    """Return at most `most` images of the dataset, evenly spread; all of them for None."""
    if most is None or len(index) <= most:
        return index
    return index.subset(np.unique(np.linspace(0, len(index) - 1, most).astype(np.int64)))


def _recipe_data(run: Path) -> dict[str, Any]:
    """Return the section "data" of the run's recipe, {} if it has none."""
    try:
        recipe = json.loads(RunFolder(run).recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = recipe.get("data", {}) if isinstance(recipe, dict) else {}
    return found if isinstance(found, dict) else {}


def _own_root(run: Path, recipe: dict[str, Any]) -> Path:
    """Return where the run's dataset lies: as its recipe says, or as its card says (which holds whole paths)."""
    places = [Path(str(recipe["root"]))] if recipe.get("root") else []
    if (run / CARD).is_file():
        places += [Path(parent["path"]) for parent in Card.read(run).parents if parent.get("kind") == "dataset"]
    for place in places:
        if place.exists():
            return place
    raise UserError(
        "The run's dataset is not available, and a build is validated on real images."
        if places
        else "The run does not record its dataset, and a build is validated on real images.",
        where=str(places[0]) if places else str(run),
        fix="name a dataset with --data; except for int8, which is calibrated, --measure 0 works without one",
    )
