"""One progress line for the whole run, and a line of numbers an epoch."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from eyas.terminal import open_console
from eyas.training.module import DetectionModule


class ProgressLine(L.Callback):
    """Shows step, loss and speed as they change, and prints each epoch's loss and AP as a line that stays.

    Args:
        console: where to print; standard error if None, so that standard output stays free for results.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or open_console(stderr=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._shown = 0.0
        self._epoch_start = time.perf_counter()

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
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("steps"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.console, transient=True,
        )  # fmt: skip
        self._progress.start()
        self._task = self._progress.add_task(
            "training", total=int(trainer.estimated_stepping_batches), completed=trainer.global_step
        )

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_start = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Refresh the line, twice a second at most."""
        now = time.monotonic()
        if self._progress is None or self._task is None or now - self._shown < 0.5:
            return
        assert isinstance(pl_module, DetectionModule)
        self._shown = now
        description = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {float(pl_module.terms.sum()):.3f}"
        self._progress.update(self._task, completed=trainer.global_step, description=description)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say that the pause is an evaluation."""
        if self._progress is not None and self._task is not None:
            description = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  evaluating"
            self._progress.update(self._task, completed=trainer.global_step, description=description)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch's numbers."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, DetectionModule)
        terms = "  ".join(
            f"{name} {value:.3f}"
            for name, value in zip(pl_module.criterion.terms, pl_module.terms.tolist(), strict=True)
        )
        seconds = time.perf_counter() - self._epoch_start
        line = f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}  step {trainer.global_step:>6}  {terms}"
        if pl_module.result is not None:
            metrics = pl_module.result.metrics
            line += f"  AP {metrics['AP']:.4f}  AP50 {metrics['AP50']:.4f}"
        self.console.print(f"{line}  ({seconds:.0f} s)", highlight=False)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the line, also when the run ended by an error."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
