"""One progress line for the whole run, and a line of numbers an epoch."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from rich.console import Console

from eyas.data.loading.batch import Batch
from eyas.progress import ProgressBar
from eyas.terminal import open_console
from eyas.training.gpu import busy
from eyas.training.module import DetectionModule

REFRESH = 0.5  # seconds between two looks of the line


class ProgressLine(L.Callback):
    """Shows steps, loss, speed and AP as they change, and prints each epoch's loss and AP as a line that stays.

    Args:
        console: where to print; standard error if None, so that standard output stays free for results.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or open_console(stderr=True)
        self._bar: ProgressBar | None = None
        self._shown = 0.0
        self._epoch_start = time.perf_counter()
        self._images = 0  # since the line was last refreshed
        self._speed = 0.0
        self._ap = ""

    def state_dict(self) -> dict[str, Any]:
        """Return how long the epoch has taken so far."""
        return {"epoch_seconds": time.perf_counter() - self._epoch_start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with an epoch that took some time before the run was stopped in it."""
        self._epoch_start = time.perf_counter() - state_dict["epoch_seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the line."""
        if not trainer.is_global_zero:
            return
        self._bar = ProgressBar("training", 1.0, counted=False, long=True, console=self.console).__enter__()
        self._shown = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_start = time.perf_counter()
        self._shown, self._images = time.monotonic(), 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Refresh the line, twice a second at most."""
        self._images += len(batch.counts) * trainer.world_size
        now = time.monotonic()
        if self._bar is None or now - self._shown < REFRESH:
            return
        assert isinstance(pl_module, DetectionModule)
        self._speed = self._images / (now - self._shown)
        self._shown, self._images = now, 0
        self._show(trainer, pl_module, f"loss {float(pl_module.terms.sum()):.3f}")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say that the pause is an evaluation."""
        if self._bar is not None:
            self._show(trainer, pl_module, "evaluating")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch's numbers."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, DetectionModule)
        values = zip(pl_module.criterion.terms, pl_module.terms.tolist(), strict=True)
        terms = "  ".join(f"{name} {value:.3f}" for name, value in values)
        seconds = time.perf_counter() - self._epoch_start
        line = f"epoch {_epoch(trainer, 3)}  step {trainer.global_step:>6}  {terms}"
        if pl_module.result is not None:
            metrics = pl_module.result.metrics
            line += f"  AP {metrics['AP']:.4f}  AP50 {metrics['AP50']:.4f}"
            self._ap = f"  AP {metrics['AP']:.3f}"
        self.console.print(f"{line}  ({seconds:.0f} s)", highlight=False)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the line, also when the run ended by an error."""
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None

    def _show(self, trainer: L.Trainer, module: L.LightningModule, what: str) -> None:
        """Refresh the line."""
        if self._bar is None:
            return
        used = busy(module.device)
        parts = [f"epoch {_epoch(trainer)}  {what}"]
        parts += [f"{self._speed:.0f} images/s"] if self._speed else []
        parts += [f"GPU {used} %"] if used is not None else []
        total = _steps(trainer, module)
        note = f"{trainer.global_step}/{total} steps"
        self._bar.update(_done(trainer, module), text="  ".join(parts) + self._ap, note=note)


def _epoch(trainer: L.Trainer, width: int = 0) -> str:
    number = f"{trainer.current_epoch + 1:>{width}}"
    return number if (trainer.max_epochs or -1) < 0 else f"{number}/{trainer.max_epochs}"


def _steps(trainer: L.Trainer, module: L.LightningModule) -> int:
    assert isinstance(module, DetectionModule)
    return int(trainer.estimated_stepping_batches) if module.timetable is None else module.timetable.last.total


def _done(trainer: L.Trainer, module: L.LightningModule) -> float:
    return min(1.0, trainer.global_step / max(1, _steps(trainer, module)))
