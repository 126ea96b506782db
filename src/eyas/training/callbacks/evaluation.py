"""Evaluates the weight average on the validation split, by the very steps that inference takes."""

from __future__ import annotations

from typing import Any

import lightning as L

from eyas.data.loading.batch import Batch
from eyas.evaluation.coco import evaluate_predictions
from eyas.evaluation.predictions import Predictions
from eyas.training.detecting import Collector
from eyas.training.module import DetectionModule
from eyas.training.parallel import gather_over_processes
from eyas.types import EVALUATE, Thresholds


class Evaluation(L.Callback):
    """Makes detections of what `DetectionModule.validation_step` returns, and the COCO numbers of all of them.

    It leaves the module's `result` and `detections`, and logs "val/AP", "val/AP50" and the other numbers.

    Args:
        thresholds: what a detection must pass.
        keep: of so many first images of the split the detections are kept.
    """

    def __init__(self, thresholds: Thresholds = EVALUATE, keep: int = 0) -> None:
        self.thresholds = thresholds
        self.keep = keep
        self._collector: Collector | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate at the end, also of a run that is resumed in its last epoch."""
        self._evaluate_the_last(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the evaluation of the epoch before."""
        assert isinstance(pl_module, DetectionModule)
        pl_module.result = None
        self._evaluate_the_last(trainer)

    def _evaluate_the_last(self, trainer: L.Trainer) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with nothing found, and fold the averaged weights into the form that is deployed."""
        assert isinstance(pl_module, DetectionModule)
        self._collector = Collector(pl_module.classes, self.thresholds, self.keep)
        pl_module.detections = self._collector.detections
        pl_module.deploy(self.thresholds.candidates)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Have selected what was found in a batch of letterboxed images, while the network runs on the next one."""
        assert self._collector is not None
        self._collector.add(outputs["boxes"], outputs["scores"], batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute the COCO numbers over the images of all processes."""
        assert isinstance(pl_module, DetectionModule) and self._collector is not None
        predictions = Predictions.merge(gather_over_processes(self._collector.finish()))
        self._end()
        pl_module.leave_evaluation()
        if trainer.sanity_checking:
            return
        pl_module.result = evaluate_predictions(pl_module.validation_truth(), predictions)
        values = {f"val/{name}": value for name, value in pl_module.result.metrics.items()}
        pl_module.log_dict(values, rank_zero_only=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave nothing behind of an evaluation that was broken off."""
        self._end()

    def _end(self) -> None:
        if self._collector is not None:
            self._collector.close()
            self._collector = None
