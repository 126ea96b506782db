"""A recipe becomes an experiment: module, data, callbacks, loggers, strategy, and the Trainer that joins them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from rich.console import Console
from torch import nn

from eyas.artifacts import layout
from eyas.artifacts.run import Run
from eyas.losses.criterion import Criterion
from eyas.losses.weighting import weighed
from eyas.models.detection_net import head_row_of
from eyas.models.factories import factory_of
from eyas.models.zoo import build_described, describe
from eyas.terminal import open_console, tell
from eyas.training.build_model import backbone_start, make_network, open_start, resolve_spec
from eyas.training.callbacks.best_epochs import BestEpochs
from eyas.training.callbacks.budget import TimeBudget, now, pace_of
from eyas.training.callbacks.checkpoint import Saver, Stopper
from eyas.training.callbacks.csv_logger import Recorder
from eyas.training.callbacks.evaluation import Evaluation
from eyas.training.callbacks.finite import FiniteCheck
from eyas.training.callbacks.image_logger import Sheets
from eyas.training.callbacks.progress import ProgressLine
from eyas.training.callbacks.track import Track
from eyas.training.callbacks.weight_average import WeightAverage
from eyas.training.callbacks.whole_step import WholeStep
from eyas.training.data import DetectionData
from eyas.training.loggers import check_loggers
from eyas.training.module import DetectionModule
from eyas.training.pace import aims_of, check_time, first_pace
from eyas.training.parallel import (
    first_process,
    mean_over_processes,
    pick_accelerator,
    pick_precision,
    prepare,
    sync_batchnorm,
)
from eyas.training.preflight import preflight
from eyas.training.recipe import Recipe
from eyas.training.saved import SavedState, check_fits
from eyas.training.strategies import strategy_of
from eyas.training.teacher import open_teacher, taught
from eyas.training.timetable import Pace
from eyas.types import DETECT, EVALUATE, Thresholds, Vocabulary, evaluation_thresholds


@dataclass(frozen=True)
class Parts:
    """What callbacks are made of.

    Attributes:
        recipe: the whole run.
        folder: the run's folder.
        console: where progress goes.
        saver: saves weights and states.
        thresholds: what a detection must pass when the run is evaluated.
        budget: keeps a run within its time, None where it has none.
    """

    recipe: Recipe
    folder: Path
    console: Console
    saver: Saver
    thresholds: Thresholds = EVALUATE
    budget: TimeBudget | None = None


def _track(parts: Parts) -> Track | None:
    names = parts.recipe.trainer.logger
    return Track(parts.folder, names, lambda text: tell(parts.console, text)) if names else None


def _best_epochs(parts: Parts) -> BestEpochs | None:
    count = parts.recipe.trainer.average_best
    return BestEpochs(parts.folder, count) if count else None


# Their order is the one in which they are called. The average is made before the whole step, which moves it along, and
# moves before anything looks at it; the stopper, which saves the state, comes last, so that it saves what all have come
# to.
CALLBACKS: Mapping[str, Callable[[Parts], L.Callback | None]] = MappingProxyType(
    {
        "average": lambda parts: WeightAverage(parts.recipe.optim.ema),
        "step": lambda parts: WholeStep(parts.recipe.trainer.step, parts.console),
        "finite": lambda _: FiniteCheck(),
        "evaluation": lambda parts: Evaluation(parts.thresholds, parts.recipe.trainer.sheets),
        "tables": lambda parts: Recorder(parts.folder),
        "sheets": lambda parts: Sheets(parts.folder),
        "saver": lambda parts: parts.saver,
        "progress": lambda parts: ProgressLine(parts.console),
        "best_epochs": _best_epochs,
        "budget": lambda parts: parts.budget,
        "track": _track,
        "stopper": lambda parts: Stopper(parts.saver, parts.recipe.trainer.patience),
    }
)


@dataclass
class Experiment:
    """Everything that a run needs, ready to be changed before it starts.

    Attributes:
        recipe: the whole run.
        folder: the run's folder.
        module: the network with its loss.
        data: the two splits.
        callbacks: by the names of `CALLBACKS`, in the order in which they are called.
        loggers: Lightning's, for what the module logs; the recipe's trackers are the callback "track".
        model: the network, as `config.json` of the run describes it.
        saved: the state that it goes on from; None for a new run, and as soon as it is taken up.
    """

    recipe: Recipe
    folder: Path
    module: DetectionModule
    data: DetectionData
    model: dict[str, Any]
    callbacks: dict[str, L.Callback]
    loggers: list[Logger] = field(default_factory=list)
    saved: SavedState | None = None

    @property
    def saver(self) -> Saver:
        """What saves weights and states."""
        saver = self.callbacks["saver"]
        assert isinstance(saver, Saver)
        return saver

    @property
    def stopper(self) -> Stopper:
        """What ends the run early."""
        stopper = self.callbacks["stopper"]
        assert isinstance(stopper, Stopper)
        return stopper

    @property
    def best_epochs(self) -> BestEpochs | None:
        """What keeps the best epochs' weights, None where their mean is not wanted."""
        kept = self.callbacks.get("best_epochs")
        assert kept is None or isinstance(kept, BestEpochs)
        return kept

    @property
    def track(self) -> Track | None:
        """What sends the run to its trackers, None where it has none."""
        track = self.callbacks.get("track")
        assert track is None or isinstance(track, Track)
        return track


