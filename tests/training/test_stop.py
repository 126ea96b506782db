"""Asked to end at any point, a run says so, saves, and goes on later as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from tests.training.stopping import (
    At,
    Killed,
    along,
    assert_same,
    kill,
    send,
    untimed_rows,
)

import eyas
from eyas.artifacts import layout
from eyas.artifacts.card import Card
from eyas.cli.main import main
from eyas.errors import UserError
from eyas.signals import StopSignals
from eyas.training.callbacks.checkpoint import Saver
from eyas.training.callbacks.csv_logger import rows_until
from eyas.training.fit import fit, resume
from eyas.training.recipe import Recipe, evolve

from .conftest import quiet

pytestmark = pytest.mark.usefixtures("no_curves")


@pytest.fixture(scope="module")
def whole(short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was never stopped."""
    return fit(short, tmp_path_factory.mktemp("whole") / "run", console=quiet())


POINTS = [
    ("on_fit_start", 1, 1),
    ("on_train_batch_end", 4, 4),
    ("on_validation_batch_start", 2, 4),
    ("on_train_epoch_end", 1, 4),
    ("on_validation_start", 2, 8),
    ("on_train_end", 1, 8),
]


@pytest.mark.parametrize(("hook", "call", "step"), POINTS)
def test_sigterm_at_any_point_saves_and_the_run_goes_on_bit_identical(
    short: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, call: int, step: int
) -> None:
    """From the first step on: in an epoch, at its end, in the evaluation, while it is saved, in the last epoch."""
    console = quiet()
    with monkeypatch.context() as patch, StopSignals() as signals:
        along(patch, At(hook, call, send(signal.SIGTERM)))
        folder = fit(short, tmp_path / "run", console=console, signals=signals)
    assert signals.exit_code == 143 and "SIGTERM: stopping" in console.file.getvalue()
    state = torch.load(folder / layout.CHECKPOINT, weights_only=True)
    assert state["global_step"] == step and Card.verify(folder)
    over = hook == "on_train_end"
    assert over or f"eyas train --resume {folder}" in console.file.getvalue()
    console = quiet()
    resume(folder, console=console)
    assert_same(folder, whole)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("epoch")]
    assert all(float(line.rpartition("(")[2].split()[0]) < 600 for line in lines)  # and not since the machine's start
    assert not any("class 0.000" in line for line in lines)


@pytest.mark.parametrize(
    ("hook", "call", "last", "fallback"),
    [
        ("on_train_epoch_end", 1, True, False), ("on_train_epoch_end", 2, False, False),
        ("on_train_epoch_end", 2, True, True), ("on_train_batch_end", 7, True, False),
    ],
)  # fmt: skip
def test_killed_before_or_after_saving_it_goes_on_with_the_same_rows(
    short: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    hook: str, call: int, last: bool, fallback: bool,
) -> None:  # fmt: skip
    """Rows that were written after the saved state are written once, also if the state before it is gone on from."""
    with monkeypatch.context() as patch:
        along(patch, At(hook, call, kill), last=last)
        with pytest.raises(Killed):
            fit(short, tmp_path / "run", console=quiet())
    folder = tmp_path / "run"
    with (folder / layout.METRICS).open("a") as file:
        file.write("2,8,5")  # a row that was not written to its end
    (folder / f".{layout.WEIGHTS}.123.tmp").touch()
    states = sorted(path.name for path in (folder / "checkpoints").glob("*.ckpt"))
    if fallback and "previous.ckpt" in states:
        os.truncate(folder / layout.CHECKPOINT, 1000)
    console = quiet()
    resume(folder, console=console)
    assert ("resuming from the state saved before it" in console.file.getvalue()) == (fallback and len(states) == 2)
    assert_same(folder, whole)
    assert not list(folder.rglob("*.tmp"))


