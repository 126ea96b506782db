"""The LightningDataModule: the two splits of a dataset, fed as the recipe says."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch

from eyas.data.batch import Batch
from eyas.data.formats import load_dataset
from eyas.data.index import DatasetIndex
from eyas.data.loader import EvalLoader, TrainLoader, eval_loader, train_loader
from eyas.data.policy import AugmentPolicy
from eyas.errors import UserError
from eyas.runtime.machine import usable_cores
from eyas.train.recipe import DataRecipe


class DetectionData(L.LightningDataModule):
    """Loads a dataset and feeds it: augmented batches to train on, letterboxed ones to evaluate.

    Args:
        recipe: root, splits, size, batch.
        augment: the augmentation policy; the default if None.
        epochs: epochs of the run.
        close_epochs: the last epochs go without mosaic and mixup.
        seed: fixes order and augmentation.

    Attributes:
        train_index, val_index: the splits.
        dropped: how many training pictures without a box were left out, because the recipe says so.
    """

    def __init__(
        self,
        recipe: DataRecipe,
        augment: AugmentPolicy | None = None,
        *,
        epochs: int = 100,
        close_epochs: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.augment = augment or AugmentPolicy()
        self.epochs = epochs
        self.close_epochs = close_epochs
        self.seed = seed
        self.train_index, self.val_index = load_train_and_val(recipe)
        self.dropped = 0
        if recipe.drop_empty:
            self.train_index, self.dropped = without_empty(self.train_index, recipe)
        self.loader: TrainLoader | None = None
        self._resume_from: dict[str, Any] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names, in label order."""
        return self.train_index.classes

    def train_dataloader(self) -> TrainLoader:
        """Return the loader of augmented batches; its state makes a run resumable in the middle of an epoch."""
        trainer = self.trainer
        self.loader = train_loader(
            self.train_index,
            self.recipe.input_spec(),
            self.augment,
            batch_size=self.recipe.batch_size,
            seed=self.seed,
            workers=pick_workers(self.recipe.workers),
            close_at_epoch=self.epochs - self.close_epochs if self.close_epochs else None,
            cache=self.recipe.cache,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            pin_memory=torch.cuda.is_available(),
        )
        if self._resume_from is not None:
            self.loader.load_state_dict(self._resume_from)
            self._resume_from = None
        return self.loader

    def state_dict(self) -> dict[str, Any]:
        """Return where in the epoch training is.

        Lightning saves the loader's state too, but restores it only if the loader was not made before the saved state
        is read, and planning the learning rate makes it: a run would silently begin its epoch again.
        """
        return {"loader": self.loader.state_dict() if self.loader is not None else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Make the next training loader go on where the saved one was."""
        self._resume_from = state_dict["loader"]

    def val_dataloader(self) -> EvalLoader:
        """Return the loader of letterboxed pictures, in order."""
        trainer = self.trainer
        return eval_loader(
            self.val_index,
            self.recipe.input_spec(),
            batch_size=self.recipe.batch_size,
            workers=pick_workers(self.recipe.workers),
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            pin_memory=torch.cuda.is_available(),
        )

    def trial_batch(self, count: int, epoch: int) -> Batch:
        """Return the first pictures that have boxes as one augmented batch of an epoch, made in this process."""
        labelled = np.flatnonzero(np.diff(self.train_index.offsets) > 0)[:count]
        loader = train_loader(
            self.train_index.subset(labelled), self.recipe.input_spec(), self.augment,
            batch_size=len(labelled), seed=self.seed,
        )  # fmt: skip
        loader.set_epoch(epoch)
        return next(iter(loader))


def load_train_and_val(recipe: DataRecipe) -> tuple[DatasetIndex, DatasetIndex]:
    """Return the training and the validation split, labels of both in the order of the first's classes.

    Raises:
        UserError: no dataset is given, it can't be read, it is empty, or the splits' classes differ.
    """
    if not recipe.root:
        raise UserError("No dataset is given.", fix="eyas train --data path/to/dataset", where="data.root")
    train = load_dataset(recipe.root, recipe.train)
    val = load_dataset(recipe.root, recipe.val)
    if set(val.classes) - set(train.classes):
        raise UserError(
            "The validation split has classes that the training split lacks: "
            + ", ".join(sorted(set(val.classes) - set(train.classes))),
            where=recipe.root,
            fix="give both splits the same list of classes",
        )
    for index, split in ((train, recipe.train), (val, recipe.val)):
        if len(index) == 0 or len(index.boxes) == 0:
            raise UserError(
                f"The split '{split}' has {len(index)} pictures and {len(index.boxes)} boxes.",
                expected="at least one picture with a box",
                where=recipe.root,
            )
    if len(train) < recipe.batch_size:
        raise UserError(
            f"The batch has {recipe.batch_size} pictures, the training split only {len(train)}.",
            where="data.batch_size",
            fix=f"--batch {max(1, len(train) // 2)}",
        )
    return train, val.with_classes(train.classes)


def without_empty(index: DatasetIndex, recipe: DataRecipe) -> tuple[DatasetIndex, int]:
    """Return the pictures that have a box which is no crowd, and how many have none.

    Raises:
        UserError: too few are left for a batch.
    """
    picture = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    kept = np.unique(picture[~index.crowd])
    if len(kept) < recipe.batch_size:
        raise UserError(
            f"The batch has {recipe.batch_size} pictures, and only {len(kept)} training pictures have a box.",
            where="data.batch_size",
            fix="--data.drop_empty false, or a smaller --batch",
        )
    return index.subset(kept), len(index) - len(kept)


def pick_workers(wanted: int) -> int:
    """Return the number of loader processes: the wanted one; for -1 one less than there are cores, 1 to 16."""
    return wanted if wanted >= 0 else min(16, max(1, usable_cores() - 1))
