"""The LightningDataModule: the two splits of a dataset, fed as the recipe says."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch

from eyas.data.augment.config import AugmentPolicy
from eyas.data.device.choice import choose
from eyas.data.device.layout import MemoryLayout
from eyas.data.loading.bad_images import SkippedImages
from eyas.data.loading.batch import Batch
from eyas.data.loading.batch_arrays import MakeExtras
from eyas.data.loading.eval_loader import EvalLoader, eval_loader
from eyas.data.loading.loader import TrainLoader, train_loader
from eyas.data.loading.sampler import POOL
from eyas.decode import read_image
from eyas.errors import UserError
from eyas.machine.cores import usable_cores
from eyas.terminal import open_console
from eyas.training.recipe import DataRecipe
from eyas.training.splits import load_train_and_val, trained, without_empty
from eyas.training.timetable import Timetable, step_of


class DetectionData(L.LightningDataModule):
    """Loads a dataset and feeds it: augmented batches to train on, letterboxed ones to evaluate.

    Args:
        recipe: root, splits, size, batch.
        augment: the augmentation policy; the default if None.
        epochs: epochs of the run.
        close_epochs: the last epochs go without mosaic and mixup; of a run that was given a time, as great a part.
        accumulate: batches of an optimizer step.
        seed: fixes order and augmentation.
        unseen: whether the network can find classes that it was not trained on, which the validation split may have
            then.
        make_extras: gives the batches' extra columns, see `eyas.data.loading.batch_arrays.MakeExtras`.

    Attributes:
        train_index, val_index: the splits. Labels of training mean the same in both; with `unseen`, `val_index.classes`
            goes on after them.
        dropped: how many training images without a box were left out, because the recipe says so.
    """

    def __init__(
        self,
        recipe: DataRecipe,
        augment: AugmentPolicy | None = None,
        *,
        epochs: int = 100,
        close_epochs: int = 0,
        accumulate: int = 1,
        seed: int = 0,
        unseen: bool = False,
        make_extras: MakeExtras | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.augment = augment or AugmentPolicy()
        self.epochs = epochs
        self.close_epochs = close_epochs
        self.accumulate = accumulate
        self.seed = seed
        self.make_extras = make_extras
        self.train_index, self.val_index = load_train_and_val(recipe, self.augment, unseen=unseen)
        self.dropped = 0
        if recipe.drop_empty:
            self.train_index, self.dropped = without_empty(self.train_index, recipe)
        self.timetable: Timetable | None = None  # of a run that was given a time
        if recipe.cache == "gpu":
            policies = (self.augment, self.augment.closing()) if close_epochs else (self.augment,)
            layout = MemoryLayout(recipe.input_spec(), policies)
            choose("gpu", self.train_index, layout, batch_size=recipe.batch_size, device=training_gpu(None))
        self.loader: TrainLoader | None = None
        self.val_loader: EvalLoader | None = None
        self._place: tuple[int, int, torch.device | None] | None = None  # what `val_loader` was made for
        self._fitting = False
        self.trial_skipped = SkippedImages(self.train_index)
        self._trial: list[int] = []  # readable images with boxes, the first ones
        self._tried = 0
        self._resume_from: dict[str, Any] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names that are trained on, in label order."""
        return self.train_index.classes

    def batches_ahead(self) -> int:
        """Return how many batches may be made before the one that is trained on is done, at most."""
        return 1 + 2 * max(1, pick_workers(self.recipe.workers)) * -(-POOL // self.recipe.batch_size)

    def setup(self, stage: str) -> None:
        """Begin a training with a loader of its own."""
        if stage == "fit":
            self._fitting, self.loader = True, None

    def teardown(self, stage: str) -> None:
        """End the processes that make training batches; those of the evaluation stay for further ones."""
        if stage == "fit":
            self._fitting = False
            if self.loader is not None:
                self.loader.close()

    def close(self) -> None:
        """End all loader processes; iterating a loader starts them again."""
        for loader in (self.loader, self.val_loader):
            if loader is not None:
                loader.close()

    def train_dataloader(self) -> TrainLoader:
        """Return the loader of augmented batches; its state makes a run resumable in the middle of an epoch.

        It is the same one for a whole training, however often it is asked for.
        """
        if self._fitting and self.loader is not None:
            return self.loader
        rank, world_size, device = self._trained_at()
        self.loader = train_loader(
            self.train_index,
            self.recipe.input_spec(),
            self.augment,
            batch_size=self.recipe.batch_size,
            seed=self.seed,
            workers=pick_workers(self.recipe.workers),
            worker_seconds=self.recipe.worker_seconds,
            close_at_epoch=self.epochs - self.close_epochs if self.close_epochs and self.timetable is None else None,
            closing=self._closing if self.close_epochs and self.timetable is not None else None,
            cache=self.recipe.cache,
            rank=rank,
            world_size=world_size,
            device=device,
            epochs=self.epochs if self.timetable is None else None,
            before_end=self._prepare_evaluation,
            make_extras=self.make_extras,
        )
        self.loader.skipped.known.update(self.trial_skipped.known)
        if self._resume_from is not None:
            self.loader.load_state_dict(self._resume_from)
            self._resume_from = None
        if self.recipe.cache == "auto" and rank == 0:
            note = f"data.cache auto: {self.loader.chosen.told()}"
            open_console(stderr=True).print(note, markup=False, highlight=False, soft_wrap=True)
        if self.loader.chosen.store is not None:
            self.loader.prepare()  # now, because it shows how far it is, as training does for itself later
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
        """Return the loader of letterboxed images, in order; it is made once, and keeps its processes."""
        place = rank, world_size, device = self._trained_at()
        if self.val_loader is None or place != self._place:
            self._place = place
            self.val_loader = eval_loader(
                self.val_index,
                self.recipe.input_spec(),
                batch_size=self.recipe.batch_size,
                workers=pick_workers(self.recipe.workers),
                worker_seconds=self.recipe.worker_seconds,
                rank=rank,
                world_size=world_size,
                device=device,
                make_extras=self.make_extras,
            )
        return self.val_loader

    def _trained_at(self) -> tuple[int, int, torch.device | None]:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return rank, world_size, training_gpu(trainer)

    def _closing(self, epoch: int, batch: int) -> bool:
        assert self.timetable is not None and self.loader is not None
        return self.timetable.closing(step_of(epoch, batch, len(self.loader), self.accumulate))

    def _prepare_evaluation(self) -> None:
        trainer = self.trainer
        if trainer is not None and trainer.enable_validation:
            every = trainer.check_val_every_n_epoch
            if every is None or (trainer.current_epoch + 1) % every == 0:
                self.val_dataloader().prepare()

    def trial_batch(self, count: int, epoch: int) -> Batch:
        """Return the first readable images that have boxes as one augmented batch, made in this process.

        Raises:
            UserError: none can be read, or more images than the whole split may have can't be.
        """
        chosen = self._readable(count)
        loader = train_loader(
            self.train_index.subset(chosen), self.recipe.input_spec(), self.augment, batch_size=len(chosen),
            seed=self.seed, make_extras=self.make_extras,
        )  # fmt: skip
        loader.set_epoch(epoch)
        return next(iter(loader))

    def _readable(self, count: int) -> list[int]:
        """Return up to `count` images that have boxes and can be read; `trial_skipped` has those that can't.

        How many may be broken is a rule for the whole split: of a few, one would already be too many.
        """
        kept = trained(self.train_index, self.recipe, self.augment).kept
        labelled = np.unique(self.train_index.image_of_row()[kept])
        while len(self._trial) < count and self._tried < len(labelled):
            number = int(labelled[self._tried])
            self._tried += 1
            try:
                read_image(self.train_index.path(number))
                self._trial.append(number)
            except UserError:
                self.trial_skipped.note([number])
        if not self._trial:
            raise UserError("No image with boxes can be read.", where=str(self.train_index.root))
        return self._trial[:count]


def training_gpu(trainer: L.Trainer | None) -> torch.device | None:
    """Return the GPU on which this process trains, None if it is no CUDA device; without a trainer the current one."""
    if trainer is None:
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None
    device = trainer.strategy.root_device
    return device if device.type == "cuda" else None


def pick_workers(wanted: int) -> int:
    """Return the number of loader processes: the wanted one; for -1 one less than there are cores, 1 to 16."""
    return wanted if wanted >= 0 else min(16, max(1, usable_cores() - 1))
