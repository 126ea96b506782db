"""Ends a run at the first loss that is no number, and says which term it was and on which images."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from eyas.data.loading.batch import Batch
from eyas.errors import UserError
from eyas.training.late import LateValues
from eyas.training.module import DetectionModule


class DivergedError(UserError):
    """A loss term is no longer a finite number."""


class Seen(NamedTuple):
    """Which step a loss is of.

    Attributes:
        step: optimizer steps before it.
        indices: int64 [N], its images.
    """

    step: int
    indices: Tensor


class FiniteCheck(L.Callback):
    """Looks at each step's loss terms.

    On a CPU it does so at once, before the weights are changed where Lightning runs the backward pass. An accelerator
    is not waited for, so there it sees them some steps late, but always before a state is saved.
    """

    def __init__(self) -> None:
        self._terms: LateValues[Seen] = LateValues()
        self._indices = torch.zeros(0, dtype=torch.int64)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Check the steps whose terms have come from an accelerator."""
        self._check(pl_module)
        self._indices = batch.indices

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Take the step's terms, and on a CPU check them before its gradients are computed."""
        self._see(pl_module, trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Take the terms of a step that did its own backward pass."""
        if not outputs:
            self._see(pl_module, trainer.global_step - 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the last steps, which no later one would."""
        self._check(pl_module, everything=True)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let no state be saved that a run can't go on from."""
        self._check(pl_module, everything=True)

    def _see(self, module: L.LightningModule, step: int) -> None:
        assert isinstance(module, DetectionModule)
        self._terms.put(module.terms, Seen(step, self._indices))
        if module.device.type == "cpu":
            self._check(module)

    def _check(self, module: L.LightningModule, *, everything: bool = False) -> None:
        """Raise a DivergedError that names the terms and the images of the first loss that is not finite."""
        assert isinstance(module, DetectionModule)
        for values, seen in self._terms.take(everything=everything):
            bad = [name for name, value in zip(module.criterion.terms, values, strict=True) if not math.isfinite(value)]
            if not bad:
                continue
            raise DivergedError(
                f"The loss is not finite: term {', '.join(bad)} at step {seen.step}.",
                where="images " + ", ".join(module.names_of(seen.indices.tolist())),
                fix="check these images and their labels; lower --optim.lr or raise --optim.warmup_steps",
            )
