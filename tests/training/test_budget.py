"""A run that was given a time, under a clock that the test moves."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from safetensors.torch import load_file
from tests.training.conftest import quiet

from eyas.artifacts import layout
from eyas.artifacts.card import Card
from eyas.errors import UserError
from eyas.signals import StopSignals
from eyas.training import pace
from eyas.training.callbacks import budget
from eyas.training.callbacks.budget import read_plannings, write_plannings
from eyas.training.experiment import build
from eyas.training.fit import fit, resume
from eyas.training.fit import run as start
from eyas.training.recipe import Recipe, evolve
from eyas.training.timetable import Aims, Pace, Planning


class Clock(L.Callback):
    """Moves the time: so much a step, and so much an evaluation."""

    def __init__(self, step: float, evaluation: float = 3.0) -> None:
        self.time = 100.0
        self.step, self.evaluation = step, evaluation

    def on_train_batch_start(self, *args: Any) -> None:
        self.time += self.step

    def on_validation_start(self, *args: Any) -> None:
        self.time += self.evaluation


class Ask(L.Callback):
    """Asks the run to stop after a step."""

    def __init__(self, step: int, ask: Callable[[], None]) -> None:
        self.step, self.ask = step, ask

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            self.ask()


@pytest.fixture
def timed(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that trains for a minute on a machine of some speed."""
    monkeypatch.setattr(pace, "first_pace", lambda *_: Pace(1.0, 3.0, 0.0, 2.0))
    monkeypatch.setattr("eyas.training.experiment.first_pace", lambda *_: Pace(1.0, 3.0, 0.0, 2.0))

    def work(folder: Path, clock: Clock, stop: int = 0, **trainer: Any) -> Path:
        monkeypatch.setattr(budget, "now", lambda: clock.time)
        monkeypatch.setattr("eyas.training.experiment.now", lambda: clock.time)
        recipe = evolve(tiny, trainer={"minutes": 1.0, **trainer})
        experiment = build(recipe, folder, console=quiet())
        asked = Ask(stop, experiment.stopper.ask)
        experiment.callbacks = {"clock": clock, "ask": asked, **experiment.callbacks}
        with StopSignals() as signals:
            return start(experiment, signals, console=quiet())

    return work


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / layout.METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("step", [1.0, 4.0])
def test_it_ends_in_time_with_an_evaluation(timed: Callable[..., Path], tmp_path: Path, step: float) -> None:
    clock = Clock(step)
    folder = timed(tmp_path / "run", clock)
    assert 60 - max(3.0, step) <= clock.time - 100 + 2 <= 63  # with the two seconds that are kept for the end
    rows, plannings = table(folder), read_plannings(folder / layout.PLANNINGS)
    assert int(rows[-1]["step"]) == plannings[-1].total and float(rows[-1]["AP"]) >= 0
    assert float(rows[-1]["lr"]) < 0.05 * max(float(row["lr"]) for row in rows)
    evaluated = [row for row in rows if row["AP"]]
    assert len(evaluated) <= 1 + 0.15 * 60 / clock.evaluation
    Card.verify(folder)


def test_a_resumed_run_does_what_was_planned_and_is_bit_identical(
    timed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle, on a machine that is now twice as slow: as far as there are plannings they hold."""
    whole = timed(tmp_path / "whole", Clock(1.5))
    stopped = timed(tmp_path / "stopped", Clock(1.5), stop=9)
    before = read_plannings(stopped / layout.PLANNINGS)
    assert before == read_plannings(whole / layout.PLANNINGS)[: len(before)]
    shutil.copy(whole / layout.PLANNINGS, stopped / layout.PLANNINGS)
    monkeypatch.setattr(budget, "now", lambda: 5000.0)
    resume(stopped, console=quiet())
    assert read_plannings(stopped / layout.PLANNINGS) == read_plannings(whole / layout.PLANNINGS)
    names = ("epoch", "step", "lr", "loss", "AP")
    assert [[row[name] for name in names] for row in table(whole)] == [
        [row[name] for name in names] for row in table(stopped)
    ]
    first, second = load_file(whole / layout.LAST_WEIGHTS), load_file(stopped / layout.LAST_WEIGHTS)
    assert all((first[name] == second[name]).all() for name in first)


def test_the_clock_decides_beyond_what_was_planned(
    timed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = timed(tmp_path / "run", Clock(1.5), stop=9)
    before = read_plannings(stopped / layout.PLANNINGS)
    with (stopped / layout.PLANNINGS).open("a") as file:
        file.write("31,4")  # the process was killed as it wrote
    monkeypatch.setattr(budget, "now", lambda: 5000.0)  # from here on no time passes: there is much left
    monkeypatch.setattr("eyas.training.experiment.now", lambda: 5000.0)
    resume(stopped, console=quiet())
    after = read_plannings(stopped / layout.PLANNINGS)
    assert after[: len(before)] == before and after[-1].total != before[-1].total
    assert int(table(stopped)[-1]["step"]) == after[-1].total


def test_plannings_are_written_anew_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run that is killed as it begins has lost none of those that it has not come to yet."""
    path = tmp_path / layout.PLANNINGS
    plannings = [Planning(step, 90 + step, 9, 1, 80, 2) for step in (0, 5, 40)]
    write_plannings(path, plannings)
    assert read_plannings(path) == plannings
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_plannings(path, plannings[:1])
    assert read_plannings(path) == plannings


def test_a_time_that_is_too_short_is_told_before_training(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"0\.01 minutes are too short") as caught:
        fit(evolve(tiny, trainer={"minutes": 0.01, "preflight": True}), tmp_path / "run", console=quiet())
    assert "--minutes 0.5 or more" in str(caught.value) and not (tmp_path / "run").exists()


def test_what_the_time_is_planned_for_is_told() -> None:
    aims = Aims(100, 1, 0.1, 50)
    told = pace.check_time(2.0, 110.0, Pace(0.1, 1.0, 0.0, 2.0), aims)
    assert told.startswith("2 minutes: about 972 steps or 19.4 epochs, evaluated every 2 epochs")
    assert "the limit" in pace.check_time(2.0, 110.0, Pace(0.1, 1.0, 0.0, 2.0), Aims(100, 1, 0.1, 50, max_steps=10))


@pytest.mark.parametrize("text", ["step\n1\n", "step,total,warmup,every,close,ahead\n5,9,1,1,8,2\n", "a,b\nx,y\n"])
def test_a_damaged_file_of_plannings_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plannings.csv").write_text(text)
    with pytest.raises(UserError, match="differs from what the run wrote"):
        read_plannings(tmp_path / "plannings.csv")


@pytest.mark.parametrize("minutes", [-1.0, float("nan"), 1e9])
def test_a_time_that_is_none_is_refused(tiny: Recipe, minutes: float) -> None:
    with pytest.raises(UserError, match=r"trainer\.minutes is"):
        evolve(tiny, trainer={"minutes": minutes})
