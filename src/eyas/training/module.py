"""The LightningModule of a dense detector: use it with Eyas's own `train`, or with a Trainer of your own."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from eyas.data.index import DatasetIndex
from eyas.data.loading.batch import Batch
from eyas.errors import UserError
from eyas.evaluation.coco import CocoResult
from eyas.losses.criterion import Criterion, set_progress
from eyas.models.decode import Deployed
from eyas.models.detection_net import head_row_of
from eyas.models.fuse import fused
from eyas.training.batches import loss_terms
from eyas.training.data import DetectionData
from eyas.training.ema import Ema
from eyas.training.optim import make_optimizer
from eyas.training.parallel import mean_over_processes
from eyas.training.recipe import OptimRecipe
from eyas.training.saved import upgrade
from eyas.training.schedule import warmup_cosine
from eyas.training.step import TrainingStep
from eyas.training.timetable import Timetable
from eyas.types import Detections, InputSpec

LOG_EVERY = 50


class DetectionModule(L.LightningModule):
    """A detector's training: its loss, its optimizer, and what is run when it is evaluated.

    The weight average, the check of the loss and the evaluation are callbacks: give a Trainer of your own those that
    `eyas.training.callbacks.essential()` returns.

    Args:
        net: a network that returns what the criterion takes, for example `eyas.models.zoo.build("n", num_classes)`.
        classes: class names, in label order.
        input_spec: the input contract of the network.
        optim: optimizer, schedule, average; the defaults if None.
        criterion: the loss; the head's own with the default weights if None: varifocal, GIoU and DFL for "ndfl".
        truth: the validation split, for AP; taken from the datamodule's `val_index` if None.
        timetable: the schedule of a run that was given a time; None for one of so many epochs or steps.

    Logs "train/loss", "train/" and the name of each of the criterion's terms, and "lr" every 50 steps.

    Attributes:
        net: the network being trained.
        ema: the moving average of its weights, None without `WeightAverage`.
        whole_step: does each step as one unit, optimizer and average included; None where Lightning does it.
        fused_optimizer: whether the optimizer is to be one that a CUDA graph can hold.
        terms: float32 [T], the latest weighted loss terms, in the order of the criterion's `terms`.
        result: the latest evaluation, None before the first.
        detections: image index -> detections of the latest evaluation, for the first images.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: tuple[str, ...],
        input_spec: InputSpec,
        optim: OptimRecipe | None = None,
        criterion: Criterion | None = None,
        truth: DatasetIndex | None = None,
        timetable: Timetable | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.classes = classes
        self.input_spec = input_spec
        self.optim_recipe = optim or OptimRecipe()
        self.criterion = criterion or head_row_of(net).criterion(None, mean_over_processes)
        self.truth = truth
        self.timetable = timetable
        self.ema: Ema | None = None
        self.whole_step: TrainingStep | None = None
        self.fused_optimizer = False
        self.terms = torch.zeros(len(self.criterion.terms))
        self.result: CocoResult | None = None
        self.detections: dict[int, Detections] = {}
        self._steps = 1.0  # of the run, once it has begun
        self._deployed: list[Deployed] = []  # one while it is evaluated; in a list it is no part of the state

    @property
    def ema_net(self) -> nn.Module:
        """The network that is evaluated and shipped: of the averaged weights, where there is an average."""
        return self.net if self.ema is None else self.ema.net

    def training_step(self, batch: Batch, batch_index: int) -> Tensor | None:
        """Return the loss of one batch, the sum of the weighted terms; None if the whole step is done by then."""
        set_progress(self.criterion, self.progress())
        if self.whole_step is not None:
            self.terms = self.whole_step(batch)
            self._log_terms(batch_index, self.terms.sum)
            return None
        terms = loss_terms(self.net, self.criterion, batch.images, batch, self.input_spec.scale)
        self.terms = terms.detach()
        loss = terms.sum()
        self._log_terms(batch_index, loss.detach)
        return loss

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Let Lightning step, unless `training_step`, which the closure calls, does that."""
        if self.whole_step is None or optimizer_closure is None:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        else:
            optimizer_closure()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Let go of the gradients, unless the whole step does that, which may hold them in a graph's memory."""
        if self.whole_step is None:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def _log_terms(self, batch_index: int, loss: Callable[[], Tensor]) -> None:
        """Log the latest terms and their sum now and then: each call of log costs half a millisecond."""
        if batch_index % LOG_EVERY == 0:
            values = {f"train/{name}": value for name, value in zip(self.criterion.terms, self.terms, strict=True)}
            self.log_dict({"train/loss": loss(), **values, "lr": self.learning_rate()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the latest loss, which is shown."""
        checkpoint["terms"] = self.terms.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the latest loss; bring a state that an older Eyas saved into today's form."""
        upgrade(checkpoint)
        self.terms = torch.tensor(checkpoint.get("terms", self.terms.tolist()))

    def learning_rate(self) -> float:
        """Return the current learning rate."""
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_start(self) -> None:
        """Note how long the run will be, where no timetable says it."""
        self._steps = float(self.trainer.estimated_stepping_batches) if self.timetable is None else 0.0

    def progress(self) -> float:
        """Return which part of the run is done, 0 to 1: what a schedule may go by beside the step."""
        step = self.trainer.global_step
        return self.timetable.progress(step) if self.timetable is not None else min(1.0, step / self._steps)

    def configure_optimizers(self) -> Any:
        """Return the optimizer with its warm-up and cosine, stepped each optimizer step."""
        others = self.criterion.parameters()
        optimizer = make_optimizer(self.net, self.optim_recipe, others, fused=self.fused_optimizer)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate_factor())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _rate_factor(self) -> Callable[[int], float]:
        """Return the factor on the learning rate as a function of the step."""
        recipe = self.optim_recipe
        start, end, flat = recipe.warmup_factor, recipe.final_factor, recipe.flat
        if self.timetable is not None:
            return partial(self.timetable.factor, warmup_factor=start, final_factor=end, flat=flat)
        total = int(self.trainer.estimated_stepping_batches)
        warmup_steps = recipe.warmup_steps
        if recipe.warmup_epochs:
            an_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
            warmup_steps = min(warmup_steps, round(recipe.warmup_epochs * an_epoch))
        return partial(
            warmup_cosine,
            total_steps=total,
            warmup_steps=warmup_steps,
            warmup_factor=start,
            final_factor=end,
            flat=flat,
        )

    def deploy(self, candidates: int) -> None:
        """Fold the averaged weights into the form that is deployed, for `validation_step`."""
        self._deployed = [Deployed(fused(self.ema_net), self.input_spec, candidates).eval()]

    def leave_evaluation(self) -> None:
        """Let go of what `deploy` made."""
        self._deployed = []

    def validation_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Return the candidates in a batch of letterboxed images: "boxes" [B, K, 4] and "scores" [B, K, C].

        Raises:
            UserError: the Trainer lacks the callback that evaluates.
        """
        if not self._deployed:
            raise UserError(
                "The Trainer needs the callback Evaluation to validate.",
                fix="L.Trainer(callbacks=eyas.training.callbacks.essential(), ...)",
            )
        boxes, scores = self._deployed[0](batch.images)
        return {"boxes": boxes, "scores": scores}

    def validation_truth(self) -> DatasetIndex:
        """Return the validation split.

        Raises:
            UserError: nobody said which one it is.
        """
        if self.truth is not None:
            return self.truth
        data = self._data()
        if data is None:
            raise UserError(
                "The module has no ground truth for the validation images.",
                fix="give it truth=load_dataset(root, 'val'), or train with a DetectionData",
            )
        return data.val_index

    def names_of(self, indices: list[int]) -> list[str]:
        """Return the file names of training images, as far as the datamodule knows them."""
        data = self._data()
        return [str(data.train_index.path(i)) if data is not None else str(i) for i in indices]

    def _data(self) -> DetectionData | None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return data if isinstance(data, DetectionData) else None
