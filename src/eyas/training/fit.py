"""Runs a recipe: builds the parts, checks them, trains, and leaves a run folder that every later step can read."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import torch
from rich.console import Console

from eyas.artifacts import layout
from eyas.artifacts.card import CARD
from eyas.errors import UserError
from eyas.files import read_json
from eyas.signals import Stopped, StopSignals, name
from eyas.terminal import open_console, tell
from eyas.training.callbacks.checkpoint import Stopper, StopRunError
from eyas.training.config_overrides import flatten, override
from eyas.training.experiment import Experiment, build, make_data, make_trainer
from eyas.training.loggers.base import Status
from eyas.training.memory import explained_memory, trial_step
from eyas.training.origin import check_data, check_recipe, check_teacher
from eyas.training.parallel import first_process
from eyas.training.recipe import Recipe
from eyas.training.run_dir import finish_run, free_folder, write_start
from eyas.training.saved import find_state, settle
from eyas.training.tracked import trackers_of

FOLDER = "EYAS_RUN_FOLDER"


def fit(
    recipe: Recipe,
    out: Path | None = None,
    *,
    console: Console | None = None,
    signals: StopSignals | None = None,
    started: float | None = None,
) -> Path:
    """Train as the recipe says and return the run's folder.

    Args:
        recipe: the whole run.
        out: the run's folder, which must be new or empty; made below runs/ if None.
        console: where progress goes; standard error if None.
        signals: entered already, and asked by the caller whether one came; this function's own if None. One that comes
            while training runs ends it after its step with everything saved, and a second one at once.
        started: `time.monotonic()` from which the recipe's `trainer.minutes` count; now if None.

    Raises:
        UserError: before the first step, what can't work; later, a diverged loss, broken images, a full disk or a
            GPU without memory left.
        Stopped: by a signal, before the first step or for the second time.
    """
    if first_process():
        folder = free_folder(recipe, out)
        os.environ[FOLDER] = str(folder)  # for the processes that Lightning starts to train along
    else:
        folder = Path(os.environ.get(FOLDER) or out or "")
    with contextlib.nullcontext(signals) if signals is not None else StopSignals() as signals:
        console = console or open_console(stderr=True)
        return run(build(recipe, folder, console=console, started=started), signals, console=console)


def resume(
    folder: Path,
    *,
    console: Console | None = None,
    epochs: int | None = None,
    signals: StopSignals | None = None,
    started: float | None = None,
) -> Path:
    """Continue the run in `folder` where it stopped, in the middle of an epoch too, on the same trajectory.

    Args:
        folder: the run's folder.
        console: where progress goes; standard error if None.
        epochs: must be None: a longer schedule would be another trajectory.
        signals, started: as for `fit`.

    Raises:
        UserError: there is nothing to resume from, it is damaged, or settings, classes or images were changed.
        Stopped: as for `fit`.
    """
    if epochs is not None:
        raise UserError(
            "A resumed run keeps its length: the learning rate schedule depends on it.",
            where="--epochs", fix=f"to train longer, start from its weights: --weights {folder} --epochs {epochs}",
        )  # fmt: skip
    console = console or open_console(stderr=True)
    with contextlib.nullcontext(signals) if signals is not None else StopSignals() as signals:
        return run(_resumed(folder, console, started), signals, console=console)


def _resumed(folder: Path, console: Console, started: float | None) -> Experiment:
    """Return the experiment of the run in `folder`, with the state that it stopped in."""
    saved = find_state(folder)
    # A run that was killed before it saved anything begins anew; one that has ended has lost its state.
    if saved is None and ((folder / CARD).exists() or not (folder / layout.RECIPE).is_file()):
        raise UserError(
            f"{folder} can't be resumed: it has no {layout.CHECKPOINT}.",
            expected="a run that saved its state at least once",
        )
    recipe = read_recipe(folder)
    check_recipe(folder, recipe)
    data = make_data(recipe)
    check_data(folder, recipe, data.train_index, data.val_index)
    check_teacher(folder, recipe)
    experiment = build(recipe, folder, console=console, data=data, saved=saved, check=False, started=started)
    if saved is not None and (note := experiment.saver.missed(saved.state)) and first_process():
        tell(console, note, style="yellow")
    return experiment


def run(experiment: Experiment, signals: StopSignals, *, console: Console) -> Path:
    """Train an experiment into its folder, which has its first files already, and return the folder.

    Args:
        experiment: what `build` made of a recipe.
        signals: as for `fit`.
        console: where is told how it ends.
    """
    recipe, folder, stopper = experiment.recipe, experiment.folder, experiment.stopper
    saved, experiment.saved = experiment.saved, None
    with _quiet_lightning():
        trainer = make_trainer(recipe, folder, list(experiment.callbacks.values()), experiment.loggers)
    if trainer.is_global_zero:
        resumed = (folder / layout.RECIPE).is_file()
        write_start(folder, recipe, experiment.model, experiment.data, trainer.precision, resumed=resumed)
        if saved is not None:
            settle(folder, saved)
        tell(console, f"training into {folder}")
    checkpoint = str(folder / layout.CHECKPOINT) if saved is not None else None
    saved = None  # lets go of the state
    torch.manual_seed(recipe.trainer.seed)
    with signals.deferred(lambda number: _told(number, stopper, console)):
        try:
            step = trial_step(trainer, experiment.module, experiment.data)
            with _quiet_lightning(), explained_memory(recipe, step), contextlib.suppress(StopRunError):
                trainer.fit(experiment.module, datamodule=experiment.data, ckpt_path=checkpoint, weights_only=True)
        except Stopped:
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signal.SIGKILL)  # the other processes would wait for this one
            raise
        _average(experiment, trainer, console)
        if trainer.is_global_zero:
            _finish(experiment, trainer, signals)
            _say_end(console, experiment)
        else:
            signals.number = 0  # the first process answers for all; another's exit code would have it killed
    return folder


def _average(experiment: Experiment, trainer: L.Trainer, console: Console) -> None:
    """Try the mean of the best epochs, where it is wanted and the run has come to its end."""
    best = experiment.best_epochs
    if best is None or experiment.stopper.reason:
        return
    trainer.strategy.barrier("writing the best epochs")
    with _quiet_lightning():
        again = make_trainer(experiment.recipe, experiment.folder, [experiment.callbacks["evaluation"]])
        line = best.finish(again, experiment.module, experiment.data, experiment.saver)
    if line and trainer.is_global_zero:
        tell(console, line)


def _finish(experiment: Experiment, trainer: L.Trainer, signals: StopSignals) -> None:
    """Write the run's card, and before it the weights where no evaluation has chosen any: the last ones then."""
    if not experiment.saver.best_epoch:
        experiment.saver.save_weights(trainer, experiment.module, layout.WEIGHTS)
    track, stopped = experiment.track, experiment.stopper.reason
    status: Status = "interrupted" if stopped == "interrupted" else "finished"
    places = track.places(status) if track is not None else trackers_of(experiment.folder)
    finish_run(experiment.folder, experiment.recipe, experiment.data, stopped=stopped, trackers=places)
    if track is not None:
        track.finish(status, lambda: bool(signals.number))


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe of the run in `folder`.

    Raises:
        UserError: there is none, or it is not one.
    """
    path = folder / layout.RECIPE
    fields = read_json(path, max_bytes=layout.MAX_BYTES, strict=True)
    if not isinstance(fields, dict):
        raise UserError(f"{path.name} is not a recipe.", where=str(path), fix="restore the file that the run wrote")
    return override(Recipe(), flatten(fields))


def _told(number: int, stopper: Stopper, console: Console) -> None:
    stopper.ask()
    if number not in (signal.SIGINT, signal.SIGTERM) and console.is_terminal:
        console.quiet = True
    again = "press Ctrl-C again" if number == signal.SIGINT else "again"
    console.print(f"{name(number)}: stopping after this step and saving; {again} to stop immediately", style="yellow")


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's hints, which concern parts that Eyas sets itself."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
        try:
            yield
        finally:
            logger.setLevel(level)


def _say_end(console: Console, experiment: Experiment) -> None:
    """Print how the run ended and what can be done with it."""
    folder, data, saver = experiment.folder, experiment.data, experiment.saver
    reason = experiment.stopper.reason
    if data.loader is not None and data.loader.skipped.known:
        tell(console, data.loader.skipped.summary(), style="yellow")
    if reason == "interrupted":
        tell(console, f"interrupted; resume with:  eyas train --resume {folder}")
        return
    if saver.best_epoch == 0:
        tell(
            console, f"ended before an evaluation; evaluate it with:  eyas evaluate {folder} --data {data.recipe.root}"
        )
        return
    why = f" (stopped early: {reason})" if reason else ""
    tell(console, f"best AP {saver.best:.4f} at epoch {saver.best_epoch}{why}; curves: {folder / layout.CURVES}")
