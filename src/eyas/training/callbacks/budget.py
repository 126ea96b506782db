"""Keeps a run within the time that it was given: plans it again as the machine's speed is learned, and ends it."""

from __future__ import annotations

import csv
import io
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L

from eyas.artifacts import layout
from eyas.errors import UserError
from eyas.files import write_text
from eyas.training.timetable import Aims, Pace, Planning, Timetable, due, plan

FIELDS = ("step", "total", "warmup", "every", "close", "ahead")
SEVERAL = 10  # steps that are measured at least, as soon as there are so many
NEVER = 10**9  # epochs


def now() -> float:
    """Return the time by which a budget is kept, in seconds."""
    return time.monotonic()


class TimeBudget(L.Callback):
    """Plans, looks at the clock, and plans again; comes before the callback that saves the state.

    Every planning is written to `plannings.csv` with its step. A resumed run first does what stands there, and looks
    at the clock from its end on.

    Args:
        folder: the run's folder.
        seconds: from the command's start to its exit.
        started: `time.monotonic()` of the command's start.
        aims: what the recipe wants.
        pace: a first guess of the machine's speed.

    Attributes:
        table: the plannings that hold so far.
    """

    def __init__(self, folder: Path, seconds: float, started: float, aims: Aims, pace: Pace) -> None:
        self.folder = folder
        self.seconds = seconds
        self.aims = aims
        self.pace = pace
        self._started = started
        known = read_plannings(folder / layout.PLANNINGS)
        first = known[0] if known else plan(0, self.left(), pace, aims)
        self.table = Timetable([first])
        self._known = known[1:]  # of the run that is resumed, not yet come to
        self._evaluated = 0  # the epoch of the latest evaluation, from 1
        self._decided = (0, True)  # an epoch, from 1, and whether it will be evaluated
        self._steps: deque[float] = deque(maxlen=2000)
        self._seen = 0
        self._mark = 0.0
        self._epoch_over: float | None = None

    def left(self) -> float:
        """Return the seconds until the command shall have ended."""
        return self._started + self.seconds - now()

    def state_dict(self) -> dict[str, Any]:
        """Return how much of the time is used, and the plannings so far."""
        return {
            "used": now() - self._started,
            "evaluated": self._evaluated,
            "decided": list(self._decided),
            "plannings": [vars(one) for one in self.table.plannings],
            "pace": vars(self.pace),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the plannings and with what was left of the time."""
        self._started -= state_dict["used"]
        self._evaluated = state_dict["evaluated"]
        self._decided = (int(state_dict["decided"][0]), bool(state_dict["decided"][1]))
        self.pace = Pace(**state_dict["pace"])
        past = [Planning(**one) for one in state_dict["plannings"]]
        later = [one for one in (self.table.last, *self._known) if one.step > past[-1].step]
        self.table.replace(past)
        self._known = later
        self._seen = past[-1].step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the plannings down that there are."""
        self._seen = trainer.global_step
        self._write(trainer)
        self._evaluate(trainer, self._decided[1])
        self._end_if_over(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Decide whether this epoch will be evaluated; note how long the end of the one before took."""
        at = now()
        if self._epoch_over is not None:
            took = at - self._epoch_over
            evaluated = self._evaluated == trainer.current_epoch
            self.pace = Pace(
                self.pace.step,
                took if evaluated else self.pace.evaluation,
                self.pace.epoch if evaluated else took,
                self.pace.finish,
            )
        self._epoch_over, self._mark = None, at
        every, epoch = self.table.last.every, trainer.current_epoch + 1
        if self._decided[0] != epoch:  # else the run was resumed in this epoch
            after = self.table.last.total - epoch * self.aims.steps_an_epoch
            # One shortly before the last, which is made in any case, would tell little.
            soon = 0 <= after < every * self.aims.steps_an_epoch / 2
            self._decided = (epoch, epoch - self._evaluated >= every and not soon)
        self._evaluate(trainer, self._decided[1])

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Plan again if it is time, and end the run after its last step."""
        step = trainer.global_step
        if step == self._seen:
            return  # gradients are accumulated
        at = now()
        self._steps.append(at - self._mark)
        self._mark, self._seen = at, step
        if self._known:
            if self._known[0].step == step:
                self.table.add(self._known.pop(0))
        elif due(step, self.table.last):
            self._plan(trainer, step)
        self._end_if_over(trainer)
        if trainer.is_last_batch or trainer.should_stop:
            self._epoch_over = at

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that the epoch was evaluated."""
        self._evaluated = trainer.current_epoch + 1

    def _plan(self, trainer: L.Trainer, step: int) -> None:
        """Plan the rest of the run by what was measured so far; the first of several processes does it for all."""
        recent = list(self._steps)[1:]  # the first one starts processes and warms up
        recent = recent[-max(SEVERAL, self.table.last.total // 20) :]
        took = sum(recent) / len(recent) if recent else min(self.pace.step, self._steps[0])
        self.pace = Pace(took, self.pace.evaluation, self.pace.epoch, self.pace.finish)
        made = plan(step, self.left(), self.pace, self.aims, self.table.last)
        made = trainer.strategy.broadcast(made)
        self.table.add(made)
        self._write(trainer)  # before anything is done by it

    def _end_if_over(self, trainer: L.Trainer) -> None:
        if trainer.global_step >= self.table.last.total and trainer.global_step > 0:
            self._evaluate(trainer, True)
            trainer.should_stop = True

    def _evaluate(self, trainer: L.Trainer, wanted: bool) -> None:
        trainer.check_val_every_n_epoch = 1 if wanted else NEVER

    def _write(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            write_plannings(self.folder / layout.PLANNINGS, (*self.table.plannings, *self._known))


def pace_of(state: Mapping[str, Any]) -> Pace | None:
    """Return what a saved state of a run knows of the machine's speed; None if the run had no time."""
    kept = state["callbacks"].get("TimeBudget")
    return None if kept is None else Pace(**kept["pace"])


def write_plannings(path: Path, plannings: Iterable[Planning]) -> None:
    """Write the plannings of a run, whole or not at all: a run that is killed meanwhile has lost none."""
    text = io.StringIO()
    csv.writer(text).writerows([FIELDS, *([getattr(one, name) for name in FIELDS] for one in plannings)])
    write_text(path, text.getvalue())


def read_plannings(path: Path) -> list[Planning]:
    """Return the plannings that a run has made; none if there is no file. One that was cut short does not count.

    Raises:
        UserError: the file is not as the run wrote it.
    """
    if not path.is_file():
        return []
    whole, end, _ = path.read_text(encoding="utf-8").rpartition("\n")
    try:
        plannings = [
            Planning(**{name: int(row[name]) for name in FIELDS}) for row in csv.DictReader((whole + end).splitlines())
        ]
        steps = [one.step for one in plannings]
        if steps != sorted(set(steps)) or steps[:1] not in ([], [0]):
            raise ValueError("the steps do not increase from 0")
    except (KeyError, ValueError, TypeError):
        raise UserError(
            f"{path.name} differs from what the run wrote.", where=str(path), fix="restore the original file"
        ) from None
    return plannings
