"""Saves the state to resume from and the best weights, each by write-then-rename."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L

from eyas import runfolder
from eyas.files import atomic_path
from eyas.models.weights import save_model
from eyas.train.module import DetectionModule


class Saver(L.Callback):
    """Writes `checkpoints/last.ckpt` at each epoch's end and every few minutes, `model.safetensors` at each best AP.

    Args:
        folder: the run's folder.
        minutes: minutes between two saved states within an epoch.
    """

    def __init__(self, folder: Path, minutes: float = 10.0) -> None:
        self.folder = folder
        self.minutes = minutes
        self.best = -1.0
        self.best_epoch = 0
        self._saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the best AP so far and its epoch."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the best AP of an earlier part of the run."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save the state when enough time went by."""
        if trainer.world_size == 1 and time.monotonic() - self._saved_at > 60 * self.minutes:
            self.save_state(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the averaged weights if they are the best so far, then save the state."""
        assert isinstance(pl_module, DetectionModule)
        if pl_module.result is not None and pl_module.result.ap > self.best:
            self.best, self.best_epoch = pl_module.result.ap, trainer.current_epoch + 1
            self.save_weights(trainer, pl_module, runfolder.WEIGHTS)
        self.save_weights(trainer, pl_module, runfolder.LAST_WEIGHTS)
        self.save_state(trainer)

    def save_weights(self, trainer: L.Trainer, module: DetectionModule, name: str) -> None:
        """Write the averaged weights to `name` in the run's folder."""
        if trainer.is_global_zero:
            save_model(module.ema_net, self.folder / name)

    def save_state(self, trainer: L.Trainer) -> None:
        """Write everything that a resumed run continues from."""
        self._saved_at = time.monotonic()
        path = self.folder / runfolder.CHECKPOINT
        if trainer.world_size > 1:
            trainer.save_checkpoint(path)
            return
        with atomic_path(path) as temporary:
            trainer.save_checkpoint(temporary)


class Stopper(L.Callback):
    """Ends a run early: when AP no longer rises, or when the user asked to stop.

    Args:
        saver: knows the best epoch, and saves the state before the run ends.
        patience: evaluations without a new best AP before the run stops; 0 never stops.
    """

    def __init__(self, saver: Saver, patience: int = 0) -> None:
        self.saver = saver
        self.patience = patience
        self.reason = ""
        self.asked = False
        self._since_best = 0

    def state_dict(self) -> dict[str, Any]:
        """Return how many evaluations passed since the best."""
        return {"since_best": self._since_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self._since_best = state_dict["since_best"]

    def ask(self) -> None:
        """Ask the run to end after its current step."""
        self.asked = True

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save the state and end the run if the user asked for it."""
        if self.asked:
            assert isinstance(pl_module, DetectionModule)
            self.reason = "interrupted"
            self.saver.save_weights(trainer, pl_module, runfolder.LAST_WEIGHTS)
            self.saver.save_state(trainer)
            raise StopRunError

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count evaluations without a new best."""
        assert isinstance(pl_module, DetectionModule)
        if pl_module.result is None:
            return
        self._since_best = 0 if self.saver.best_epoch == trainer.current_epoch + 1 else self._since_best + 1
        if self.patience and self._since_best >= self.patience:
            self.reason = f"no better AP for {self.patience} evaluations"
            trainer.should_stop = True


class StopRunError(Exception):
    """The user asked to stop; the state is saved."""
