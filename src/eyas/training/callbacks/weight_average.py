"""The moving average of the weights: moved after each optimizer step, saved and restored with the run's state."""

from __future__ import annotations

from typing import Any

import lightning as L

from eyas.training.ema import Ema
from eyas.training.module import DetectionModule


class WeightAverage(L.Callback):
    """Gives the module its `ema` and keeps it up to date; the first of the callbacks, so that the others see it moved.

    Args:
        ceiling: the decay that is reached after the first few thousand steps.
    """

    def __init__(self, ceiling: float) -> None:
        self.ceiling = ceiling
        self._ema: Ema | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the average's tensors and how many steps it has seen."""
        assert self._ema is not None
        return {"steps": self._ema.steps, "net": self._ema.net.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a saved average."""
        assert self._ema is not None
        self._ema.steps = int(state_dict["steps"])
        self._ema.net.load_state_dict(state_dict["net"])

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin the average with the network's own weights."""
        assert isinstance(pl_module, DetectionModule)
        if self._ema is None:
            self._ema = Ema(pl_module.net, self.ceiling)
        pl_module.ema = self._ema

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Follow the network to its device."""
        assert self._ema is not None
        self._ema.net.to(pl_module.device)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the average, if the batch ended an optimizer step that has not moved it itself."""
        assert self._ema is not None and isinstance(pl_module, DetectionModule)
        if trainer.global_step > self._ema.steps:
            self._ema.update(pl_module.net)
