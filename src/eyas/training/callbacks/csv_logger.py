"""Writes `metrics.csv` (a row an epoch), `steps.csv` (a row every few steps) and `results.png`."""

from __future__ import annotations

import csv
import math
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

from eyas.artifacts import layout
from eyas.data.loading.batch import Batch
from eyas.files import write_text
from eyas.renamed import OLD_KEYS, with_new_keys
from eyas.training.module import DetectionModule
from eyas.training.plot import plot_results

# Each is followed by the criterion's terms, an epoch's row also by the COCO numbers.
EPOCH_FIELDS = ("epoch", "step", "seconds", "cpu_seconds", "images", "lr", "loss")
DRAWING = 0.03  # the share of a run's time that drawing the curves may take, while epochs are short
STEP_FIELDS = ("step", "epoch", "seconds", "cpu_seconds", "lr", "loss")


def cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Recorder(L.Callback):
    """Keeps the run's numbers as plain files, and draws them at epochs' ends, as often as that takes little time.

    Args:
        folder: the run's folder.
        every: steps between two rows of `steps.csv`.
    """

    def __init__(self, folder: Path, every: int = 10) -> None:
        self.folder = folder
        self.every = every
        self._start = time.perf_counter()
        self._start_cpu = cpu_seconds()
        self._sum = torch.zeros(())  # of the loss terms; becomes as long as there are terms
        self._count = 0
        self._images = 0
        self._resumed_step = 0
        self._rows: dict[str, str] = {}
        self._drawn_at, self._drawing = -math.inf, 0.0  # when the curves were drawn, and how long it took, in seconds
        self._undrawn = True  # whether rows were written since

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run continues from: the rows written so far among it."""
        seconds, cpu = self.elapsed()
        return {
            "seconds": seconds, "cpu": cpu, "sum": self._sum.tolist(), "count": self._count, "images": self._images,
            "rows": {name: read_rows(self.folder / name) for name in (layout.METRICS, layout.STEPS)},
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from an earlier part of the run."""
        self._start = time.perf_counter() - state_dict["seconds"]
        self._start_cpu = cpu_seconds() - state_dict["cpu"]
        self._sum, self._count = torch.tensor(state_dict["sum"]), state_dict["count"]
        self._images = with_new_keys(state_dict)["images"]
        self._rows = state_dict.get("rows", {})

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note the step at which the saved state was."""
        self._resumed_step = int(checkpoint["global_step"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the files what they were at the saved state: a run that was killed had gone on writing."""
        if not trainer.is_global_zero:
            return
        for name in (layout.METRICS, layout.STEPS):
            path = self.folder / name
            text = self._rows.get(name)
            if text is None:  # a new run, or a state saved by an older Eyas
                text = rows_until(read_rows(path), self._resumed_step)
            if text:
                header, newline, rows = text.partition("\n")
                names = (OLD_KEYS.get(field, field) for field in header.split(","))
                write_text(path, ",".join(names) + newline + rows)
            else:
                path.unlink(missing_ok=True)

    def elapsed(self) -> tuple[float, float]:
        """Return (wall seconds, processor seconds) of the run so far."""
        return time.perf_counter() - self._start, cpu_seconds() - self._start_cpu

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Add the step to the epoch's means; write a row now and then."""
        assert isinstance(pl_module, DetectionModule)
        self._images += len(batch.counts) * trainer.world_size
        self._sum = self._sum.to(pl_module.terms.device) + pl_module.terms  # stays there: reading it would wait
        self._count += 1
        if trainer.is_global_zero and (trainer.global_step % self.every == 0 or trainer.global_step == 1):
            terms = pl_module.terms.tolist()
            seconds, cpu = self.elapsed()
            row = [trainer.global_step, trainer.current_epoch, seconds, cpu, pl_module.learning_rate(), sum(terms)]
            append_row(self.folder / layout.STEPS, (*STEP_FIELDS, *pl_module.criterion.terms), [*row, *terms])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch's row, with the COCO numbers if it was evaluated, and draw the curves."""
        assert isinstance(pl_module, DetectionModule)
        if not trainer.is_global_zero:
            return
        seconds, cpu = self.elapsed()
        means = (self._sum.expand(len(pl_module.criterion.terms)) / max(1, self._count)).tolist()
        self._sum, self._count = torch.zeros_like(self._sum), 0
        row = [trainer.current_epoch + 1, trainer.global_step, seconds, cpu, self._images, pl_module.learning_rate()]
        values: dict[str, float] = pl_module.result.metrics if pl_module.result is not None else {}
        fields = (*EPOCH_FIELDS, *pl_module.criterion.terms, *values)
        append_row(self.folder / layout.METRICS, fields, [*row, sum(means), *means, *values.values()])
        self._undrawn = True
        if time.monotonic() - self._drawn_at >= self._drawing / DRAWING:
            self._draw()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the curves of the whole run, unless its last epoch has done so."""
        if trainer.is_global_zero and self._undrawn:
            self._draw()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Draw the curves as far as they go."""
        if trainer.is_global_zero:
            self._draw()

    def _draw(self) -> None:
        start = time.monotonic()
        plot_results(self.folder)
        self._drawn_at = time.monotonic()
        self._drawing = self._drawn_at - start
        self._undrawn = False


def read_rows(path: Path) -> str:
    """Return the text of a CSV file with its line ends as they are, "" if there is none."""
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def rows_until(text: str, step: int) -> str:
    """Return the text of a table with only the rows up to a step; "" if there are none."""
    header, _, rest = text.partition("\n")
    names = header.strip().split(",")
    if "step" not in names:
        return ""
    column = names.index("step")
    kept = [line for line in rest.splitlines(keepends=True) if 0 <= _number(line, column) <= step]
    return header + "\n" + "".join(kept) if kept else ""


def _number(line: str, column: int) -> int:
    """Return a field of a row as a number, -1 where there is none: of a row that was not written to its end."""
    fields = line.strip().split(",")
    return int(fields[column]) if line.endswith("\n") and column < len(fields) and fields[column].isdigit() else -1


def append_row(path: Path, fields: tuple[str, ...], row: list[float]) -> None:
    """Append one row to a CSV file, its header first when the file is new. A wider header rewrites the file."""
    text = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in row]
    rows: list[list[str]] = []
    if path.is_file():
        with path.open(newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if len(header) < len(fields):  # else the rows before are not read: there are many
                rows = [header, *reader]
        if not rows:
            with path.open("a", newline="") as file:
                csv.writer(file).writerow(text + [""] * (len(header) - len(text)))
            return
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        writer.writerows(old + [""] * (len(fields) - len(old)) for old in rows[1:])
        writer.writerow(text)
