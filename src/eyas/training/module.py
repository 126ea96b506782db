"""The LightningModule of a dense detector: use it with Eyas's own `train`, or with a Trainer of your own."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from eyas.data.batch import Batch
from eyas.data.index import DatasetIndex
from eyas.errors import UserError
from eyas.evaluate.coco import CocoResult, evaluate_predictions
from eyas.evaluate.predictions import Predictions, PredictionsBuilder
from eyas.losses.criterion import Criterion
from eyas.losses.detection import DetectionCriterion
from eyas.models.decode import Deployed
from eyas.models.fuse import fused
from eyas.runtime.postprocess import select
from eyas.training.batches import placement_of, to_float_images
from eyas.training.data import DetectionData
from eyas.training.ema import Ema
from eyas.training.optim import make_optimizer
from eyas.training.parallel import gather_over_processes, mean_over_processes
from eyas.training.recipe import OptimRecipe
from eyas.training.schedule import warmup_cosine
from eyas.types import EVALUATE, Detections, InputSpec, Thresholds

LOG_EVERY = 50


class DivergedError(UserError):
    """A loss term is no longer a finite number."""


class DetectionModule(L.LightningModule):
    """Trains a detector and evaluates the moving average of its weights.

    Args:
        net: a network that returns `HeadOutput`, for example `eyas.models.zoo.build("n", num_classes)`.
        classes: class names, in label order.
        input_spec: the input contract of the network.
        optim: optimizer, schedule, average; the defaults if None.
        criterion: the loss; varifocal, GIoU and DFL with the default weights if None.
        truth: the validation split, for AP; taken from the datamodule's `val_index` if None.

    Logs "train/loss", "train/" and the name of each of the criterion's terms, and "lr" every 50 steps, and "val/AP",
    "val/AP50" and the other COCO numbers after each evaluation.

    Attributes:
        net: the network being trained.
        ema_net: the moving average of its weights: what is evaluated and shipped.
        terms: float32 [T], the latest weighted loss terms, in the order of the criterion's `terms`.
        result: the latest evaluation, None before the first.
        detections: picture index -> detections of the latest evaluation, for the first `keep_detections` pictures.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: tuple[str, ...],
        input_spec: InputSpec,
        optim: OptimRecipe | None = None,
        criterion: Criterion | None = None,
        truth: DatasetIndex | None = None,
        thresholds: Thresholds = EVALUATE,
    ) -> None:
        super().__init__()
        self.net = net
        self.classes = classes
        self.input_spec = input_spec
        self.optim_recipe = optim or OptimRecipe()
        self.criterion = criterion or DetectionCriterion(reduce=mean_over_processes)
        self.truth = truth
        self.thresholds = thresholds
        self.ema = Ema(net, self.optim_recipe.ema)
        self.ema_net = self.ema.net  # registered, so that checkpoints and devices include it
        self.terms = torch.zeros(len(self.criterion.terms))
        self.result: CocoResult | None = None
        self.keep_detections = 0
        self.detections: dict[int, Detections] = {}
        self._averaged_steps = 0
        self._unchecked: tuple[Tensor, Tensor] | None = None
        self._builder = PredictionsBuilder()
        self._deployed: Deployed | None = None

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of one batch: the sum of the weighted terms."""
        output = self.net(to_float_images(batch.images, self.input_spec.scale))
        terms: dict[str, Tensor] = self.criterion(output, batch)
        stacked = torch.stack([terms[name] for name in self.criterion.terms])
        self.terms = stacked.detach()
        self._check_finite(batch.indices)
        loss = stacked.sum()
        if batch_index % LOG_EVERY == 0:  # each call of log costs half a millisecond
            values = {f"train/{name}": value for name, value in zip(self.criterion.terms, self.terms, strict=True)}
            self.log_dict({"train/loss": loss.detach(), **values, "lr": self.learning_rate()})
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then move the average: before any callback may save the state."""
        super().optimizer_step(*args, **kwargs)
        self._averaged_steps += 1
        self.ema.update(self.net, self._averaged_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save how far the average is, and the latest loss, which is shown."""
        checkpoint["averaged_steps"] = self._averaged_steps
        checkpoint["terms"] = self.terms.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore how far the average is, and the latest loss."""
        self._averaged_steps = int(checkpoint["averaged_steps"])
        self.terms = torch.tensor(checkpoint.get("terms", self.terms.tolist()))

    def on_train_epoch_start(self) -> None:
        """Forget the evaluation of the epoch before."""
        self.result = None

    def on_train_epoch_end(self) -> None:
        """Check the last step's loss, which no later step would."""
        self._raise_if_diverged()

    def learning_rate(self) -> float:
        """Return the current learning rate."""
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        """Return AdamW with its warm-up and cosine, stepped each optimizer step."""
        optimizer = make_optimizer(self.net, self.optim_recipe)
        total = int(self.trainer.estimated_stepping_batches)
        recipe = self.optim_recipe
        warmup_steps = recipe.warmup_steps
        if recipe.warmup_epochs:
            an_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
            warmup_steps = min(warmup_steps, round(recipe.warmup_epochs * an_epoch))
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: warmup_cosine(
                step,
                total,
                warmup_steps=warmup_steps,
                warmup_factor=recipe.warmup_factor,
                final_factor=recipe.final_factor,
            ),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_validation_epoch_start(self) -> None:
        """Fold the averaged weights into the form that is deployed."""
        self._builder = PredictionsBuilder()
        self.detections = {}
        self._deployed = Deployed(fused(self.ema_net), self.input_spec, self.thresholds.candidates).eval()

    def leave_evaluation(self) -> None:
        """Forget what was evaluated so far, so that the state is one of training alone."""
        self._deployed = None

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Detect in one batch of letterboxed pictures, by the very steps that inference takes."""
        assert self._deployed is not None
        boxes, scores = (value.float().cpu().numpy() for value in self._deployed(batch.images))
        indices, sizes, placements = batch.indices.tolist(), batch.sizes.tolist(), batch.placements.tolist()
        for row, index in enumerate(indices):
            height, width = sizes[row]
            found = select(
                boxes[row], scores[row], placement_of(placements[row]), height, width, self.classes, self.thresholds
            )
            self._builder.add(index, found)
            if index < self.keep_detections:
                self.detections[index] = found

    def on_validation_epoch_end(self) -> None:
        """Compute the COCO numbers over the pictures of all processes."""
        predictions = Predictions.merge(gather_over_processes(self._builder.build()))
        self._deployed = None
        if self.trainer.sanity_checking:
            return
        self.result = evaluate_predictions(self._truth(), predictions)
        self.log_dict({f"val/{name}": value for name, value in self.result.metrics.items()}, rank_zero_only=True)

    def _data(self) -> DetectionData | None:
        """Return Eyas's datamodule, None if the Trainer was given another source of batches."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return data if isinstance(data, DetectionData) else None

    def _truth(self) -> DatasetIndex:
        """Return the validation split."""
        data = self._data()
        if self.truth is not None:
            return self.truth
        if data is None:
            raise UserError(
                "The module does not know the truth of the validation pictures.",
                fix="give it truth=load_dataset(root, 'val'), or train with a DetectionData",
            )
        return data.val_index

    def _check_finite(self, indices: Tensor) -> None:
        """Stop the run at the first loss that is no finite number.

        Reading a value waits for an accelerator, so there the check runs one step late, when the value has long been
        computed; on a CPU it runs at once.
        """
        if self.device.type != "cpu":
            self._raise_if_diverged()
        self._unchecked = (self.terms, indices)
        if self.device.type == "cpu":
            self._raise_if_diverged()

    def _raise_if_diverged(self) -> None:
        """Raise a DivergedError that names the terms and the pictures if the last seen loss is not finite."""
        if self._unchecked is None:
            return
        terms, indices = self._unchecked
        self._unchecked = None
        finite = terms.isfinite()
        if bool(finite.all()):
            return
        bad = [name for name, fine in zip(self.criterion.terms, finite.tolist(), strict=True) if not fine]
        raise DivergedError(
            f"The loss is no longer a number: term {', '.join(bad)} at step {self.global_step}.",
            where="pictures " + ", ".join(self._names(indices.tolist())),
            fix="look at these pictures and their labels; lower --optim.lr or lengthen --optim.warmup_steps",
        )

    def _names(self, indices: list[int]) -> list[str]:
        """Return the file names of training pictures, as far as the datamodule knows them."""
        data = self._data()
        return [str(data.train_index.path(i)) if data is not None else str(i) for i in indices]