def build(
    recipe: Recipe,
    folder: Path,
    *,
    console: Console | None = None,
    data: DetectionData | None = None,
    saved: SavedState | None = None,
    check: bool = True,
    started: float | None = None,
) -> Experiment:
    """Build an experiment from a recipe; nothing is written.

    Args:
        recipe: the whole run.
        folder: the run's folder.
        console: where progress goes; standard error if None.
        data: the recipe's dataset, if it was read already.
        saved: the state of the run in `folder` that is gone on with.
        check: check labels, loss balance, augmentation, learning and memory, if the recipe wants that.
        started: `time.monotonic()` at the start of the command, of a run that was given a time; now if None.

    Raises:
        UserError: what can't work.
    """
    console = console or open_console(stderr=True)
    started = now() if started is None else started
    strategy_of(recipe.trainer)
    check_loggers(recipe.trainer.logger)
    start = backbone_start(recipe.model) if saved is None else None
    teacher = open_teacher(recipe.distill, folder)
    L.seed_everything(recipe.trainer.seed, verbose=False)
    data = data or make_data(recipe)
    net, described, notes = _network(recipe, folder, data, saved)
    criterion = weighed(head_row_of(net).criterion(recipe.loss, mean_over_processes), recipe.loss.weighting)
    if teacher is not None:
        criterion, told = taught(criterion, net, teacher, recipe, data.classes)
        notes += told
    if data.dropped:
        notes.append(f"{data.dropped} training images without boxes are left out (data.drop_empty)")
    if first_process():
        for note in notes:
            tell(console, note)
        if start is not None and (warning := start.warning()):
            tell(console, warning, style="bold yellow")
        if check and recipe.trainer.preflight:
            _tell_findings(recipe, data, net, criterion, console)
    budget = None
    if recipe.trainer.minutes:
        known = pace_of(saved.state) if saved is not None else None
        pace = known or first_pace(recipe, data, net, criterion)
        budget = _budget(recipe, folder, data, pace, console, started)
    net = prepare(net, channels_last=recipe.trainer.channels_last, compiled=recipe.trainer.compile)
    module = DetectionModule(net, data.classes, recipe.data.input_spec(), recipe.optim, criterion)
    if budget is not None:
        module.timetable = data.timetable = budget.table
    if saved is not None:
        check_fits(saved, module.state_dict(), folder)
    thresholds = evaluation_thresholds(replace(DETECT, suppression=head_row_of(net).suppression))
    parts = Parts(recipe, folder, console, Saver(folder, recipe.trainer.save_minutes), thresholds, budget)
    made = {name: make(parts) for name, make in CALLBACKS.items()}
    callbacks = {name: one for name, one in made.items() if one is not None}
    return Experiment(recipe, folder, module, data, described, callbacks, saved=saved)


def make_data(recipe: Recipe) -> DetectionData:
    """Return the two splits of the recipe's dataset, fed as it says."""
    return DetectionData(
        recipe.data,
        recipe.augment,
        epochs=recipe.trainer.epochs,
        close_epochs=recipe.trainer.close_epochs,
        accumulate=recipe.optim.accumulate,
        seed=recipe.trainer.seed,
    )


def _network(
    recipe: Recipe, folder: Path, data: DetectionData, saved: SavedState | None
) -> tuple[nn.Module, dict[str, Any], list[str]]:
    """Return the network to train, its description, and what is to be known of its weights, a line each."""
    if saved is None:
        source = open_start(recipe.model)
        net, notes = make_network(recipe.model, data.classes, source)
        return net, describe(resolve_spec(recipe.model, source)), notes
    described, layers = Run.read(folder).config.model, factory_of(recipe.model.layers)
    return build_described(described, Vocabulary(data.classes), layers), described, list(saved.notes)


def _tell_findings(recipe: Recipe, data: DetectionData, net: nn.Module, criterion: Criterion, console: Console) -> None:
    for finding in preflight(recipe, data, net, criterion):
        tell(console, f"ok  {finding.check}: {finding.text}")


def _budget(
    recipe: Recipe, folder: Path, data: DetectionData, pace: Pace, console: Console, started: float
) -> TimeBudget:
    """Return what keeps the run within its time; tell what it is planned for, if it is a new one."""
    aims = aims_of(recipe, data, data.batches_ahead())
    budget = TimeBudget(folder, 60 * recipe.trainer.minutes, started, aims, pace)
    if first_process() and recipe.trainer.preflight and not (folder / layout.PLANNINGS).is_file():
        tell(console, check_time(recipe.trainer.minutes, budget.left(), pace, aims))
    return budget


def make_trainer(
    recipe: Recipe, folder: Path, callbacks: list[L.Callback], loggers: list[Logger] | None = None
) -> L.Trainer:
    """Return Lightning's Trainer as the recipe says."""
    accelerator = pick_accelerator(recipe.trainer.accelerator)
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="gpu" if accelerator == "cuda" else accelerator,
        devices=recipe.trainer.devices,
        num_nodes=recipe.trainer.num_nodes,
        strategy=strategy_of(recipe.trainer),
        precision=pick_precision(recipe.trainer.precision, accelerator),  # type: ignore[arg-type]
        sync_batchnorm=sync_batchnorm(accelerator, recipe.trainer.devices * recipe.trainer.num_nodes),
        max_epochs=-1 if recipe.trainer.minutes else recipe.trainer.epochs,
        max_steps=recipe.trainer.max_steps or -1,
        check_val_every_n_epoch=1 if recipe.trainer.minutes else recipe.trainer.val_every,
        accumulate_grad_batches=recipe.optim.accumulate,
        gradient_clip_val=recipe.optim.clip_norm or None,
        callbacks=callbacks,
        logger=loggers or False,
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
