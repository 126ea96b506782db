"""Runs a recipe: builds the parts, checks them, trains, and leaves a run folder that every later step can read."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import lightning as L
import torch
from rich.console import Console

from eyas import runfolder
from eyas.errors import UserError
from eyas.files import read_json
from eyas.terminal import open_console
from eyas.train.callbacks.average import BestEpochs
from eyas.train.callbacks.progress import ProgressLine
from eyas.train.callbacks.record import Recorder
from eyas.train.callbacks.save import Saver, Stopper, StopRunError
from eyas.train.callbacks.sheets import Sheets
from eyas.train.data import DetectionData
from eyas.train.folder import finish_run, free_folder, write_start
from eyas.train.module import DetectionModule
from eyas.train.network import make_network
from eyas.train.parallel import pick_accelerator, pick_precision, pick_strategy, prepare, sync_batchnorm
from eyas.train.preflight import preflight
from eyas.train.recipe import Recipe


def fit(recipe: Recipe, out: Path | None = None, *, console: Console | None = None) -> Path:
    """Train as the recipe says and return the run's folder.

    Args:
        recipe: the whole run.
        out: the run's folder, which must be new or empty; made below runs/ if None.
        console: where progress goes; standard error if None.

    Raises:
        UserError: before the first step, what can't work; later, a diverged loss, broken pictures or a full disk.
    """
    folder = free_folder(recipe, out)
    return _run(recipe, folder, console or open_console(stderr=True), resume=False)


def resume(folder: Path, *, console: Console | None = None, epochs: int | None = None) -> Path:
    """Continue the run in `folder` where it stopped, in the middle of an epoch too, on the same trajectory.

    Args:
        folder: the run's folder.
        console: where progress goes; standard error if None.
        epochs: must be None: a longer schedule would be another trajectory.

    Raises:
        UserError: there is nothing to resume from.
    """
    if epochs is not None:
        raise UserError(
            "A resumed run keeps its length: the learning rate was planned for it.",
            where="--epochs", fix=f"for more training start from its weights: --weights {folder} --epochs {epochs}",
        )  # fmt: skip
    if not (folder / runfolder.CHECKPOINT).is_file():
        raise UserError(
            f"{folder} can't be resumed: it has no {runfolder.CHECKPOINT}.",
            expected="a run that saved its state at least once",
        )
    from eyas.train.override import flatten, override

    recipe = override(Recipe(), flatten(read_json(folder / runfolder.RECIPE)))
    return _run(recipe, folder, console or open_console(stderr=True), resume=True)


def _run(recipe: Recipe, folder: Path, console: Console, *, resume: bool) -> Path:
    """Train into `folder`."""
    L.seed_everything(recipe.trainer.seed, verbose=False)
    data = DetectionData(
        recipe.data,
        recipe.augment,
        epochs=recipe.trainer.epochs,
        close_epochs=recipe.trainer.close_epochs,
        seed=recipe.trainer.seed,
    )
    net, notes = make_network(recipe.model, data.classes)
    if data.dropped:
        notes.append(f"{data.dropped} training pictures without a box are left out (data.drop_empty)")
    for note in notes:
        say(console, note)
    if recipe.trainer.preflight and not resume:
        for finding in preflight(recipe, data, net):
            say(console, f"ok  {finding.check}: {finding.text}")
    module = DetectionModule(
        prepare(net, channels_last=recipe.trainer.channels_last, compiled=recipe.trainer.compile),
        data.classes,
        recipe.data.input_spec(),
        recipe.optim,
        recipe.loss,
    )
    module.keep_detections = recipe.trainer.sheets
    saver = Saver(folder, recipe.trainer.save_minutes)
    stopper = Stopper(saver, recipe.trainer.patience)
    callbacks: list[L.Callback] = [Recorder(folder), Sheets(folder), saver, stopper, ProgressLine(console)]
    best = BestEpochs(folder, recipe.trainer.average_best) if recipe.trainer.average_best else None
    callbacks += [best] if best is not None else []
    with _quiet_lightning():
        trainer = make_trainer(recipe, folder, callbacks)
    if trainer.is_global_zero:
        write_start(folder, recipe, data, trainer.precision)
        say(console, f"training into {folder}")
    checkpoint = str(folder / runfolder.CHECKPOINT) if resume else None
    torch.manual_seed(recipe.trainer.seed)
    with _gentle_interrupt(stopper, console), _quiet_lightning(), contextlib.suppress(StopRunError):
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if best is not None and not stopper.reason:
        trainer.strategy.barrier("the best epochs are written")
        with _quiet_lightning():
            line = best.finish(make_trainer(recipe, folder, []), module, data, saver)
        if line and trainer.is_global_zero:
            say(console, line)
    if trainer.is_global_zero:
        finish_run(folder, recipe, data, stopped=stopper.reason)
        _say_end(console, folder, saver, stopper, data)
    return folder


def make_trainer(recipe: Recipe, folder: Path, callbacks: list[L.Callback]) -> L.Trainer:
    """Return Lightning's Trainer as the recipe says."""
    accelerator = pick_accelerator(recipe.trainer.accelerator)
    return L.Trainer(
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


@contextlib.contextmanager
def _gentle_interrupt(stopper: Stopper, console: Console) -> Iterator[None]:
    """Let the first Ctrl-C end the run after its step, with everything saved, and the second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stopper.asked:
            signal.default_int_handler(number, frame)
        stopper.ask()
        console.print("stopping after this step and saving; press Ctrl-C again to stop at once", style="yellow")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
