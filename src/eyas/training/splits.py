"""The two splits that a run trains on and is measured on, and what of them training sees."""

from __future__ import annotations

import warnings

import numpy as np

from eyas.data.augment.config import AugmentPolicy
from eyas.data.checks.usable import Usable, trained_boxes
from eyas.data.concat import same_classes
from eyas.data.formats import load_dataset
from eyas.data.index import DatasetIndex
from eyas.errors import UserError
from eyas.evaluation.coco import check_truth
from eyas.training.recipe import DataRecipe


def load_train_and_val(
    recipe: DataRecipe, augment: AugmentPolicy | None = None, *, unseen: bool = False
) -> tuple[DatasetIndex, DatasetIndex]:
    """Return the training and the validation split, labels of both in the order of the first's classes.

    With `unseen`, the validation split may have classes that the training split lacks; they come after its own.

    Boxes that training never sees are counted, and told with the reason.

    Raises:
        UserError: no dataset is given, it can't be read, nothing in it can be trained on or measured, or the validation
            split has boxes of classes that the training split lacks, without `unseen`.
    """
    if not recipe.root:
        raise UserError("No dataset is given.", fix="eyas train --data path/to/dataset", where="data.root")
    loaded = {split: load_dataset(recipe.root, split, rows=recipe.rows) for split in (recipe.train, recipe.val)}
    aligned = same_classes(loaded, recipe.root, recipe.train, unseen=unseen)
    train, val = aligned[recipe.train], aligned[recipe.val]
    usable = trained(train, recipe, augment or AugmentPolicy())
    if not usable.kept.any():
        why = f", of which {usable.told()}" if usable.left_out else ""
        raise UserError(
            f"There is nothing to train on: the split '{recipe.train}' has {len(train)} images and "
            f"{len(train.boxes)} boxes{why}.",
            expected="at least one image with a box that is neither a crowd nor too small",
            where=recipe.root,
            fix="check the labels with 'eyas data check' and 'eyas data show'; train at a larger --size if objects "
            "are too small",
        )
    if usable.left_out:
        warnings.warn(
            f"{int(usable.kept.sum()):,} of the {len(train.boxes):,} boxes of '{recipe.train}' are used for training; "
            f"left out: {usable.told()}.",
            stacklevel=2,
        )
    check_truth(val)
    if len(train) < recipe.batch_size:
        raise UserError(
            f"The batch has {recipe.batch_size} images, but the training split only {len(train)}.",
            where="data.batch_size",
            fix=f"--batch {max(1, len(train) // 2)}",
        )
    return train, val


def trained(index: DatasetIndex, recipe: DataRecipe, augment: AugmentPolicy) -> Usable:
    """Return the boxes of the training split that training can see."""
    return trained_boxes(index, (recipe.size, recipe.size), augment, margin=recipe.margin)


def without_empty(index: DatasetIndex, recipe: DataRecipe) -> tuple[DatasetIndex, int]:
    """Return the images that have a box which is no crowd, and how many have none.

    Raises:
        UserError: too few are left for a batch.
    """
    image = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    kept = np.unique(image[~index.crowd])
    if len(kept) < recipe.batch_size:
        raise UserError(
            f"The batch has {recipe.batch_size} images, but only {len(kept)} training images have boxes.",
            where="data.batch_size",
            fix="--data.drop_empty false, or a smaller --batch",
        )
    return index.subset(kept), len(index) - len(kept)
