"""Saves the state to resume from and the best weights, each by write-then-rename."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NoReturn

import lightning as L

from eyas.artifacts import layout
from eyas.models.weights import save_model
from eyas.training.module import DetectionModule
from eyas.training.saved import lost_weights, write_state, write_weights


class Saver(L.Callback):
    """Writes the state to resume from when it is told to, and `model.safetensors` at each best AP.

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
        self._lost = False

    def state_dict(self) -> dict[str, Any]:
        """Return the best AP so far and its epoch."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the best AP of an earlier part of the run."""
        if not self._lost:
            self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]

    def missed(self, state: dict[str, Any]) -> str:
        """Return what there is to say of the best weights of a saved state: "", or that they are lost.

        Then the AP that they had does not count any more: the best of the epochs to come takes their place.
        """
        epoch = state["callbacks"].get(self.state_key, {}).get("best_epoch", 0)
        problem = lost_weights(self.folder) if epoch else ""
        if not problem:
            return ""
        self._lost = True
        return (
            f"{layout.WEIGHTS} {problem}: the weights of the best epoch, {epoch}, are lost; the best epoch from here "
            "on is the run's model"
        )

    @property
    def due(self) -> bool:
        """Return whether the last save was long ago."""
        return time.monotonic() - self._saved_at > 60 * self.minutes

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the averaged weights if they are the best so far."""
        assert isinstance(pl_module, DetectionModule)
        if pl_module.result is not None and pl_module.result.ap > self.best:
            self.best, self.best_epoch = pl_module.result.ap, trainer.current_epoch + 1
            self.save_weights(trainer, pl_module, layout.WEIGHTS)
        self.save_weights(trainer, pl_module, layout.LAST_WEIGHTS)

    def save_weights(self, trainer: L.Trainer, module: DetectionModule, name: str) -> None:
        """Write the averaged weights to `name` in the run's folder."""
        if not trainer.is_global_zero:
            return
        if name == layout.WEIGHTS:
            write_weights(self.folder, lambda path: save_model(module.ema_net, path))
        else:
            save_model(module.ema_net, self.folder / name)

    def save_state(self, trainer: L.Trainer) -> None:
        """Write everything that a resumed run continues from; all processes must call this together."""
        self._saved_at = time.monotonic()
        if trainer.is_global_zero:
            write_state(self.folder, trainer.save_checkpoint)
        else:
            trainer.save_checkpoint(self.folder / layout.CHECKPOINT)  # writes nothing, and waits for the first one


class Stopper(L.Callback):
    """Decides when the state is saved and when a run ends early: AP no longer rises, or the user asked to stop.

    It comes last of the callbacks, so that what it saves is what they all have come to. A state is saved only where
    resuming it goes on exactly: after a whole step, not after one that ends its epoch (Lightning takes that epoch for
    done, without evaluation), but before the evaluation and at the epoch's end.

    Args:
        saver: knows the best epoch, and saves the state.
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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End a resumed run that had ended early."""
        self._end_if_patience_is_over(trainer)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save the state, and end the run if the user asked for it."""
        ends = trainer.is_last_batch or trainer.should_stop or trainer.global_step >= trainer.max_steps > 0
        if ends or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self._asked_anywhere(trainer):
            self._stop(trainer, pl_module)
        if trainer.world_size == 1 and self.saver.due:
            self.saver.save_state(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before an evaluation, which may take long; a resumed run begins with it."""
        # Lightning counts over all evaluations of an epoch; one that was begun twice must not look cut short for ever.
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset()
        if self._asked_anywhere(trainer):
            self._stop_before_evaluation(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop in the midst of an evaluation; several processes have no step in common there, and go on to its end."""
        if self.asked and trainer.world_size == 1:
            self._stop_before_evaluation(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count evaluations without a new best, save the state, and end the run if it is time."""
        assert isinstance(pl_module, DetectionModule)
        if pl_module.result is not None:
            self._since_best = 0 if self.saver.best_epoch == trainer.current_epoch + 1 else self._since_best + 1
        self.saver.save_state(trainer)
        self._end_if_patience_is_over(trainer)
        over = trainer.should_stop or trainer.current_epoch + 1 >= (trainer.max_epochs or 0) >= 0
        over = over or trainer.global_step >= trainer.max_steps > 0
        if not over and self._asked_anywhere(trainer):
            self._raise()

    def _asked_anywhere(self, trainer: L.Trainer) -> bool:
        """Return whether any of the processes was asked to stop; they stop together."""
        return trainer.strategy.reduce_boolean_decision(self.asked, all=False)

    def _end_if_patience_is_over(self, trainer: L.Trainer) -> None:
        if self.patience and self._since_best >= self.patience:
            self.reason = f"AP has not improved for {self.patience} evaluations"
            trainer.should_stop = True

    def _stop_before_evaluation(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Save the state as of an evaluation whose first batch was begun: Lightning then runs the whole of it."""
        assert isinstance(module, DetectionModule)
        module.leave_evaluation()
        progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        progress.reset()
        progress.increment_ready()
        progress.increment_started()
        self._stop(trainer, module)

    def _stop(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, DetectionModule)
        self.saver.save_weights(trainer, module, layout.LAST_WEIGHTS)
        self.saver.save_state(trainer)
        self._raise()

    def _raise(self) -> NoReturn:
        self.reason = "interrupted"
        raise StopRunError


class StopRunError(Exception):
    """The user asked to stop; the state is saved."""