def test_every_few_minutes_is_saved_where_it_goes_on_exactly(
    short: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    save = Saver.save_state

    def noted(self: Saver, trainer: L.Trainer) -> None:
        save(self, trainer)
        steps.append(trainer.global_step)
        if len(steps) == 4:
            raise Killed

    monkeypatch.setattr(Saver, "save_state", noted)
    with pytest.raises(Killed):
        fit(evolve(short, trainer={"save_minutes": 0.0}), tmp_path / "run", console=quiet())
    assert steps == [1, 2, 3, 4]
    monkeypatch.undo()
    resume(tmp_path / "run", console=quiet())
    assert_same(tmp_path / "run", whole)


def test_only_whole_optimizer_steps_are_saved(short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that wait for those of the next batch are in no saved state."""
    recipe = evolve(short, optim={"accumulate": 2})
    other = fit(recipe, tmp_path / "whole", console=quiet())
    with monkeypatch.context() as patch:
        along(patch, At("on_train_batch_end", 5, send(signal.SIGTERM)))
        folder = fit(recipe, tmp_path / "run", console=quiet())
    assert torch.load(folder / layout.CHECKPOINT, weights_only=True)["global_step"] == 3
    resume(folder, console=quiet())
    assert_same(folder, other)


def test_early_stopping_counts_the_same_after_a_resume(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is saved at an epoch's end knows of that epoch's evaluation; a run that ended early has ended."""
    import dataclasses

    from eyas.training.callbacks import evaluation

    measure = evaluation.evaluate_predictions
    aps = [0.1, 0.3, 0.2, 0.4, 0.3, 0.35]

    def staged(*args: Any) -> Any:
        result = measure(*args)
        return dataclasses.replace(result, metrics={**result.metrics, "AP": aps[len(seen)]})

    seen: list[int] = []
    monkeypatch.setattr(evaluation, "evaluate_predictions", lambda *args: (staged(*args), seen.append(1))[0])
    recipe = evolve(short, trainer={"epochs": 9, "patience": 2, "sheets": 0})
    with monkeypatch.context() as patch:
        along(patch, At("on_train_epoch_end", 4, kill), last=True)
        with pytest.raises(Killed):
            fit(recipe, tmp_path / "run", console=quiet())
    resume(tmp_path / "run", console=quiet())
    table = untimed_rows(tmp_path / "run" / layout.METRICS)
    assert [float(row["AP"]) for row in table] == aps
    console = quiet()
    resume(tmp_path / "run", console=console)
    assert untimed_rows(tmp_path / "run" / layout.METRICS) == table and "stopped early" in console.file.getvalue()
    assert json.loads((tmp_path / "run" / "card.json").read_text())["recipe"]["stopped"].startswith(
        "AP has not improved"
    )


def test_a_finished_run_stays_as_it_is(short: Recipe, tmp_path: Path) -> None:
    folder = fit(evolve(short, trainer={"epochs": 1, "close_epochs": 0}), tmp_path / "run", console=quiet())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "card.json"}
    resume(folder, console=quiet())
    assert {path: path.read_bytes() for path in before} == before and Card.verify(folder)


def test_stopped_before_anything_was_saved_it_begins_anew(
    short: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        along(patch, At("on_train_batch_end", 2, kill))
        with pytest.raises(Killed):
            fit(short, tmp_path / "run", console=quiet())
    folder = tmp_path / "run"
    assert not (folder / layout.CHECKPOINT).exists()
    resume(folder, console=quiet())
    assert_same(folder, whole)
    for name in (layout.CHECKPOINT, layout.PREVIOUS_CHECKPOINT):
        (folder / name).unlink()
    with pytest.raises(UserError, match="can't be resumed"):  # it has ended: nothing is thrown away
        resume(folder, console=quiet())
    assert Card.verify(folder)


def test_killed_before_all_is_written_that_it_begins_with_it_is_not_resumed_unchecked(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what the dataset was, a changed one would go unnoticed."""
    monkeypatch.setattr("eyas.training.run_dir.write_origin", lambda *_: kill(None))
    with pytest.raises(Killed):
        fit(short, tmp_path / "run", console=quiet())
    with pytest.raises(UserError, match="can't be resumed"):
        resume(tmp_path / "run", console=quiet())
    with pytest.raises(UserError, match="not empty") as caught:
        fit(short, tmp_path / "run", console=quiet())
    assert "--resume" not in str(caught.value)


TINY = ["--recipe", "quick", "--size", "96", "--batch", "6", "--epochs", "3", "--trainer.accelerator", "cpu"]


@pytest.mark.parametrize(
    ("number", "where"),
    [(signal.SIGINT, "load_dataset"), (signal.SIGTERM, "preflight"), (signal.SIGHUP, "load_dataset")],
)
def test_before_the_first_step_it_ends_at_once_and_leaves_nothing(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    number: int, where: str,
) -> None:  # fmt: skip
    from eyas.training import experiment, splits

    monkeypatch.setattr(splits if where == "load_dataset" else experiment, where, lambda *_, **__: send(number)(None))
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert main(["train", *TINY, "--data", str(shapes), "--out", str(tmp_path / "run")]) == 128 + number
    assert "stopped before the work began" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_exits_with_the_signal_and_a_second_one_ends_it_at_once(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    fast = [*TINY, "--data", str(shapes), "--data.workers", "0", "--trainer.preflight", "false"]
    with monkeypatch.context() as patch:
        along(patch, At("on_train_batch_end", 5, send(number)))
        assert main(["train", *fast, "--out", str(tmp_path / "once")]) == 128 + number
    out, err = capsys.readouterr()
    assert out == "" and "stopping after this step" in err and "--resume" in err
    with monkeypatch.context() as patch:
        along(patch, At("on_train_batch_start", 6, lambda _: [send(number)(None), send(number)(None)]))
        assert main(["train", *fast, "--out", str(tmp_path / "twice")]) == 128 + number
    assert "stopped at once" in capsys.readouterr().err
    assert torch.load(tmp_path / "twice" / layout.CHECKPOINT, weights_only=True)["global_step"] == 4


def test_the_function_hands_the_signal_on_to_its_caller(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    try:
        along(monkeypatch, At("on_train_batch_end", 2, send(signal.SIGTERM)))
        folder = eyas.train(short.data.root, recipe=short, out=tmp_path / "run")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM] and (folder / layout.CHECKPOINT).is_file()


def test_in_a_thread_no_handler_is_touched(short: Recipe, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    recipe = evolve(short, trainer={"max_steps": 1})
    thread = threading.Thread(target=fit, args=(recipe, tmp_path / "run"), kwargs={"console": quiet()})
    thread.start()
    thread.join()
    assert Card.verify(tmp_path / "run")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


SCRIPT = """
import os, signal, sys
from eyas.cli.main import main
from eyas.training import fit
import lightning as L

class Ask(L.Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 6 and trainer.is_global_zero:
            {act}

make = fit.make_trainer
fit.make_trainer = lambda recipe, folder, callbacks, *rest: make(recipe, folder, [Ask(), *callbacks], *rest)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("act", "extra"),
    [
        ("os.killpg(0, signal.SIGHUP)", ["--data.workers", "2"]),
        ("os.kill(os.getpid(), signal.SIGTERM)", ["--data.workers", "0", "--trainer.devices", "2", "--batch", "3"]),
        ("os.killpg(0, signal.SIGTERM)", ["--data.workers", "0", "--trainer.devices", "2", "--batch", "3"]),
    ],
)
def test_all_processes_of_a_job_get_the_signal(shapes: Path, tmp_path: Path, act: str, extra: list[str]) -> None:
    """As `timeout`, systemd and SLURM do it: workers and other ranks must not be gone before the step is done."""
    script = tmp_path / "job.py"
    script.write_text(SCRIPT.format(act=act))
    command = [*TINY, "--trainer.preflight", "false", "--data", str(shapes), "--out", str(tmp_path / "run"), *extra]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), "train", *command], env=environment, start_new_session=True, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (129 if "HUP" in act else 143), done.stderr
    assert "eyas train --resume" in done.stderr and "Traceback" not in done.stderr
    assert torch.load(tmp_path / "run" / layout.CHECKPOINT, weights_only=True)["global_step"] == 6
    assert Card.verify(tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "step", "kept"),
    [
        ("", 5, ""),
        ("epoch,step\r\n1,4\r\n2,8\r\n", 4, "epoch,step\r\n1,4\r\n"),
        ("epoch,step\r\n1,4\r\n2,8\r\n", 3, ""),
        ("epoch,step\r\n1,4\r\n2,", 8, "epoch,step\r\n1,4\r\n"),
        ("epoch,step\r\n1,4\r\n2,8", 8, "epoch,step\r\n1,4\r\n"),
        ("step,epoch\n1,0\n\n5,x\n", 5, "step,epoch\n1,0\n5,x\n"),
        ("no,table\n1,2\n", 5, ""),
    ],
)
def test_rows_up_to_a_step(text: str, step: int, kept: str) -> None:
    assert rows_until(text, step) == kept
