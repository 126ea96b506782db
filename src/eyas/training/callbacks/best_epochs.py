"""The mean of the best epochs' weights: kept while a run goes on, tried when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from eyas.artifacts import layout
from eyas.errors import UserError
from eyas.models.weights import read_state, save_model
from eyas.training.callbacks.checkpoint import Saver
from eyas.training.data import DetectionData
from eyas.training.module import DetectionModule


class BestEpochs(L.Callback):
    """Keeps the averaged weights of the epochs with the highest AP, and tries their mean at the end.

    Args:
        folder: the run's folder.
        count: how many epochs, at least 1.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count
        self.kept: list[tuple[float, int]] = []  # AP and epoch, in the order of the epochs

    def state_dict(self) -> dict[str, Any]:
        """Return which epochs are kept."""
        return {"kept": list(self.kept)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the epochs that were kept."""
        self.kept = [(float(ap), int(epoch)) for ap, epoch in state_dict["kept"]]

    def path(self, epoch: int) -> Path:
        """Return where the weights of an epoch lie."""
        return self.folder / "checkpoints" / f"epoch-{epoch}.safetensors"

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the epoch's weights if it is among the best, in the place of the worst."""
        assert isinstance(pl_module, DetectionModule)
        if pl_module.result is None:
            return
        # Every process keeps the list, of the AP that all of them know; the first one writes.
        ap, epoch = pl_module.result.ap, trainer.current_epoch + 1
        worst = min(self.kept, default=(ap, 0))
        full = len(self.kept) == self.count
        if full and ap <= worst[0]:
            return
        if trainer.is_global_zero:
            save_model(pl_module.ema_net, self.path(epoch))
        self.kept.append((ap, epoch))
        if full:
            self.kept.remove(worst)
            self._remove(trainer, worst[1])

    def mean(self) -> dict[str, Tensor]:
        """Return the mean of the kept weights; counters are the last one's.

        Raises:
            UserError: a file that was kept is missing or damaged.
        """
        states = [read_state(self.path(epoch)) for _, epoch in self.kept]
        return {
            name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
            if value.is_floating_point()
            else value
            for name, value in states[-1].items()
        }

    def finish(self, trainer: L.Trainer, module: DetectionModule, data: DetectionData, saver: Saver) -> str:
        """Measure the mean of the kept epochs, and make it the run's weights if its AP is higher than any epoch's.

        Args:
            trainer: one of the run's own devices, without callbacks.
            module: the run's; its averaged weights become the mean.
            data: the run's images.
            saver: knows the best epoch.

        Returns:
            a line that says how it came out, "" where there is nothing to average.
        """
        if len(self.kept) < 2:
            return ""
        if any(
            not self.path(epoch).exists() for _, epoch in self.kept
        ):  # resumed after that, or while they were removed
            self._remove_all(trainer)
            return f"the best epochs' weights were removed after an earlier averaging: {layout.WEIGHTS} stays"
        try:
            module.ema_net.load_state_dict(self.mean())
        except UserError as error:
            return f"the best epochs could not be averaged: {error.problem}"
        trainer.validate(module, datamodule=data, verbose=False)
        assert module.result is not None
        ap = module.result.ap
        if ap > saver.best:
            saver.save_weights(trainer, module, layout.WEIGHTS)
        self._remove_all(trainer)
        told = f"the average of the {len(self.kept)} best epochs has AP {ap:.4f}, the best of them {saver.best:.4f}"
        return f"{told}: {'the average' if ap > saver.best else 'that epoch'} is the run's model"

    def _remove_all(self, trainer: L.Trainer) -> None:
        for _, epoch in self.kept:
            self._remove(trainer, epoch)

    def _remove(self, trainer: L.Trainer, epoch: int) -> None:
        if trainer.is_global_zero:
            self.path(epoch).unlink(missing_ok=True)
