"""Ends a run at the first loss that is no number, and says which term it was and on which pictures."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Tensor

from eyas.data.batch import Batch
from eyas.errors import UserError
from eyas.training.module import DetectionModule


class DivergedError(UserError):
    """A loss term is no longer a finite number."""


class FiniteCheck(L.Callback):
    """Looks at each step's loss terms.

    Reading a value waits for an accelerator, so there the check runs one step late, when the value has long been
    computed; on a CPU it runs at once, before the weights are changed.
    """

    def __init__(self) -> None:
        self._unchecked: tuple[Tensor, Tensor] | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Check the step before, on an accelerator."""
        self._check(trainer, pl_module)
        self._indices = batch.indices

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Check the step's terms before its gradients are computed, on a CPU."""
        self._note(pl_module)
        if pl_module.device.type == "cpu":
            self._check(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Note the terms of a step that does its own backward pass."""
        if outputs is None:
            self._note(pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the last step, which no later one would."""
        self._check(trainer, pl_module)

    def _note(self, module: L.LightningModule) -> None:
        """Keep what is to be checked."""
        assert isinstance(module, DetectionModule)
        self._unchecked = (module.terms, self._indices)

    def _check(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Raise a DivergedError that names the terms and the pictures if the last seen loss is not finite."""
        if self._unchecked is None:
            return
        assert isinstance(module, DetectionModule)
        terms, indices = self._unchecked
        self._unchecked = None
        finite = terms.isfinite()
        if bool(finite.all()):
            return
        bad = [name for name, fine in zip(module.criterion.terms, finite.tolist(), strict=True) if not fine]
        raise DivergedError(
            f"The loss is no longer a number: term {', '.join(bad)} at step {trainer.global_step}.",
            where="pictures " + ", ".join(module.names_of(indices.tolist())),
            fix="look at these pictures and their labels; lower --optim.lr or lengthen --optim.warmup_steps",
        )
