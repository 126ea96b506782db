"""Runs a recipe: builds the parts, checks them, trains, and leaves a run folder that every later step can read."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from rich.console import Console
from torch import nn

from eyas.artifacts import run as runfolder
from eyas.artifacts.card import CARD
from eyas.artifacts.run import read_config
from eyas.errors import UserError
from eyas.files import read_json
from eyas.losses.criterion import Criterion
from eyas.losses.detection import DetectionCriterion
from eyas.models.zoo import build_described
from eyas.signals import Stopped, StopSignals, name
from eyas.terminal import open_console
from eyas.training.callbacks.average import BestEpochs
from eyas.training.callbacks.progress import ProgressLine
from eyas.training.callbacks.record import Recorder
from eyas.training.callbacks.save import Saver, Stopper, StopRunError
from eyas.training.callbacks.sheets import Sheets
from eyas.training.data import DetectionData
from eyas.training.folder import finish_run, free_folder, write_start
from eyas.training.module import DetectionModule
from eyas.training.network import make_network
from eyas.training.origin import check_data, check_recipe
from eyas.training.override import flatten, override
from eyas.training.parallel import (
    first_process,
    mean_over_processes,
    pick_accelerator,
    pick_precision,
    pick_strategy,
    prepare,
    sync_batchnorm,
)
from eyas.training.preflight import preflight
from eyas.training.recipe import Recipe
from eyas.training.saved import SavedState, check_fits, find_state, settle

FOLDER = "EYAS_RUN_FOLDER"


def fit(
    recipe: Recipe, out: Path | None = None, *, console: Console | None = None, signals: StopSignals | None = None
) -> Path:
    """Train as the recipe says and return the run's folder.

    Args:
        recipe: the whole run.
        out: the run's folder, which must be new or empty; made below runs/ if None.
        console: where progress goes; standard error if None.
        signals: entered already, and asked by the caller whether one came; this function's own if None. One that comes
            while training runs ends it after its step with everything saved, and a second one at once.

    Raises:
        UserError: before the first step, what can't work; later, a diverged loss, broken pictures or a full disk.
        Stopped: by a signal, before the first step or for the second time.
    """
    if first_process():
        folder = free_folder(recipe, out)
        os.environ[FOLDER] = str(folder)  # for the processes that Lightning starts to train along
    else:
        folder = Path(os.environ.get(FOLDER) or out or "")
    with contextlib.nullcontext(signals) if signals is not None else StopSignals() as signals:
        return _run(recipe, folder, console or open_console(stderr=True), signals)


def resume(
    folder: Path,
    *,
    console: Console | None = None,
    epochs: int | None = None,
    signals: StopSignals | None = None,
) -> Path:
    """Continue the run in `folder` where it stopped, in the middle of an epoch too, on the same trajectory.

    Args:
        folder: the run's folder.
        console: where progress goes; standard error if None.
        epochs: must be None: a longer schedule would be another trajectory.
        signals: as for `fit`.

    Raises:
        UserError: there is nothing to resume from, it is damaged, or settings, classes or pictures were changed.
        Stopped: as for `fit`.
    """
    if epochs is not None:
        raise UserError(
            "A resumed run keeps its length: the learning rate was planned for it.",
            where="--epochs", fix=f"for more training start from its weights: --weights {folder} --epochs {epochs}",
        )  # fmt: skip
    with contextlib.nullcontext(signals) if signals is not None else StopSignals() as signals:
        found = find_state(folder)
        # A run that was killed before it saved anything begins anew; one that has ended has lost its state.
        if found is None and ((folder / CARD).exists() or not (folder / runfolder.RECIPE).is_file()):
            raise UserError(
                f"{folder} can't be resumed: it has no {runfolder.CHECKPOINT}.",
                expected="a run that saved its state at least once",
            )
        recipe = read_recipe(folder)
        check_recipe(folder, recipe)
        return _run(recipe, folder, console or open_console(stderr=True), signals, Resumed(found))


@dataclass(frozen=True)
class Resumed:
    """That a run is resumed, and the state that was found, None if it was stopped before its first one was saved."""

    found: SavedState | None


def _run(recipe: Recipe, folder: Path, console: Console, signals: StopSignals, resumed: Resumed | None = None) -> Path:
    """Train into `folder`."""
    L.seed_everything(recipe.trainer.seed, verbose=False)
    data = DetectionData(
        recipe.data,
        recipe.augment,
        epochs=recipe.trainer.epochs,
        close_epochs=recipe.trainer.close_epochs,
        seed=recipe.trainer.seed,
    )
    found = resumed.found if resumed is not None else None
    if resumed is not None:
        check_data(folder, recipe, data.train_index, data.val_index)
    criterion = DetectionCriterion(recipe.loss, mean_over_processes)
    net = _network(recipe, folder, data, found, console, None if resumed is not None else criterion)
    net = prepare(net, channels_last=recipe.trainer.channels_last, compiled=recipe.trainer.compile)
    module = DetectionModule(net, data.classes, recipe.data.input_spec(), recipe.optim, criterion)
    module.keep_detections = recipe.trainer.sheets
    if found is not None:
        check_fits(found, module.state_dict(), folder)
    saver = Saver(folder, recipe.trainer.save_minutes)
    if found is not None and (note := saver.missed(found.state)) and first_process():
        say(console, note, style="yellow")
    stopper = Stopper(saver, recipe.trainer.patience)
    callbacks: list[L.Callback] = [Recorder(folder), Sheets(folder), saver, ProgressLine(console), stopper]
    best = BestEpochs(folder, recipe.trainer.average_best) if recipe.trainer.average_best else None
    callbacks += [best] if best is not None else []
    with _quiet_lightning():
        trainer = make_trainer(recipe, folder, callbacks)
    checkpoint = str(folder / runfolder.CHECKPOINT) if found is not None else None
    if trainer.is_global_zero:
        write_start(folder, recipe, data, trainer.precision, resumed=resumed is not None)
        if found is not None:
            settle(folder, found)
        say(console, f"training into {folder}")
    found = resumed = None  # lets go of the state
    torch.manual_seed(recipe.trainer.seed)
    with signals.deferred(lambda number: _told(number, stopper, console)):
        try:
            with _quiet_lightning(), contextlib.suppress(StopRunError):
                trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except Stopped:
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signal.SIGKILL)  # the other processes would wait for this one
            raise
        if best is not None and not stopper.reason:
            trainer.strategy.barrier("the best epochs are written")
            with _quiet_lightning():
                line = best.finish(make_trainer(recipe, folder, []), module, data, saver)
            if line and trainer.is_global_zero:
                say(console, line)
        if trainer.is_global_zero:
            _finish(recipe, trainer, module, saver, stopper)
            _say_end(console, folder, saver, stopper, data)
        else:
            signals.number = 0  # the first process answers for all; another's exit code would have it killed
    return folder


def _finish(recipe: Recipe, trainer: L.Trainer, module: DetectionModule, saver: Saver, stopper: Stopper) -> None:
    """Write the run's card, and before it the weights where no evaluation has chosen any: the last ones then."""
    if not saver.best_epoch:
        saver.save_weights(trainer, module, runfolder.WEIGHTS)
    finish_run(saver.folder, recipe, trainer.datamodule, stopped=stopper.reason)  # type: ignore[attr-defined]


def _network(
    recipe: Recipe,
    folder: Path,
    data: DetectionData,
    found: SavedState | None,
    console: Console,
    criterion: Criterion | None,
) -> nn.Module:
    """Return the network to train, and tell what is to be known of it; check before if there is a criterion."""
    if found is None:
        net, notes = make_network(recipe.model, data.classes)
    else:
        net, notes = build_described(read_config(folder).model, len(data.classes)), list(found.notes)
    if data.dropped:
        notes.append(f"{data.dropped} training pictures without a box are left out (data.drop_empty)")
    if not first_process():
        return net
    for note in notes:
        say(console, note)
    checked = preflight(recipe, data, net, criterion) if criterion is not None and recipe.trainer.preflight else ()
    for finding in checked:
        say(console, f"ok  {finding.check}: {finding.text}")
    return net


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe of the run in `folder`.

    Raises:
        UserError: there is none, or it is not one.
    """
    path = folder / runfolder.RECIPE
    fields = read_json(path, max_bytes=runfolder.MAX_BYTES, strict=True)
    if not isinstance(fields, dict):
        raise UserError(f"{path.name} is no recipe.", where=str(path), fix="put back the one that the run wrote")
    return override(Recipe(), flatten(fields))


def make_trainer(recipe: Recipe, folder: Path, callbacks: list[L.Callback]) -> L.Trainer:
    """Return Lightning's Trainer as the recipe says."""
    accelerator = pick_accelerator(recipe.trainer.accelerator)
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="gpu" if accelerator == "cuda" else accelerator,
        devices=recipe.trainer.devices,
        strategy=pick_strategy(recipe.trainer.devices),
        precision=pick_precision(recipe.trainer.precision, accelerator),  # type: ignore[arg-type]
        sync_batchnorm=sync_batchnorm(accelerator, recipe.trainer.devices),
        max_epochs=recipe.trainer.epochs,
        max_steps=recipe.trainer.max_steps or -1,
        check_val_every_n_epoch=recipe.trainer.val_every,
        accumulate_grad_batches=recipe.optim.accumulate,
        gradient_clip_val=recipe.optim.clip_norm or None,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    # Lightning's own handler of SIGTERM ends the process with status 0 and nothing saved, and talks to the other
    # processes from inside the handler. `StopSignals` does what is to be done.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


def _told(number: int, stopper: Stopper, console: Console) -> None:
    """Have the run end after its step, and say so unless the terminal is what is gone."""
    stopper.ask()
    if number not in (signal.SIGINT, signal.SIGTERM) and console.is_terminal:
        console.quiet = True
    again = "press Ctrl-C again" if number == signal.SIGINT else "once more"
    console.print(f"{name(number)}: stopping after this step and saving; {again} to stop at once", style="yellow")


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


def _say_end(console: Console, folder: Path, saver: Saver, stopper: Stopper, data: DetectionData) -> None:
    """Print how the run ended and what can be done with it."""
    if data.loader is not None and data.loader.skipped.known:
        say(console, data.loader.skipped.summary(), style="yellow")
    if stopper.reason == "interrupted":
        say(console, f"interrupted; go on with:  eyas train --resume {folder}")
        return
    if saver.best_epoch == 0:
        say(console, f"ended before an evaluation; measure it with:  eyas evaluate {folder} --data {data.recipe.root}")
        return
    why = f" (stopped early: {stopper.reason})" if stopper.reason else ""
    say(console, f"best AP {saver.best:.4f} at epoch {saver.best_epoch}{why}; curves: {folder / 'results.png'}")


def say(console: Console, text: str, style: str = "") -> None:
    """Print one line as it is: no wrapping, so that paths and commands can be copied, and no markup in file names."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
